"""Index tuples inside of a shape, and those outside: padding, or an error in debug mode."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify


def is_inside(indices: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Tell which index tuples lie inside a shape.

    Args:
        indices: int ``(..., r)`` of any width.
        shape: the ``r`` lengths.

    Returns:
        bool ``(...)``.
    """
    indices, sizes = _comparable(indices, shape)
    return jnp.all((indices >= 0) & (indices < sizes), axis=-1)


def clip_inside(indices: jax.Array, shape: Sequence[int]) -> tuple[jax.Array, jax.Array]:
    """Give indices that are safe to read with, and tell for which of them nothing may be read.

    Args:
        indices: int ``(..., r)`` of any width.
        shape: the ``r`` lengths.

    Returns:
        int32 ``(..., r)``, those outside moved to the edge, which keeps ascending ones in order;
        and bool ``(...)``, false where an index tuple lies outside.
    """
    wide, sizes = _comparable(indices, shape)
    inside = jnp.clip(wide, jnp.zeros((), wide.dtype), sizes - 1)
    return inside.astype(jnp.int32), jnp.all(wide == inside, axis=-1)


def check_in_range(indices: jax.Array, shape: Sequence[int]) -> None:
    """Check by ``checkify`` that every index lies inside ``shape``.

    Wrap the caller in ``jax.experimental.checkify.checkify`` under ``jit``; outside of ``jit`` the
    check raises at once.

    Args:
        indices: int ``(n, R)``.
        shape: the ``R`` lengths.
    """
    indices, _ = _comparable(indices, shape)
    limits = jnp.iinfo(indices.dtype)
    checkify.check(
        jnp.all(is_inside(indices, shape)),
        "found indices from {low} to {high} (least and largest per column); expected them inside "
        + f"shape {tuple(shape)}; check how they were made",
        low=jnp.min(indices, axis=0, initial=limits.max),
        high=jnp.max(indices, axis=0, initial=limits.min),
    )


def along(numbers: Sequence[float] | np.ndarray, like: jax.Array) -> jax.Array:
    """Give one number per axis of an index space, to compute with an array of index tuples.

    Args:
        numbers: ``r`` of them.
        like: ``(..., r)``.

    Returns:
        the numbers in the dtype of the array, and of its rank.
    """
    return jnp.asarray(numbers, like.dtype).reshape((1,) * (like.ndim - 1) + (len(numbers),))


def _comparable(indices: jax.Array, shape: Sequence[int]) -> tuple[jax.Array, jax.Array]:
    """Give indices and lengths of one dtype, which holds every length."""
    if indices.dtype.itemsize < 4:
        indices = indices.astype(jnp.int32)
    return indices, along(shape, indices)
