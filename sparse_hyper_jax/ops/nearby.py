"""Mixing for very many tuples: each one is shared among the points that it sees, and no others."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import export
from jax.experimental import checkify

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import check_instance
from sparse_hyper_jax.ops.blocks import largest_block, sum_over_blocks
from sparse_hyper_jax.ops.device_axes import spread_alike
from sparse_hyper_jax.ops.distances import coordinates
from sparse_hyper_jax.ops.entrance import enter_mask, enter_points, enter_tuples
from sparse_hyper_jax.ops.inside import check_in_range, clip_inside
from sparse_hyper_jax.ops.locality import (
    LAST_KEY,
    Locality,
    Runs,
    Sight,
    cut_by_length,
    look_around,
)
from sparse_hyper_jax.ops.shares import share_among
from sparse_hyper_jax.types import LEAST_VARIANCE, ContinuousTuples

BLOCK_CELLS = 2**18
"""Cells of the table of shares that is held at once by default."""


class Nearby(NamedTuple):
    """Mixed values, and how good they are.

    Attributes:
        values: ``(P,)``, all NaN if a run is longer than its capacity or a tuple may miss more than
            the tolerance.
        longest_runs: int32, the capacities that these tuples need, in the order of the capacities;
            with fewer tuples than these, of the last ones.
        neglected: scalar, a bound on the share of any tuple that lies beyond its radius; infinite
            if one sees no point at all.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> points, mask = jnp.array([[0], [1], [8]]), jnp.ones(3, bool)
        >>> near = ops.Locality(radius=2, capacities=(4,), tolerance=None)
        >>> one = ops.mix_nearby(points, mask, [[0.5]], [[1.0]], [2.0], shape=(9,), locality=near)
        >>> one.values.tolist(), one.longest_runs.tolist(), float(one.neglected) < 0.1
        ([1.0, 1.0, 0.0], [2], True)
    """

    values: jax.Array
    longest_runs: jax.Array
    neglected: jax.Array


export.register_namedtuple_serialization(Nearby, serialized_name="sparse_hyper_jax.Nearby")


class _Views(NamedTuple):
    """What it takes to share out tuples: these, their nearest cells as floats, and their runs."""

    tuples: ContinuousTuples
    origins: jax.Array
    runs: Runs


def mix_nearby(
    points: jax.Array,
    mask: jax.Array,
    means: jax.Array,
    variances: jax.Array,
    values: jax.Array,
    *,
    shape: Sequence[int],
    locality: Locality,
    debug: bool = False,
) -> Nearby:
    """Mix values as :func:`mix_values` does, with every tuple shared among nearby points only.

    ``w_p = sum_j v_j pi_pj`` with ``pi_pj`` normalised over the points that tuple ``j`` sees: those
    within the radius ``R`` of its nearest cell on every axis, and some more. That cell has to be
    among the kept points, as it is after :func:`sample_tuples`. Then all others together have at
    most the share ``e_j = unseen_j exp(-R (R + 1) / (2 max_c s_jc))``, so that
    ``sum_p |w_p - exact_p| <= 2 sum_j |v_j| e_j``. A radius that covers the space is exact.
    Densities are Gaussian.

    Time: ``k * 3**(r - 1)`` times the mean capacity, and sorting ``P`` points. Memory:
    ``O(k + P)``.

    Args:
        points: int ``(P, r)``; one outside of ``shape`` is dropped.
        mask: bool ``(P,)``, the kept mask.
        means: ``(k, r)`` in index units.
        variances: ``(k, r)`` in squared index units.
        values: ``(k,)``.
        shape: the ``r`` lengths of the index space.
        locality: radius, capacity and tolerance.
        debug: check by ``checkify`` that all points lie inside, and that the locality suffices.

    Returns:
        values, longest runs and bound.

    Raises:
        ValueError: shapes that do not agree, or a locality that makes no sense.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> points, mask = jnp.array([[0], [1], [8]]), jnp.ones(3, bool)
        >>> tuples = [[0.5], [8.0]], [[1.0], [1.0]], [2.0, 3.0]
        >>> near = ops.Locality(radius=2, capacities=(4,), tolerance=None)
        >>> ops.mix_nearby(points, mask, *tuples, shape=(9,), locality=near).values.tolist()
        [1.0, 1.0, 3.0]
    """
    shape = checks.check_index_shape("shape", shape)
    tuples = enter_tuples((means, variances, values))
    checks.check_last_axis("means", tuples.means, len(shape))
    points = enter_points(points, len(shape))
    mask = enter_mask(mask, points)
    check_instance("locality", locality, Locality)
    if checks.check_flag("debug", debug):
        check_in_range(points, shape)
    points, inside = clip_inside(points, shape)
    nearby = mix_what_is_seen(points, mask & inside, tuples, shape, locality)
    if debug:
        check_nearby(nearby, locality)
    return nearby


def mix_what_is_seen(
    points: jax.Array,
    mask: jax.Array,
    tuples: ContinuousTuples,
    shape: tuple[int, ...],
    locality: Locality,
) -> Nearby:
    """Do what :func:`mix_nearby` says, without checks."""
    dtype = tuples.means.dtype
    points, mask, *_ = spread_alike(points, mask, *tuples)
    sight = look_around(points, mask, tuples, shape, locality)
    views = _Views(tuples, sight.origins.astype(dtype), sight.runs)
    # With fewer tuples than capacities, the largest of these: no part is empty.
    capacities = locality.capacities[-max(1, tuples.values.shape[0]) :]
    capacities = [max(1, min(capacity, points.shape[0])) for capacity in capacities]
    # Behind the last point stand as many as a run may reach beyond it.
    fill = (0, capacities[-1])
    places = [jnp.pad(axis[sight.order], fill) for axis in coordinates(points, tuples.means)]
    total, longest = _add_parts(places, views, capacities)
    count = points.shape[0]
    mixed = jnp.zeros(count, dtype).at[sight.order].set(total[:count], unique_indices=True)
    neglected = _bound(jnp.sum(mask), tuples.variances, sight)
    accepted = jnp.all(longest <= jnp.asarray(capacities))
    if locality.tolerance is not None:
        accepted &= neglected <= locality.tolerance
    # A factor, not a choice: the gradient has to be NaN as well.
    return Nearby(mixed * jnp.where(accepted, 1.0, jnp.nan).astype(dtype), longest, neglected)


def check_nearby(nearby: Nearby, locality: Locality) -> None:
    """Check by ``checkify`` that no run is too long and no tuple misses too much.

    Args:
        nearby: from :func:`mix_nearby`.
        locality: the one that was used.
    """
    capacities = [min(capacity, LAST_KEY) for capacity in locality.capacities]
    checkify.check(
        jnp.all(nearby.longest_runs <= jnp.asarray(capacities[-len(nearby.longest_runs) :])),
        "found runs of up to {longest} points; expected at most the capacities "
        + f"{locality.capacities}; raise them, or fit the locality again",
        longest=nearby.longest_runs,
    )
    if locality.tolerance is not None:
        checkify.check(
            nearby.neglected <= locality.tolerance,
            "found a tuple of which the share {share} may lie beyond its radius; expected at most "
            + f"{locality.tolerance}; raise the radius or the tolerance",
            share=nearby.neglected,
        )


def _add_parts(
    places: list[jax.Array], views: _Views, capacities: list[int]
) -> tuple[jax.Array, jax.Array]:
    """Mix the tuples part by part: values of the sorted points, and the longest run of each."""
    total, longest = jnp.zeros(len(places[0]), views.origins.dtype), []
    parts = cut_by_length(views.runs, len(capacities))
    for part, capacity in zip(parts, capacities, strict=True):
        chosen = jax.tree.map(lambda leaf, part=part: leaf[part], views)
        total = _add_part(total, places, chosen, capacity)
        longest.append(jnp.max(chosen.runs.lengths, initial=0))
    return total, jnp.stack(longest)


def _add_part(total: jax.Array, places: list[jax.Array], views: _Views, capacity: int) -> jax.Array:
    def share(block: _Views) -> tuple[jax.Array, jax.Array]:
        return block.runs.starts, _share_nearby(places, block, capacity)

    columns = views.runs.starts.shape[1] * capacity
    block_size = largest_block(BLOCK_CELLS, columns)
    return sum_over_blocks(share, _add_windows, total, views, block_size)


def _share_nearby(sorted_places: list[jax.Array], views: _Views, capacity: int) -> jax.Array:
    """Share out a block of tuples: ``(k, runs, capacity)``."""
    starts, lengths = views.runs
    flat = (len(starts), starts.shape[1] * capacity)
    places = [_windows(place, starts, capacity).reshape(flat) for place in sorted_places]
    seen = (jnp.arange(capacity)[None, None] < lengths[..., None]).reshape(flat)
    # A tuple that sees nothing, such as one that fills up a block, would divide 0 by 0.
    mask = seen | ~jnp.any(seen, axis=1, keepdims=True)
    shared = share_among(places, mask, views.tuples, views.origins, density="gaussian")
    return jnp.where(seen, shared, 0.0).reshape(*starts.shape, capacity)


def _windows(array: jax.Array, starts: jax.Array, length: int) -> jax.Array:
    """Give ``length`` consecutive numbers from every start on: ``(*starts.shape, length)``."""
    numbers = jax.lax.GatherDimensionNumbers(
        offset_dims=(starts.ndim,), collapsed_slice_dims=(), start_index_map=(0,)
    )
    return jax.lax.gather(
        array, starts[..., None], numbers, slice_sizes=(length,), mode="promise_in_bounds"
    )


def _add_windows(total: jax.Array, windows: tuple[jax.Array, jax.Array]) -> jax.Array:
    starts, numbers = windows
    dimensions = jax.lax.ScatterDimensionNumbers(
        update_window_dims=(starts.ndim,),
        inserted_window_dims=(),
        scatter_dims_to_operand_dims=(0,),
    )
    return jax.lax.scatter_add(
        total, starts[..., None], numbers, dimensions, mode="promise_in_bounds"
    )


def _bound(kept: jax.Array, variances: jax.Array, sight: Sight) -> jax.Array:
    """Bound the share of any tuple that lies where it does not look."""
    widest = jnp.maximum(jnp.max(jax.lax.stop_gradient(variances), axis=1), LEAST_VARIANCE)
    # The reach is the least distance on any axis: a radius in cells on the others.
    reach = sight.reach.astype(widest.dtype)
    density = jnp.exp(-0.5 * reach * (reach + 1) / widest)
    seen = jnp.sum(sight.runs.lengths, axis=1)
    unseen = (kept - seen).astype(density.dtype)
    missed = jnp.where((seen == 0) & (kept > 0), jnp.inf, unseen * density)
    return jnp.max(missed, initial=0.0)
