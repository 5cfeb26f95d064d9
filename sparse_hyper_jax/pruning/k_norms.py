"""Norms that count, or favour, k entries: the top-k norm and its dual, the k-support norm."""

from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.largest import top_k_mask
from sparse_hyper_jax.norms import norm, unit_of
from sparse_hyper_jax.placement import gathered
from sparse_hyper_jax.precision import at_least_float32
from sparse_hyper_jax.pruning.patterns import check_axis


def top_k_norm(x: jax.Array, k: int, *, axis: int = -1) -> jax.Array:
    """Give the Euclidean norm of the k entries of largest magnitude.

    ``N*(x) = sqrt(sum_{i <= k} |x|_(i)^2)`` with magnitudes in falling order: for ``k = 1`` the
    largest, for k = n the Euclidean norm. It is the dual of :func:`k_support_norm`.

    Args:
        x: floats.
        k: static, from 1 to the length of the axis.
        axis: over which the norm extends.

    Returns:
        the norms, without that axis, in float32 or wider. Of entries with equal magnitude the first
        ones get the gradient, one of the subgradients there; that at 0 is 0.

    Raises:
        ValueError: k or the axis does not fit.

    Reference: Argyriou, Foygel and Srebro 2012, "Sparse Prediction with the k-Support Norm".

    Example:
        >>> from sparse_hyper_jax.pruning import top_k_norm
        >>> x = jnp.array([[3.0, -4.0, 1.0], [0.0, 6.0, -8.0]])
        >>> [top_k_norm(x, k).tolist() for k in (1, 2)]
        [[4.0, 8.0], [5.0, 10.0]]
    """
    rows, k = _rows(x, k, axis)
    return norm(jnp.where(top_k_mask(rows, k), rows, 0), (-1,))[..., 0]


def k_support_norm(x: jax.Array, k: int, *, axis: int = -1) -> jax.Array:
    """Give the norm whose unit ball is the convex hull of all k-sparse vectors of length 1.

    With magnitudes in falling order and the one r from 0 to k - 1 for which ``|x|_(k-r-1) > m >=
    |x|_(k-r)``, where ``m = sum_{i >= k-r} |x|_(i) / (r + 1)`` and ``|x|_(0)`` is infinite::

        N(x)^2 = sum_{i < k-r} |x|_(i)^2 + (r + 1) m^2

    For ``k = 1`` it is the sum of magnitudes, for k = n the Euclidean norm, and that too for every
    x with at most k non-zeros. As a penalty, ``0.5 * strength * N^2``, it favours about k entries.

    Args:
        x: floats.
        k: static, from 1 to the length of the axis.
        axis: over which the norm extends.

    Returns:
        the norms, without that axis, in float32 or wider. Where magnitudes are equal the gradient
        is one of the subgradients; that at 0 is 0.

    Raises:
        ValueError: k or the axis does not fit.

    Reference: Argyriou, Foygel and Srebro 2012, "Sparse Prediction with the k-Support Norm".

    Example:
        >>> from sparse_hyper_jax.pruning import k_support_norm
        >>> sparse, full = jnp.array([3.0, -4.0, 0.0, 0.0]), jnp.array([3.0, -4.0, 3.0, 3.0])
        >>> k_support_norm(sparse, 2).item()  # the length of a vector with two non-zeros
        5.0
        >>> [round(k_support_norm(full, k).item(), 2) for k in (1, 2, 4)]  # that of all is 6.56
        [13.0, 9.19, 6.56]
    """
    rows, k = _rows(x, k, axis)
    unit = unit_of(jnp.max(jnp.abs(rows), axis=-1, keepdims=True))
    rows = rows / unit  # so that a sum of large magnitudes does not overflow
    apart = _number_apart(jax.lax.stop_gradient(jnp.abs(rows)), k)
    first = top_k_mask(rows, apart)
    together = jnp.sum(jnp.where(first, 0, jnp.abs(rows)), axis=-1, keepdims=True)
    share = jnp.sqrt((k - apart).astype(rows.dtype))[..., None]
    parts = jnp.concatenate([jnp.where(first, rows, 0), together / share], axis=-1)
    return (unit * norm(parts, (-1,)))[..., 0]


def _number_apart(sizes: jax.Array, k: int) -> jax.Array:
    """Give ``k - 1 - r``: how many of the largest magnitudes do not count together."""
    falling = -jnp.sort(-sizes, axis=-1)
    # From the small end: as a difference of sums, rounding would break ties.
    tails = jnp.flip(jnp.cumsum(jnp.flip(falling, -1), axis=-1), -1)[..., :k]
    # For k - 1, k - 2, ..., 0 of them: is the last of them more than the mean of the others? The
    # largest number for which it is has the other inequality too.
    means = tails / jnp.arange(k, 0, -1, dtype=sizes.dtype).reshape((1,) * (sizes.ndim - 1) + (k,))
    more = falling[..., : k - 1] > means[..., 1:]
    numbers = jnp.arange(1, k, dtype=jnp.int32).reshape((1,) * (sizes.ndim - 1) + (k - 1,))
    return jnp.max(jnp.where(more, numbers, 0), axis=-1, initial=0)


def _rows(x: Any, k: Any, axis: int) -> tuple[jax.Array, int]:
    """Give the axis as the last one, in float32 or wider, and the checked number."""
    x = as_array("x", x)
    length = x.shape[check_axis(axis, x.shape)]
    k = checks.check_count("k", k, least=1, most=length)
    return jnp.moveaxis(at_least_float32(gathered(x)), axis, -1), k
