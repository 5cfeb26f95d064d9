"""Train a classifier whose hidden layers propagate a few components of their gradients."""

import itertools
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
    Memory,
    RandomK,
    Sparsifier,
    TopK,
    UnifiedRandomK,
    UnifiedTopK,
    error_feedback,
    gradient_cosine,
    norm_ratio,
    share_of_units_used,
)
from sparse_hyper_jax.backprop.choice import check_no_residue
from sparse_hyper_jax.nn import BackpropMemory, SparseBackpropLinear, next_memories
from sparse_hyper_jax.train.best_parameters import BestParameters
from sparse_hyper_jax.train.data import Dataset, load_splits
from sparse_hyper_jax.train.loop import train
from sparse_hyper_jax.train.run_folder import RunFolder, open_run

DIAGNOSED = 20
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

Arrays = tuple[jax.Array, jax.Array]
"""Images ``(n, pixels)`` in [0, 1] and labels ``(n,)``."""


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
        folder = open_run(self, recipe="sparse-backprop", out=self.out, resume=self.resume)
        apply, state = make_model(self, train_set, classes)
        measure, diagnose = make_measure(apply, state.memory), make_diagnose(self, apply)
        best = BestParameters(folder.path / "best.npz")
        per_epoch = len(train_set[0]) // self.batch

        def evaluate(step: int, state: BackpropState) -> Mapping[str, float]:
            accuracy = measure(state.parameters, validation)
            best.offer(accuracy, step, state.parameters)
            return {"accuracy": accuracy} | diagnose(state, train_set)

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
        result |= diagnose(trained.state, train_set)
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
        if self.memory and self.sparsifier is not None:
            check_no_residue(self.sparsifier)
        checks.require(
            self.data == "digits" or self.data_dir is not None,
            f"data={self.data!r} without a folder",
            "the folder of its files",
            "pass --data-dir DIR",
        )

    def _draw(self, folder: RunFolder) -> None:
        from sparse_hyper_jax.train import plots  # matplotlib is slow to import

        names = {"eval_accuracy": "validation accuracy"}
        if self.sparsifier is not None:
            names |= {"eval_cosine": "cosine with the dense gradient"}
        curves = {label: plots.read_curve(folder, name) for name, label in names.items()}
        plots.plot_curves(curves).savefig(folder.path / "training.png", dpi=150)


class Classifier(nnx.Module):
    """Fully connected layers with ReLU; all but the last propagate sparsely."""

    def __init__(self, recipe: SparseBackpropRecipe, pixels: int, classes: int, rngs: nnx.Rngs):
        sizes = [pixels] + [recipe.hidden] * recipe.layers
        sparsifier = recipe.sparsifier
        options: dict[str, Any] = {"layout": "out_in", "deterministic": sparsifier is None}
        if sparsifier is not None:
            kind = recipe.granularity if recipe.memory else "none"
            options |= {"sparsifier": sparsifier, "memory": kind, "eta": recipe.memory}
            options |= {"batch_shape": (recipe.batch,), "count": True}
        hidden = [
            SparseBackpropLinear(inputs, outputs, **options, rngs=rngs)
            for inputs, outputs in itertools.pairwise(sizes)
        ]
        self.hidden = nnx.List(hidden)
        self.last = nnx.Linear(sizes[-1], classes, rngs=rngs)

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Give logits ``(b, classes)``; without a key, with a plain dense backward pass."""
        keys = [None] * len(self.hidden) if key is None else jax.random.split(key, len(self.hidden))
        for layer, layer_key in zip(self.hidden, keys, strict=True):
            dense = True if key is None else None
            x = nnx.relu(layer(x, deterministic=dense, rngs=layer_key))
        return self.last(x)


Apply = Callable[..., jax.Array]
"""``apply(parameters, memory, images, key)`` gives logits; ``key=None`` is the dense network."""


def make_model(
    recipe: SparseBackpropRecipe, train_set: Arrays, classes: int
) -> tuple[Apply, BackpropState]:
    """Build the network and the state before training."""
    images, _ = train_set
    checks.require(
        recipe.batch <= len(images),
        f"batch={recipe.batch} with {len(images)} training images",
        "at most as many",
        "lower --batch",
    )
    rngs = nnx.Rngs(params=recipe.seed, sample=recipe.seed)
    network = Classifier(recipe, images.shape[1], classes, rngs)
    graph, parameters, memory, rest = nnx.split(network, nnx.Param, BackpropMemory, ...)

    def apply(
        parameters: nnx.State, memory: nnx.State, images: jax.Array, key: jax.Array | None
    ) -> jax.Array:
        return nnx.merge(graph, parameters, memory, rest)(images, key=key)

    order = jnp.arange(len(images), dtype=jnp.int32)
    moments = optimizer_of(recipe).init(parameters)
    return apply, BackpropState(parameters, memory, moments, order, jnp.zeros((), jnp.int32))


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


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Give the mean cross-entropy of a batch."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def make_step(
    recipe: SparseBackpropRecipe, apply: Apply
) -> Callable[[BackpropState, jax.Array, Arrays], tuple[BackpropState, dict[str, jax.Array]]]:
    """Make the pure training step: the next batch of the epoch, its gradient, the next memory."""
    optimizer = optimizer_of(recipe)

    def step(
        state: BackpropState, key: jax.Array, train_set: Arrays
    ) -> tuple[BackpropState, dict[str, jax.Array]]:
        order_key, layer_key = jax.random.split(key)
        position = state.count % (len(train_set[0]) // recipe.batch)
        order = jax.lax.cond(
            position == 0,
            lambda order: jax.random.permutation(order_key, order),
            lambda order: order,
            state.order,
        )
        chosen = jax.lax.dynamic_slice(order, (position * recipe.batch,), (recipe.batch,))
        images, labels = (array[chosen] for array in train_set)

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


def make_diagnose(
    recipe: SparseBackpropRecipe, apply: Apply
) -> Callable[[BackpropState, Arrays], dict[str, float]]:
    """Compare gradients of the hidden layers with dense ones; count the units in use."""

    @jax.jit
    def on_device(state: BackpropState, train_set: Arrays) -> dict[str, jax.Array]:
        def batch(number: jax.Array) -> tuple[jax.Array, jax.Array]:
            chosen = number * recipe.batch + jnp.arange(recipe.batch)
            images, labels = (array[chosen % len(array)] for array in train_set)

            def gradient(key: jax.Array | None) -> list[jax.Array]:
                def loss_of(parameters: nnx.State, memory: nnx.State) -> jax.Array:
                    return cross_entropy(apply(parameters, memory, images, key), labels)

                # Of the hidden kernels alone: the dense rest would hide how much they differ.
                whole, _ = jax.grad(loss_of, argnums=(0, 1))(state.parameters, state.memory)
                return [layer["kernel"][...] for layer in whole["hidden"].values()]

            sparse, dense = gradient(jax.random.key(number)), gradient(None)
            return gradient_cosine(sparse, dense), norm_ratio(sparse, dense)

        cosines, ratios = jax.lax.map(batch, jnp.arange(DIAGNOSED, dtype=jnp.uint32))
        kept = jax.tree.leaves(state.memory, is_leaf=lambda node: isinstance(node, Memory))
        used = jnp.stack([share_of_units_used(memory) for memory in kept])
        return {
            # Medians: where the loss of a batch has vanished, so has its dense gradient.
            "cosine": jnp.median(cosines),
            "norm_ratio": jnp.median(ratios),
            "units_used": jnp.mean(used),
        }

    def diagnose(state: BackpropState, train_set: Arrays) -> dict[str, float]:
        if recipe.sparsifier is None:
            return {}
        return {name: float(value) for name, value in on_device(state, train_set).items()}

    return diagnose


def to_arrays(part: Dataset) -> Arrays:
    """Flatten images and move them to the device."""
    return jnp.asarray(part.images.reshape(len(part.images), -1)), jnp.asarray(part.labels)


def make_measure(apply: Apply, memory: nnx.State) -> Callable[[nnx.State, Arrays], float]:
    """Make the evaluation: the share of images that are classified correctly."""

    @jax.jit
    def on_device(parameters: nnx.State, part: Arrays) -> jax.Array:
        images, labels = part
        return jnp.mean(jnp.argmax(apply(parameters, memory, images, None), axis=-1) == labels)

    return lambda parameters, part: float(on_device(parameters, part))
