"""Fully connected layers with a sparse backward pass, and how far their gradients are off."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax.backprop import Memory, share_of_units_used
from sparse_hyper_jax.diagnostics import gradient_cosine, norm_ratio
from sparse_hyper_jax.nn import SparseBackpropLinear
from sparse_hyper_jax.train.data.epochs import Arrays
from sparse_hyper_jax.train.models.perceptron import cross_entropy

DIAGNOSED = 20


class SparsePerceptron(nnx.Module):
    """Fully connected layers with ReLU; all but the last propagate sparsely."""

    def __init__(
        self, sizes: Sequence[int], classes: int, options: dict[str, Any], *, rngs: nnx.Rngs
    ):
        hidden = [
            SparseBackpropLinear(inputs, outputs, layout="out_in", **options, rngs=rngs)
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


def make_diagnose(
    apply: Apply, batch: int
) -> Callable[[nnx.State, nnx.State, Arrays], dict[str, float]]:
    """Compare gradients of the hidden layers with dense ones; count the units in use."""

    @jax.jit
    def on_device(
        parameters: nnx.State, memory: nnx.State, train_set: Arrays
    ) -> dict[str, jax.Array]:
        def compare(number: jax.Array) -> tuple[jax.Array, jax.Array]:
            chosen = number * batch + jnp.arange(batch)
            images, labels = train_set
            batched = images[chosen % len(images)], labels[chosen % len(labels)]
            keys = (jax.random.key(number), None)
            sparse, dense = (
                _kernel_gradients(apply, parameters, memory, batched, key) for key in keys
            )
            return gradient_cosine(sparse, dense), norm_ratio(sparse, dense)

        cosines, ratios = jax.lax.map(compare, jnp.arange(DIAGNOSED, dtype=jnp.uint32))
        kept = jax.tree.leaves(memory, is_leaf=lambda node: isinstance(node, Memory))
        used = jnp.stack([share_of_units_used(one) for one in kept])
        return {
            # Medians: where the loss of a batch has vanished, so has its dense gradient.
            "cosine": jnp.median(cosines),
            "norm_ratio": jnp.median(ratios),
            "units_used": jnp.mean(used),
        }

    def diagnose(parameters: nnx.State, memory: nnx.State, train_set: Arrays) -> dict[str, float]:
        results = on_device(parameters, memory, train_set)
        return {name: float(value) for name, value in results.items()}

    return diagnose


def _kernel_gradients(
    apply: Apply, parameters: nnx.State, memory: nnx.State, batch: Arrays, key: jax.Array | None
) -> list[jax.Array]:
    """Differentiate towards the hidden kernels alone: the dense rest would hide what differs."""
    images, labels = batch

    def loss_of(parameters: nnx.State, memory: nnx.State) -> jax.Array:
        return cross_entropy(apply(parameters, memory, images, key), labels)

    whole, _ = jax.grad(loss_of, argnums=(0, 1))(parameters, memory)
    return [layer["kernel"][...] for layer in whole["hidden"].values()]
