"""Train a deep classifier whose components have objectives of their own."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.train.data.epochs import Arrays, next_batch
from sparse_hyper_jax.train.epoch_state import EpochState, Metrics, next_state, start_state
from sparse_hyper_jax.train.limits import Count, Positive, Whole, said
from sparse_hyper_jax.train.models.associated import (
    Activation,
    AssociatedNetwork,
    Chain,
    Dense,
    GlobalNetwork,
    Scale,
    Sparse,
)
from sparse_hyper_jax.train.recipe import ImageRecipe, Images, Plan
from sparse_hyper_jax.train.run_folder import RunFolder

Network = AssociatedNetwork | GlobalNetwork
Build = Callable[[nnx.State], Network]
NOISE_KEYS, NOISE_IMAGES = 20, 200
"""Draws, and images, by which the noise of a gradient is measured."""


@dataclass(frozen=True, kw_only=True)
class AssociatedRecipe(ImageRecipe):
    """Train a classifier by components with losses of their own (Kao and Chen 2021)."""

    name: ClassVar[str] = "associated"

    method: Literal["associated", "isolated", "backprop"] = "associated"
    """Every layer a component of its own; only the hyperlayer one, and what is below and above it
    one each; or one loss through all layers."""

    depth: Count = 4
    """Layers before the head."""

    width: Count = 128
    """Units of each."""

    activation: Activation = "elu"
    """Of the layers; bridges and codes of the target have sigmoids, a head that of the layers."""

    init: Scale = "he"
    """Size of the first weights: he normal, glorot uniform, or four times glorot."""

    hyperlayer: Whole = 0
    """Number of the layer whose connections are learned tuples, 8 per unit, from 1; 0 for none."""

    learning_rate: Positive = 1e-3
    """Of Adam; for codes of the target twice that."""

    steps: Count | None = None
    """Number of training steps; by default 60 epochs of digits, else 6."""

    evaluate_every: Count = 250
    """Steps between validations."""

    def check(self) -> None:
        """Raise also if there is no such layer to be sparse, or none to isolate."""
        super().check()
        require(
            self.hyperlayer <= self.depth,
            said(self, "hyperlayer", "depth"),
            "the number of a layer",
            "change one of the two",
        )
        require(
            self.method != "isolated" or self.hyperlayer > 0,
            said(self, "method") + " without a hyperlayer",
            "a layer to isolate",
            "pass --hyperlayer 2",
        )

    def settle(self, data: Images) -> Self:
        """Settle the steps."""
        epochs = 60 if self.data == "digits" else 6
        return replace(self, steps=self.steps or epochs * (len(data.train[0]) // self.batch))

    def plan(self, data: Images) -> Plan:
        """Judge by accuracy, at the end also at every exit, and by the noise below a hyperlayer."""
        build, parameters = make_network(self, data.train[0].shape[1], data.classes)
        optimizer = make_optimizer(self)
        state = start_state(parameters, optimizer, len(data.train[0]))
        measure = make_measure(build)

        def evaluate(folder: RunFolder, step: int, state: EpochState) -> dict[str, float]:
            return {"accuracy": measure(state.parameters, data.validation)}

        def finish(folder: RunFolder, state: EpochState) -> dict[str, Any]:
            figures: dict[str, Any] = {
                f"{name}_accuracy": measure(state.parameters, getattr(data, name))
                for name in ("train", "validation", "test")
            }
            if self.method != "backprop":
                exits = range(1, groups_of(self)[-1] + 2)
                figures["test_accuracy_of_exits"] = [
                    measure(state.parameters, data.test, exit_at=number) for number in exits
                ]
            if self.hyperlayer > 1:
                noise = noise_below(self, build, state.parameters, data.train, data.classes)
                figures["gradient_noise_below"] = noise
            draw(folder)
            return figures

        step = make_step(self, build, optimizer, data.classes)
        every = self.evaluate_every
        return Plan(step, state, finish, (data.train,), evaluate, every, longest_dispatch=every)


def groups_of(recipe: AssociatedRecipe) -> list[int]:
    """Give the component of every layer, counted from 0."""
    if recipe.method == "associated":
        return list(range(recipe.depth))
    if recipe.method == "backprop":
        return [0] * recipe.depth
    sides = [np.sign(number + 1 - recipe.hyperlayer) for number in range(recipe.depth)]
    return np.unique(sides, return_inverse=True)[1].tolist()


def make_network(recipe: AssociatedRecipe, pixels: int, classes: int) -> tuple[Build, nnx.State]:
    """Build the network; give it as a function of its parameters, and these."""
    rngs = nnx.Rngs(params=recipe.seed, sample=recipe.seed)
    layers: list[nnx.Module] = []
    for number in range(1, recipe.depth + 1):
        inputs = pixels if number == 1 else recipe.width
        if number == recipe.hyperlayer:
            layers.append(Sparse(inputs, recipe.width, recipe.activation, rngs=rngs))
        else:
            sizes, names = (inputs, recipe.width), (recipe.activation,)
            layers.append(Dense(sizes, names, recipe.init, rngs=rngs))
    numbers = groups_of(recipe)
    groups = [
        Chain([layer for layer, own in zip(layers, numbers, strict=True) if own == group])
        for group in range(numbers[-1] + 1)
    ]
    network: Network
    if recipe.method == "backprop":
        network = GlobalNetwork(
            groups, recipe.width, classes, recipe.activation, recipe.init, rngs=rngs
        )
    else:
        network = AssociatedNetwork(groups, recipe.width, classes, recipe.init, rngs=rngs)
    graph, parameters, rest = nnx.split(network, nnx.Param, ...)
    return lambda parameters: nnx.merge(graph, parameters, rest), parameters


def make_optimizer(recipe: AssociatedRecipe) -> optax.GradientTransformation:
    """Adam, twice as fast for what encodes and decodes the target, as the authors have it."""
    rate = recipe.learning_rate

    def labels(parameters: nnx.State) -> Any:
        def label(path: Any, _: Any) -> str:
            return "codes" if path[0].key in ("encode", "decode") else "layers"

        return jax.tree_util.tree_map_with_path(label, parameters)

    return optax.partition({"layers": optax.adam(rate), "codes": optax.adam(2 * rate)}, labels)


def make_step(
    recipe: AssociatedRecipe, build: Build, optimizer: optax.GradientTransformation, classes: int
) -> Callable[..., tuple[EpochState, Metrics]]:
    """Make the pure training step: the next batch of the epoch, its gradient, an update."""

    def step(state: EpochState, key: jax.Array, train_set: Arrays) -> tuple[EpochState, Metrics]:
        order_key, layer_key = jax.random.split(key)
        order, batch = next_batch(
            order_key, state.order, state.count, train_set, batch=recipe.batch
        )

        def loss_of(parameters: nnx.State) -> jax.Array:
            return loss_on(build(parameters), batch, classes, layer_key)

        loss, gradient = jax.value_and_grad(loss_of)(state.parameters)
        return next_state(state, gradient, optimizer, order), {"loss": loss}

    return step


def loss_on(network: Network, batch: Arrays, classes: int, key: jax.Array) -> jax.Array:
    """Give the network's loss on images and labels."""
    images, labels = batch
    return network.loss(images, jax.nn.one_hot(labels, classes), key)


def make_measure(build: Build) -> Callable[..., float]:
    """Make the evaluation: the share of images that are classified correctly, by one exit."""

    @partial(jax.jit, static_argnames="exit_at")
    def on_device(parameters: nnx.State, part: Arrays, exit_at: int | None) -> jax.Array:
        images, labels = part
        options = {} if exit_at is None else {"exit_at": exit_at}
        return jnp.mean(jnp.argmax(build(parameters)(images, **options), axis=-1) == labels)

    def measure(parameters: nnx.State, part: Arrays, *, exit_at: int | None = None) -> float:
        return float(on_device(parameters, part, exit_at))

    return measure


def noise_below(
    recipe: AssociatedRecipe, build: Build, parameters: nnx.State, train_set: Arrays, classes: int
) -> float:
    """Give what the hyperlayer's draws do to the gradient of the layer below.

    The deviation of that gradient over draws of the points, relative to its mean, on the same
    images: the root of its total variance over the length of the mean.
    """
    batch = jax.tree.map(lambda leaf: leaf[:NOISE_IMAGES], train_set)
    group = groups_of(recipe)[recipe.hyperlayer - 2]
    place = recipe.hyperlayer - 2 - groups_of(recipe).index(group)

    @jax.jit
    def gradient_of(key: jax.Array) -> jax.Array:
        slopes = jax.grad(lambda one: loss_on(build(one), batch, classes, key))(parameters)
        below: Any = slopes["forward"][group]["parts"][place]
        return jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(below)])

    keys = jax.random.split(jax.random.key(recipe.seed), NOISE_KEYS)
    slopes = jax.lax.map(gradient_of, keys)
    slopes, mean = slopes - slopes[0], slopes.mean(axis=0)  # equal ones have a variance of 0
    return float(jnp.sqrt(jnp.sum(jnp.var(slopes, axis=0))) / jnp.linalg.norm(mean))


def draw(folder: RunFolder) -> None:
    """Draw loss and accuracy over training."""
    from sparse_hyper_jax.train import plots  # matplotlib is slow to import

    names = {"loss": "loss", "eval_accuracy": "validation accuracy"}
    curves = {label: plots.read_curve(folder, name) for name, label in names.items()}
    folder.save_figure(plots.plot_curves(curves), "training")
