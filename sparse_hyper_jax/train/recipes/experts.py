"""Train a classifier with a mixture of experts, whose router learns by one of several gradients."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from sparse_hyper_jax import checks
from sparse_hyper_jax.nn import DefaultVectors, Mixed, Mixture
from sparse_hyper_jax.train.data import load_splits
from sparse_hyper_jax.train.data.epochs import first_order, next_batch
from sparse_hyper_jax.train.loop import train
from sparse_hyper_jax.train.recipes.images import (
    Arrays,
    check_batch,
    check_folder,
    cross_entropy,
    to_arrays,
)
from sparse_hyper_jax.train.run_folder import open_run

TOLD = (
    "router",
    "num_experts",
    "width",
    "hidden",
    "balance",
    "exact_at_argmax",
    "jitter",
    "decay",
    "learning_rate",
    "data",
    "batch",
    "seed",
)
"""Options that the result repeats."""

Apply = Callable[..., tuple[jax.Array, Mixed]]
"""``apply(parameters, defaults, images, key)`` gives logits and what the mixture gave; ``key=None``
evaluates."""


class ExpertsState(NamedTuple):
    """What training changes."""

    parameters: nnx.State
    defaults: nnx.State
    """Default vectors; without arrays unless the router is "default"."""

    optimizer: optax.OptState
    order: jax.Array
    """Training images in the order of this epoch, int32."""

    count: jax.Array
    """Finished steps, int32."""


@dataclass(frozen=True)
class ExpertsRecipe:
    """Train a classifier with a mixture of experts (Liu et al. 2023; Panda et al. 2025)."""

    router: Literal["top", "gate", "first_order", "midpoint", "heun", "default", "dense"] = (
        "midpoint"
    )
    """How the router learns. top: the most probable expert and its gate's gradient; gate,
    first_order, midpoint, heun: an expert drawn at random and a gradient of that order; default:
    constant vectors for the experts not chosen; dense: all experts for every image."""

    num_experts: int = 8
    """Number of experts."""

    width: int = 32
    """Units before and after the mixture, which is added to what it sees."""

    hidden: int = 32
    """Hidden units of an expert."""

    balance: float = 0.01
    """Coefficient of the load-balance loss."""

    exact_at_argmax: bool = True
    """A random gate is whole where the expert drawn is the most probable one."""

    jitter: float | None = None
    """Random routers leave out experts whose logit is far below the highest; 0.1 in the paper."""

    decay: float = 0.9
    """Share of the default vectors that a step leaves as it is."""

    data: Literal["digits", "mnist", "idx"] = "digits"
    """Images: bundled 8x8 digits, MNIST in --data-dir, or any four idx files there."""

    data_dir: Path | None = None
    """Folder of the image files, for mnist and idx."""

    download: bool = False
    """Fetch missing files of MNIST into --data-dir."""

    learning_rate: float = 3e-3
    """Of Adam, without decay or schedule."""

    batch: int = 50
    """Images per step; an epoch leaves out what does not fill a batch."""

    steps: int | None = None
    """Number of training steps; by default 2,000 for digits, else 20,000."""

    evaluate_every: int = 500
    """Steps between validations."""

    seed: int = 0
    """Seed of initialisation, validation split, order of the images and choice of the experts."""

    out: Path | None = None
    """Run folder; by default runs/experts-DATE-TIME."""

    resume: bool = False
    """Go on with the run in the folder."""

    quiet: bool = False
    """Show no progress bar."""

    def run(self) -> dict[str, Any]:
        """Train, write the run folder; test the final parameters."""
        self._check()
        splits = load_splits(self.data, self.data_dir, seed=self.seed, download=self.download)
        train_set, validation, test = (to_arrays(part) for part in splits)
        classes = int(splits.train.labels.max()) + 1
        check_batch(self.batch, len(train_set[0]))
        # Whatever is wrong with the options is found before the folder holds a run.
        apply, state = make_model(self, train_set, classes)
        folder = open_run(self, recipe="experts", out=self.out, resume=self.resume)
        measure = make_measure(apply)

        def evaluate(step: int, state: ExpertsState) -> Mapping[str, float]:
            accuracy, loss, load = measure(state, validation)
            used = float(np.exp(entropy(load)))
            return {"accuracy": accuracy, "cross_entropy": loss, "experts_used": used}

        trained = train(
            make_step(self, apply),
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
            description=self.router,
        )
        result: dict[str, Any] = {}
        for name, part in (("validation", validation), ("test", test)):
            accuracy, loss, load = measure(trained.state, part)
            result |= {f"{name}_accuracy": accuracy, f"{name}_cross_entropy": loss}
        result |= {"load": load.tolist(), "load_entropy": entropy(load)}  # of the test images
        result |= {"steps": trained.steps} | {name: getattr(self, name) for name in TOLD}
        result |= {"seconds": round(trained.seconds, 1), "out": str(folder.path)}
        return folder.write_result(result)

    @property
    def number_of_steps(self) -> int:
        """The steps asked for, or the default of the data."""
        return self.steps or (2_000 if self.data == "digits" else 20_000)

    def _check(self) -> None:
        for name in ("width", "batch", "evaluate_every", "steps"):
            if getattr(self, name) is not None:
                checks.check_count(name, getattr(self, name), least=1)
        for name, valid, expected in (
            ("balance", self.balance >= 0, "at least 0"),
            ("learning_rate", self.learning_rate > 0, "more than 0"),
        ):
            checks.require(valid, f"{name}={getattr(self, name)}", expected, f"change {name}")
        check_folder(self.data, self.data_dir)


class ExpertsClassifier(nnx.Module):
    """A hidden layer with ReLU, a mixture added to it, and an output layer."""

    def __init__(self, recipe: ExpertsRecipe, pixels: int, classes: int, *, rngs: nnx.Rngs):
        self.first = nnx.Linear(pixels, recipe.width, rngs=rngs)
        self.mixture = Mixture(
            recipe.width,
            recipe.hidden,
            recipe.width,
            recipe.num_experts,
            router=recipe.router,
            exact_at_argmax=recipe.exact_at_argmax,
            jitter=recipe.jitter,
            decay=recipe.decay,
            rngs=rngs,
        )
        self.last = nnx.Linear(recipe.width, classes, rngs=rngs)

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> tuple[jax.Array, Mixed]:
        """Give logits ``(b, classes)`` and what the mixture gave; without a key, evaluate."""
        x = nnx.relu(self.first(x))
        mixed = self.mixture(x, deterministic=key is None, rngs=key)
        return self.last(x + mixed.y), mixed


def make_model(
    recipe: ExpertsRecipe, train_set: Arrays, classes: int
) -> tuple[Apply, ExpertsState]:
    """Build the network and the state before training."""
    images, _ = train_set
    rngs = nnx.Rngs(params=recipe.seed, sample=recipe.seed)
    network = ExpertsClassifier(recipe, images.shape[1], classes, rngs=rngs)
    graph, parameters, defaults, rest = nnx.split(network, nnx.Param, DefaultVectors, ...)

    def apply(
        parameters: nnx.State, defaults: nnx.State, images: jax.Array, key: jax.Array | None
    ) -> tuple[jax.Array, Mixed]:
        return nnx.merge(graph, parameters, defaults, rest)(images, key=key)

    moments = optax.adam(recipe.learning_rate).init(parameters)
    order, count = first_order(len(images)), jnp.zeros((), jnp.int32)
    return apply, ExpertsState(parameters, defaults, moments, order, count)


def make_step(
    recipe: ExpertsRecipe, apply: Apply
) -> Callable[[ExpertsState, jax.Array, Arrays], tuple[ExpertsState, dict[str, jax.Array]]]:
    """Make the pure training step: the next batch of the epoch, its gradient, the next defaults."""
    optimizer = optax.adam(recipe.learning_rate)

    def step(
        state: ExpertsState, key: jax.Array, train_set: Arrays
    ) -> tuple[ExpertsState, dict[str, jax.Array]]:
        order_key, layer_key = jax.random.split(key)
        order, (images, labels) = next_batch(
            order_key, state.order, state.count, train_set, batch=recipe.batch
        )

        def loss_of(parameters: nnx.State) -> tuple[jax.Array, tuple[jax.Array, Mixed]]:
            logits, mixed = apply(parameters, state.defaults, images, layer_key)
            loss = cross_entropy(logits, labels)
            return loss + recipe.balance * mixed.balance_loss, (loss, mixed)

        gradient, (loss, mixed) = jax.grad(loss_of, has_aux=True)(state.parameters)
        updates, moments = optimizer.update(gradient, state.optimizer, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        # One array, or none.
        defaults = jax.tree.map(lambda _: mixed.defaults, state.defaults)
        metrics = {"loss": loss, "balance_loss": mixed.balance_loss}
        return ExpertsState(parameters, defaults, moments, order, state.count + 1), metrics

    return step


def make_measure(apply: Apply) -> Callable[[ExpertsState, Arrays], tuple[float, float, np.ndarray]]:
    """Make the evaluation: accuracy, cross-entropy and the share of the images per expert."""

    @jax.jit
    def on_device(
        parameters: nnx.State, defaults: nnx.State, part: Arrays
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        images, labels = part
        logits, mixed = apply(parameters, defaults, images, None)
        experts = parameters["mixture"]["router"]["kernel"].shape[-1]
        load = jnp.bincount(mixed.expert, length=experts) / len(labels)
        right = jnp.argmax(logits, axis=-1) == labels
        return jnp.mean(right), cross_entropy(logits, labels), load

    def measure(state: ExpertsState, part: Arrays) -> tuple[float, float, np.ndarray]:
        accuracy, loss, load = on_device(state.parameters, state.defaults, part)
        return float(accuracy), float(loss), np.asarray(load)

    return measure


def entropy(shares: np.ndarray) -> float:
    """Give the entropy of shares that sum to 1, in nats: log n where n are equal."""
    used = shares[shares > 0].astype(np.float64)
    return abs(float(-np.sum(used * np.log(used))))  # no -0.0
