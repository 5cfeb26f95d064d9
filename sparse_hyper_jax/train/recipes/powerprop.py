"""Train a classifier with powerpropagation, dense or sparse, and see how far it may be pruned."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.parameter_paths import is_kernel, path_name, selected_leaves
from sparse_hyper_jax.pruning import (
    SET,
    Method,
    NofM,
    Prune,
    RigL,
    SparseState,
    TopKAST,
    apply_masks,
    density_report,
    erk,
    gradual,
    magnitude_masks,
    one_shot,
    proximal_training,
    sparse_training,
    uniform,
)
from sparse_hyper_jax.reparam import (
    Reparametrization,
    add_power_decay,
    powerprop,
)
from sparse_hyper_jax.train.data.epochs import Arrays
from sparse_hyper_jax.train.epoch_state import EpochState, Metrics, start_state
from sparse_hyper_jax.train.limits import (
    Count,
    NotNegative,
    Positive,
    Share,
    at_least,
    at_most,
    said,
)
from sparse_hyper_jax.train.models.perceptron import (
    Apply,
    make_measure,
    make_perceptron,
    make_update,
)
from sparse_hyper_jax.train.recipe import ImageRecipe, Images, Plan, accuracies
from sparse_hyper_jax.train.run_folder import RunFolder

RATES = {"adam": 1e-3, "sgd": 0.1}
TWO_OF_FOUR = NofM(2, 4, axis=-2)
DENSITIES = tuple(float(density) for density in np.geomspace(0.01, 1, 20))


@dataclass(frozen=True, kw_only=True)
class PowerpropRecipe(ImageRecipe):
    """Train with powerpropagation, then prune in one shot (Schwarz et al. 2021)."""

    name: ClassVar[str] = "powerprop"

    alpha: Annotated[float, at_least(1)] = 3.0
    """Exponent of the weights; 1 trains a plain network."""

    l1: NotNegative = 0.0
    """Coefficient of the sum of the weights' magnitudes in the loss."""

    weight_decay: NotNegative = 0.0
    """Of theta: an L1 penalty of half of it on the weights if alpha is 2."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    """Plain, without momentum or schedule."""

    adapt_to: Literal["theta", "weights"] = "theta"
    """Whose gradient the optimizer sees; no difference for sgd."""

    learning_rate: Positive | None = None
    """By default 0.001 for adam, 0.1 for sgd."""

    method: Literal[
        "dense",
        "static",
        "magnitude",
        "set",
        "rigl",
        "top-kast",
        "two-of-four",
        "iterative-two-of-four",
        "proximal-two-of-four",
    ] = "dense"
    """Dense training, or with masks: random ones that stay, gradual pruning by magnitude, or sparse
    from the beginning with masks that move. Or two of every four inputs of an output: pruned at
    half of the steps, one after the other, or by proximal steps of rising strength."""

    density: Share = 0.1
    """Share of the weights that a sparse method keeps, apportioned by ERK."""

    grown_size: Annotated[NotNegative, at_most(1)] | None = None
    """First size of weights that set or rigl grow, as a share of the mean magnitude of the kept
    ones; by default 0 for alpha 1, else 0.5, since under a power zero would stay zero."""

    strength: Positive | None = None
    """Of the proximal steps, reached after three quarters of the steps; 1 by default."""

    hidden: tuple[Count, ...] = (300, 100)
    """Units of each hidden layer."""

    batch: Count = 60
    """Images per step; an epoch leaves out what does not fill a batch."""

    steps: Count | None = None
    """Number of training steps; by default 4,000 for digits, else 50,000."""

    evaluate_every: Count = 1000
    """Steps between validations."""

    def check(self) -> None:
        """Raise also if decay would not be part of the gradient that the optimizer sees."""
        super().check()
        require(
            not (self.weight_decay and self.adapt_to == "weights"),
            said(self, "weight_decay", "adapt_to"),
            "decay, which is part of theta's gradient, only where the optimizer sees that gradient",
            "pass --adapt-to theta",
        )
        require(
            self.method != "proximal-two-of-four" or self.alpha == 1,
            said(self, "method", "alpha"),
            "proximal steps on the weights themselves",
            "pass --alpha 1",
        )

    def ignored(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Only some methods have a density, grow weights, or have a strength."""
        yield from super().ignored()
        if self.method == "dense" or "two-of-four" in self.method:
            yield "method", ("density",)
        if self.method != "proximal-two-of-four":
            yield "method", ("strength",)
        if self.method not in ("set", "rigl"):
            yield "method", ("grown_size",)

    def settle(self, data: Images) -> Self:
        """Settle the steps and the learning rate."""
        return replace(self, steps=self.number_of_steps, learning_rate=self.rate)

    @property
    def number_of_steps(self) -> int:
        """The steps asked for, or the default of the data."""
        return self.steps or (4_000 if self.data == "digits" else 50_000)

    @property
    def rate(self) -> float:
        """The learning rate asked for, or the default of the optimizer."""
        return RATES[self.optimizer] if self.learning_rate is None else self.learning_rate

    @property
    def sparse_method(self) -> Method | None:
        """The rule that makes masks; None for dense training."""
        settled = 3 * self.number_of_steps // 4
        default = 0.0 if self.alpha == 1 else 0.5
        size = default if self.grown_size is None else self.grown_size
        often = max(1, min(100, settled // 10))
        methods: dict[str, Callable[[], Method]] = {
            "static": lambda: Prune(score="random"),
            "magnitude": lambda: Prune(gradual(settled // 10, max(settled, 1))),
            "set": lambda: SET(settled, every=often, grown_size=size),
            "rigl": lambda: RigL(settled, every=often, grown_size=size),
            "top-kast": TopKAST,
            "two-of-four": lambda: Prune(one_shot(self.number_of_steps // 2), pattern=TWO_OF_FOUR),
            "iterative-two-of-four": lambda: Prune(
                gradual(settled // 10, max(settled, 1)),
                pattern=replace(TWO_OF_FOUR, stepwise=True),
            ),
        }
        return methods[self.method]() if self.method in methods else None

    def plan(self, data: Images) -> Plan:
        """Judge by accuracy; prune the final weights and test them at every density."""
        apply, state = make_model(self, data.train, data.classes)
        reparam, measure = powerprop(self.alpha), make_measure(apply)
        first = reparam.to_weights(state.parameters)

        def evaluate(folder: RunFolder, step: int, state: EpochState) -> dict[str, float]:
            return {"accuracy": measure(weights_in_use(reparam, state), data.validation)}

        def finish(folder: RunFolder, state: EpochState) -> dict[str, Any]:
            weights = weights_in_use(reparam, state)
            masks = final_masks(self, weights, state)
            weights = weights if masks is None else apply_masks(weights, masks)
            figures: dict[str, Any] = dict(accuracies(lambda part: measure(weights, part), data))
            if masks is not None:
                report = density_report(weights, masks)
                figures |= {"final_density": report.pruned, "density_of_layers": report.by_leaf}
            else:
                figures |= prune_at_all_densities(weights, lambda one: measure(one, data.test))
                draw(folder, figures)
            return figures | describe_weights(weights, first)

        every = self.evaluate_every
        step = make_step(self, apply, reparam)
        return Plan(step, state, finish, (data.train,), evaluate, every, longest_dispatch=every)


def draw(folder: RunFolder, figures: Mapping[str, Any]) -> None:
    """Draw the accuracy over the density after pruning."""
    from sparse_hyper_jax.train import plots  # matplotlib is slow to import

    curve = (np.asarray(DENSITIES), np.asarray(figures["pruned_test_accuracy"]))
    figure = plots.plot_curves({"test accuracy": curve}, x_label="density after pruning")
    figure.axes[0].set_xscale("log")
    folder.save_figure(figure, "pruning")


def make_model(
    recipe: PowerpropRecipe, train_set: Arrays, classes: int
) -> tuple[Apply, EpochState]:
    """Build the network and the state before training."""
    images, _ = train_set
    sizes = (images.shape[1], *recipe.hidden, classes)
    apply, weights = make_perceptron(sizes, seed=recipe.seed)
    theta = powerprop(recipe.alpha).to_theta(weights)
    return apply, start_state(theta, optimizer_of(recipe), len(images))


def optimizer_of(recipe: PowerpropRecipe) -> optax.GradientTransformation:
    """Give the transformation from gradients of the weights to updates of theta."""
    inner = {"adam": optax.adam, "sgd": optax.sgd}[recipe.optimizer](recipe.rate)
    reparam = powerprop(recipe.alpha, adapt_to=recipe.adapt_to)
    if recipe.weight_decay:
        inner = optax.chain(add_power_decay(recipe.weight_decay, recipe.alpha), inner)
    if recipe.method == "proximal-two-of-four":
        settled = max(3 * recipe.number_of_steps // 4, 1)
        return proximal_training(inner, optax.linear_schedule(0, recipe.strength or 1.0, settled))
    method = recipe.sparse_method
    if method is None:
        return reparam.optimizer(inner)
    half = "two-of-four" in recipe.method
    return sparse_training(
        inner,
        method,
        density=0.5 if half else float(recipe.density),
        distribution=uniform if half else erk,
        reparam=reparam if recipe.alpha > 1 else None,
        key=jax.random.key(recipe.seed),
    )


def final_masks(recipe: PowerpropRecipe, weights: nnx.State, state: EpochState) -> Any:
    """Give the masks of a sparse method; None of dense training."""
    if isinstance(state.optimizer, SparseState):
        return state.optimizer.masks
    if recipe.method == "proximal-two-of-four":  # what is not yet 2:4 is made so
        return magnitude_masks(weights, 0.5, pattern=TWO_OF_FOUR)
    return None


def weights_in_use(reparam: Reparametrization, state: EpochState) -> nnx.State:
    """Give the weights of the model, masked if training is sparse."""
    weights = reparam.to_weights(state.parameters)
    if isinstance(state.optimizer, SparseState):
        return apply_masks(weights, state.optimizer.masks)
    return weights


def make_step(
    recipe: PowerpropRecipe, apply: Apply, reparam: Reparametrization
) -> Callable[..., tuple[EpochState, Metrics]]:
    """Make the pure training step."""
    update = make_update(apply, optimizer_of(recipe), batch=recipe.batch, l1=recipe.l1)

    def step(state: EpochState, key: jax.Array, train_set: Arrays) -> tuple[EpochState, Metrics]:
        return update(state, key, train_set, weights_in_use(reparam, state))

    return step


def one_shot_masks(weights: nnx.State, density: float) -> Any:
    """Keep the largest of every layer: a share of the hidden ones, twice as much of the head."""

    def share(path: tuple[Any, ...], leaf: jax.Array) -> Any:
        name = path_name(path)
        if not is_kernel(name, leaf):
            return optax.MaskedNode()
        return min(1.0, 2 * density) if "head" in name else density

    return magnitude_masks(weights, jax.tree_util.tree_map_with_path(share, weights))


def prune_at_all_densities(
    weights: nnx.State, measure: Callable[[nnx.State], float]
) -> dict[str, list[float]]:
    """Measure the network pruned in one shot to each density."""
    pruned = (apply_masks(weights, one_shot_masks(weights, density)) for density in DENSITIES)
    return {
        "densities": list(DENSITIES),
        "pruned_test_accuracy": [measure(one) for one in pruned],
    }


def describe_weights(weights: nnx.State, first: nnx.State) -> dict[str, float]:
    """Give shares of weights near zero and of those that changed their sign in training."""
    now, before = (
        jnp.concatenate([leaf.reshape(-1) for leaf in selected_leaves(is_kernel, tree)])
        for tree in (weights, first)
    )
    return {
        "below_0.001": float(jnp.mean(jnp.abs(now) < 1e-3)),
        "below_0.01": float(jnp.mean(jnp.abs(now) < 1e-2)),
        "sign_flips": float(jnp.mean(now * before < 0)),
        "typical": float(jnp.median(jnp.abs(now))),
    }
