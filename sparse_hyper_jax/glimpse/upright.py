"""Read an upright window as two hyperlayers: one picks rows of the image, the other columns."""

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.glimpse.extract import bound_places, enter_image
from sparse_hyper_jax.precision import wide_dtype
from sparse_hyper_jax.types import LEAST_VARIANCE


def extract_upright(
    image: jax.Array, rows: jax.Array, columns: jax.Array, variances: jax.Array
) -> jax.Array:
    """Read an upright window with shares among all pixels of the image: nothing is random.

    The Gaussian of an output pixel is a product, and so are its shares if the points are all cells:
    ``y_ij = sum_ab p_ia q_jb image[a, b]`` with ``p_ia`` the share of row ``a`` in ``rows_i``, and
    ``q`` likewise. That is what :func:`~sparse_hyper_jax.glimpse.extract` tends to with more and
    more global points; here it takes two matrix products.

    Args:
        image: ``(H, W)`` or ``(H, W, C)``.
        rows: ``(h,)`` in index units, see :func:`~sparse_hyper_jax.glimpse.upright_means`; beyond
            1e17 they count as 1e17, and NaN gives NaN.
        columns: ``(w,)``.
        variances: ``(2,)`` in squared index units.

    Returns:
        ``(h, w)`` or ``(h, w, C)``, float32 or wider.

    Raises:
        ValueError: shapes that do not fit.

    Reference: Gregor et al. 2015, arXiv 1502.04623, "DRAW", which reads an image so.

    Example:
        >>> from sparse_hyper_jax.glimpse import extract_upright
        >>> image = jnp.arange(16.0).reshape(4, 4)
        >>> rows, columns = jnp.array([1.0, 2.0]), jnp.array([1.0, 2.0])
        >>> print(extract_upright(image, rows, columns, 1e-3 * jnp.ones(2)))
        [[ 5.  6.]
         [ 9. 10.]]
    """
    image = enter_image(image)
    rows, columns = as_array("rows", rows), as_array("columns", columns)
    checks.check_shape("rows", rows, (None,), "(h,): one number per row of the window")
    checks.check_shape("columns", columns, (None,), "(w,): one number per column")
    variances = as_array("variances", variances)
    checks.check_shape("variances", variances, (2,), "(2,): one per axis")
    dtype = wide_dtype(image, rows, columns, variances)
    image, rows, columns, variances = (
        part.astype(dtype) for part in (image, rows, columns, variances)
    )
    down = _shares(rows, image.shape[0], variances[0])
    across = _shares(columns, image.shape[1], variances[1])
    highest = jax.lax.Precision.HIGHEST  # or an accelerator would round to a few digits
    rows_read = jnp.einsum("ia,ab...->ib...", down, image, precision=highest)
    return jnp.einsum("ib...,jb->ij...", rows_read, across, precision=highest)


def _shares(means: jax.Array, size: int, variance: jax.Array) -> jax.Array:
    """Share each mean among all cells of an axis: ``(n,)`` to ``(n, size)``."""
    means = bound_places(means)[:, None]
    cells = jnp.arange(size, dtype=means.dtype)[None]
    nearest = jax.lax.stop_gradient(jnp.clip(jnp.round(means), 0, size - 1))
    # See ops/densities.py: exact at the nearest cell, however small the variance is.
    above = (cells - nearest) * ((cells - means) + (nearest - means))
    return jax.nn.softmax(-0.5 * above / jnp.maximum(variance, LEAST_VARIANCE), axis=1)
