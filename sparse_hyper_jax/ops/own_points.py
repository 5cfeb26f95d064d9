"""Tuples each by itself: the points of every one, and logarithms of its shares of them.

Where every output reads at places of its own, a sparse tensor of all of them would be a list that
is scattered; here each tuple keeps its ``q`` points, and what they read is summed in place.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.ops.counts import Counts, check_counts
from sparse_hyper_jax.ops.duplicates import flat_index
from sparse_hyper_jax.ops.own_draws import GlobalFrom
from sparse_hyper_jax.ops.sample import draw_tuples, nearest_cells
from sparse_hyper_jax.types import LEAST_VARIANCE

FAR = 1e9
"""Further outside of its space a mean counts as so far outside: no square is infinite."""


class OwnPoints(NamedTuple):
    """Where ``n`` tuples read, each by itself.

    Attributes:
        cells: int32 ``(n, q)``, numbers of cells, the last axis fastest.
        logs: ``(n, q)``, logarithms of shares, -inf for a point that is not read: over the others
            of a tuple shares sum to 1.
    """

    cells: jax.Array
    logs: jax.Array


def own_points(
    key: jax.Array | None,
    means: jax.Array,
    variances: jax.Array,
    shape: tuple[int, ...],
    counts: Counts,
    *,
    last: jax.Array | None = None,
) -> OwnPoints:
    """Draw the points of every tuple, and share it among those that differ and may be read.

    Args:
        key: a typed key; None without random points.
        means: ``(n, r)`` in index units, float32 or wider.
        variances: ``(n, r)`` in squared index units, of that dtype.
        shape: the ``r`` lengths of the index space, of fewer than 2**31 cells.
        counts: from :func:`~.counts.check_counts`.
        last: int32 ``(n,)``, the last cell that each tuple may read; None for all. On one axis the
            space of a tuple ends there: points are drawn about its end for a mean beyond.

    Returns:
        the points of every tuple. One that may read none of its points has no share at all.
    """
    within = _within(means, last)
    points = draw_tuples(key, within, variances, shape, counts, wrap=False)
    cells = flat_index(points, shape)
    kept = _first_of_each(cells)
    if last is not None:
        kept &= cells <= last[:, None]
    # Steps from the nearest cell are whole numbers: see ``shares.py``.
    origins = nearest_cells(within, shape, wrap=False)
    steps = (points - origins[:, None]).astype(means.dtype)
    offsets = jnp.clip(origins.astype(means.dtype) - means, -FAR, FAR)[:, None]
    precisions = 1 / jnp.maximum(variances, LEAST_VARIANCE)[:, None]
    densities = -0.5 * jnp.sum(steps * (steps + 2 * offsets) * precisions, axis=-1)
    return OwnPoints(cells, masked_log_softmax(densities, kept))


def own_cells(means: jax.Array, shape: tuple[int, ...], last: jax.Array | None = None) -> OwnPoints:
    """Give every tuple the one cell that is nearest to its mean: evaluation, nothing is random.

    Args:
        means: ``(n, r)``.
        shape: see :func:`own_points`.
        last: see there.

    Returns:
        one point of each, of share 1. A mean of NaN has a share of NaN.
    """
    means = _within(jax.lax.stop_gradient(means), last)
    cells = flat_index(nearest_cells(means, shape, wrap=False), shape)[:, None]
    lost = jnp.isnan(means).any(axis=-1, keepdims=True)
    # Its own NaN: XLA, on CPU, takes the exponential of a choice between NaN and 0 for 1.
    logs = jnp.where(lost, jnp.sum(means, axis=-1, keepdims=True), 0)
    if last is not None:
        logs = jnp.where(cells <= last[:, None], logs, -jnp.inf)
    return OwnPoints(cells, logs)


def _within(means: jax.Array, last: jax.Array | None) -> jax.Array:
    """Take a mean beyond the last cell of its tuple for one on that cell, if there is one axis."""
    if last is None or means.shape[1] > 1:
        return means
    return jnp.minimum(means, last[:, None].astype(means.dtype))


@partial(jax.jit, inline=True)  # outside of jit one program, not many
def masked_log_softmax(logits: jax.Array, kept: jax.Array) -> jax.Array:
    """Give the log-softmax over the last axis of what is kept, -inf for the rest."""
    top = jnp.max(jnp.where(kept, jax.lax.stop_gradient(logits), -jnp.inf), axis=-1, keepdims=True)
    # Where nothing is kept, and masked before the exponential as well as after it (double where).
    beneath = jnp.where(kept, logits - jnp.where(top == -jnp.inf, 0, top), 0)
    # At a variance of 1e-12 rounding changes a density by thousands. Where the compiler rounds
    # differently for the maximum, what is above it by rounding alone would become infinite.
    beneath = jnp.where(beneath > 0, 0, beneath)
    total = jnp.sum(jnp.where(kept, jnp.exp(beneath), 0), axis=-1, keepdims=True)
    return jnp.where(kept, beneath - jnp.log(jnp.where(total == 0, 1, total)), -jnp.inf)


def as_rows(numbers: jax.Array, dtype: Any, *, single: bool) -> jax.Array:
    """Give one row for each tuple, ``(n, r)``.

    Args:
        numbers: ``(..., r)``, or ``(...)`` if there is a single axis.
        dtype: of the result.
        single: whether there is.
    """
    numbers = numbers.astype(dtype)
    # Not both in one reshape: with a batch that is spread over devices JAX wants them apart.
    numbers = numbers[..., None] if single else numbers
    return jax.lax.collapse(numbers, 0, numbers.ndim - 1)


def enter_own(
    key: jax.Array | None,
    means: Any,
    variances: Any,
    shape: Sequence[int],
    *,
    num_global: int,
    num_local: int,
    region: Any,
    global_from: GlobalFrom,
) -> tuple[jax.Array, jax.Array, Counts]:
    """Check means, variances of the same shape, and how many points are to be drawn.

    Args:
        key: a typed key, or None.
        means: any shape.
        variances: that of means.
        shape: lengths of the index space.
        num_global: see :func:`~sparse_hyper_jax.ops.sample_tuples`.
        num_local: see there.
        region: lengths of the window; None for 8 on every axis.
        global_from: see there.

    Raises:
        ValueError: what does not fit.
    """
    means, variances = as_array("means", means), as_array("variances", variances)
    checks.check_shape("variances", variances, means.shape, "the shape of means: one of each")
    checks.check_flat_size("an index space of shape", shape)
    region = (8,) * len(shape) if region is None else region
    counts = check_counts(key, tuple(shape), num_global, num_local, region, global_from=global_from)
    return means, variances, counts


def _first_of_each(cells: jax.Array) -> jax.Array:
    """Mark the first of equal cells in every row: by pairs, which for a handful is the fastest."""
    count = cells.shape[1]
    earlier = jnp.tril(jnp.ones((count, count), bool), -1)
    return ~jnp.any((cells[:, :, None] == cells[:, None, :]) & earlier[None], axis=-1)
