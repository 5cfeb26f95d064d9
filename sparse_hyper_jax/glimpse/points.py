"""Places of a window's pixels to the pixels of the image among which each of them is shared."""

import functools
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypedDict, get_args

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import check_random_key

Draws = Literal["glimpse", "pixel"]
DRAWS = get_args(Draws)
"""Points of a window are drawn once for all of its pixels, or for each pixel anew.

Example:
    >>> from sparse_hyper_jax import glimpse
    >>> glimpse.DRAWS
    ('glimpse', 'pixel')
"""

LONGEST_SIDE = 2**15


class Point(NamedTuple):
    """One integer tuple for each of ``n`` output pixels; length 1 stands for all pixels.

    Attributes:
        row: int32 ``(n,)`` or ``(1,)``.
        column: likewise.
        kept: bool, likewise: false where the pixel has the same point already.
    """

    row: jax.Array
    column: jax.Array
    kept: jax.Array


def draw_points(
    key: jax.Array | None,
    rows: jax.Array,
    columns: jax.Array,
    shape: Sequence[int],
    *,
    num_global: int,
    num_local: int,
    region: Sequence[int],
    draws: Draws,
) -> list[Point]:
    """Draw the integer tuples of every pixel of a window.

    As :func:`~sparse_hyper_jax.ops.sample_tuples`: the four neighbours; local points in a region
    about the pixel, shifted inside at the edges; global points. One random word of 32 bits makes a
    point: its row and its column are ``S * half / 2**16``, rounded down, so that cells are equally
    likely up to a relative ``S / 2**16`` (0.2 % on 100 pixels).

    Points stay apart, each as small as it can be, and repetitions are found by comparing pairs:
    for a handful of points that is faster than sorting, and than any array with an axis of points.

    Args:
        key: a typed key; may be None without global and local points.
        rows: ``(n,)`` in index units, inside the image.
        columns: ``(n,)``, likewise.
        shape: height and width of the image.
        num_global: points drawn from the whole image.
        num_local: points drawn from the region.
        region: its height and width; longer than the image means the whole image.
        draws: ``"pixel"``: every pixel has draws of its own. ``"glimpse"``: all have the same
            global points, and local points at the same offsets.

    Returns:
        ``4 + num_local + num_global`` points.
    """
    count = rows.shape[0] if draws == "pixel" else 1
    global_key, local_key = (None, None) if key is None else jax.random.split(key)
    points = _neighbours(rows, columns, shape)
    known = points[0].row, points[3].row, points[0].column, points[3].column
    # A region longer than an axis is the whole axis.
    sides = [min(pair) for pair in zip(region, shape, strict=True)]
    top, left = (
        cell_of(jnp.round(mean - (side - 1) / 2), size - side + 1)
        for mean, size, side in zip((rows, columns), shape, sides, strict=True)
    )
    codes: list[jax.Array] = []
    for down, across in _draw(local_key, num_local, count, sides):
        code, row, column = down * sides[1] + across, top + down, left + across
        repeated = _any([code == earlier for earlier in codes]) | _is_neighbour(row, column, known)
        points.append(Point(row, column, ~repeated))
        codes.append(code)
    cells: list[jax.Array] = []
    for row, column in _draw(global_key, num_global, count, shape):
        cell, down, across = row * shape[1] + column, row - top, column - left
        inside = (down >= 0) & (down < sides[0]) & (across >= 0) & (across < sides[1])
        code = jnp.where(inside, down * sides[1] + across, -1)
        repeated = _any([code == local for local in codes] + [cell == earlier for earlier in cells])
        points.append(Point(row, column, ~(repeated | _is_neighbour(row, column, known))))
        cells.append(cell)
    return points


def _neighbours(rows: jax.Array, columns: jax.Array, shape: Sequence[int]) -> list[Point]:
    top, left = cell_of(jnp.floor(rows), shape[0]), cell_of(jnp.floor(columns), shape[1])
    bottom, right = jnp.minimum(top + 1, shape[0] - 1), jnp.minimum(left + 1, shape[1] - 1)
    # At the far edges floor and floor + 1 coincide.
    tall, wide = bottom > top, right > left
    return [
        Point(top, left, jnp.ones_like(tall)),
        Point(top, right, wide),
        Point(bottom, left, tall),
        Point(bottom, right, tall & wide),
    ]


def _is_neighbour(
    row: jax.Array, column: jax.Array, known: tuple[jax.Array, jax.Array, jax.Array, jax.Array]
) -> jax.Array:
    top, bottom, left, right = known
    return ((row == top) | (row == bottom)) & ((column == left) | (column == right))


def _any(flags: list[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.logical_or, flags, jnp.zeros(1, bool))


class PointOptions(TypedDict):
    """How points are drawn, see :func:`draw_points`."""

    num_global: int
    num_local: int
    region: tuple[int, ...]
    draws: Draws


def check_options(
    shape: Sequence[int],
    *,
    num_global: int,
    num_local: int,
    region: Sequence[int],
    draws: Draws,
) -> PointOptions:
    """Return the options in plain ints, or raise if points cannot be drawn so.

    Raises:
        ValueError: an image side out of range, a negative count, an unknown way to draw, or a
            wrong region.
    """
    checks.require(
        max(shape) < LONGEST_SIDE,
        f"an image of {shape[0]} x {shape[1]} pixels",
        f"sides below {LONGEST_SIDE}",
        "cut the image into tiles",
    )
    checks.check_choice("draws", draws, DRAWS)
    region = checks.check_index_shape("region", region)
    checks.require(
        len(region) == 2, f"region={region}", "(height, width)", "pass two lengths, as (8, 8)"
    )
    return {
        "num_global": checks.check_count("num_global", num_global),
        "num_local": checks.check_count("num_local", num_local),
        "region": region,
        "draws": draws,
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
) -> list[tuple[jax.Array, jax.Array]]:
    """Draw ``number`` pairs of a row and a column, each ``(count,)``."""
    if key is None or not number:
        return []
    words = jax.random.bits(key, (number, count), jnp.uint32)
    rows = ((words >> 16) * jnp.uint32(sides[0])) >> 16
    columns = ((words & 0xFFFF) * jnp.uint32(sides[1])) >> 16
    return list(zip(rows.astype(jnp.int32), columns.astype(jnp.int32), strict=True))


def cell_of(cells: jax.Array, size: int) -> jax.Array:
    """Return whole floats as indices of an axis, those beyond it as its ends, and NaN as 0."""
    # Clip before the cast: what a float outside int32 becomes differs between backends.
    return jnp.clip(jnp.nan_to_num(cells), 0, size - 1).astype(jnp.int32)
