"""Bilinear sampling, as in spatial transformers: the baseline."""

import jax
import jax.numpy as jnp

from sparse_hyper_jax.glimpse.extract import enter_image, enter_means
from sparse_hyper_jax.glimpse.points import cell_of
from sparse_hyper_jax.ops.device_axes import spread_by
from sparse_hyper_jax.precision import wide_dtype


def bilinear(image: jax.Array, means: jax.Array) -> jax.Array:
    """Interpolate an image between the four pixels around each place, with 0 outside.

    ``jax.scipy.ndimage.map_coordinates`` of order 1 for all channels at once. The gradient of a
    place sees those four pixels and nothing else.

    Args:
        image: ``(H, W)`` or ``(H, W, C)``.
        means: ``(*window, 2)`` in index units (corners of pixels aligned); may lie outside. NaN and
            infinities give NaN, also as slopes.

    Returns:
        ``(*window)`` or ``(*window, C)``, float32 or wider.

    Raises:
        ValueError: shapes that do not fit.

    Reference: Jaderberg et al. 2015, arXiv 1506.02025.

    Example:
        >>> from sparse_hyper_jax.glimpse import bilinear
        >>> image = jnp.arange(9.0).reshape(3, 3)
        >>> print(bilinear(image, jnp.array([[0.0, 0.0], [0.5, 1.0], [1.25, 1.5]])))
        [0.   2.5  5.25]
    """
    image, means = enter_image(image), enter_means(means)
    height, width = image.shape[:2]
    dtype = wide_dtype(image, means)
    # Step by step: on a mesh of explicit axes only simple reshapes are known.
    channels = image.astype(dtype).reshape(height, width, -1).reshape(height * width, -1)
    rows, columns = means.astype(dtype).reshape(-1, 2).T
    channels = spread_by(channels, cell_of(rows, height))
    parts = []
    for row, row_share in _ends(rows, height):
        for column, column_share in _ends(columns, width):
            read = channels.at[row * width + column]
            pixels = read.get(mode="promise_in_bounds", wrap_negative_indices=False)
            parts.append((row_share * column_share)[:, None] * pixels)
    y = sum(parts[1:], parts[0])
    y = y.reshape(*means.shape[:-1], y.shape[1])
    return y.reshape(*means.shape[:-1], *image.shape[2:])


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
