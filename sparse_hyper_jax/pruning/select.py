"""Exactly k entries out of several arrays, wherever their parts are stored."""

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_same_shape
from sparse_hyper_jax.largest import count_array, magnitude_order


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

    Example:
        >>> from sparse_hyper_jax.pruning import keep_largest
        >>> one, two = jnp.array([3.0, -1.0]), jnp.array([[0.5, 2.0, 2.0]])
        >>> [mask.tolist() for mask in keep_largest([one, two], 2)]  # of equal ones the first
        [[True, False], [[False, True, False]]]
    """
    checks.require(
        isinstance(scores, list | tuple),
        f"scores={scores!r:.80}",
        "a list of arrays",
        "write [scores] for one array",
    )
    arrays = [as_array("scores", one, "floats") for one in scores]
    kinds = {one.dtype for one in arrays}
    checks.require(
        len(kinds) == 1,
        f"scores of dtypes {sorted(str(kind) for kind in kinds)}",
        "at least one array, all of one float dtype",
        "convert them to float32",
    )
    entries = sum(one.size for one in arrays)
    checks.require(
        entries < checks.INT32_CELLS,
        f"{entries} entries together",
        "fewer than 2**31, which are counted in int32",
        "choose in each array by itself",
    )
    return _keep_largest(arrays, count_array("count", count), _flags(among, arrays))


def _flags(among: Sequence[jax.Array] | None, scores: list[jax.Array]) -> list[jax.Array] | None:
    """Check what entries may be taken."""
    if among is None:
        return None
    checks.require(
        isinstance(among, list | tuple) and len(among) == len(scores),
        f"among={among!r:.80}",
        f"None or a list of {len(scores)} bool arrays, one for each of the scores",
        "write [among] for one array",
    )
    flags = [as_array("among", one, "flags") for one in among]
    for one, score in zip(flags, scores, strict=True):
        check_same_shape(scores=score, among=one)
    return flags


@jax.jit  # so that calls outside jit do not compile the loop again and again
def _keep_largest(
    scores: list[jax.Array], count: jax.Array, among: list[jax.Array] | None
) -> list[jax.Array]:
    (first, bits), *more = [magnitude_order(one) for one in scores]
    orders = [first, *(order for order, _ in more)]
    if among is not None:
        orders = [jnp.where(one, order, -1) for one, order in zip(among, orders, strict=True)]
    count = jnp.clip(count, 0, _total(order >= 0 for order in orders))
    least = _threshold(orders, count, bits)
    tied = [order == least for order in orders]
    wanted = count - _total(order > least for order in orders)

    def first_of_tied() -> list[jax.Array]:
        masks, left = [], wanted
        for order, equal in zip(orders, tied, strict=True):
            masks.append((order > least) | _first(equal, left))
            left = left - _total([equal])
        return masks

    def all_of_tied() -> list[jax.Array]:
        return [order >= least for order in orders]

    return jax.lax.cond(_total(tied) != wanted, first_of_tied, all_of_tied)


def _total(masks: Iterable[jax.Array]) -> jax.Array:
    return sum((jnp.sum(mask, dtype=jnp.int32) for mask in masks), jnp.int32(0))


def _threshold(orders: list[jax.Array], count: jax.Array, bits: int) -> jax.Array:
    """Give the largest non-negative integer that at least ``count`` entries reach."""

    def decide_bit(number: jax.Array, low: jax.Array) -> jax.Array:
        candidate = low | (jnp.ones_like(low) << (bits - 1 - number).astype(low.dtype))
        reached = _total(order >= candidate for order in orders)
        return jnp.where(reached >= count, candidate, low)

    # Made from the count and not from nothing, so that inside shard_map it varies as that does.
    return jax.lax.fori_loop(0, bits, decide_bit, (count & 0).astype(orders[0].dtype))


def _first(mask: jax.Array, count: jax.Array) -> jax.Array:
    """Keep the first true entries in row-major order, so many of them.

    Where they end is found bit by bit, by counting: a running sum would gather what is spread over
    devices.
    """
    number, bits = _row_major_numbers(mask.shape), mask.size.bit_length()

    def decide_bit(bit: jax.Array, low: jax.Array) -> jax.Array:
        candidate = low | (jnp.ones_like(low) << (bits - 1 - bit))
        return jnp.where(_total([mask & (number < candidate)]) <= count, candidate, low)

    return mask & (number < jax.lax.fori_loop(0, bits, decide_bit, count & 0))


def _row_major_numbers(shape: tuple[int, ...]) -> jax.Array:
    """Number the entries from 0, without flattening."""
    number = jnp.zeros(shape, jnp.int32)
    for axis, length in enumerate(shape):
        number = number * length + jax.lax.broadcasted_iota(jnp.int32, shape, axis)
    return number
