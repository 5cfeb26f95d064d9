"""Train a classifier whose hidden layers propagate a few components of their gradients."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, Self

import jax
import optax
from flax import nnx

from sparse_hyper_jax.backprop import (
    AdaptiveLadder,
    AdaptiveTopK,
    BlockTopK,
    CandidateTopK,
    ImportanceSampling,
    RandomK,
    Sparsifier,
    TopK,
    UnifiedRandomK,
    UnifiedTopK,
    error_feedback,
)
from sparse_hyper_jax.checks import require
from sparse_hyper_jax.nn import BackpropMemory, next_memories
from sparse_hyper_jax.train.best_parameters import BestParameters
from sparse_hyper_jax.train.data.epochs import Arrays, next_batch
from sparse_hyper_jax.train.epoch_state import EpochState, Metrics, next_state, start_state
from sparse_hyper_jax.train.limits import Count, Positive, Share, at_least, at_most, said
from sparse_hyper_jax.train.models.perceptron import cross_entropy, make_measure
from sparse_hyper_jax.train.models.sparse_perceptron import (
    Apply,
    SparsePerceptron,
    make_diagnose,
)
from sparse_hyper_jax.train.recipe import ImageRecipe, Images, Plan
from sparse_hyper_jax.train.run_folder import RunFolder

EPOCHS = 20
RATES = {"adam": 1e-3, "sgd": 0.1}
SPARSIFIERS: dict[str, Callable[[float], Sparsifier]] = {
    "row": TopK,
    "unified": UnifiedTopK,
    "candidates": CandidateTopK,
    "block": lambda ratio: BlockTopK(ratio, block=4),
    "random": lambda ratio: RandomK(ratio, rescale=False),
    "random-rescaled": RandomK,
    "unified-random": lambda ratio: UnifiedRandomK(ratio, rescale=False),
    "importance": ImportanceSampling,
    "adaptive": lambda ratio: AdaptiveTopK(most=ratio),
    "adaptive-ladder": lambda ratio: AdaptiveLadder(most=ratio),
}


@dataclass(frozen=True, kw_only=True)
class SparseBackpropRecipe(ImageRecipe):
    """Train a classifier with sparse backpropagation and memory (Zhang et al. 2020)."""

    name: ClassVar[str] = "sparse-backprop"

    method: Literal[
        "dense",
        "row",
        "unified",
        "candidates",
        "block",
        "random",
        "random-rescaled",
        "unified-random",
        "importance",
        "adaptive",
        "adaptive-ladder",
        "error-feedback",
    ] = "unified"
    """Which components of a hidden layer's gradient are propagated; dense: all of them;
    error-feedback: all of them, but the update of the weights is sparse."""

    ratio: Share = 0.04
    """Share of the components that is propagated (adaptive: by the largest row)."""

    memory: Annotated[float, at_least(0), at_most(1)] = 0.8
    """Share of the rest that is kept for the next step; 0 for no memory. Unbiased selections
    (random-rescaled, importance) allow none: what they leave over would grow without bound."""

    granularity: Literal["slot", "shared"] = "slot"
    """A memory for every place in the batch, or one that the batch shares."""

    hidden: tuple[Count, ...] = (500, 500)
    """Units of each hidden layer, at least one layer."""

    optimizer: Literal["adam", "sgd"] = "adam"
    """Plain, without momentum, decay or schedule."""

    learning_rate: Positive | None = None
    """By default 0.001 for adam, 0.1 for sgd."""

    steps: Count | None = None
    """Number of training steps; by default those of 20 epochs."""

    evaluate_every: Count | None = None
    """Steps between validations and comparisons with the dense gradient; by default an epoch."""

    def check(self) -> None:
        """Raise also if there is nothing to propagate to, or a memory would grow without bound."""
        super().check()
        require(
            len(self.hidden) > 0,
            "--hidden without a layer",
            "at least one hidden layer, which propagates sparsely",
            "pass for instance --hidden 500 500",
        )
        unbiased = self.sparsifier is not None and self.sparsifier.unbiased
        require(
            not (self.memory and unbiased),
            said(self, "method", "memory"),
            "no memory for an unbiased selection: it would grow without bound",
            "pass --memory 0",
        )

    def ignored(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Dense layers have none of the options, and only layers have a granularity."""
        yield from super().ignored()
        if self.method == "dense":
            yield "method", ("ratio", "memory")
        if self.sparsifier is None:
            yield "method", ("granularity",)
        if not self.memory:
            yield "memory", ("granularity",)

    def settle(self, data: Images) -> Self:
        """Settle the learning rate, and epochs in steps."""
        epoch = len(data.train[0]) // self.batch
        steps, every = self.steps or EPOCHS * epoch, self.evaluate_every or epoch
        return replace(self, steps=steps, evaluate_every=every, learning_rate=self.rate)

    @property
    def rate(self) -> float:
        """The learning rate asked for, or the default of the optimizer."""
        return RATES[self.optimizer] if self.learning_rate is None else self.learning_rate

    @property
    def sparsifier(self) -> Sparsifier | None:
        """The sparsifier of the hidden layers; None for dense ones."""
        return SPARSIFIERS[self.method](float(self.ratio)) if self.method in SPARSIFIERS else None

    def plan(self, data: Images) -> Plan:
        """Judge by accuracy and by the dense gradient; test the best parameters in validation."""
        apply, state = make_model(self, data.train, data.classes)
        memory = state.slots
        measure = make_measure(lambda parameters, images: apply(parameters, memory, images, None))
        compare = make_diagnose(apply, self.batch)

        def diagnose(state: EpochState) -> dict[str, float]:
            return compare(state.parameters, state.slots, data.train) if self.sparsifier else {}

        def evaluate(folder: RunFolder, step: int, state: EpochState) -> dict[str, float]:
            accuracy = measure(state.parameters, data.validation)
            best_of(folder).offer(accuracy, step, state.parameters)
            return {"accuracy": accuracy} | diagnose(state)

        def finish(folder: RunFolder, state: EpochState) -> dict[str, Any]:
            draw(self, folder)
            accuracy, step, parameters = best_of(folder).read(state.parameters)
            figures = {"test_accuracy": measure(parameters, data.test)}
            figures |= {"validation_accuracy": accuracy, "best_step": step}
            return figures | diagnose(state)

        every = self.evaluate_every or 1
        step = make_step(self, apply)
        return Plan(step, state, finish, (data.train,), evaluate, every, longest_dispatch=every)


def best_of(folder: RunFolder) -> BestParameters:
    """Give the parameters of the best validation accuracy in a folder."""
    return BestParameters(folder.path / "best.npz", run=folder.run)


def draw(recipe: SparseBackpropRecipe, folder: RunFolder) -> None:
    """Draw the curves of accuracy and agreement with the dense gradient."""
    from sparse_hyper_jax.train import plots  # matplotlib is slow to import

    names = {"eval_accuracy": "validation accuracy"}
    if recipe.sparsifier is not None:
        names |= {"eval_cosine": "cosine with the dense gradient"}
    curves = {label: plots.read_curve(folder, name) for name, label in names.items()}
    folder.save_figure(plots.plot_curves(curves), "training")


def make_model(
    recipe: SparseBackpropRecipe, train_set: Arrays, classes: int
) -> tuple[Apply, EpochState]:
    """Build the network and the state before training."""
    images, _ = train_set
    rngs = nnx.Rngs(params=recipe.seed, sample=recipe.seed)
    sizes = (images.shape[1], *recipe.hidden)
    network = SparsePerceptron(sizes, classes, layer_options(recipe), rngs=rngs)
    graph, parameters, memory, rest = nnx.split(network, nnx.Param, BackpropMemory, ...)

    def apply(
        parameters: nnx.State, memory: nnx.State, images: jax.Array, key: jax.Array | None
    ) -> jax.Array:
        return nnx.merge(graph, parameters, memory, rest)(images, key=key)

    return apply, start_state(parameters, optimizer_of(recipe), len(images), slots=memory)


def layer_options(recipe: SparseBackpropRecipe) -> dict[str, Any]:
    """Give the options of the hidden layers."""
    if recipe.sparsifier is None:
        return {"deterministic": True}
    memory = recipe.granularity if recipe.memory else "none"
    return {
        "sparsifier": recipe.sparsifier,
        "memory": memory,
        "eta": recipe.memory,
        "batch_shape": (recipe.batch,) if memory == "slot" else None,
        "count": True,
    }


def optimizer_of(recipe: SparseBackpropRecipe) -> optax.GradientTransformation:
    """Give the recipe's optimizer."""
    optimizer = {"adam": optax.adam, "sgd": optax.sgd}[recipe.optimizer](recipe.rate)
    if recipe.method != "error-feedback":
        return optimizer
    sparse = error_feedback(TopK(float(recipe.ratio)), eta=recipe.memory)
    return optax.chain(optax.masked(sparse, are_hidden_kernels), optimizer)


def are_hidden_kernels(parameters: nnx.State) -> Any:
    """Mark the kernels of the hidden layers, for ``optax.masked``."""
    return jax.tree.map_with_path(
        lambda path, _: {"hidden", "kernel"} <= {getattr(part, "key", None) for part in path},
        parameters,
    )


def make_step(
    recipe: SparseBackpropRecipe, apply: Apply
) -> Callable[..., tuple[EpochState, Metrics]]:
    """Make the pure training step: the next batch of the epoch, its gradient, the next memory."""
    optimizer = optimizer_of(recipe)

    def step(state: EpochState, key: jax.Array, train_set: Arrays) -> tuple[EpochState, Metrics]:
        order_key, layer_key = jax.random.split(key)
        order, (images, labels) = next_batch(
            order_key, state.order, state.count, train_set, batch=recipe.batch
        )

        def loss_of(parameters: nnx.State, memory: nnx.State) -> jax.Array:
            return cross_entropy(apply(parameters, memory, images, layer_key), labels)

        loss, (gradient, following) = jax.value_and_grad(loss_of, argnums=(0, 1))(
            state.parameters, state.slots
        )
        memory = next_memories(state.slots, following)
        return next_state(state, gradient, optimizer, order, slots=memory), {"loss": loss}

    return step
