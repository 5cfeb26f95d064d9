"""Bilinear sampling, as in spatial transformers: the baseline."""

import jax
import jax.numpy as jnp

from sparse_hyper_jax.glimpse.extract import check_image
from sparse_hyper_jax.precision import at_least_float32


def bilinear(image: jax.Array, means: jax.Array) -> jax.Array:
    """Interpolate an image between the four pixels around each place, with 0 outside.

    ``jax.scipy.ndimage.map_coordinates`` of order 1 for all channels at once. The gradient of a
    place sees those four pixels and nothing else.

    Args:
        image: ``(H, W)`` or ``(H, W, C)``.
        means: ``(*window, 2)`` in index units (corners of pixels aligned); may lie outside.

    Returns:
        ``(*window)`` or ``(*window, C)``, float32 or wider.

    Raises:
        ValueError: shapes that do not fit.

    Reference: Jaderberg et al. 2015, arXiv 1506.02025.
    """
    (height, width), window = check_image(image, means)
    channels = at_least_float32(image).reshape(height * width, -1)
    rows, columns = at_least_float32(means).reshape(-1, 2).T
    parts = []
    for row, row_share in _ends(rows, height):
        for column, column_share in _ends(columns, width):
            read = channels.at[row * width + column]
            pixels = read.get(mode="promise_in_bounds", wrap_negative_indices=False)
            parts.append((row_share * column_share)[:, None] * pixels)
    y = sum(parts[1:], parts[0])
    return y.reshape(*window, *image.shape[2:])


def _ends(places: jax.Array, size: int) -> list[tuple[jax.Array, jax.Array]]:
    """Give the cells below and above each place with their shares, 0 for cells outside."""
    low = jax.lax.stop_gradient(jnp.floor(places))
    ends = []
    for cell, share in ((low, low + 1 - places), (low + 1, places - low)):
        inside = (cell >= 0) & (cell < size)
        index = jnp.clip(cell, 0, size - 1).astype(jnp.int32)
        ends.append((index, jnp.where(inside, share, 0.0)))
    return ends
