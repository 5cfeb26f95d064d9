"""Integer tuples to the kept mask: true at the first occurrence of a point in its context."""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.ops.entrance import enter_points
from sparse_hyper_jax.ops.inside import check_in_range, is_inside


def first_occurrence(points: jax.Array, shape: Sequence[int], *, debug: bool = False) -> jax.Array:
    """Mark the first occurrence of every distinct point.

    Exact for any rank and size, with static shapes. Points are sorted together with their
    position, by one flat row-major key where the space has fewer than 2**31 cells and by all
    columns otherwise; the first of each run of equal points is kept.

    Args:
        points: int ``(P, r)``. One outside of ``shape`` is padding, and never marked.
        shape: the ``r`` lengths of the index space.
        debug: check by ``checkify`` that all points lie inside.

    Returns:
        bool ``(P,)``: false where an equal point stands earlier, and outside.

    Raises:
        ValueError: a rank that does not match ``shape``.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> ops.first_occurrence(jnp.array([[0, 1], [2, 2], [0, 1], [-1, 0]]), (3, 3)).tolist()
        [True, True, False, False]
    """
    shape = checks.check_index_shape("shape", shape)
    points = enter_points(points, len(shape), "shape")
    if checks.check_flag("debug", debug):
        check_in_range(points, shape)
    inside = is_inside(points, shape)
    # A point that no other equals: its key is negative, and cannot overflow.
    nowhere = jnp.asarray([-1, *[0] * (len(shape) - 1)][: len(shape)], jnp.int32)
    nowhere = jnp.broadcast_to(nowhere, points.shape)
    return mark_first(jnp.where(inside[:, None], points.astype(jnp.int32), nowhere), shape) & inside


@partial(jax.jit, static_argnames="shape", inline=True)  # outside of jit one program, not many
def mark_first(points: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Do what :func:`first_occurrence` says for int32 points inside, without checks."""
    if math.prod(shape) < checks.INT32_CELLS:
        columns = [flat_index(points, shape)]
    else:
        columns = [points[:, axis] for axis in range(len(shape))]
    return _first_of_equal(columns)


def flat_index(indices: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Number the cells of ``shape`` row by row, the last axis fastest.

    Args:
        indices: int32 ``(..., r)``.
        shape: ``r`` lengths with a product below 2**31; for ``r = 0`` every index is 0.

    Returns:
        int32 ``(...)``.
    """
    flat = jnp.zeros(indices.shape[:-1], jnp.int32)
    for axis, size in enumerate(shape):
        flat = flat * size + indices[..., axis]
    return flat


def _first_of_equal(columns: list[jax.Array]) -> jax.Array:
    count = columns[0].shape[0]
    position = jnp.arange(count, dtype=jnp.int32)
    # The position as last sort key makes the order total, so that the first copy leads its run.
    *ordered, position = jax.lax.sort((*columns, position), num_keys=len(columns) + 1)
    repeated = jnp.ones(count - 1, bool) if count else jnp.zeros(0, bool)
    for column in ordered:
        repeated &= column[1:] == column[:-1]
    leads = jnp.concatenate([jnp.ones(min(count, 1), bool), ~repeated])
    return jnp.zeros(count, bool).at[position].set(leads, unique_indices=True)
