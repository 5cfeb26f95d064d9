"""Batches of a resident data set, epoch by epoch, inside a compiled training step."""

from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax.train.data.dataset import Dataset

Arrays = tuple[jax.Array, jax.Array]
"""Images ``(n, pixels)`` in [0, 1] and labels ``(n,)``, on the device."""


def to_arrays(part: Dataset) -> Arrays:
    """Flatten images and move them to the device."""
    return jnp.asarray(part.images.reshape(len(part.images), -1)), jnp.asarray(part.labels)


def first_order(size: int) -> jax.Array:
    """Give the order to start with; it is shuffled before the first batch."""
    return jnp.arange(size, dtype=jnp.int32)


def next_batch(
    key: jax.Array, order: jax.Array, count: jax.Array, arrays: Any, *, batch: int
) -> tuple[jax.Array, Any]:
    """Take the next batch; shuffle at the beginning of an epoch.

    An epoch has ``len(order) // batch`` batches; what does not fill one is left out of it.

    Args:
        key: for shuffling.
        order: int32 ``(n,)``, the order of this epoch.
        count: batches taken so far.
        arrays: pytree of arrays ``(n, ...)``.
        batch: how many.

    Returns:
        the order, maybe a new one, and the batch, arrays ``(batch, ...)``.

    Example:
        >>> from sparse_hyper_jax.train.data.epochs import first_order, next_batch
        >>> images, labels = jnp.zeros((10, 64)), jnp.arange(10)
        >>> order, (images, labels) = next_batch(
        ...     jax.random.key(0), first_order(10), count=0, arrays=(images, labels), batch=4
        ... )
        >>> images.shape, labels.shape, sorted(order.tolist()) == list(range(10))
        ((4, 64), (4,), True)
    """
    position = count % (len(order) // batch)
    order = jax.lax.cond(
        position == 0,
        lambda order: jax.random.permutation(key, order),
        lambda order: order,
        order,
    )
    chosen = jax.lax.dynamic_slice(order, (position * batch,), (batch,))
    return order, jax.tree.map(lambda array: array[chosen], arrays)
