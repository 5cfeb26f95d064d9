"""A deep perceptron by parts: as associated components, or as one network with a head."""

import itertools
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax.local import Component, associated_losses, associated_predict
from sparse_hyper_jax.nn import FreeHyperLayer

Activation = Literal["elu", "relu", "sigmoid", "tanh"]
Scale = Literal["he", "glorot", "glorot4"]

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "elu": jax.nn.elu,
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
}
SCALES: dict[str, jax.nn.initializers.Initializer] = {
    "he": jax.nn.initializers.he_normal(),
    "glorot": jax.nn.initializers.glorot_uniform(),
    # Four times the deviation: for sigmoids, whose slope at 0 is a quarter.
    "glorot4": jax.nn.initializers.variance_scaling(16.0, "fan_avg", "uniform"),
}


class Dense(nnx.Module):
    """Linear maps, each followed by its activation."""

    def __init__(
        self, sizes: Sequence[int], activations: Sequence[str], scale: str, *, rngs: nnx.Rngs
    ):
        init = SCALES[scale]
        pairs = itertools.pairwise(sizes)
        self.layers = nnx.List(nnx.Linear(*pair, kernel_init=init, rngs=rngs) for pair in pairs)
        self.activations = tuple(activations)

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Apply all; the key has no effect."""
        for layer, name in zip(self.layers, self.activations, strict=True):
            x = layer(x)
            x = ACTIVATIONS[name](x) if name else x
        return x


class Sparse(nnx.Module):
    """A hyperlayer with eight tuples per unit, and its activation."""

    def __init__(self, inputs: int, outputs: int, activation: str, *, rngs: nnx.Rngs):
        self.layer = FreeHyperLayer(
            (inputs,),
            (outputs,),
            8 * outputs,
            num_global=2,
            num_local=2,
            region=(4, 4),
            chunk_size=8,
            rngs=rngs,
        )
        self.activation = activation

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Sample with a key, round without."""
        y = self.layer(x, deterministic=key is None, rngs=key)
        return ACTIVATIONS[self.activation](y)


class Chain(nnx.Module):
    """Modules one after another, each with a key of its own."""

    def __init__(self, parts: Sequence[nnx.Module]):
        self.parts = nnx.List(parts)

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Apply all."""
        for number, part in enumerate(self.parts):
            x = part(x, key=None if key is None else jax.random.fold_in(key, number))
        return x


class AssociatedNetwork(nnx.Module):
    """Groups of layers as components: sigmoid codes of the target, and bridges of two layers."""

    def __init__(
        self, groups: Sequence[Chain], width: int, classes: int, scale: str, *, rngs: nnx.Rngs
    ):
        codes = [classes, *[width] * len(groups)]
        two, one = ("sigmoid",) * 2, ("sigmoid",)
        pairs = list(itertools.pairwise(codes))
        self.forward = nnx.List(groups)
        self.bridge = nnx.List(
            Dense((width, 5 * width, width), two, scale, rngs=rngs) for _ in groups
        )
        self.encode = nnx.List(Dense(pair, one, scale, rngs=rngs) for pair in pairs)
        self.decode = nnx.List(Dense(pair[::-1], one, scale, rngs=rngs) for pair in pairs)

    def components(self, key: jax.Array | None) -> list[Component]:
        """Give the components; with a key they sample."""

        def keyed(number: int, part: Chain) -> Callable[[jax.Array], jax.Array]:
            own = None if key is None else jax.random.fold_in(key, number)
            return lambda x: part(x, key=own)

        parts = zip(self.forward, self.bridge, self.encode, self.decode, strict=True)
        return [
            Component(keyed(number, forward), *others)
            for number, (forward, *others) in enumerate(parts)
        ]

    def loss(self, images: jax.Array, targets: jax.Array, key: jax.Array) -> jax.Array:
        """The sum of all losses."""
        return associated_losses(self.components(key), images, targets).total

    def __call__(self, images: jax.Array, *, exit_at: int | None = None) -> jax.Array:
        """Give one score per class."""
        return associated_predict(self.components(None), images, exit_at=exit_at)


class GlobalNetwork(nnx.Module):
    """The same layers and the last bridge, then logits: for backpropagation through all of it."""

    def __init__(
        self,
        groups: Sequence[Chain],
        width: int,
        classes: int,
        activation: str,
        scale: str,
        *,
        rngs: nnx.Rngs,
    ):
        self.forward = nnx.List(groups)
        bridge = (width, 5 * width, width, classes)
        self.head = Dense(bridge, (activation, activation, ""), scale, rngs=rngs)

    def _logits(self, images: jax.Array, key: jax.Array | None) -> jax.Array:
        for number, group in enumerate(self.forward):
            own = None if key is None else jax.random.fold_in(key, number)
            images = group(images, key=own)
        return self.head(images)

    def loss(self, images: jax.Array, targets: jax.Array, key: jax.Array) -> jax.Array:
        """Mean cross-entropy."""
        log_p = jax.nn.log_softmax(self._logits(images, key))
        return -jnp.mean(jnp.sum(targets * log_p, axis=1))

    def __call__(self, images: jax.Array) -> jax.Array:
        """Give logits."""
        return self._logits(images, None)
