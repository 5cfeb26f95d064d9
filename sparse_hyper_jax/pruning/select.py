"""Exactly k entries out of several arrays, wherever their parts are stored."""

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.largest import magnitude_order


def keep_largest(
    scores: Sequence[jax.Array],
    count: int | jax.Array,
    *,
    among: Sequence[jax.Array] | None = None,
) -> list[jax.Array]:
    """Mark the entries of largest magnitude over all arrays together, exactly ``count`` of them.

    Of equal entries the first ones are taken, in the order of the arrays and of their entries; NaN
    comes before everything. The threshold is found bit by bit, by counting, and nothing is
    flattened or sorted: under jit every mask is sharded like its scores, and devices exchange
    counts alone.

    Args:
        scores: arrays of floats of one dtype, of any shapes.
        count: number of entries, may be traced; more than there are takes all.
        among: None, or bool arrays of the same shapes; only entries that are true are taken.

    Returns:
        bool arrays of the same shapes.

    Raises:
        ValueError: no array, dtypes that differ or are no floats, or a negative static count.
    """
    kinds = {jnp.result_type(one) for one in scores}
    checks.require(
        len(kinds) == 1 and all(jnp.issubdtype(kind, jnp.floating) for kind in kinds),
        f"scores of dtypes {sorted(str(kind) for kind in kinds)}",
        "at least one array, all of one float dtype",
        "convert them to float32",
    )
    if isinstance(count, int):
        checks.check_count("count", count)
    arrays = [jnp.asarray(one) for one in scores]
    return _keep_largest(arrays, jnp.asarray(count, jnp.int32), among)


@jax.jit  # so that calls outside jit do not compile the loop again and again
def _keep_largest(
    scores: list[jax.Array], count: jax.Array, among: Sequence[jax.Array] | None
) -> list[jax.Array]:
    (first, bits), *more = [magnitude_order(one) for one in scores]
    orders = [first, *(order for order, _ in more)]
    if among is not None:
        orders = [jnp.where(one, order, -1) for one, order in zip(among, orders, strict=True)]
    count = jnp.minimum(count, _total(order >= 0 for order in orders))
    least = _threshold(orders, count, bits)
    wanted = count - _total(order > least for order in orders)
    masks, before = [], jnp.int32(0)
    for order in orders:
        tied = order == least
        early = before + _rank(tied) < wanted
        masks.append((order > least) | (tied & early))
        before = before + jnp.sum(tied, dtype=jnp.int32)
    return masks


def _total(masks: Iterable[jax.Array]) -> jax.Array:
    return sum((jnp.sum(mask, dtype=jnp.int32) for mask in masks), jnp.int32(0))


def _threshold(orders: list[jax.Array], count: jax.Array, bits: int) -> jax.Array:
    """Give the largest non-negative integer that at least ``count`` entries reach."""

    def decide_bit(number: jax.Array, low: jax.Array) -> jax.Array:
        candidate = low | (jnp.ones_like(low) << (bits - 1 - number).astype(low.dtype))
        reached = _total(order >= candidate for order in orders)
        return jnp.where(reached >= count, candidate, low)

    return jax.lax.fori_loop(0, bits, decide_bit, jnp.zeros((), orders[0].dtype))


def _rank(mask: jax.Array) -> jax.Array:
    """Number the true entries in row-major order, from 0, without flattening."""
    if mask.ndim == 0:
        return jnp.int32(0)
    ones = mask.astype(jnp.int32)
    within = jnp.cumsum(ones, axis=-1) - ones
    return within + _rank_rows(jnp.sum(ones, axis=-1))[..., None]


def _rank_rows(counts: jax.Array) -> jax.Array:
    """Add up the counts that come before each, in row-major order."""
    if counts.ndim == 0:
        return jnp.int32(0)
    within = jnp.cumsum(counts, axis=-1) - counts
    return within + _rank_rows(jnp.sum(counts, axis=-1))[..., None]
