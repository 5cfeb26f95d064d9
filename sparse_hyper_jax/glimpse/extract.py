"""Read a window from an image through a hyperlayer: every output pixel is one continuous tuple.

The templated hyperlayer of rank ``(output, row, column)`` with one tuple per output pixel, each its
own context, and all values 1: so the multiply is a gather and a sum over the points of a pixel.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.glimpse.padding import EDGE_PADDINGS, EdgePadding, reflected
from sparse_hyper_jax.glimpse.points import (
    Draws,
    Point,
    cell_of,
    check_key,
    check_options,
    draw_points,
    flat_cell,
)
from sparse_hyper_jax.ops.device_axes import spread_by
from sparse_hyper_jax.ops.own_draws import GlobalFrom
from sparse_hyper_jax.precision import at_least_float32, wide_dtype
from sparse_hyper_jax.types import LEAST_VARIANCE

FAR = 1e17
"""Further outside a mean reads the pixels of the edge alone, for every variance up to 1e12."""


def extract(
    key: jax.Array | None,
    image: jax.Array,
    means: jax.Array,
    variances: jax.Array,
    *,
    num_global: int = 8,
    num_local: int = 8,
    region: Sequence[int] | None = None,
    draws: Draws = "glimpse",
    padding: EdgePadding = "border",
    rank: int = 2,
    global_from: GlobalFrom = "uniform",
) -> jax.Array:
    """Read a window of an image at random pixels, so that its place can be learned.

    ``y_n = sum_p pi_pn image[u_pn]``, where ``u_pn`` are the integer tuples of output pixel ``n``
    (its neighbours, global and local points, repetitions dropped) and ``pi_pn`` its shares among
    them by Gaussian density, ``sum_p pi_pn = 1``. With ``x = image[u]``, the gradients are sums
    over the same points::

        dy/dmean_c      sum_p pi_p (x_p - y) (u_pc - mean_c) / variance_c
        dy/dvariance_c  sum_p pi_p (x_p - y) (u_pc - mean_c)^2 / (2 variance_c^2)

    For one image and one window; ``jax.vmap`` gives batches and several windows, each with a key.

    Args:
        key: a typed key; may be None without global and local points.
        image: ``(H, W)`` or ``(H, W, C)``; all channels are read at the same points. Other ``r``
            axes than two with ``rank``: a signal ``(T,)``, a volume ``(D, H, W)``, with or without
            channels.
        means: ``(*window, r)`` in index units, see
            :func:`~sparse_hyper_jax.glimpse.grid_means` and
            :func:`~sparse_hyper_jax.glimpse.box_means`. Beyond 1e17 they count as 1e17, and NaN
            gives NaN.
        variances: ``(r,)`` or ``(*window, r)``, in squared index units; below 1e-12 they count as
            1e-12.
        num_global: points per pixel drawn from the whole image.
        num_local: points per pixel drawn from the region.
        region: height and width of the region about a pixel, ``r`` lengths; 8 each by default.
        draws: ``"glimpse"``: all pixels share their global points and the offsets of their local
            points, which saves most of the random numbers; ``"pixel"``: each has its own.
        padding: what lies outside of the image. ``"border"``: its edge, since the pixels nearest to
            a mean are those; ``"reflection"``: its mirror image about the middle of the outermost
            pixels, and then that of the other side; there an infinite mean gives NaN.
        rank: number of axes ``r``, from 1 to 3.
        global_from: ``"density"`` draws the global points of every pixel from its own density, see
            :func:`~sparse_hyper_jax.ops.sample_tuples`.

    Returns:
        ``(*window)`` or ``(*window, C)``, float32 or wider.

    Raises:
        ValueError: shapes that do not fit, or a wrong option.

    Reference: Bloem 2018, arXiv 1810.09184.

    Example:
        >>> from sparse_hyper_jax.glimpse import affine_corners, extract, grid_means
        >>> image = jax.random.uniform(jax.random.key(0), (28, 28))
        >>> means = grid_means(affine_corners(jnp.zeros(6), image.shape), (8, 8))
        >>> extract(jax.random.key(1), image, means, jnp.ones(2)).shape
        (8, 8)
        >>> read = lambda means: extract(jax.random.key(1), image, means, jnp.ones(2))[0, 0]
        >>> bool(jnp.any(jax.grad(read)(means)[0, 0] != 0))  # the place can be learned
        True
    """
    image, means = enter_image(image, rank), enter_means(means, rank)
    shape, window = image.shape[:rank], means.shape[:-1]
    options = check_options(
        shape,
        num_global=num_global,
        num_local=num_local,
        region=region,
        draws=draws,
        global_from=global_from,
    )
    check_key(key, options)
    checks.check_choice("padding", padding, EDGE_PADDINGS)
    variances = as_array("variances", variances)
    checks.require(
        variances.shape in ((rank,), means.shape),
        f"variances of shape {variances.shape} for means of shape {means.shape}",
        f"({rank},) or {means.shape}",
        "give one variance per axis, for all pixels or for each",
    )
    dtype = wide_dtype(image, means, variances)
    places = jnp.moveaxis(means.astype(dtype), -1, 0).reshape(rank, -1)
    if padding == "reflection":
        places = reflected(places, shape)
    variances = jnp.broadcast_to(variances.astype(dtype), means.shape)
    variances = jnp.maximum(jnp.moveaxis(variances, -1, 0).reshape(rank, -1), LEAST_VARIANCE)
    points = draw_points(
        key, [*jax.lax.stop_gradient(places)], shape, variances=[*variances], **options
    )
    pixels = spread_by(image.astype(dtype).reshape(*shape, -1), points[0].cells[0])
    y = _read(pixels, points, places, variances)
    y = jnp.moveaxis(y.reshape(len(y), *window), 0, -1)
    return y.reshape(*window, *image.shape[rank:])


def extract_hard(
    image: jax.Array, means: jax.Array, *, padding: EdgePadding = "border", rank: int = 2
) -> jax.Array:
    """Read a window at the nearest pixels: evaluation, without sampling.

    The limit of :func:`extract` for variances towards 0. Where means are integers, an exact crop.

    Args:
        image: ``(H, W)`` or ``(H, W, C)``; see :func:`extract` for others.
        means: ``(*window, 2)`` in index units. NaN gives NaN, but an image of integers has none:
            there it reads as 0 along its axis.
        padding: what lies outside, see there.
        rank: number of axes, see there.

    Returns:
        ``(*window)`` or ``(*window, C)`` in the dtype of ``image``; no gradient reaches the means.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> from sparse_hyper_jax.glimpse import extract_hard
        >>> image = jnp.arange(16).reshape(4, 4)
        >>> means = jnp.array([[[1.0, 1.0], [1.0, 2.0]], [[2.0, 1.0], [2.0, 2.0]]])
        >>> print(extract_hard(image, means))
        [[ 5  6]
         [ 9 10]]
    """
    image, means = enter_image(image, rank), enter_means(means, rank)
    checks.check_choice("padding", padding, EDGE_PADDINGS)
    places = jax.lax.stop_gradient(at_least_float32(means))
    if padding == "reflection":
        places = jnp.moveaxis(reflected(jnp.moveaxis(places, -1, 0), image.shape[:rank]), 0, -1)
    cells = tuple(
        cell_of(jnp.round(places[..., axis]), size) for axis, size in enumerate(image.shape[:rank])
    )
    y = spread_by(image, cells[0])[cells]
    if not jnp.issubdtype(image.dtype, jnp.floating):
        return y
    nowhere = jnp.isnan(places).any(axis=-1)
    return jnp.where(jax.lax.expand_dims(nowhere, range(means.ndim - 1, y.ndim)), jnp.nan, y)


@jax.custom_jvp
def _read(
    image: jax.Array, points: list[Point], means: jax.Array, variances: jax.Array
) -> jax.Array:
    """Mix image ``(*shape, C)`` by density, for means ``(r, n)``: ``(C, n)``."""
    densities = _densities(points, means, _nearest(image.shape, means), variances)
    return _sum(densities, _gather(image, points)) / _total(densities)[None]


# All derivatives are sums over the points that the value needs too. Taken here, beside the value,
# they leave the backward pass a product per output pixel, and no table of points is kept for it.
# That no point is kept hangs on how it is written: what is computed per point has one axis, and
# no expression stands in two places, for the compiler to compute once and keep.
@partial(_read.defjvp, symbolic_zeros=True)
def _read_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[jax.Array, jax.Array]:
    image, points, means, variances = primals
    image_slope, _, mean_slopes, variance_slopes = tangents
    nearest = _nearest(image.shape, means)
    densities = _densities(points, means, nearest, variances)
    whole, pixels = _total(densities), _gather(image, points)
    y = _sum(densities, pixels) / whole[None]
    surprises = [pixel - y for pixel in pixels]
    slope = jnp.zeros_like(y)
    for axis in range(len(means)):
        # From the nearest cell, not from the mean: the same sum, as surprises add up to 0, but
        # without the rounding of a mean that lies far outside.
        steps = [_cell(point, means, axis) - nearest[axis] for point in points]
        pulls = [weight * step for weight, step in zip(densities, steps, strict=True)]
        precision = 1 / variances[axis]
        if not isinstance(mean_slopes, SymbolicZero):
            slope += _sum(pulls, surprises) * (mean_slopes[axis] * precision / whole)[None]
        if not isinstance(variance_slopes, SymbolicZero):
            # By how much the squares are above that of the nearest cell, as in the densities.
            beyond = 2 * bound_places(nearest[axis] - means[axis])
            spreads = [pull * (step + beyond) for pull, step in zip(pulls, steps, strict=True)]
            share = variance_slopes[axis] * jnp.square(precision) / (2 * whole)
            slope += _sum(spreads, surprises) * share[None]
    if not isinstance(image_slope, SymbolicZero):
        slope += _sum(densities, _gather(image_slope, points)) / whole[None]
    return y, slope


def _sum(weights: list[jax.Array], pixels: list[jax.Array]) -> jax.Array:
    """Sum weights ``(n,)`` times pixels ``(C, n)`` over all points."""
    products = [weight[None] * pixel for weight, pixel in zip(weights, pixels, strict=True)]
    return _total(products)


def _total(parts: list[jax.Array]) -> jax.Array:
    return sum(parts[1:], parts[0])


def _nearest(shape: Sequence[int], means: jax.Array) -> jax.Array:
    """Give the cell nearest to each mean, as floats ``(r, n)``."""
    last = jnp.array(shape[: len(means)], means.dtype)[:, None] - 1
    return jax.lax.stop_gradient(jnp.clip(jnp.round(means), 0, last))


def _densities(
    points: list[Point], means: jax.Array, nearest: jax.Array, variances: jax.Array
) -> list[jax.Array]:
    """Give densities ``(n,)`` relative to that of the nearest cell, 0 at repeated points."""

    def density(point: Point) -> jax.Array:
        logits = 0.0
        for axis in range(len(means)):
            # The square above that of the nearest cell, as products with a whole number: the
            # nearest cell, one of the neighbours, gets an exact 0, so that no maximum is needed.
            # Distances are bounded, not the means: that would be repeated by all that reads them.
            step = _cell(point, means, axis) - nearest[axis]
            above = step * step + step * (2 * bound_places(nearest[axis] - means[axis]))
            logits -= 0.5 * above / variances[axis]
        return jnp.exp(jnp.where(point.kept, logits, -jnp.inf))

    return [density(point) for point in points]


def _cell(point: Point, means: jax.Array, axis: int) -> jax.Array:
    """Give the places ``(n,)`` of a point along an axis as floats."""
    return point.cells[axis].astype(means.dtype)


def _gather(image: jax.Array, points: list[Point]) -> list[jax.Array]:
    """Read the pixels ``(C, n)`` of every point; cells lie inside by construction."""
    *shape, channels = image.shape
    # Tangents of numpy arrays may arrive as numpy arrays.
    flat = jnp.asarray(image).reshape(math.prod(shape), channels).T

    def read(point: Point) -> jax.Array:
        cells = flat.at[:, flat_cell(point.cells, shape)]
        return cells.get(mode="promise_in_bounds", wrap_negative_indices=False)

    return [read(point) for point in points]


def bound_places(places: jax.Array) -> jax.Array:
    """Bring places in from where every one reads the edge alone, so that no product is infinite."""
    return jnp.clip(places, -FAR, FAR)


def enter_image(image: Any, rank: int = 2) -> jax.Array:
    """Return an image ``(H, W)`` or ``(H, W, C)``, or one of another rank, as an array.

    Raises:
        ValueError: another shape, or no real numbers.
    """
    rank = checks.check_count("rank", rank, least=1, most=3)
    image, axes = as_array("image", image), {1: "T", 2: "H, W", 3: "D, H, W"}[rank]
    checks.require(
        image.ndim in (rank, rank + 1) and 0 not in image.shape,
        f"an image of shape {image.shape}",
        f"({axes}{',' * (rank == 1)}) or ({axes}, C)",
        "pass one image, and use jax.vmap for a batch",
    )
    checks.require(
        all(isinstance(side, int) for side in image.shape),
        f"an image of shape {image.shape}",
        "sides that are known",
        "export with a symbolic batch and jax.vmap, and with fixed sides",
    )
    return image


def enter_means(means: Any, rank: int = 2) -> jax.Array:
    """Return the means of a window ``(*window, rank)`` as an array.

    Raises:
        ValueError: no number for each axis, or no real numbers.
    """
    means = as_array("means", means)
    checks.check_last_axis("means", means, rank)
    return means
