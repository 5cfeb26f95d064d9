"""Mixing for very many tuples: each one sees the points around its mean only.

A Gaussian is next to zero far away. Kept points are put in order of strips of the index space and,
within a strip, of their last coordinate. What lies around a mean is then a few runs of consecutive
points, which a binary search finds::

    axis 0                       radius
      strip 1    . .  .|. ... . .|  .        one run per strip: its own and the two beside it,
      strip 2  .  ..   |. . O  ..|   . .     from the radius before the mean to the radius
      strip 3    .   . | ...  .  |  .        after it on the last axis
                         last axis ->

Strips are at least as wide as the radius, so whatever is not seen lies farther away than that on
some axis. No grid is held, so the number of cells costs nothing.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from sparse_hyper_jax import checks
from sparse_hyper_jax.ops.blocks import sum_over_blocks
from sparse_hyper_jax.ops.densities import check_points, share_among
from sparse_hyper_jax.ops.duplicates import first_occurrence, flat_index
from sparse_hyper_jax.ops.sample import round_means, sample_tuples
from sparse_hyper_jax.precision import at_least_float32
from sparse_hyper_jax.types import LEAST_VARIANCE, ContinuousTuples

BLOCK_CELLS = 2**18
"""Cells of the table of shares that is held at once by default."""

LAST_KEY = 2**31 - 1


@dataclass(frozen=True)
class Locality:
    """How far tuples see; a static fact, for instance from :func:`fit_locality`.

    Attributes:
        radius: cells on either side of the nearest one, on every axis; at least 1.
        capacities: points per run that are looked at. With several numbers, in ascending order,
            tuples are put in order of their longest run and cut into as many equal parts.
        tolerance: largest share of a tuple's value that may be missing, as far as can be told
            without looking; None accepts any. Narrow tuples see less far on the last axis, as far
            as the tolerance allows.
    """

    radius: int
    capacities: tuple[int, ...]
    tolerance: float | None = 1e-3


class Nearby(NamedTuple):
    """Mixed values, and how good they are.

    Attributes:
        values: ``(P,)``, all NaN if a run is longer than its capacity or a tuple may miss more than
            the tolerance.
        longest_runs: int32, the capacities that these tuples need, in the order of the capacities;
            with fewer tuples than these, of the last ones.
        neglected: scalar, a bound on the share of any tuple that lies beyond its radius; infinite
            if one sees no point at all.
    """

    values: jax.Array
    longest_runs: jax.Array
    neglected: jax.Array


class _Runs(NamedTuple):
    """Where in the sorted points each tuple's runs begin, and their lengths: both ``(k, runs)``."""

    starts: jax.Array
    lengths: jax.Array


def mix_nearby(
    points: jax.Array,
    mask: jax.Array,
    means: jax.Array,
    variances: jax.Array,
    values: jax.Array,
    *,
    shape: Sequence[int],
    locality: Locality,
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
        points: int ``(P, r)``, inside ``shape``.
        mask: bool ``(P,)``, the kept mask.
        means: ``(k, r)`` in index units.
        variances: ``(k, r)`` in squared index units.
        values: ``(k,)``.
        shape: the ``r`` lengths of the index space.
        locality: radius, capacity and tolerance.

    Returns:
        values, longest runs and bound.

    Raises:
        ValueError: shapes that do not agree, or a locality that makes no sense.
    """
    shape = checks.check_index_shape("shape", shape)
    checks.check_tuples(means, variances, values)
    checks.check_shape("mask", mask, (len(points),), "one flag per point")
    _check_locality(locality)
    tuples = tuple(map(at_least_float32, (means, variances, values)))
    dtype = jnp.result_type(*tuples)
    tuples = tuple(part.astype(dtype) for part in tuples)
    places = check_points(points, means, variances, "gaussian")
    keys, order = _sort(points, mask, shape, locality.radius)
    origins = round_means(means, shape)
    reach = _reach(tuples[1], len(points), shape, locality)
    runs = _find_runs(keys, origins, reach, shape, locality.radius)
    # With fewer tuples than capacities, the largest of these: no part is empty.
    capacities = locality.capacities[-max(1, len(origins)) :]
    capacities = [max(1, min(capacity, len(points))) for capacity in capacities]
    parts = _parts(runs, len(capacities))
    # Behind the last point stand as many as a run may reach beyond it.
    fill = (0, capacities[-1])
    places = [jnp.pad(place[order], fill) for place in places]
    total = jnp.zeros(len(points) + capacities[-1], dtype)
    arrays = (tuples, origins.astype(dtype), runs)
    longest = []
    for part, capacity in zip(parts, capacities, strict=True):
        chosen = jax.tree.map(lambda leaf, part=part: leaf[part], arrays)
        total = _add_part(total, places, chosen, capacity)
        longest.append(jnp.max(chosen[2].lengths, initial=0))
    mixed = jnp.zeros(len(points), total.dtype)
    mixed = mixed.at[order].set(total[: len(points)], unique_indices=True)
    longest = jnp.stack(longest)
    neglected = _bound(jnp.sum(mask), tuples[1], runs, reach)
    accepted = jnp.all(longest <= jnp.asarray(capacities))
    if locality.tolerance is not None:
        accepted &= neglected <= locality.tolerance
    # A factor, not a choice: the gradient has to be NaN as well.
    return Nearby(mixed * jnp.where(accepted, 1.0, jnp.nan).astype(dtype), longest, neglected)


def fit_locality(
    key: jax.Array | None,
    tuples: ContinuousTuples,
    shape: Sequence[int],
    *,
    tolerance: float = 1e-3,
    slack: float = 1.5,
    num_parts: int = 8,
    num_global: int = 0,
    num_local: int = 0,
    region: Sequence[int] | None = None,
) -> Locality:
    """Choose radius and capacities for tuples as they are now; not for use under ``jit``.

    The radius is the least for which the widest tuple keeps to the tolerance, the capacities are
    ``slack`` times the longest runs in a sample. Tuples that move together make longer runs, and
    narrower ones need less radius: fit again now and then in training, which compiles anew.

    Args:
        key: a typed key, for sampling.
        tuples: ``k`` continuous tuples of rank ``r`` that share their points: those of a chunk, if
            there are chunks.
        shape: the ``r`` lengths of the index space; of the learned axes, if there is a template.
        tolerance: see :class:`Locality`.
        slack: room for longer runs.
        num_parts: number of capacities; at most one per tuple.
        num_global: see :func:`sample_tuples`.
        num_local: see there.
        region: see there.

    Returns:
        radius, capacities, tolerance.

    Raises:
        ValueError: a number that makes no sense, or as :func:`sample_tuples`.
    """
    shape = checks.check_index_shape("shape", shape)
    for name, number, least in (("tolerance", tolerance, 0), ("slack", slack, 1)):
        checks.require(
            math.isfinite(number) and number >= least and number > 0,
            f"{name}={number}",
            f"a positive number of at least {least}",
            f"raise {name}",
        )
    checks.check_count("num_parts", num_parts, least=1)
    points = sample_tuples(
        key, tuples.means, shape, num_global=num_global, num_local=num_local, region=region
    )
    points = jax.lax.collapse(points, 0, 2)
    widest = jnp.max(at_least_float32(tuples.variances), keepdims=True)
    checks.require(
        bool(jnp.isfinite(widest).all()),
        f"a largest variance of {float(widest.max())}",
        "finite variances",
        "bound them with bound_variances, and look for the step that spoilt them",
    )
    farthest = Locality(max(shape), (1,), tolerance)
    radius = int(_reach(widest.reshape(1, 1), len(points), shape, farthest)[0])
    locality = Locality(radius, (1,) * min(num_parts, len(tuples.means)), tolerance)
    mask = first_occurrence(points, shape)
    longest = mix_nearby(points, mask, *tuples, shape=shape, locality=locality).longest_runs
    capacities = [min(max(1, math.ceil(slack * int(run))), len(points)) for run in longest]
    return Locality(radius, tuple(capacities), tolerance)


def check_nearby(nearby: Nearby, locality: Locality) -> None:
    """Check by ``checkify`` that no run is too long and no tuple misses too much."""
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


def _strips(shape: tuple[int, ...], radius: int) -> tuple[list[int], list[int]]:
    """Choose how wide strips are on all axes but the last, and count them."""
    widths = [min(radius, size) for size in shape[:-1]]
    counts = [-(-size // width) for size, width in zip(shape[:-1], widths, strict=True)]
    # Wider strips cost time but no exactness; with these, strip and last coordinate fit one int32.
    while math.prod(counts) * shape[-1] > LAST_KEY:
        axis = int(np.argmax(counts))
        widths[axis] = min(2 * widths[axis], shape[axis])
        counts[axis] = -(-shape[axis] // widths[axis])
    return widths, counts


def _sort(
    points: jax.Array, mask: jax.Array, shape: tuple[int, ...], radius: int
) -> tuple[jax.Array, jax.Array]:
    """Sort points by strip and last coordinate, dropped ones last; give keys and numbers."""
    widths, counts = _strips(shape, radius)
    strips = flat_index(points[:, :-1] // jnp.asarray(widths, jnp.int32), counts)
    keys = jnp.where(mask, strips * shape[-1] + points[:, -1], LAST_KEY)
    numbers = jnp.arange(len(points), dtype=jnp.int32)
    return jax.lax.sort((keys, numbers), num_keys=1)


def _reach(
    variances: jax.Array, num_points: int, shape: tuple[int, ...], locality: Locality
) -> jax.Array:
    """Give how far every tuple sees on the last axis: int32 ``(k,)``, at most the radius."""
    radius = min(locality.radius, max(shape))
    if not locality.tolerance:
        return jnp.full(len(variances), radius, jnp.int32)
    widest = jnp.maximum(jnp.max(jax.lax.stop_gradient(variances), axis=1), LEAST_VARIANCE)
    log_ratio = max(0.0, math.log(max(1, num_points) / locality.tolerance))
    enough = jnp.ceil(jnp.sqrt(2 * widest * log_ratio))
    # Compared as integers: as a float a radius near 2**31 would be that, which no int32 is.
    return jnp.clip(jnp.minimum(enough, 2.0**30).astype(jnp.int32), 1, radius)


def _find_runs(
    keys: jax.Array, origins: jax.Array, reach: jax.Array, shape: tuple[int, ...], radius: int
) -> _Runs:
    widths, counts = _strips(shape, radius)
    own = origins[:, :-1] // jnp.asarray(widths, jnp.int32)
    last, end = origins[:, -1], shape[-1] - 1
    # In an order that cannot overflow.
    low, high = jnp.maximum(last, reach) - reach, jnp.minimum(last, end - reach) + reach
    starts, lengths = [], []
    # Of up to three strips all are looked at, otherwise the own one and its neighbours.
    few = [count <= 3 for count in counts]
    choices = [range(count) if count <= 3 else (-1, 0, 1) for count in counts]
    for choice in itertools.product(*choices):
        strips = jnp.where(jnp.asarray(few, bool), 0, own) + jnp.asarray(choice, jnp.int32)
        inside = jnp.all((strips >= 0) & (strips < jnp.asarray(counts, jnp.int32)), axis=1)
        first = flat_index(strips, counts) * shape[-1]
        start = jnp.searchsorted(keys, first + low, side="left")
        stop = jnp.searchsorted(keys, first + high, side="right")
        starts.append(jnp.where(inside, start, 0))
        lengths.append(jnp.where(inside, stop - start, 0))
    return _Runs(jnp.stack(starts, axis=1), jnp.stack(lengths, axis=1))


def _parts(runs: _Runs, count: int) -> list[jax.Array]:
    """Cut the tuples, in order of their longest run, into equal parts: their numbers."""
    if count == 1:
        return [jnp.arange(len(runs.lengths))]
    order = jnp.argsort(jnp.max(runs.lengths, axis=1))
    bounds = [len(order) * part // count for part in range(count + 1)]
    return [order[first:stop] for first, stop in itertools.pairwise(bounds)]


def _add_part(total: jax.Array, places: list[jax.Array], arrays: Any, capacity: int) -> jax.Array:
    def share(block: Any) -> tuple[jax.Array, jax.Array]:
        tuples, origins, runs = block
        return runs.starts, _share_nearby(places, tuples, origins, runs, capacity)

    columns = arrays[2].starts.shape[1] * capacity
    block_size = 1 << max(1, BLOCK_CELLS // columns).bit_length() - 1
    return sum_over_blocks(share, _add_windows, total, arrays, block_size)


def _share_nearby(
    sorted_places: list[jax.Array],
    tuples: tuple[jax.Array, jax.Array, jax.Array],
    origins: jax.Array,
    runs: _Runs,
    capacity: int,
) -> jax.Array:
    """Share out a block of tuples: ``(k, runs, capacity)``."""
    flat = (len(origins), runs.starts.shape[1] * capacity)
    places = [_windows(place, runs.starts, capacity).reshape(flat) for place in sorted_places]
    seen = (jnp.arange(capacity) < runs.lengths[..., None]).reshape(flat)
    # A tuple that sees nothing, such as one that fills up a block, would divide 0 by 0.
    mask = seen | ~jnp.any(seen, axis=1, keepdims=True)
    shared = share_among(places, mask, tuples, origins, density="gaussian")
    return jnp.where(seen, shared, 0.0).reshape(*runs.starts.shape, capacity)


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


def _bound(kept: jax.Array, variances: jax.Array, runs: _Runs, reach: jax.Array) -> jax.Array:
    widest = jnp.maximum(jnp.max(jax.lax.stop_gradient(variances), axis=1), LEAST_VARIANCE)
    # The reach is the least distance on any axis: a radius in cells on the others.
    density = jnp.exp(-0.5 * reach * (reach + 1.0) / widest)
    seen = jnp.sum(runs.lengths, axis=1)
    missed = jnp.where((seen == 0) & (kept > 0), jnp.inf, (kept - seen) * density)
    return jnp.max(missed, initial=0.0)


def _check_locality(locality: Locality) -> None:
    checks.check_count("radius", locality.radius, least=1)
    checks.require(
        isinstance(locality.capacities, tuple)
        and len(locality.capacities) >= 1
        and list(locality.capacities) == sorted(locality.capacities),
        f"capacities={locality.capacities!r}",
        "a tuple of at least one number, in ascending order",
        "take it from fit_locality, or put one capacity into a tuple",
    )
    for capacity in locality.capacities:
        checks.check_count("capacity", capacity, least=1)
    checks.require(
        locality.tolerance is None or locality.tolerance >= 0,
        f"tolerance={locality.tolerance}",
        "a share of at least 0, or None",
        "raise the tolerance",
    )
