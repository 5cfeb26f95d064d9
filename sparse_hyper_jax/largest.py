"""Which components of each row are largest, without sorting the row."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, as_int32


def top_k_mask(array: jax.Array, k: int | jax.Array) -> jax.Array:
    """Mark the k components of largest magnitude on the last axis.

    The same choice as ``lax.top_k(abs(array), k)``: exactly k, the first ones where several are
    equal, NaN before everything. But k may differ from row to row and may be traced, and no row is
    sorted: the k-th largest magnitude is found bit by bit (the bits of non-negative floats are
    ordered like the floats), which costs one counting pass per bit.

    Args:
        array: ``(..., n)`` floats.
        k: int from 0 to n, or an integer array that broadcasts to ``(...)``, whose numbers outside
            of that count as 0 or n.

    Returns:
        bool ``(..., n)``.

    Raises:
        ValueError: a scalar, no floats, a static k out of range, or no whole number.

    Example:
        >>> from sparse_hyper_jax.largest import top_k_mask
        >>> x = jnp.array([[3.0, -5.0, 1.0], [0.0, 2.0, 2.0]])
        >>> top_k_mask(x, 1).astype(int).tolist()
        [[0, 1, 0], [0, 1, 0]]
        >>> top_k_mask(x, jnp.array([2, 0])).astype(int).tolist()
        [[1, 1, 0], [0, 0, 0]]
    """
    array = as_array("array", array, "floats")
    checks.require(
        array.ndim >= 1, "an array of shape ()", "floats of shape (..., n)", "give it an axis"
    )
    return _top_k_mask(array, _budgets(k, array.shape))


def count_array(name: str, count: Any, most: int | None = None) -> jax.Array:
    """Return a number of things, static or traced, as an int32 scalar.

    Args:
        name: the argument's name.
        count: an int, checked, or a traced integer, of which the type alone is.
        most: the largest that is allowed; None for any, of which 2**31 - 1 are enough.

    Raises:
        ValueError: no whole number, or a static one out of range.

    Example:
        >>> from sparse_hyper_jax.largest import count_array
        >>> count_array("k", np.int64(3), most=4)
        Array(3, dtype=int32)
    """
    if not isinstance(count, Tracer):
        number = checks.check_count(name, count, most=most)
        return jnp.asarray(min(number, checks.INT32_CELLS - 1), jnp.int32)
    count = as_int32(name, count)
    checks.check_shape(name, count, (), "one number")
    return count


def _budgets(k: Any, shape: tuple[int, ...]) -> jax.Array:
    """Give one budget for each row."""
    *lead, n = shape
    if not isinstance(k, list | tuple) and not np.ndim(k):
        return jnp.broadcast_to(jnp.clip(count_array("k", k, n), 0, n), lead)
    k = as_int32("k", k)
    fits = k.ndim <= len(lead) and all(
        have in (1, want) for have, want in zip(k.shape[::-1], lead[::-1], strict=False)
    )
    checks.require(
        fits,
        f"k of shape {k.shape} for rows of shape {tuple(lead)}",
        "one number, or one for each row",
        "reshape k",
    )
    return jnp.clip(jnp.broadcast_to(k, lead), 0, n)


@jax.jit  # so that calls outside jit do not compile the loops again and again
def _top_k_mask(array: jax.Array, k: jax.Array) -> jax.Array:
    n = array.shape[-1]
    order, bits = magnitude_order(array)
    least = _kth_largest(order, k, bits)[..., None]
    tied = order == least
    wanted = k - jnp.sum(order > least, axis=-1, dtype=jnp.int32)

    def first_of_tied() -> jax.Array:
        falling = n - jax.lax.broadcasted_iota(jnp.int32, tied.shape, tied.ndim - 1)
        early = jnp.where(tied, falling, 0)
        last = _kth_largest(early, wanted, n.bit_length())[..., None]
        return (order > least) | (tied & (early >= last) & (wanted > 0)[..., None])

    surplus = jnp.any(jnp.sum(tied, axis=-1, dtype=jnp.int32) != wanted)
    return jax.lax.cond(surplus, first_of_tied, lambda: order >= least)


def magnitude_order(array: jax.Array) -> tuple[jax.Array, int]:
    """Give non-negative integers ordered like the magnitudes, NaN last, and how many bits they use.

    Args:
        array: floats of any shape.

    Returns:
        integers of the same shape, int64 for float64, else int32, and their number of bits.

    Example:
        >>> from sparse_hyper_jax.largest import magnitude_order
        >>> keys, bits = magnitude_order(jnp.array([-2.0, 0.5, jnp.nan, 0.0]))
        >>> jnp.argsort(keys).tolist(), bits
        ([3, 1, 0, 2], 31)
    """
    if jnp.finfo(array.dtype).bits < 16:
        array = array.astype(jnp.float32)
    bits = jnp.finfo(array.dtype).bits
    kind = {16: jnp.int16, 32: jnp.int32, 64: jnp.int64}[bits]
    order = jax.lax.bitcast_convert_type(jnp.abs(array), kind)
    return order.astype(jnp.int64 if bits == 64 else jnp.int32), bits - 1


def _kth_largest(order: jax.Array, k: jax.Array, bits: int) -> jax.Array:
    """Give the largest integer that at least k of each row reach, from non-negative integers."""
    # A CPU counts a quarter faster in float32, which is exact up to 2**24.
    kind = jnp.float32 if order.shape[-1] < 2**24 else jnp.int32
    enough = k.astype(kind)

    def decide_bit(number: jax.Array, low: jax.Array) -> jax.Array:
        candidate = low | (jnp.ones_like(low) << (bits - 1 - number).astype(low.dtype))
        reached = jnp.sum((order >= candidate[..., None]).astype(kind), axis=-1, dtype=kind)
        return jnp.where(reached >= enough, candidate, low)

    # Made from the data and not from nothing, so that inside shard_map it varies as they do.
    start = jnp.sum(order & 0, axis=-1, dtype=order.dtype)
    return jax.lax.fori_loop(0, bits, decide_bit, start)
