"""Where to look: for every tuple, the points around its mean, found without a table.

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
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from sparse_hyper_jax import checks
from sparse_hyper_jax.ops.counts import check_counts
from sparse_hyper_jax.ops.device_axes import spread_alike, vary_alike
from sparse_hyper_jax.ops.duplicates import flat_index, mark_first
from sparse_hyper_jax.ops.entrance import enter_tuples
from sparse_hyper_jax.ops.inside import is_inside
from sparse_hyper_jax.ops.own_draws import GlobalFrom
from sparse_hyper_jax.ops.sample import draw_tuples, nearest_cells
from sparse_hyper_jax.types import LEAST_VARIANCE, ContinuousTuples

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

    Raises:
        ValueError: a radius or capacity below 1, capacities out of order, or a negative tolerance.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> means, variances = jnp.array([[3.0], [9.5]]), jnp.full((2, 1), 0.1)
        >>> tuples = ops.ContinuousTuples(means, variances, values=jnp.ones(2))
        >>> locality = ops.Locality(radius=2, capacities=(4, 16), tolerance=1e-3)
        >>> print(np.asarray(ops.relax(None, tuples, (16,), locality=locality).values).round(2))
        [0.99 0.01 0.5  0.5 ]
    """

    radius: int
    capacities: tuple[int, ...]
    tolerance: float | None = 1e-3

    def __post_init__(self):
        radius = checks.check_count("radius", self.radius, least=1)
        checks.require(
            isinstance(self.capacities, tuple | list) and len(self.capacities) >= 1,
            f"capacities={self.capacities!r}",
            "a tuple of at least one number, in ascending order",
            "take it from fit_locality, or put one capacity into a tuple",
        )
        capacities = [checks.check_count("capacity", count, least=1) for count in self.capacities]
        checks.require(
            capacities == sorted(capacities),
            f"capacities={self.capacities!r}",
            "a tuple of at least one number, in ascending order",
            "sort them",
        )
        if self.tolerance is not None:
            _check_static("tolerance", self.tolerance, at_least=0)
        # Python numbers, whatever counted them, so that equal localities have equal hashes.
        object.__setattr__(self, "radius", radius)
        object.__setattr__(self, "capacities", tuple(capacities))


class Runs(NamedTuple):
    """Where in the sorted points each tuple's runs begin, and how many points each has.

    Attributes:
        starts: int32 ``(k, runs)``.
        lengths: int32 ``(k, runs)``.
    """

    starts: jax.Array
    lengths: jax.Array


class Sight(NamedTuple):
    """What every tuple sees.

    Attributes:
        order: int32 ``(P,)``: numbers of the points, in the order in which runs count them.
        origins: int32 ``(k, r)``: the nearest cell of every tuple.
        reach: int32 ``(k,)``: how far it sees on the last axis, at most the radius.
        runs: runs of the sorted points.
    """

    order: jax.Array
    origins: jax.Array
    reach: jax.Array
    runs: Runs


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
    global_from: GlobalFrom = "uniform",
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
        global_from: see there.

    Returns:
        radius, capacities, tolerance.

    Raises:
        ValueError: a number that makes no sense, or as :func:`sample_tuples`.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> means = jnp.arange(0.0, 1000.0, 10.0)[:, None]
        >>> tuples = ops.ContinuousTuples(means, jnp.full((100, 1), 0.25), jnp.ones(100))
        >>> locality = ops.fit_locality(jax.random.key(0), tuples, (1000,), num_parts=1)
        >>> locality.radius, locality.tolerance
        (3, 0.001)
    """
    shape = checks.check_index_shape("shape", shape)
    _check_static("tolerance", tolerance, above=0)
    _check_static("slack", slack, at_least=1)
    num_parts = checks.check_count("num_parts", num_parts, least=1)
    tuples = enter_tuples(tuples)
    checks.require(
        not any(isinstance(part, Tracer) for part in tuples),
        "traced tuples",
        "numbers: a locality is a static fact",
        "call fit_locality outside of jax.jit",
    )
    checks.check_shape("means", tuples.means, (None, len(shape)), "(k, r): one row per tuple")
    counts = check_counts(key, shape, num_global, num_local, region, global_from=global_from)
    points = draw_tuples(key, tuples.means, tuples.variances, shape, counts, wrap=False)
    points = jax.lax.collapse(points, 0, 2)
    farthest = Locality(max(shape), (1,), tolerance)
    widest = _widest_variance(tuples)
    radius = int(_reach(widest.reshape(1, 1), len(points), shape, farthest)[0])
    near = Locality(radius, (1,), tolerance)
    sight = look_around(points, mark_first(points, shape), tuples, shape, near)
    parts = cut_by_length(sight.runs, min(num_parts, len(tuples.means)))
    longest = [int(jnp.max(sight.runs.lengths[part])) for part in parts]
    capacities = [min(max(1, math.ceil(slack * run)), len(points)) for run in longest]
    return Locality(radius, tuple(capacities), tolerance)


def look_around(
    points: jax.Array,
    mask: jax.Array,
    tuples: ContinuousTuples,
    shape: tuple[int, ...],
    locality: Locality,
) -> Sight:
    """Find the runs of points around every tuple.

    Args:
        points: int32 ``(P, r)``, inside ``shape``.
        mask: bool ``(P,)``, the kept mask.
        tuples: ``k`` tuples of rank ``r``, float32 or wider.
        shape: the ``r`` lengths of the index space.
        locality: radius and tolerance.

    Returns:
        what every tuple sees.
    """
    keys, order = _sort(points, mask, shape, locality.radius)
    origins = nearest_cells(tuples.means, shape, wrap=False)
    reach = _reach(tuples.variances, points.shape[0], shape, locality)
    return Sight(order, origins, reach, _find_runs(keys, origins, reach, shape, locality.radius))


def cut_by_length(runs: Runs, count: int) -> list[jax.Array]:
    """Cut the tuples, in order of their longest run, into equal parts: their numbers."""
    if count == 1:
        return [jnp.arange(runs.lengths.shape[0])]
    order = jnp.argsort(jnp.max(runs.lengths, axis=1))
    bounds = [order.shape[0] * part // count for part in range(count + 1)]
    return [order[first:stop] for first, stop in itertools.pairwise(bounds)]


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
    strips = flat_index(points[:, :-1] // jnp.asarray(widths, jnp.int32)[None], counts)
    keys = jnp.where(mask, strips * shape[-1] + points[:, -1], LAST_KEY)
    numbers = jnp.arange(points.shape[0], dtype=jnp.int32)
    keys, order = jax.lax.sort((keys, numbers), num_keys=1)
    return keys, order


def _reach(
    variances: jax.Array, num_points: int, shape: tuple[int, ...], locality: Locality
) -> jax.Array:
    """Give how far every tuple sees on the last axis: int32 ``(k,)``, at most the radius."""
    radius = min(locality.radius, max(shape))
    if not locality.tolerance:
        return jnp.full(variances.shape[0], radius, jnp.int32)
    widest = jnp.maximum(jnp.max(jax.lax.stop_gradient(variances), axis=1), LEAST_VARIANCE)
    log_ratio = max(0.0, math.log(max(1, num_points) / locality.tolerance))
    enough = jnp.ceil(jnp.sqrt(2 * widest * log_ratio))
    # Compared as integers: as a float a radius near 2**31 would be that, which no int32 is.
    return jnp.clip(jnp.minimum(enough, 2.0**30).astype(jnp.int32), 1, radius)


def _find_runs(
    keys: jax.Array, origins: jax.Array, reach: jax.Array, shape: tuple[int, ...], radius: int
) -> Runs:
    widths, counts = _strips(shape, radius)
    own = origins[:, :-1] // jnp.asarray(widths, jnp.int32)[None]
    last, end = origins[:, -1], shape[-1] - 1
    # In an order that cannot overflow.
    low, high = jnp.maximum(last, reach) - reach, jnp.minimum(last, end - reach) + reach
    # Of up to three strips all are looked at, otherwise the own one and its neighbours.
    few = jnp.asarray([count <= 3 for count in counts], bool)[None]
    choices = [range(count) if count <= 3 else (-1, 0, 1) for count in counts]
    insides, ends = [], []
    for choice in itertools.product(*choices):
        strips = jnp.where(few, 0, own) + jnp.asarray(choice, jnp.int32)[None]
        insides.append(is_inside(strips, counts))
        first = flat_index(strips, counts) * shape[-1]
        ends += [first + low, first + high + 1]
    starts, stops = (
        jnp.moveaxis(_count_below(keys, jnp.stack(ends)), 0, 1)
        .reshape(-1, len(insides), 2)
        .transpose(2, 0, 1)
    )
    inside = jnp.stack(insides, axis=1)
    return Runs(jnp.where(inside, starts, 0), jnp.where(inside, stops - starts, 0))


def _count_below(keys: jax.Array, limits: jax.Array) -> jax.Array:
    """Count the sorted keys below each limit, by halving; at least one key.

    ``jnp.searchsorted`` does not run on a mesh of ``Explicit`` axes.
    """

    def halve(_: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low + high) // 2
        below = keys.at[middle].get(mode="promise_in_bounds") < limits
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    count = keys.shape[0]
    ends = jnp.zeros(limits.shape, jnp.int32), jnp.full(limits.shape, count, jnp.int32)
    low, high, *_ = spread_alike(*vary_alike(*ends, keys, limits))
    return jax.lax.fori_loop(0, count.bit_length(), halve, (low, high))[1]


def _widest_variance(tuples: ContinuousTuples) -> jax.Array:
    widest = jnp.max(tuples.variances)
    checks.require(
        bool(jnp.isfinite(widest)),
        f"a largest variance of {float(widest)}",
        "finite variances",
        "bound them with bound_variances, and look for the step that spoilt them",
    )
    return widest


def _check_static(name: str, number: float, **limits: float) -> None:
    """Raise unless this is one finite number that is known while tracing."""
    checks.check_number(name, number, at_most=sys.float_info.max, **limits)
    checks.require(
        not isinstance(number, jax.Array),
        f"{name}={number!r}",
        "a number of Python or NumPy, which is known while tracing",
        f"pass {name} as a float",
    )
