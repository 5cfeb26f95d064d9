"""Which components of each row are largest, without sorting the row."""

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks


def top_k_mask(array: jax.Array, k: int | jax.Array) -> jax.Array:
    """Mark the k components of largest magnitude on the last axis.

    The same choice as ``lax.top_k(abs(array), k)``: exactly k, the first ones where several are
    equal, NaN before everything. But k may differ from row to row and may be traced, and no row is
    sorted: the k-th largest magnitude is found bit by bit (the bits of non-negative floats are
    ordered like the floats), which costs one counting pass per bit.

    Args:
        array: ``(..., n)`` floats.
        k: int from 0 to n, or an integer array that broadcasts to ``(...)``.

    Returns:
        bool ``(..., n)``.

    Raises:
        ValueError: a scalar, no floats, or a static k out of range.
    """
    checks.require(
        jnp.ndim(array) >= 1 and jnp.issubdtype(jnp.result_type(array), jnp.floating),
        f"an array of shape {jnp.shape(array)} and dtype {jnp.result_type(array)}",
        "floats of shape (..., n)",
        "pass real numbers with at least one axis",
    )
    n = array.shape[-1]
    if isinstance(k, int):
        checks.check_count("k", k)
        checks.require(k <= n, f"k={k} of {n} components", f"at most {n}", "lower k")
    order, bits = magnitude_order(array)
    k = jnp.broadcast_to(jnp.asarray(k, jnp.int32), order.shape[:-1])
    least = _kth_largest(order, k, bits)[..., None]
    tied = order == least
    wanted = k - jnp.sum(order > least, axis=-1, dtype=jnp.int32)

    def first_of_tied() -> jax.Array:
        early = jnp.where(tied, jnp.arange(n, 0, -1, dtype=jnp.int32), 0)
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

    def decide_bit(number: jax.Array, low: jax.Array) -> jax.Array:
        candidate = low | (jnp.ones_like(low) << (bits - 1 - number).astype(low.dtype))
        reached = jnp.sum((order >= candidate[..., None]).astype(kind), axis=-1)
        return jnp.where(reached >= k, candidate, low)

    # Made from the data and not from nothing, so that inside shard_map it varies as they do.
    start = jnp.sum(order & 0, axis=-1, dtype=order.dtype)
    return jax.lax.fori_loop(0, bits, decide_bit, start)
