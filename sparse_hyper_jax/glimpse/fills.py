"""Grids that four corners do not give: of a signal or a volume, and one that bends."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.ops.bounds import bound_means
from sparse_hyper_jax.precision import at_least_float32


def box_means(raw: jax.Array, shape: Sequence[int], window: Sequence[int]) -> jax.Array:
    """Fill an upright box of a signal, an image or a volume with a grid.

    The edges of axis ``c`` are ``(S_c - 1) sigmoid(raw_c + (-1, 1))``, and points lie evenly
    between; along an axis with one point it lies in the middle. Of an image that is
    ``grid_means(box_corners(raw, shape), window)``.

    Args:
        raw: ``(2 r,)`` real numbers, two edges for each axis. Their order is free: a box may learn
            to mirror.
        shape: the ``r`` lengths of what is read, 1 to 3 of them.
        window: the ``r`` numbers of points.

    Returns:
        ``(*window, r)`` means in index units, inside.

    Raises:
        ValueError: another number of numbers, or a wrong shape.

    Example:
        >>> from sparse_hyper_jax.glimpse import box_means, extract
        >>> means = box_means(jnp.zeros(2), (1001,), (5,))
        >>> print(np.asarray(means[:, 0]).round())
        [269. 384. 500. 616. 731.]
        >>> signal = jnp.sin(jnp.arange(1001.0) / 200)
        >>> extract(jax.random.key(0), signal, means, jnp.ones(1), rank=1).shape
        (5,)
    """
    shape, window = (
        checks.check_index_shape("shape", shape),
        checks.check_index_shape("window", window),
    )
    rank = len(shape)
    checks.require(1 <= rank <= 3, f"shape={shape}", "one to three lengths", "split the array")
    checks.require(
        len(window) == rank, f"window={window}", f"{rank} lengths, one per axis", "change window"
    )
    raw = as_array("raw", raw)
    checks.check_shape("raw", raw, (2 * rank,), "two edges for each axis")
    raw = at_least_float32(raw)
    start = np.tile(np.array([-1, 1], raw.dtype), rank)
    edges = bound_means(raw + start, tuple(np.repeat(shape, 2).tolist()))
    axes = []
    for axis, size in enumerate(window):
        shares = evenly(size).astype(raw.dtype)
        places = (1 - shares) * edges[2 * axis] + shares * edges[2 * axis + 1]
        other = [1] * rank
        other[axis] = size
        axes.append(jnp.broadcast_to(places.reshape(other), window))
    return jnp.stack(axes, axis=-1)


def thin_plate_means(controls: jax.Array, window: Sequence[int]) -> jax.Array:
    """Fill a window with the thin plate that passes through a grid of control points.

    Of all surfaces through the points that with the least bending: for each axis
    ``a + b . p + sum_i c_i |p - p_i|^2 log |p - p_i|``, with the control points evenly spread over
    the window at ``p_i``. That is linear in the controls: one product with a matrix that is solved
    for while tracing.

    Args:
        controls: ``(a, b, 2)`` in index units, where the control points of the window lie in the
            image; ``a, b >= 2``, and the outermost are the window's corners. What
            ``grid_means(corners, (a, b))`` gives, moved by what is learned.
        window: ``(h, w)``, points down and across.

    Returns:
        ``(h, w, 2)`` means in index units; those between the controls may lie outside of the image.

    Raises:
        ValueError: a wrong shape, or too few controls.

    Reference: Bookstein 1989, "Principal warps"; Jaderberg et al. 2015, arXiv 1506.02025.

    Example:
        >>> from sparse_hyper_jax.glimpse import box_corners, grid_means, thin_plate_means
        >>> corners = box_corners(jnp.zeros(4), (11, 11))
        >>> controls = grid_means(corners, (3, 3))
        >>> flat = thin_plate_means(controls, (5, 5))
        >>> bool(jnp.allclose(flat, grid_means(corners, (5, 5)), atol=1e-4))
        True
        >>> bent = thin_plate_means(controls.at[1, 1, 0].add(1.0), (5, 5))
        >>> print(np.asarray(bent - flat)[:, 2, 0].round(2))  # down the middle
        [0.   0.57 1.   0.57 0.  ]
    """
    controls = as_array("controls", controls)
    checks.check_shape("controls", controls, (None, None, 2), "(a, b, 2): places of control points")
    checks.require(
        min(controls.shape[:2]) >= 2,
        f"controls of shape {controls.shape}",
        "two or more down and across",
        "pass the four corners at least",
    )
    window = checks.check_index_shape("window", window)
    checks.require(len(window) == 2, f"window={window}", "(height, width)", "pass two lengths")
    controls = at_least_float32(controls)
    mixture = _thin_plate(controls.shape[:2], window).astype(controls.dtype)
    means = jax.lax.dot(controls.reshape(-1, 2).T, mixture.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.moveaxis(means.reshape(2, *window), 0, -1)


def _thin_plate(grid: Sequence[int], window: Sequence[int]) -> np.ndarray:
    """Give the matrix ``(points, controls)`` from values at a grid to those of the plate."""
    knots, points = (
        np.stack(np.meshgrid(*map(evenly, sizes), indexing="ij"), -1).reshape(-1, 2)
        for sizes in (grid, window)
    )

    def basis(places: np.ndarray) -> np.ndarray:
        squares = np.square(places[:, None] - knots[None]).sum(axis=-1)
        bends = 0.5 * squares * np.log(np.where(squares > 0, squares, 1))
        return np.concatenate([bends, np.ones((len(places), 1)), places], axis=1)

    # Values at the knots; and no bending far away: the weights have no mean and no moments.
    flat = np.concatenate([np.ones((len(knots), 1)), knots], axis=1)
    system = np.concatenate([basis(knots), np.pad(flat.T, ((0, 0), (0, 3)))])
    return basis(points) @ np.linalg.inv(system)[:, : len(knots)]


def evenly(size: int) -> np.ndarray:
    """Give places from 0 to 1, and the middle if there is one only."""
    return np.linspace(0, 1, size) if size > 1 else np.full(1, 0.5)
