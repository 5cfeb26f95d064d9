"""Keys of mean zero and variance one, over a list or over each of many lists."""

from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax.checks import check_shape, require
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.precision import at_least_float32
from sparse_hyper_jax.sort.entrance import enter_lists
from sparse_hyper_jax.sort.kernel import find_bounds, find_order, find_within, smooth


def standardise(keys: jax.Array, *, segment_ids: jax.Array | None = None) -> jax.Array:
    """Shift and scale keys to mean zero and variance one over their last axis, or over each list.

    ``(k - mean(k)) / sqrt(mean((k - mean(k))^2))``; equal keys become zeros. The order is kept,
    and a sort after it no longer depends on the scale that a key network happens to have.

    Args:
        keys: ``(..., n)`` floating keys. Those beyond a sixteenth of the largest float, infinities
            among them, count as that: before or after all others. A NaN spoils its row, or its
            list.
        segment_ids: ``(n,)`` integers, which list an element belongs to, for keys ``(n,)``; any
            integer names one, as in :func:`~sparse_hyper_jax.sort.soft_sort`.

    Returns:
        ``(..., n)`` in the same dtype; statistics are taken in float32 for 16-bit keys.

    Raises:
        ValueError: integer keys, none, or lists of another length.

    Example:
        >>> from sparse_hyper_jax.sort import standardise
        >>> print(np.asarray(standardise(jnp.array([10.0, 20.0, 30.0]))).round(3))
        [-1.225  0.     1.225]
        >>> keys, lists = jnp.array([10.0, 1.0, 20.0, 3.0]), jnp.array([0, 1, 0, 1])
        >>> print(standardise(keys, segment_ids=lists))
        [-1. -1.  1.  1.]
    """
    keys = as_array("keys", keys, "floats")
    require(
        keys.ndim >= 1 and keys.shape[-1] != 0,
        f"keys of shape {keys.shape}",
        "(..., n) with at least one key",
        "leave it out, or reshape the keys",
    )
    wide = at_least_float32(keys)
    # The reciprocal of twice this is a normal number: compilers divide by a product with it.
    limits = jnp.finfo(wide.dtype)
    wide = jnp.clip(wide, limits.min / 16, limits.max / 16)
    if segment_ids is None:
        return _standardised(wide).astype(keys.dtype)
    return _by_list(wide, segment_ids).astype(keys.dtype)


def _standardised(wide: jax.Array) -> jax.Array:
    """Standardise over the last axis."""
    # Any constant shift and scale cancels; these make equal keys exact zeros and squares harmless.
    least = jax.lax.stop_gradient(wide.min(axis=-1, keepdims=True))
    width = jax.lax.stop_gradient(wide.max(axis=-1, keepdims=True)) - least
    scaled = (wide - least) / _divisor(width)
    centred = scaled - scaled.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    # The square root of zero has an infinite slope, and inf times zero is NaN.
    return centred / jnp.sqrt(_divisor(variance))


def _by_list(wide: jax.Array, segment_ids: Any) -> jax.Array:
    """Standardise each list of keys ``(n,)``, by the same steps."""
    check_shape("keys", wide, (None,), "(n,) beside segment_ids; use jax.vmap for batches")
    lists = enter_lists(segment_ids, len(wide))
    order = find_order(jax.lax.stop_gradient(wide), segment_ids=lists)
    ordered, (rank, size) = order.arrange(wide), find_bounds(order.starts)
    first = jnp.arange(len(wide), dtype=jnp.int32) - rank
    fixed, within = jax.lax.stop_gradient(ordered), find_within(order.starts, wide.dtype)
    least, most = (fixed.at[at].get(mode="promise_in_bounds") for at in (first, first + size - 1))
    scaled = (ordered - least) / _divisor(most - least)

    def mean(numbers: jax.Array) -> jax.Array:
        return smooth(within, numbers) / size.astype(wide.dtype)

    centred = scaled - mean(scaled)
    return order.restore(centred / jnp.sqrt(_divisor(mean(jnp.square(centred)))))


def _divisor(spread: jax.Array) -> jax.Array:
    """Return the spread, 1 where there is none: less than the smallest normal number is none."""
    return jnp.where(spread < jnp.finfo(spread.dtype).tiny, 1, spread)
