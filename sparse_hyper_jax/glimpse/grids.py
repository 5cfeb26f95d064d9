"""A few numbers to the places of a window's pixels: corners of a quadrilateral, filled in evenly.

Coordinates are (row, column) in index units: ``(0, 0)`` is the middle of the upper left pixel,
``(H - 1, W - 1)`` that of the lower right one. With all numbers 0 a window lies upright in the
middle of the image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_function
from sparse_hyper_jax.glimpse.fills import evenly
from sparse_hyper_jax.ops.bounds import bound_means
from sparse_hyper_jax.precision import at_least_float32

UNIT_CORNERS = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]], np.float32)
"""Upper left, upper right, lower right, lower left: the order of corners everywhere here."""

EDGES = np.array([-1, 1, -1, 1], np.float32)
"""Upper, lower, left and right edge of a fresh box, before the sigmoid."""

START_SIDE = 0.46211716
"""Side of a fresh window as a share of the image's: ``sigmoid(1) - sigmoid(-1)``."""

AFFINE_START = 0.4


def box_corners(raw: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Give the corners of an upright rectangle from its four edges.

    ``(top, bottom, left, right) = (S - 1) * sigmoid(raw + (-1, 1, -1, 1))`` with the image's height
    or width as ``S``. The order of the edges is free: a box may learn to mirror.

    Args:
        raw: ``(4,)`` real numbers.
        shape: height and width of the image.

    Returns:
        ``(4, 2)`` corners in index units, inside the image.

    Raises:
        ValueError: another number of numbers, or a wrong shape.

    Reference: Bloem 2018, arXiv 1810.09184.

    Example:
        >>> from sparse_hyper_jax.glimpse import box_corners
        >>> print(np.asarray(box_corners(jnp.zeros(4), (11, 11))).round(1))
        [[2.7 2.7]
         [2.7 7.3]
         [7.3 7.3]
         [7.3 2.7]]
    """
    raw, (height, width) = _enter(raw, 4, shape)
    top, bottom, left, right = bound_means(
        raw + EDGES.astype(raw.dtype), (height, height, width, width)
    )
    return jnp.stack(
        [jnp.stack(pair) for pair in ((top, left), (top, right), (bottom, right), (bottom, left))]
    )


def scale_corners(raw: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Give the corners of a window with the image's proportions from its middle and one scale.

    ``side = sigmoid(raw_2 + c)``, as a share of the image's sides, with ``c`` such that it starts
    as the box does; the upper left corner lies at ``(S - 1) (1 - side) sigmoid(raw_0, raw_1)``, so
    that the window never leaves the image.

    Args:
        raw: ``(3,)`` real numbers: row, column, scale.
        shape: height and width of the image.

    Returns:
        ``(4, 2)`` corners in index units, inside the image.

    Raises:
        ValueError: another number of numbers, or a wrong shape.

    Example:
        >>> from sparse_hyper_jax.glimpse import scale_corners
        >>> corners = scale_corners(jnp.array([0.0, 0.0, 9.0]), (11, 21))  # nearly the whole image
        >>> print(np.asarray(corners).round(1).max(axis=0))
        [10. 20.]
    """
    raw, shape = _enter(raw, 3, shape)
    start = float(np.log(START_SIDE / (1 - START_SIDE)))
    side = jax.nn.sigmoid(raw[2] + start)
    low = (1 - side) * jax.nn.sigmoid(raw[:2])
    return _last(shape, raw.dtype) * (low[None] + side * (_unit(raw.dtype) + 1) / 2)


def affine_corners(raw: jax.Array, shape: Sequence[int], *, bounded: bool = True) -> jax.Array:
    """Give the corners of a parallelogram: an affine map of the whole image's corners.

    With ``A t = raw`` as ``(2, 3)``, rows first, a corner ``p`` of ``(+-1, +-1)`` goes to
    ``2 (A + 0.4 I) p + t`` and from there by the sigmoid into the image. Without bounds, as in a
    spatial transformer, ``(A + 0.4 I) p + t`` is the place itself, from -1 to 1 across the image,
    and may lie outside of it.

    Args:
        raw: ``(6,)`` real numbers.
        shape: height and width of the image.
        bounded: keep the corners inside the image.

    Returns:
        ``(4, 2)`` corners in index units.

    Raises:
        ValueError: another number of numbers, or a wrong shape.

    References: Bloem 2018, arXiv 1810.09184; Jaderberg et al. 2015, arXiv 1506.02025.

    Example:
        >>> from sparse_hyper_jax.glimpse import affine_corners
        >>> raw = jnp.array([0.6, 0.0, 0.0, 0.0, 0.6, 0.0])  # with 0.4 of the start: the identity
        >>> print(np.asarray(affine_corners(raw, (11, 21), bounded=False)).round(1)[[0, 2]])
        [[ 0.  0.]
         [10. 20.]]
    """
    bounded = checks.check_flag("bounded", bounded)
    raw, shape = _enter(raw, 6, shape)
    matrix, unit = raw.reshape(2, 3), _unit(raw.dtype)
    turn, shift = matrix[:, :2] + AFFINE_START * np.eye(2, dtype=raw.dtype), matrix[None, :, 2]
    # Written out: a matrix product may run in reduced precision on an accelerator.
    places = turn[None, :, 0] * unit[:, :1] + turn[None, :, 1] * unit[:, 1:]
    if bounded:
        return _inside(2 * places + shift, shape)
    return (places + shift + 1) / 2 * _last(shape, raw.dtype)


def quad_corners(raw: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Give four free corners.

    ``corner = (S - 1) * sigmoid(raw + (+-1, +-1))``.

    Args:
        raw: ``(8,)`` real numbers: row and column of the upper left, upper right, lower right and
            lower left corner.
        shape: height and width of the image.

    Returns:
        ``(4, 2)`` corners in index units, inside the image.

    Raises:
        ValueError: another number of numbers, or a wrong shape.

    Reference: Bloem 2018, arXiv 1810.09184.

    Example:
        >>> from sparse_hyper_jax.glimpse import quad_corners
        >>> raw = jnp.zeros(8).at[:2].set(-9.0)  # pulls the upper left corner out
        >>> print(np.asarray(quad_corners(raw, (11, 11))).round(1)[:2])
        [[0.  0. ]
         [2.7 7.3]]
    """
    raw, shape = _enter(raw, 8, shape)
    return _inside(raw.reshape(4, 2) + _unit(raw.dtype), shape)


@dataclass(frozen=True)
class Grid:
    """A family of windows.

    Attributes:
        count: how many numbers make one window.
        corners: maps them and the image's shape to corners ``(4, 2)``.
        moves: for each number the axis along which it moves the window, 0 for rows and 1 for
            columns; None where it does something else. Empty: no number moves it.

    Raises:
        ValueError: no count of at least 1, no function, or not one axis for each number.

    Example:
        >>> from sparse_hyper_jax.glimpse import GRIDS
        >>> {name: grid.count for name, grid in GRIDS.items()}
        {'scale': 3, 'box': 4, 'affine': 6, 'quad': 8}
        >>> GRIDS["box"].corners(jnp.zeros(4), (28, 28)).shape
        (4, 2)
    """

    count: int
    corners: Callable[[jax.Array, Sequence[int]], jax.Array]
    moves: tuple[int | None, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "count", checks.check_count("count", self.count, 1))
        check_function("corners", self.corners)
        checks.require(
            isinstance(self.moves, tuple)
            and len(self.moves) in (0, self.count)
            and all(axis is None or axis in (0, 1) for axis in self.moves),
            f"moves={self.moves!r:.80} for {self.count} numbers",
            "a tuple with 0, 1 or None for each of them",
            "pass for instance moves=(0, 1, None) for three",
        )


GridName = Literal["scale", "box", "affine", "quad"]

GRIDS: dict[GridName, Grid] = {
    "scale": Grid(3, scale_corners, (0, 1, None)),
    "box": Grid(4, box_corners, (0, 0, 1, 1)),
    "affine": Grid(6, affine_corners, (None, None, 0, None, None, 1)),
    "quad": Grid(8, quad_corners, (0, 1) * 4),
}
"""Families of windows by name, from the least free to the freest.

Example:
    >>> from sparse_hyper_jax import glimpse
    >>> {name: grid.count for name, grid in glimpse.GRIDS.items()}
    {'scale': 3, 'box': 4, 'affine': 6, 'quad': 8}
"""

UPRIGHT = ("scale", "box")
"""Those whose rows and columns are rows and columns of the image.

Example:
    >>> from sparse_hyper_jax import glimpse
    >>> glimpse.UPRIGHT
    ('scale', 'box')
"""


def grid_means(
    corners: jax.Array, window: Sequence[int], *, perspective: bool = False
) -> jax.Array:
    """Fill a quadrilateral with a grid; its outermost points are the corners themselves.

    Point ``(i, j)`` is the bilinear mixture of the corners with weights from ``i / (h - 1)`` and
    ``j / (w - 1)``; along an axis with one point it lies in the middle. In perspective the weight
    of each corner is multiplied by the area of the triangle of the three others, and their sum
    divided by: that is the homography of the window onto the quadrilateral.

    Args:
        corners: ``(4, 2)``: upper left, upper right, lower right, lower left.
        window: ``(h, w)``, points down and across.
        perspective: keep straight lines straight, as a camera does. The quadrilateral has to be
            convex: of another, a homography leaves the inside, and places may be anything. Corners
            on one line are mixed bilinearly.

    Returns:
        ``(h, w, 2)`` means in index units.

    Raises:
        ValueError: a wrong shape, or a flag that is none.

    Example:
        >>> from sparse_hyper_jax.glimpse import grid_means
        >>> corners = jnp.array([[0.0, 0.0], [0.0, 4.0], [2.0, 4.0], [2.0, 0.0]])
        >>> print(grid_means(corners, (2, 3))[1])  # the lower row: row and column of each point
        [[2. 0.]
         [2. 2.]
         [2. 4.]]
        >>> floor = jnp.array([[0.0, 3.0], [0.0, 5.0], [4.0, 8.0], [4.0, 0.0]])  # wider below
        >>> middle = [grid_means(floor, (3, 3), perspective=flag)[1, 1] for flag in (False, True)]
        >>> print(np.array(middle).round(2))  # the middle of what is seen, and of the floor
        [[2.  4. ]
         [0.8 4. ]]
    """
    perspective = checks.check_flag("perspective", perspective)
    corners = as_array("corners", corners)
    checks.check_shape("corners", corners, (4, 2), "(4, 2): row and column of four corners")
    corners = at_least_float32(corners)
    window = checks.check_index_shape("window", window)
    checks.require(len(window) == 2, f"window={window}", "(height, width)", "pass two lengths")
    down, across = np.meshgrid(*(evenly(size) for size in window), indexing="ij")
    shares = np.stack(
        [(1 - down) * (1 - across), (1 - down) * across, down * across, down * (1 - across)]
    )
    if perspective:
        return _homography(corners, shares)
    # A matrix product on purpose: what it gives is computed once, where a formula would be fused
    # into, and repeated by, all that reads it. Axes last to first, as the readers take them.
    means = jax.lax.dot(
        corners.T,
        shares.reshape(4, -1).astype(corners.dtype),
        precision=jax.lax.Precision.HIGHEST,
    )
    return jnp.moveaxis(means.reshape(2, *window), 0, -1)


def upright_means(corners: jax.Array, window: Sequence[int]) -> tuple[jax.Array, jax.Array]:
    """Give the rows and the columns of an upright grid: :func:`grid_means` without repetition.

    Args:
        corners: ``(4, 2)`` corners of an upright rectangle.
        window: ``(h, w)``.

    Returns:
        rows ``(h,)`` and columns ``(w,)`` in index units.

    Raises:
        ValueError: a wrong shape.

    Example:
        >>> from sparse_hyper_jax.glimpse import upright_means
        >>> corners = jnp.array([[0.0, 0.0], [0.0, 4.0], [2.0, 4.0], [2.0, 0.0]])
        >>> rows, columns = upright_means(corners, (2, 3))
        >>> print(rows, columns)
        [0. 2.] [0. 2. 4.]
    """
    means = grid_means(corners, window)
    return means[:, 0, 0], means[0, :, 1]


def _homography(corners: jax.Array, shares: np.ndarray) -> jax.Array:
    """Mix corners ``(4, 2)`` by shares ``(4, h, w)``, which areas change."""
    weighted = _areas_of_the_others(corners)[:, None, None] * shares.astype(corners.dtype)
    total = jnp.sum(weighted, axis=0)
    # Double where: nothing is divided by what may be 0.
    regular = jnp.abs(total) >= jnp.finfo(total.dtype).tiny
    parts = weighted / jnp.where(regular, total, 1)[None]
    parts = jnp.where(regular[None], parts, jnp.nan)
    # Sums of four products, written out: a matrix product may run in reduced precision.
    axes = [jnp.sum(parts * corners[:, axis, None, None], axis=0) for axis in (0, 1)]
    return jnp.stack(axes, axis=-1)


def _areas_of_the_others(corners: jax.Array) -> jax.Array:
    """Give for each corner the area of the triangle of the three others, all 1 if there is none."""

    def area(first: int, second: int, third: int) -> jax.Array:
        one, two = corners[second] - corners[first], corners[third] - corners[first]
        return one[0] * two[1] - one[1] * two[0]

    areas = jnp.stack([area(1, 2, 3), area(0, 2, 3), area(0, 1, 3), area(0, 1, 2)])
    size = jnp.sum(jnp.abs(areas))
    flat = size < jnp.finfo(areas.dtype).tiny
    return jnp.where(flat, 1.0, areas / jnp.where(flat, 1, size))


def _unit(dtype: np.dtype) -> np.ndarray:
    return UNIT_CORNERS.astype(dtype)


def _inside(raw: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Bound each corner ``(4, 2)`` by itself."""
    return jax.vmap(lambda corner: bound_means(corner, shape))(raw)


def _last(shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    """The last pixel of each axis ``(1, 2)``, beside rows of places."""
    return jnp.asarray([shape], dtype) - 1


def _enter(raw: jax.Array, count: int, shape: Sequence[int]) -> tuple[jax.Array, tuple[int, ...]]:
    """Return the numbers of one window in the dtype to compute in, and the image's sides."""
    raw = as_array("raw", raw)
    checks.check_shape("raw", raw, (count,), "the numbers of one window")
    shape = checks.check_index_shape("shape", shape)
    checks.require(len(shape) == 2, f"shape={shape}", "(height, width)", "pass the image's sides")
    return at_least_float32(raw), shape
