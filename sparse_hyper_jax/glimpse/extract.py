"""Read a window from an image through a hyperlayer: every output pixel is one continuous tuple.

The templated hyperlayer of rank ``(output, row, column)`` with one tuple per output pixel, each its
own context, and all values 1: so the multiply is a gather and a sum over the points of a pixel.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from sparse_hyper_jax import checks
from sparse_hyper_jax.glimpse.points import Point, check_key, check_options, draw_points
from sparse_hyper_jax.ops.sample import round_means
from sparse_hyper_jax.precision import at_least_float32
from sparse_hyper_jax.types import LEAST_VARIANCE


def extract(
    key: jax.Array | None,
    image: jax.Array,
    means: jax.Array,
    variances: jax.Array,
    *,
    num_global: int = 8,
    num_local: int = 8,
    region: Sequence[int] = (8, 8),
    draws: str = "glimpse",
) -> jax.Array:
    """Read a window of an image at random pixels, so that its place can be learned.

    ``y_n = sum_p pi_pn image[u_pn]``, where ``u_pn`` are the integer tuples of output pixel ``n``
    (four neighbours, global and local points, repetitions dropped) and ``pi_pn`` its shares among
    them by Gaussian density, ``sum_p pi_pn = 1``. With ``x = image[u]``, the gradients are sums
    over the same points::

        dy/dmean_c      sum_p pi_p (x_p - y) (u_pc - mean_c) / variance_c
        dy/dvariance_c  sum_p pi_p (x_p - y) (u_pc - mean_c)^2 / (2 variance_c^2)

    For one image and one window; ``jax.vmap`` gives batches and several windows, each with a key.

    Args:
        key: a typed key; may be None without global and local points.
        image: ``(H, W)`` or ``(H, W, C)``; all channels are read at the same points.
        means: ``(*window, 2)`` in index units, see
            :func:`~sparse_hyper_jax.glimpse.grid_means`; from outside the image, the pixels
            nearest to a mean are those at the edge.
        variances: ``(2,)`` or ``(*window, 2)``, in squared index units; below 1e-12 they count as
            1e-12.
        num_global: points per pixel drawn from the whole image.
        num_local: points per pixel drawn from the region.
        region: height and width of the region about a pixel.
        draws: ``"glimpse"``: all pixels share their global points and the offsets of their local
            points, which saves most of the random numbers; ``"pixel"``: each has its own.

    Returns:
        ``(*window)`` or ``(*window, C)``, float32 or wider.

    Raises:
        ValueError: shapes that do not fit, or a wrong option.

    Reference: Bloem 2018, arXiv 1810.09184.
    """
    shape, window = check_image(image, means)
    options: dict[str, Any] = {"num_global": num_global, "num_local": num_local}
    options |= {"region": tuple(region), "draws": draws}
    check_options(shape, **options)
    check_key(key, num_global, num_local)
    checks.require(
        jnp.shape(variances) in ((2,), (*window, 2)),
        f"variances of shape {jnp.shape(variances)} for means of shape {jnp.shape(means)}",
        f"(2,) or {(*window, 2)}",
        "give one variance per axis, for all pixels or for each",
    )
    places = jnp.moveaxis(at_least_float32(means), -1, 0).reshape(2, -1)
    variances = jnp.broadcast_to(at_least_float32(variances), (*window, 2))
    variances = jnp.maximum(jnp.moveaxis(variances, -1, 0).reshape(2, -1), LEAST_VARIANCE)
    rows, columns = jax.lax.stop_gradient(places)
    points = draw_points(key, rows, columns, shape, **options)
    y = _read(at_least_float32(image).reshape(*shape, -1), points, places, variances)
    return jnp.moveaxis(y, 0, -1).reshape(*window, *image.shape[2:])


def extract_hard(image: jax.Array, means: jax.Array) -> jax.Array:
    """Read a window at the nearest pixels: evaluation, without sampling.

    The limit of :func:`extract` for variances towards 0. Where means are integers, an exact crop.

    Args:
        image: ``(H, W)`` or ``(H, W, C)``.
        means: ``(*window, 2)`` in index units.

    Returns:
        ``(*window)`` or ``(*window, C)`` in the dtype of ``image``; no gradient reaches the means.

    Raises:
        ValueError: shapes that do not fit.
    """
    shape, _ = check_image(image, means)
    cells = round_means(means, shape)
    return image[cells[..., 0], cells[..., 1]]


@jax.custom_jvp
def _read(
    image: jax.Array, points: list[Point], means: jax.Array, variances: jax.Array
) -> jax.Array:
    """Mix image ``(H, W, C)`` by density, for means ``(2, n)``: ``(C, n)``."""
    densities = _densities(image.shape, points, means, variances)
    return _sum(densities, _gather(image, points)) / sum(densities)


# All derivatives are sums over the points that the value needs too. Taken here, beside the value,
# they leave the backward pass a product per output pixel, and no table of points is kept for it.
@partial(_read.defjvp, symbolic_zeros=True)
def _read_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[jax.Array, jax.Array]:
    image, points, means, variances = primals
    image_slope, _, mean_slopes, variance_slopes = tangents
    densities = _densities(image.shape, points, means, variances)
    whole, pixels = sum(densities), _gather(image, points)
    y = _sum(densities, pixels) / whole
    surprises = [pixel - y for pixel in pixels]
    slope = jnp.zeros_like(y)
    for axis in (0, 1):
        offsets = [point[axis] - means[axis] for point in points]
        precision = 1 / variances[axis]
        pulls = [density * offset for density, offset in zip(densities, offsets, strict=True)]
        if not isinstance(mean_slopes, SymbolicZero):
            slope += _sum(pulls, surprises) * (mean_slopes[axis] * precision / whole)
        if not isinstance(variance_slopes, SymbolicZero):
            spreads = [pull * offset for pull, offset in zip(pulls, offsets, strict=True)]
            share = variance_slopes[axis] * jnp.square(precision) / (2 * whole)
            slope += _sum(spreads, surprises) * share
    if not isinstance(image_slope, SymbolicZero):
        slope += _sum(densities, _gather(image_slope, points)) / whole
    return y, slope


def _sum(weights: list[jax.Array], pixels: list[jax.Array]) -> jax.Array:
    """Sum weights ``(n,)`` times pixels ``(C, n)`` over all points."""
    products = [weight * pixel for weight, pixel in zip(weights, pixels, strict=True)]
    return sum(products[1:], products[0])


def _densities(
    shape: Sequence[int], points: list[Point], means: jax.Array, variances: jax.Array
) -> list[jax.Array]:
    """Give densities ``(n,)`` relative to that of the nearest cell, 0 at repeated points."""
    last = np.array(shape[:2])[:, None] - 1
    nearest = jax.lax.stop_gradient(jnp.clip(jnp.round(means), 0, last))

    def density(point: Point) -> jax.Array:
        logits = 0.0
        for axis in (0, 1):
            # The square above that of the nearest cell, as a product with a whole number: the
            # nearest cell, one of the neighbours, gets an exact 0, so that no maximum is needed.
            steps = point[axis] - nearest[axis]
            offsets = (point[axis] - means[axis]) + (nearest[axis] - means[axis])
            logits -= 0.5 * steps * offsets / variances[axis]
        return jnp.exp(jnp.where(point.kept, logits, -jnp.inf))

    return [density(point) for point in points]


def _gather(image: jax.Array, points: list[Point]) -> list[jax.Array]:
    """Read the pixels ``(C, n)`` of every point; cells lie inside by construction."""
    height, width, channels = image.shape
    # Tangents of numpy arrays may arrive as numpy arrays.
    flat = jnp.asarray(image).reshape(height * width, channels).T

    def read(point: Point) -> jax.Array:
        cells = flat.at[:, point.row * width + point.column]
        return cells.get(mode="promise_in_bounds", wrap_negative_indices=False)

    return [read(point) for point in points]


def check_image(image: jax.Array, means: jax.Array) -> tuple[tuple[int, int], tuple[int, ...]]:
    """Return the sides of an image and the shape of a window of means ``(*window, 2)``.

    Raises:
        ValueError: no image, or means without row and column.
    """
    checks.require(
        jnp.ndim(image) in (2, 3) and min(jnp.shape(image)) >= 1,
        f"an image of shape {jnp.shape(image)}",
        "(H, W) or (H, W, C)",
        "pass one image, and use jax.vmap for a batch",
    )
    checks.check_last_axis("means", means, 2)
    height, width = jnp.shape(image)[:2]
    return (height, width), tuple(jnp.shape(means)[:-1])
