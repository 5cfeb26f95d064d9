"""Continuous tuples to integer tuples: neighbours, global points and local points."""

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.ops.counts import Counts, check_counts
from sparse_hyper_jax.ops.device_axes import spread_alike
from sparse_hyper_jax.ops.distances import Density
from sparse_hyper_jax.ops.inside import along
from sparse_hyper_jax.ops.own_draws import GlobalFrom, own_places
from sparse_hyper_jax.precision import at_least_float32


def sample_tuples(
    key: jax.Array | None,
    means: jax.Array,
    shape: Sequence[int],
    *,
    num_global: int = 0,
    num_local: int = 0,
    region: Sequence[int] | None = None,
    wrap: bool = False,
    distinct: bool = False,
    global_from: GlobalFrom = "uniform",
    variances: Any = None,
    density: Density = "gaussian",
    debug: bool = False,
) -> jax.Array:
    """Draw the integer tuples among which each continuous tuple shares its value.

    Per tuple, in this order along the point axis:

    * ``2**r`` neighbours: floor and floor + 1 on every axis, kept inside;
    * ``num_global`` points, uniform over all cells, or by the density of the tuple, rounded and cut
      off at the ends;
    * ``num_local`` points, uniform over a window of ``region`` cells centred on the mean and
      shifted inside at the edges.

    All with replacement, unless ``distinct``; :func:`first_occurrence` marks repetitions. Points
    are constants: no gradient flows through them.

    Where global points come from does not change what shares are, but which cells get any. Shares
    among sampled points differ from those among all cells by the mass of the cells that were
    missed: they are biased either way, and exact once every cell is there. Uniform points miss the
    cells of a tuple that is narrow in a large space, and then count for nothing; points by density
    miss the cells far from its mean, so a narrow tuple cannot feel what lies beyond some four of
    its standard deviations. Nothing here weighs a point by how likely it was to be drawn.

    Args:
        key: a typed key; may be None if there are no global and no local points.
        means: ``(k, r)`` means in index units, inside ``[0, S - 1]`` (``[0, S)`` with ``wrap``).
        shape: the ``r`` lengths of the index space.
        num_global: points per tuple drawn from all cells, see ``global_from``.
        num_local: points per tuple drawn from the window.
        region: the ``r`` lengths of the window; longer than an axis means the whole axis.
        wrap: every axis is a circle: neighbours and window go round its end.
        distinct: draw the global points of a tuple without replacement, and none of its neighbours:
            for small index spaces, as every cell gets a random number. Not with local points.
        global_from: ``"uniform"``: global points are drawn from all cells alike; ``"density"``:
            from the density of their tuple, of several axes each by itself.
        variances: ``(k, r)`` in squared index units; needed, and used, for that alone.
        density: shape of the tuples, likewise; see :func:`log_densities`.
        debug: check by ``checkify`` that the means lie inside the shape; without it, means
            outside count as the nearest cell inside, and NaN as cell 0: points are whole numbers.

    Returns:
        int32 ``(k, 2**r + num_global + num_local, r)``, every index inside ``shape``.

    Raises:
        ValueError: ranks that differ, negative counts, a missing key or a missing region; more
            distinct points than there are, or local ones; a density without variances.

    Reference: Bloem 2018, arXiv 1810.09184.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> ops.sample_tuples(None, [[1.3, 2.0]], (4, 4)).tolist()
        [[[1, 2], [1, 3], [2, 2], [2, 3]]]
        >>> ops.sample_tuples(jax.random.key(0), [[1.3, 2.0]], (4, 4), num_global=3).shape
        (1, 7, 2)
        >>> key = jax.random.key(0)
        >>> points = ops.sample_tuples(key, [[1.3]], (6,), num_global=4, distinct=True)
        >>> sorted(points[0, :, 0].tolist())  # every cell once
        [0, 1, 2, 3, 4, 5]
    """
    shape = checks.check_index_shape("shape", shape)
    means = at_least_float32(as_array("means", means))
    checks.check_shape("means", means, (None, len(shape)), "(k, r): one row per tuple")
    counts = check_counts(
        key, shape, num_global, num_local, region, global_from=global_from, density=density
    )
    variances = _enter_variances(variances, means, counts)
    wrap = checks.check_flag("wrap", wrap)
    if checks.check_flag("debug", debug):
        check_inside(means, shape, wrap=wrap)
    if checks.check_flag("distinct", distinct):
        return _draw_distinct(key, means, shape, counts, wrap=wrap)
    return draw_tuples(key, means, variances, shape, counts, wrap=wrap)


def draw_tuples(
    key: jax.Array | None,
    means: jax.Array,
    variances: jax.Array | None,
    shape: tuple[int, ...],
    counts: Counts,
    *,
    wrap: bool,
) -> jax.Array:
    """Do what :func:`sample_tuples` says, without checks."""
    means = jax.lax.stop_gradient(means)
    parts = [_neighbours(means, shape, wrap=wrap)]
    if key is not None and (counts.num_global or counts.num_local):
        global_key, local_key = jax.random.split(key)
        if counts.num_global and counts.density is not None and variances is not None:
            size = (means.shape[0], counts.num_global, len(shape))
            uniform = jax.random.uniform(global_key, size, jnp.float32)
            options = {"density": counts.density, "wrap": wrap}
            places = own_places(uniform, means, variances, shape, **options)
            parts.append(_inside(jnp.round(places), shape, wrap=wrap))
        elif counts.num_global:
            parts.append(_global_points(global_key, means.shape[0], shape, counts.num_global))
        if counts.num_local:
            parts.append(_local_points(local_key, means, shape, counts, wrap=wrap))
    # Global points are the same for all instances of a batch that share a key.
    return jnp.concatenate(spread_alike(*parts), axis=1)


def _draw_distinct(
    key: jax.Array | None, means: jax.Array, shape: tuple[int, ...], counts: Counts, *, wrap: bool
) -> jax.Array:
    """Give the neighbours of each tuple, and other cells in random order."""
    cells, near = checks.check_flat_size("shape", shape), 2 ** len(shape)
    checks.require(
        not counts.num_local,
        f"distinct=True with num_local={counts.num_local}",
        "global points alone, since a local one may be among them",
        "set num_local to 0",
    )
    checks.require(
        counts.density is None,
        "distinct=True with global_from='density'",
        "points that are all alike, since few have a density above 0",
        "leave one of them out",
    )
    checks.require(
        counts.num_global <= max(cells - near, 0),
        f"num_global={counts.num_global} distinct points of {cells} cells beside {near} neighbours",
        f"at most {max(cells - near, 0)}",
        "draw fewer, or with replacement",
    )
    neighbours = _neighbours(jax.lax.stop_gradient(means), shape, wrap=wrap)
    if key is None or not counts.num_global:
        return neighbours
    scores = jax.random.uniform(key, (means.shape[0], cells), jnp.float32)
    sides = tuple(jnp.moveaxis(neighbours, -1, 0))
    known = jnp.ravel_multi_index(sides, shape, mode="clip").astype(jnp.int32)
    taken = jnp.any(known[..., None] == jnp.arange(cells, dtype=jnp.int32)[None, None], axis=1)
    _, flat = jax.lax.top_k(jnp.where(taken, -1.0, scores), counts.num_global)
    points = jnp.stack(jnp.unravel_index(flat, shape), axis=-1).astype(jnp.int32)
    return jnp.concatenate(spread_alike(neighbours, points), axis=1)


def round_means(
    means: jax.Array, shape: Sequence[int], *, wrap: bool = False, debug: bool = False
) -> jax.Array:
    """Give the cell on which each tuple settles: the nearest one, halves to even.

    A mean of NaN gives cell 0, as no whole number tells of it; the values that :func:`settle` puts
    there are NaN.

    Args:
        means: ``(..., r)`` means in index units.
        shape: the ``r`` lengths of the index space.
        wrap: every axis is a circle, so that ``S - 0.4`` rounds to cell 0.
        debug: check by ``checkify`` that the means lie inside.

    Returns:
        int32 ``(..., r)``, every index inside ``shape``.

    Raises:
        ValueError: a last axis that does not match ``shape``.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> ops.round_means([[1.3], [2.5], [7.0]], (4,)).tolist()
        [[1], [2], [3]]
        >>> ops.round_means([[3.6]], (4,), wrap=True).tolist()
        [[0]]
    """
    shape = checks.check_index_shape("shape", shape)
    means = at_least_float32(as_array("means", means))
    checks.check_last_axis("means", means, len(shape))
    wrap = checks.check_flag("wrap", wrap)
    if checks.check_flag("debug", debug):
        check_inside(means, shape, wrap=wrap)
    return nearest_cells(means, shape, wrap=wrap)


def nearest_cells(means: jax.Array, shape: tuple[int, ...], *, wrap: bool) -> jax.Array:
    """Do what :func:`round_means` says, without checks."""
    return _inside(jnp.round(jax.lax.stop_gradient(means)), shape, wrap=wrap)


@partial(jax.jit, static_argnames=("shape", "wrap"), inline=True)
def _inside(cells: jax.Array, shape: tuple[int, ...], *, wrap: bool) -> jax.Array:
    """Turn whole floats into int32 indices, round the circle or at the nearest end."""
    # Saturate before the cast: what a float outside int32 becomes differs between backends.
    # 2**31 - 128 is the last float32 below 2**31; of wider floats every int32 is one.
    most = 2.0**31 - (128 if cells.dtype == jnp.float32 else 1)
    cells = jnp.nan_to_num(jnp.clip(cells, -(2.0**30), most)).astype(jnp.int32)
    sizes = along(shape, cells)
    return jnp.mod(cells, sizes) if wrap else jnp.clip(cells, jnp.zeros_like(sizes), sizes - 1)


@partial(jax.jit, static_argnames=("shape", "wrap"), inline=True)
def _neighbours(means: jax.Array, shape: tuple[int, ...], *, wrap: bool) -> jax.Array:
    corners = np.asarray(list(itertools.product((0, 1), repeat=len(shape))), np.int32)
    low = _inside(jnp.floor(means), shape, wrap=wrap)[:, None]
    # low + 1 cannot overflow: every size is below 2**31.
    high = low + corners[None]
    sizes = along(shape, high)
    return jnp.mod(high, sizes) if wrap else jnp.minimum(high, sizes - 1)


def _global_points(key: jax.Array, k: int, shape: tuple[int, ...], count: int) -> jax.Array:
    sizes = jnp.asarray(shape, jnp.int32)[None, None]
    return jax.random.randint(key, (k, count, len(shape)), 0, sizes, jnp.int32)


def _local_points(
    key: jax.Array, means: jax.Array, shape: tuple[int, ...], counts: Counts, *, wrap: bool
) -> jax.Array:
    sizes = np.asarray(shape)
    window = np.minimum(np.asarray(counts.region), sizes)
    # The first of `window` cells whose middle is nearest to the mean, for even and odd windows.
    first = jnp.round(means - along((window - 1) / 2, means))
    low = _inside(first, shape, wrap=wrap)
    if not wrap:
        low = jnp.minimum(low, along(sizes - window, low))
    size = (means.shape[0], counts.num_local, len(shape))
    widths = jnp.asarray(window, jnp.int32)[None, None]
    points = low[:, None] + jax.random.randint(key, size, 0, widths, jnp.int32)
    return jnp.mod(points, along(sizes, points)) if wrap else points


def _enter_variances(variances: Any, means: jax.Array, counts: Counts) -> jax.Array | None:
    """Return variances, which points need that are drawn by a density."""
    if variances is not None:
        variances = at_least_float32(as_array("variances", variances))
        meaning = "the shape of means: one variance per mean"
        checks.check_shape("variances", variances, means.shape, meaning)
    checks.require(
        variances is not None or counts.density is None,
        "global_from='density' without variances",
        "the variances of the tuples",
        "pass variances, (k, r) as means",
    )
    return variances


def check_inside(means: jax.Array, shape: tuple[int, ...], *, wrap: bool) -> None:
    """Check by ``checkify`` that all means lie inside ``shape``.

    Args:
        means: ``(k, r)`` in index units, float32 or wider.
        shape: the ``r`` lengths of the index space.
        wrap: every axis is a circle: means up to the length itself are inside.
    """
    sizes = along(shape, means)
    inside = (means >= 0) & ((means < sizes) if wrap else (means <= sizes - 1))
    checkify.check(
        jnp.all(inside),
        "found means from {low} to {high}; expected them inside shape "
        + f"{shape}; bound them with bound_means",
        low=jnp.min(means),
        high=jnp.max(means),
    )


def check_range(start: int | jax.Array, size: int, count: int) -> None:
    """Check by ``checkify`` that a range of active tuples lies inside.

    Args:
        start: number of the first tuple.
        size: number of tuples.
        count: number of all tuples.
    """
    start = jnp.asarray(start)
    checkify.check(
        (start >= 0) & (start <= count - size),
        "found active tuples from {start} on; expected a start from 0 to "
        + f"{count - size}; lower it",
        start=start,
    )
