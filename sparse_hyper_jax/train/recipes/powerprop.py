"""Train a classifier with powerpropagation, dense or sparse, and see how far it may be pruned."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from sparse_hyper_jax import checks
from sparse_hyper_jax.parameter_paths import is_kernel, path_name, selected_leaves
from sparse_hyper_jax.pruning import (
    SET,
    Method,
    Prune,
    RigL,
    SparseState,
    TopKAST,
    apply_masks,
    density_report,
    erk,
    gradual,
    magnitude_masks,
    sparse_training,
)
from sparse_hyper_jax.reparam import (
    Reparametrization,
    add_power_decay,
    powerprop,
    scale_by_power_jacobian,
)
from sparse_hyper_jax.train.data import load_splits
from sparse_hyper_jax.train.loop import train
from sparse_hyper_jax.train.recipes.images import Arrays, check_batch, check_folder, to_arrays
from sparse_hyper_jax.train.recipes.perceptron import (
    Apply,
    TrainState,
    check_hidden,
    check_penalties,
    make_measure,
    make_perceptron,
    make_update,
    start_state,
)
from sparse_hyper_jax.train.run_folder import RunFolder, open_run

METHODS = ("dense", "static", "magnitude", "set", "rigl", "top-kast")
RATES = {"adam": 1e-3, "sgd": 0.1}
TOLD = (
    "alpha",
    "method",
    "l1",
    "decay",
    "optimizer",
    "adapt_to",
    "learning_rate",
    "data",
    "batch",
    "seed",
)
"""Options that the result repeats."""

DENSITIES = tuple(float(density) for density in np.geomspace(0.01, 1, 20))


@dataclass(frozen=True)
class PowerpropRecipe:
    """Train with powerpropagation, then prune in one shot (Schwarz et al. 2021)."""

    alpha: float = 3.0
    """Exponent of the weights, at least 1; 1 trains a plain network."""

    l1: float = 0.0
    """Coefficient of the sum of the weights' magnitudes in the loss."""

    decay: float = 0.0
    """Weight decay on theta: an L1 penalty of half of it on the weights if alpha is 2."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    """Plain, without momentum or schedule."""

    adapt_to: Literal["theta", "weights"] = "theta"
    """Whose gradient the optimizer sees; no difference for sgd."""

    learning_rate: float | None = None
    """By default 0.001 for adam, 0.1 for sgd."""

    method: Literal["dense", "static", "magnitude", "set", "rigl", "top-kast"] = "dense"
    """Dense training, or with masks: random ones that stay, gradual pruning by magnitude, or
    sparse from the beginning with masks that move."""

    density: float = 0.1
    """Share of the weights that a sparse method keeps, apportioned by ERK."""

    grown_size: float | None = None
    """First size of weights that set or rigl grow, as a share of the mean magnitude of the kept
    ones; by default 0 for alpha 1, else 0.5, since under a power zero would stay zero."""

    hidden: tuple[int, ...] = (300, 100)
    """Units of each hidden layer."""

    data: Literal["digits", "mnist", "idx"] = "digits"
    """Images: bundled 8x8 digits, MNIST in --data-dir, or any four idx files there."""

    data_dir: Path | None = None
    """Folder of the image files, for mnist and idx."""

    download: bool = False
    """Fetch missing files of MNIST into --data-dir."""

    batch: int = 60
    """Images per step; an epoch leaves out what does not fill a batch."""

    steps: int | None = None
    """Number of training steps; by default 4,000 for digits, else 50,000."""

    evaluate_every: int = 1000
    """Steps between validations."""

    seed: int = 0
    """Seed of initialisation, validation split and order of the images."""

    out: Path | None = None
    """Run folder; by default runs/powerprop-DATE-TIME."""

    resume: bool = False
    """Go on with the run in the folder."""

    quiet: bool = False
    """Show no progress bar."""

    def run(self) -> dict[str, Any]:
        """Train, write the run folder; prune the final weights and test them at every density."""
        self._check()
        splits = load_splits(self.data, self.data_dir, seed=self.seed, download=self.download)
        train_set, validation, test = (to_arrays(part) for part in splits)
        classes = int(splits.train.labels.max()) + 1
        check_batch(self.batch, len(train_set[0]))
        # Whatever is wrong with the options is found before the folder holds a run.
        apply, state = make_model(self, train_set, classes)
        folder = open_run(self, recipe="powerprop", out=self.out, resume=self.resume)
        reparam, first = powerprop(self.alpha), jax.tree.map(jnp.copy, state.theta)
        measure = make_measure(apply)

        def evaluate(step: int, state: TrainState) -> Mapping[str, float]:
            return {"accuracy": measure(weights_in_use(reparam, state), validation)}

        trained = train(
            make_step(self, apply, reparam),
            state,
            constants=(train_set,),
            steps=self.number_of_steps,
            seed=self.seed,
            folder=folder,
            evaluate=evaluate,
            evaluate_every=self.evaluate_every,
            steps_per_dispatch=self.evaluate_every,
            resume=self.resume,
            quiet=self.quiet,
            description=f"alpha {self.alpha:g}",
        )
        weights = weights_in_use(reparam, trained.state)
        result: dict[str, Any] = {
            f"{name}_accuracy": measure(weights, part)
            for name, part in (("test", test), ("validation", validation))
        }
        if self.method == "dense":
            result |= prune_at_all_densities(weights, lambda pruned: measure(pruned, test))
            self._draw(folder, result)
        else:
            report = density_report(weights, trained.state.optimizer.masks)
            result |= {"density": report.pruned, "density_of_layers": report.by_leaf}
        result |= describe_weights(weights, reparam.to_weights(first)) | {"steps": trained.steps}
        result |= {name: getattr(self, name) for name in TOLD}
        result |= {"seconds": round(trained.seconds, 1), "out": str(folder.path)}
        return folder.write_result(result)

    @property
    def number_of_steps(self) -> int:
        """The steps asked for, or the default of the data."""
        return self.steps or (4_000 if self.data == "digits" else 50_000)

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
        }
        return methods[self.method]() if self.method in methods else None

    def _check(self) -> None:
        for name in ("batch", "evaluate_every", "steps"):
            if getattr(self, name) is not None:
                checks.check_count(name, getattr(self, name), least=1)
        check_hidden(self.hidden)
        checks.check_choice("optimizer", self.optimizer, tuple(RATES))
        checks.check_choice("adapt_to", self.adapt_to, ("theta", "weights"))
        checks.check_choice("method", self.method, METHODS)
        checks.require(0 < self.density <= 1, f"density={self.density}", "in (0, 1]", "change it")
        powerprop(self.alpha)
        check_penalties(self.l1, self.decay)
        checks.require(
            not (self.decay and self.adapt_to == "weights"),
            f"decay={self.decay} with adapt_to='weights'",
            "decay, which is part of theta's gradient, only where the optimizer sees that gradient",
            "pass --adapt-to theta",
        )
        rate = self.learning_rate
        checks.require(
            rate is None or rate > 0, f"learning_rate={rate}", "more than 0", "change it"
        )
        check_folder(self.data, self.data_dir)

    def _draw(self, folder: RunFolder, result: Mapping[str, Any]) -> None:
        from sparse_hyper_jax.train import plots  # matplotlib is slow to import

        curve = (np.asarray(DENSITIES), np.asarray(result["pruned_test_accuracy"]))
        figure = plots.plot_curves({"test accuracy": curve}, x_label="density after pruning")
        figure.axes[0].set_xscale("log")
        figure.savefig(folder.path / "pruning.png", dpi=150)


def make_model(
    recipe: PowerpropRecipe, train_set: Arrays, classes: int
) -> tuple[Apply, TrainState]:
    """Build the network and the state before training."""
    images, _ = train_set
    sizes = (images.shape[1], *recipe.hidden, classes)
    apply, weights = make_perceptron(sizes, seed=recipe.seed)
    theta = powerprop(recipe.alpha).to_theta(weights)
    return apply, start_state(theta, optimizer_of(recipe), len(images))


def optimizer_of(recipe: PowerpropRecipe) -> optax.GradientTransformation:
    """Give the transformation from gradients of the weights to updates of theta."""
    rate = RATES[recipe.optimizer] if recipe.learning_rate is None else recipe.learning_rate
    inner = {"adam": optax.adam, "sgd": optax.sgd}[recipe.optimizer](rate)
    slope = scale_by_power_jacobian(recipe.alpha)
    decay = [add_power_decay(recipe.decay, recipe.alpha)] if recipe.decay else []
    parts = [inner, slope] if recipe.adapt_to == "weights" else [slope, *decay, inner]
    method = recipe.sparse_method
    if method is None:
        return optax.chain(*parts)
    return sparse_training(
        optax.chain(*parts),
        method,
        density=float(recipe.density),
        distribution=erk,
        reparam=powerprop(recipe.alpha) if recipe.alpha > 1 else None,
        key=jax.random.key(recipe.seed),
    )


def weights_in_use(reparam: Reparametrization, state: TrainState) -> nnx.State:
    """Give the weights of the model, masked if training is sparse."""
    weights = reparam.to_weights(state.theta)
    if isinstance(state.optimizer, SparseState):
        return apply_masks(weights, state.optimizer.masks)
    return weights


def make_step(
    recipe: PowerpropRecipe, apply: Apply, reparam: Reparametrization
) -> Callable[[TrainState, jax.Array, Arrays], tuple[TrainState, dict[str, jax.Array]]]:
    """Make the pure training step."""
    update = make_update(apply, optimizer_of(recipe), batch=recipe.batch, l1=recipe.l1)

    def step(
        state: TrainState, key: jax.Array, train_set: Arrays
    ) -> tuple[TrainState, dict[str, jax.Array]]:
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
