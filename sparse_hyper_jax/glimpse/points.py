"""Places of a window's pixels to the pixels of the image among which each of them is shared."""

import functools
import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypedDict, get_args

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import check_random_key
from sparse_hyper_jax.ops.own_draws import GLOBAL_FROM, GlobalFrom, own_places

Draws = Literal["glimpse", "pixel"]
DRAWS = get_args(Draws)
"""Points of a window are drawn once for all of its pixels, or for each pixel anew.

Example:
    >>> from sparse_hyper_jax import glimpse
    >>> glimpse.DRAWS
    ('glimpse', 'pixel')
"""

LONGEST_SIDE = 2**15
USUAL_SIDE = 8


class Point(NamedTuple):
    """One integer tuple for each of ``n`` output pixels; length 1 stands for all pixels.

    Attributes:
        cells: one int32 ``(n,)`` or ``(1,)`` for each axis of the image.
        kept: bool, likewise: false where the pixel has the same point already.
    """

    cells: tuple[jax.Array, ...]
    kept: jax.Array


def draw_points(
    key: jax.Array | None,
    places: Sequence[jax.Array],
    shape: Sequence[int],
    *,
    num_global: int,
    num_local: int,
    region: Sequence[int],
    draws: Draws,
    global_from: GlobalFrom = "uniform",
    variances: Sequence[jax.Array] = (),
) -> list[Point]:
    """Draw the integer tuples of every pixel of a window.

    As :func:`~sparse_hyper_jax.ops.sample_tuples`: the neighbours; local points in a region about
    the pixel, shifted inside at the edges; global points. One random word of 32 bits makes two
    coordinates: each is ``S * half / 2**16``, rounded down, so that cells are equally likely up to
    a relative ``S / 2**16`` (0.2 % on 100 pixels).

    Points stay apart, each as small as it can be, and repetitions are found by comparing pairs:
    for a handful of points that is faster than sorting, and than any array with an axis of points.

    Args:
        key: a typed key; may be None without global and local points.
        places: one ``(n,)`` for each of ``r`` axes, in index units, inside the image.
        shape: the lengths of these axes.
        num_global: points drawn from the whole image.
        num_local: points drawn from the region.
        region: its lengths; longer than the image means the whole image.
        draws: ``"pixel"``: every pixel has draws of its own. ``"glimpse"``: all have the same
            global points, and local points at the same offsets; points by density come from the
            same uniform numbers.
        global_from: see :func:`~sparse_hyper_jax.ops.sample_tuples`.
        variances: like ``places``; for points by density alone.

    Returns:
        ``2**r + num_local + num_global`` points.
    """
    count = places[0].shape[0] if draws == "pixel" else 1
    global_key, local_key = (None, None) if key is None else jax.random.split(key)
    points = _neighbours(places, shape)
    known = list(zip(points[0].cells, points[-1].cells, strict=True))
    # A region longer than an axis is the whole axis.
    sides = [min(pair) for pair in zip(region, shape, strict=True)]
    first = [
        cell_of(jnp.round(mean - (side - 1) / 2), size - side + 1)
        for mean, size, side in zip(places, shape, sides, strict=True)
    ]
    codes: list[jax.Array] = []
    for steps in _draw(local_key, num_local, count, sides):
        code = flat_cell(steps, sides)
        cells = tuple(start + step for start, step in zip(first, steps, strict=True))
        repeated = _any([code == earlier for earlier in codes]) | _is_neighbour(cells, known)
        points.append(Point(cells, ~repeated))
        codes.append(code)
    flats: list[jax.Array] = []
    if global_from == "density":
        drawn = _draw_near(global_key, (num_global, count), places, variances, shape)
    else:
        drawn = _draw(global_key, num_global, count, shape)
    for cells in drawn:
        flat = flat_cell(cells, shape)
        steps = [cell - start for cell, start in zip(cells, first, strict=True)]
        limits = [(step >= 0) & (step < side) for step, side in zip(steps, sides, strict=True)]
        inside = functools.reduce(jnp.logical_and, limits)
        code = jnp.where(inside, flat_cell(steps, sides), -1)
        repeated = _any([code == local for local in codes] + [flat == earlier for earlier in flats])
        points.append(Point(cells, ~(repeated | _is_neighbour(cells, known))))
        flats.append(flat)
    return points


def flat_cell(cells: Sequence[jax.Array], shape: Sequence[int]) -> jax.Array:
    """Number the cells of a box, the last axis fastest."""
    return functools.reduce(
        lambda flat, axis: flat * axis[1] + axis[0],
        zip(cells[1:], shape[1:], strict=True),
        cells[0],
    )


def _neighbours(places: Sequence[jax.Array], shape: Sequence[int]) -> list[Point]:
    """Give the corners of the cell about each place, the lowest first and the highest last."""
    lows = [cell_of(jnp.floor(mean), size) for mean, size in zip(places, shape, strict=True)]
    highs = [jnp.minimum(low + 1, size - 1) for low, size in zip(lows, shape, strict=True)]
    # At the far edges floor and floor + 1 coincide.
    apart = [high > low for low, high in zip(lows, highs, strict=True)]
    points = []
    for above in itertools.product((False, True), repeat=len(shape)):
        ends = zip(above, lows, highs, strict=True)
        kept = [flag for flag, up in zip(apart, above, strict=True) if up]
        points.append(
            Point(
                tuple(high if up else low for up, low, high in ends),
                functools.reduce(jnp.logical_and, kept) if kept else jnp.ones_like(apart[0]),
            )
        )
    return points


def _is_neighbour(
    cells: Sequence[jax.Array], known: Sequence[tuple[jax.Array, jax.Array]]
) -> jax.Array:
    ends = zip(cells, known, strict=True)
    return functools.reduce(
        jnp.logical_and, [(cell == low) | (cell == high) for cell, (low, high) in ends]
    )


def _any(flags: list[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.logical_or, flags, jnp.zeros(1, bool))


class PointOptions(TypedDict):
    """How points are drawn, see :func:`draw_points`."""

    num_global: int
    num_local: int
    region: tuple[int, ...]
    draws: Draws
    global_from: GlobalFrom


def check_options(
    shape: Sequence[int],
    *,
    num_global: int,
    num_local: int,
    region: Sequence[int] | None,
    draws: Draws,
    global_from: GlobalFrom = "uniform",
) -> PointOptions:
    """Return the options in plain ints, or raise if points cannot be drawn so.

    Raises:
        ValueError: an image side out of range, a negative count, an unknown way to draw, or a
            wrong region.
    """
    checks.require(
        len(shape) == 1 or max(shape) < LONGEST_SIDE,
        f"an image of {' x '.join(map(str, shape))} pixels",
        f"sides below {LONGEST_SIDE}",
        "cut the image into tiles",
    )
    checks.check_flat_size("an image of shape", shape)
    checks.check_choice("draws", draws, DRAWS)
    checks.check_choice("global_from", global_from, GLOBAL_FROM)
    default = (USUAL_SIDE,) * len(shape)
    region = checks.check_index_shape("region", default if region is None else region)
    number = ("one length", "two lengths", "three lengths")[len(shape) - 1]
    checks.require(
        len(region) == len(shape),
        f"region={region}",
        f"({', '.join(('depth', 'height', 'width')[-len(shape) :])})",
        f"pass {number}, as {default}",
    )
    return {
        "num_global": checks.check_count("num_global", num_global),
        "num_local": checks.check_count("num_local", num_local),
        "region": region,
        "draws": draws,
        "global_from": global_from,
    }


def check_key(key: jax.Array | None, options: PointOptions) -> None:
    """Raise unless there is a key for the points that are random, or none and no such point.

    Raises:
        ValueError: no key although points are random, or something else as key.
    """
    num_global, num_local = options["num_global"], options["num_local"]
    checks.require(
        key is not None or not (num_global or num_local),
        f"key=None with num_global={num_global} and num_local={num_local}",
        "a key, because global and local points are random",
        "pass jax.random.key(seed), or set both counts to 0",
    )
    if key is not None:
        check_random_key(key)


def _draw(
    key: jax.Array | None, number: int, count: int, sides: Sequence[int]
) -> list[tuple[jax.Array, ...]]:
    """Draw ``number`` cells of a box, each one ``(count,)`` per axis."""
    if key is None or not number:
        return []
    if len(sides) == 1:  # a signal may be longer than half a word can tell
        cells = jax.random.randint(key, (number, count), 0, sides[0], jnp.int32)
        return [(one,) for one in cells]
    pairs = (len(sides) + 1) // 2
    keys = [key] if pairs == 1 else jax.random.split(key, pairs)
    words = [jax.random.bits(one, (number, count), jnp.uint32) for one in keys]
    halves = [half for word in words for half in (word >> 16, word & 0xFFFF)]
    scaled = (
        ((half * jnp.uint32(side)) >> 16).astype(jnp.int32)
        for half, side in zip(halves, sides, strict=False)
    )
    return list(zip(*scaled, strict=True))


def _draw_near(
    key: jax.Array | None,
    counts: tuple[int, int],
    places: Sequence[jax.Array],
    variances: Sequence[jax.Array],
    shape: Sequence[int],
) -> list[tuple[jax.Array, ...]]:
    """Draw so many cells of the image by the density of every pixel, from so many draws."""
    number, count = counts
    if key is None or not number:
        return []
    uniform = jax.random.uniform(key, (count, number, len(shape)), jnp.float32)
    tuples = jnp.stack(places, axis=-1), jnp.stack(variances, axis=-1)
    near = jnp.round(own_places(uniform, *tuples, tuple(shape)))
    return [
        tuple(cell_of(near[:, point, axis], size) for axis, size in enumerate(shape))
        for point in range(number)
    ]


def cell_of(cells: jax.Array, size: int) -> jax.Array:
    """Return whole floats as indices of an axis, those beyond it as its ends, and NaN as 0."""
    # Clip before the cast: what a float outside int32 becomes differs between backends.
    return jnp.clip(jnp.nan_to_num(cells), 0, size - 1).astype(jnp.int32)
