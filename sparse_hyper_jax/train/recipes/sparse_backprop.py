"""Train a classifier whose hidden layers propagate a few components of their gradients."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from sparse_hyper_jax import checks
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
from sparse_hyper_jax.nn import BackpropMemory, next_memories
from sparse_hyper_jax.train.best_parameters import BestParameters
from sparse_hyper_jax.train.data import load_splits
from sparse_hyper_jax.train.data.epochs import first_order, next_batch
from sparse_hyper_jax.train.loop import train
from sparse_hyper_jax.train.recipes.classifier import (
    Apply,
    Classifier,
    make_diagnose,
    make_measure,
)
from sparse_hyper_jax.train.recipes.images import (
    Arrays,
    check_batch,
    check_folder,
    cross_entropy,
    to_arrays,
)
from sparse_hyper_jax.train.run_folder import RunFolder, open_run

DENSE = ("dense", "error-feedback")
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


class BackpropState(NamedTuple):
    """What training changes."""

    parameters: nnx.State
    memory: nnx.State
    optimizer: optax.OptState
    order: jax.Array
    """Training images in the order of this epoch, int32."""

    count: jax.Array
    """Finished steps, int32."""


@dataclass(frozen=True)
class SparseBackpropRecipe:
    """Train a classifier with sparse backpropagation and memory (Zhang et al. 2020)."""

    select: Literal[
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

    ratio: float = 0.04
    """Share of the components that is propagated (adaptive: by the largest row)."""

    memory: float = 0.8
    """Share of the rest that is kept for the next step; 0 for no memory. Unbiased selections
    (random-rescaled, importance) allow none: what they leave over would grow without bound."""

    granularity: Literal["slot", "shared"] = "slot"
    """A memory for every place in the batch, or one that the batch shares."""

    hidden: int = 500
    """Units of a hidden layer."""

    layers: int = 2
    """Number of hidden layers."""

    data: Literal["digits", "mnist", "idx"] = "digits"
    """Images: bundled 8x8 digits, MNIST in --data-dir, or any four idx files there."""

    data_dir: Path | None = None
    """Folder of the image files, for mnist and idx."""

    download: bool = False
    """Fetch missing files of MNIST into --data-dir."""

    optimizer: Literal["adam", "sgd"] = "adam"
    """Plain, without momentum, decay or schedule."""

    learning_rate: float | None = None
    """By default 0.001 for adam, 0.1 for sgd."""

    batch: int = 50
    """Images per step; an epoch leaves out what does not fill a batch."""

    epochs: int = 20
    """Passes over the training images."""

    steps: int | None = None
    """Number of training steps, instead of whole epochs."""

    evaluate_every: int | None = None
    """Steps between validations and comparisons with the dense gradient; by default an epoch."""

    seed: int = 0
    """Seed of initialisation, validation split and order of the images."""

    out: Path | None = None
    """Run folder; by default runs/sparse-backprop-DATE-TIME."""

    resume: bool = False
    """Go on with the run in the folder."""

    quiet: bool = False
    """Show no progress bar."""

    def run(self) -> dict[str, Any]:
        """Train, write the run folder; test the parameters of the best validation accuracy."""
        self._check()
        splits = load_splits(self.data, self.data_dir, seed=self.seed, download=self.download)
        train_set, validation, test = (to_arrays(part) for part in splits)
        classes = int(splits.train.labels.max()) + 1
        check_batch(self.batch, len(train_set[0]))
        folder = open_run(self, recipe="sparse-backprop", out=self.out, resume=self.resume)
        apply, state = make_model(self, train_set, classes)
        measure = make_measure(apply, state.memory)
        compare = make_diagnose(apply, self.batch)

        def diagnose(state: BackpropState) -> dict[str, float]:
            return compare(state.parameters, state.memory, train_set) if self.sparsifier else {}

        best = BestParameters(folder.path / "best.npz", run=folder.run)
        per_epoch = len(train_set[0]) // self.batch

        def evaluate(step: int, state: BackpropState) -> Mapping[str, float]:
            accuracy = measure(state.parameters, validation)
            best.offer(accuracy, step, state.parameters)
            return {"accuracy": accuracy} | diagnose(state)

        trained = train(
            make_step(self, apply),
            state,
            constants=(train_set,),
            steps=self.epochs * per_epoch if self.steps is None else self.steps,
            seed=self.seed,
            folder=folder,
            evaluate=evaluate,
            evaluate_every=self.evaluate_every or per_epoch,
            steps_per_dispatch=self.evaluate_every or per_epoch,
            resume=self.resume,
            quiet=self.quiet,
            description=f"{self.select} {self.ratio:g}",
        )
        validated, step, parameters = best.read(state.parameters)
        result = {"test_accuracy": measure(parameters, test)}
        result |= {"validation_accuracy": validated, "best_step": step, "steps": trained.steps}
        result |= diagnose(trained.state)
        told = ("select", "ratio", "memory", "granularity", "hidden", "layers", "data", "optimizer")
        result |= {name: getattr(self, name) for name in (*told, "learning_rate", "batch", "seed")}
        self._draw(folder)
        result |= {"seconds": round(trained.seconds, 1), "out": str(folder.path)}
        return folder.write_result(result)

    @property
    def sparsifier(self) -> Sparsifier | None:
        """The sparsifier of the hidden layers; None for dense ones."""
        return SPARSIFIERS[self.select](float(self.ratio)) if self.select in SPARSIFIERS else None

    def _check(self) -> None:
        for name in ("hidden", "layers", "batch", "epochs"):
            checks.check_count(name, getattr(self, name), least=1)
        for name in ("steps", "evaluate_every"):
            if getattr(self, name) is not None:
                checks.check_count(name, getattr(self, name), least=1)
        checks.check_choice("select", self.select, (*SPARSIFIERS, *DENSE))
        checks.check_choice("optimizer", self.optimizer, tuple(RATES))
        checks.check_choice("granularity", self.granularity, ("slot", "shared"))
        for name, valid, expected in (
            ("ratio", 0 < self.ratio <= 1, "a share in (0, 1]"),
            ("memory", 0 <= self.memory <= 1, "a share from 0 to 1"),
            ("learning_rate", self.learning_rate is None or self.learning_rate > 0, "more than 0"),
        ):
            checks.require(valid, f"{name}={getattr(self, name)}", expected, f"change {name}")
        unbiased = self.sparsifier is not None and self.sparsifier.unbiased
        checks.require(
            not (self.memory and unbiased),
            f"select={self.select!r} with memory={self.memory}",
            "no memory for an unbiased selection: it would grow without bound",
            "pass --memory 0",
        )
        check_folder(self.data, self.data_dir)

    def _draw(self, folder: RunFolder) -> None:
        from sparse_hyper_jax.train import plots  # matplotlib is slow to import

        names = {"eval_accuracy": "validation accuracy"}
        if self.sparsifier is not None:
            names |= {"eval_cosine": "cosine with the dense gradient"}
        curves = {label: plots.read_curve(folder, name) for name, label in names.items()}
        plots.plot_curves(curves).savefig(folder.path / "training.png", dpi=150)


def make_model(
    recipe: SparseBackpropRecipe, train_set: Arrays, classes: int
) -> tuple[Apply, BackpropState]:
    """Build the network and the state before training."""
    images, _ = train_set
    rngs = nnx.Rngs(params=recipe.seed, sample=recipe.seed)
    sizes = [images.shape[1]] + [recipe.hidden] * recipe.layers
    network = Classifier(sizes, classes, layer_options(recipe), rngs=rngs)
    graph, parameters, memory, rest = nnx.split(network, nnx.Param, BackpropMemory, ...)

    def apply(
        parameters: nnx.State, memory: nnx.State, images: jax.Array, key: jax.Array | None
    ) -> jax.Array:
        return nnx.merge(graph, parameters, memory, rest)(images, key=key)

    order = first_order(len(images))
    moments = optimizer_of(recipe).init(parameters)
    return apply, BackpropState(parameters, memory, moments, order, jnp.zeros((), jnp.int32))


def layer_options(recipe: SparseBackpropRecipe) -> dict[str, Any]:
    """Give the options of the hidden layers."""
    if recipe.sparsifier is None:
        return {"deterministic": True}
    return {
        "sparsifier": recipe.sparsifier,
        "memory": recipe.granularity if recipe.memory else "none",
        "eta": recipe.memory,
        "batch_shape": (recipe.batch,),
        "count": True,
    }


def optimizer_of(recipe: SparseBackpropRecipe) -> optax.GradientTransformation:
    """Give the recipe's optimizer."""
    rate = RATES[recipe.optimizer] if recipe.learning_rate is None else recipe.learning_rate
    optimizer = {"adam": optax.adam, "sgd": optax.sgd}[recipe.optimizer](rate)
    if recipe.select != "error-feedback":
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
) -> Callable[[BackpropState, jax.Array, Arrays], tuple[BackpropState, dict[str, jax.Array]]]:
    """Make the pure training step: the next batch of the epoch, its gradient, the next memory."""
    optimizer = optimizer_of(recipe)

    def step(
        state: BackpropState, key: jax.Array, train_set: Arrays
    ) -> tuple[BackpropState, dict[str, jax.Array]]:
        order_key, layer_key = jax.random.split(key)
        order, (images, labels) = next_batch(
            order_key, state.order, state.count, train_set, batch=recipe.batch
        )

        def loss_of(parameters: nnx.State, memory: nnx.State) -> jax.Array:
            return cross_entropy(apply(parameters, memory, images, layer_key), labels)

        loss, (gradient, following) = jax.value_and_grad(loss_of, argnums=(0, 1))(
            state.parameters, state.memory
        )
        updates, moments = optimizer.update(gradient, state.optimizer, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        memory = next_memories(state.memory, following)
        return BackpropState(parameters, memory, moments, order, state.count + 1), {"loss": loss}

    return step
