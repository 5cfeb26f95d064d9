"""Fully connected layers with ReLU: the network, its loss, one training step, its accuracy."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from sparse_hyper_jax.parameter_paths import is_kernel, selected_leaves
from sparse_hyper_jax.train.data.epochs import Arrays, next_batch
from sparse_hyper_jax.train.epoch_state import EpochState, Metrics, next_state

Apply = Callable[[Any, jax.Array], jax.Array]
"""``apply(weights, images)`` gives logits."""


class Perceptron(nnx.Module):
    """Hidden layers with ReLU and an output layer named ``head``."""

    def __init__(self, sizes: Sequence[int], *, rngs: nnx.Rngs):
        *hidden, last, classes = sizes
        pairs = itertools.pairwise([*hidden, last])
        self.hidden = nnx.List([nnx.Linear(*pair, rngs=rngs) for pair in pairs])
        self.head = nnx.Linear(last, classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Give logits ``(b, classes)`` of images ``(b, pixels)``."""
        for layer in self.hidden:
            x = nnx.relu(layer(x))
        return self.head(x)


def make_perceptron(sizes: Sequence[int], *, seed: int) -> tuple[Apply, nnx.State]:
    """Give the network as a function of its weights, and initial weights."""
    network = Perceptron(sizes, rngs=nnx.Rngs(params=seed))
    graph, weights = nnx.split(network, nnx.Param)
    return lambda weights, images: nnx.merge(graph, weights)(images), weights


def make_update(
    apply: Apply,
    optimizer: optax.GradientTransformation | optax.GradientTransformationExtraArgs,
    *,
    batch: int,
    l1: float,
) -> Callable[..., tuple[EpochState, Metrics]]:
    """Make the part of a training step that follows the weights.

    Args:
        apply: the network.
        optimizer: from gradients of the weights to updates of what they are made of.
        batch: images per step.
        l1: coefficient of :func:`l1_penalty`.

    Returns:
        ``update(state, key, train_set, weights, **extra)``, which trains on the next batch of the
        epoch and passes ``extra`` to the optimizer.
    """

    def update(
        state: EpochState, key: jax.Array, train_set: Arrays, weights: nnx.State, **extra: Any
    ) -> tuple[EpochState, Metrics]:
        order, (images, labels) = next_batch(key, state.order, state.count, train_set, batch=batch)

        def loss_of(weights: nnx.State) -> jax.Array:
            return cross_entropy(apply(weights, images), labels) + l1_penalty(weights, l1)

        loss, gradient = jax.value_and_grad(loss_of)(weights)
        return next_state(state, gradient, optimizer, order, **extra), {"loss": loss}

    return update


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Give the mean cross-entropy of a batch.

    Example:
        >>> from sparse_hyper_jax.train.models.perceptron import cross_entropy
        >>> print(cross_entropy(jnp.zeros((2, 10)), jnp.array([3, 7])).round(1))
        2.3
    """
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def l1_penalty(weights: Any, coefficient: float) -> jax.Array | float:
    """Give the coefficient times the sum of the magnitudes of all kernels."""
    if not coefficient:
        return 0.0
    return coefficient * sum(jnp.sum(jnp.abs(leaf)) for leaf in selected_leaves(is_kernel, weights))


def make_measure(apply: Apply) -> Callable[[Any, Arrays], float]:
    """Make the evaluation: the share of images that are classified correctly.

    Example:
        >>> from sparse_hyper_jax.train.models.perceptron import make_measure
        >>> measure = make_measure(lambda weights, images: images @ weights)
        >>> images, labels = jnp.array([[1.0, 2.0], [5.0, 0.0]]), jnp.array([1, 1])
        >>> measure(jnp.eye(2), (images, labels))
        0.5
    """

    @jax.jit
    def on_device(weights: Any, part: Arrays) -> jax.Array:
        images, labels = part
        return jnp.mean(jnp.argmax(apply(weights, images), axis=-1) == labels)

    return lambda weights, part: float(on_device(weights, part))
