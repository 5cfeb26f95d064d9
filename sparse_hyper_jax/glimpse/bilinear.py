"""Bilinear sampling, as in spatial transformers: the baseline."""

import functools
import itertools
import math
import operator

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.glimpse.extract import enter_image, enter_means
from sparse_hyper_jax.glimpse.padding import PADDINGS, Padding, reflected
from sparse_hyper_jax.glimpse.points import cell_of, flat_cell
from sparse_hyper_jax.ops.device_axes import spread_by
from sparse_hyper_jax.precision import wide_dtype


def bilinear(
    image: jax.Array, means: jax.Array, *, padding: Padding = "zeros", rank: int = 2
) -> jax.Array:
    """Interpolate an image between the four pixels around each place.

    ``jax.scipy.ndimage.map_coordinates`` of order 1 for all channels at once. The gradient of a
    place sees those four pixels and nothing else: two of a signal, eight of a volume.

    Args:
        image: ``(H, W)`` or ``(H, W, C)``; a signal ``(T,)`` or a volume ``(D, H, W)`` with
            ``rank``, with or without channels.
        means: ``(*window, r)`` in index units (corners of pixels aligned); may lie outside. NaN and
            infinities give NaN, also as slopes; but infinities read the edge where that is outside.
        padding: what lies outside: ``"zeros"``, ``"border"`` (the edge), or ``"reflection"`` about
            the middle of the outermost pixels; the modes ``constant``, ``nearest`` and ``mirror``
            of that function.
        rank: number of axes ``r``, from 1 to 3.

    Returns:
        ``(*window)`` or ``(*window, C)``, float32 or wider.

    Raises:
        ValueError: shapes that do not fit, or a wrong option.

    Reference: Jaderberg et al. 2015, arXiv 1506.02025.

    Example:
        >>> from sparse_hyper_jax.glimpse import bilinear
        >>> image = jnp.arange(9.0).reshape(3, 3)
        >>> print(bilinear(image, jnp.array([[0.0, 0.0], [0.5, 1.0], [1.25, 1.5]])))
        [0.   2.5  5.25]
    """
    image, means = enter_image(image, rank), enter_means(means, rank)
    checks.check_choice("padding", padding, PADDINGS)
    shape, dtype = image.shape[:rank], wide_dtype(image, means)
    # Step by step: on a mesh of explicit axes only simple reshapes are known.
    channels = image.astype(dtype).reshape(*shape, -1).reshape(math.prod(shape), -1)
    places = means.astype(dtype).reshape(-1, rank).T
    if padding == "reflection":
        places = reflected(places, shape)
    elif padding == "border":
        axes = zip(places, shape, strict=True)
        places = jnp.stack([jnp.clip(one, 0, size - 1) for one, size in axes])
    channels = spread_by(channels, cell_of(places[0], shape[0]))
    ends = [_ends(one, size) for one, size in zip(places, shape, strict=True)]
    parts = []
    for corner in itertools.product(*ends):
        cells, shares = zip(*corner, strict=True)
        read = channels.at[flat_cell(cells, shape)]
        pixels = read.get(mode="promise_in_bounds", wrap_negative_indices=False)
        parts.append(functools.reduce(operator.mul, shares)[:, None] * pixels)
    y = sum(parts[1:], parts[0])
    y = y.reshape(*means.shape[:-1], y.shape[1])
    return y.reshape(*means.shape[:-1], *image.shape[rank:])


def _ends(places: jax.Array, size: int) -> list[tuple[jax.Array, jax.Array]]:
    """Give the cells below and above each place with their shares, 0 for cells outside."""
    low = jax.lax.stop_gradient(jnp.floor(places))
    # What is nowhere has no share: NaN times it, so that its slope is NaN too.
    nothing = jnp.where(jnp.isfinite(places), 0.0, jnp.nan) * places
    ends = []
    for cell, share in ((low, low + 1 - places), (low + 1, places - low)):
        within = (cell >= 0) & (cell < size)
        ends.append((cell_of(cell, size), jnp.where(within, share, nothing)))
    return ends
