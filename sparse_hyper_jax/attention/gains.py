"""What attention would gain by a tap at every lag, all lags at once, in bounded memory."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from sparse_hyper_jax import checks
from sparse_hyper_jax.attention.entrance import (
    HeadTaps,
    enter_rows,
    enter_taps,
    over_heads,
    over_instances,
)
from sparse_hyper_jax.attention.taps import head_values, head_weights
from sparse_hyper_jax.entrance import as_array

LARGEST_LOG_SHARE = 60.0
"""A quotient of logits beyond that is cut, so that sums of millions stay finite."""


def lag_attention_gains(
    query: Any,
    key: Any,
    value: Any,
    lags: Any,
    cotangent: Any,
    *,
    placed: Any = None,
    reach: int,
    near: int = 0,
    scale: float | jax.Array | None = None,
    matrices: bool = False,
    inserted: bool = False,
    block: int = 128,
) -> jax.Array:
    """Give the gain of a tap at every lag: how fast the loss falls as it is mixed in.

    Let an absent lag u of head h take part in the softmax with ``m exp(logit)``, and m grow from 0.
    With ``z`` the logit at u, ``Z`` the sum of ``exp(logit)`` over the taps of the head, ``out``
    what they give, and ``delta = dL / d out``::

        gain[h, u] = -dL/dm = -sum_t exp(z) / Z (value[t - u] - out[t]) . delta[t]

    where ``t >= u``. Where nothing is live a tap of any m takes the whole row, and the quotient
    counts as 1. Few rows may rule the sum, since the quotient ends at e^60; with ``inserted`` it
    is ``exp(z) / (Z + exp(z))``, the weight that a tap of m = 1 has: then the gain is that of the
    change of ``out`` by a placed tap, to first order in this change.

    That takes values as they are. Projections that have learned nothing yet may turn a good lag's
    gain into a loss; with ``matrices`` the tap brings a matrix in place of m, as if its values had
    a projection of their own, and the gain has a sign no more::

        gain[h, u, c, d] = -sum_t exp(z) / Z (value[t - u] - out[t])[c] delta[t, d]

    Time is that of two products of ``T`` rows with ``reach`` (for matrices ``e`` of them), memory
    that of ``block * (block + reach)`` numbers for every head.

    Args:
        query: ``(..., T, h, d)``.
        key: ``(..., T, g, d)``, see :func:`lag_attention`.
        value: ``(..., T, g, e)``.
        lags: integers ``(h, k)``, the taps that are there; gains at these are not gains of what is
            absent: mask them.
        cotangent: ``(..., T, h, e)``, the gradient of the loss to the output.
        placed: flags ``(h, k)``, see :func:`lag_attention`.
        reach: number of lags, from 0 on; static.
        near: see :func:`lag_attention`.
        scale: see there.
        matrices: tell gains of matrices; ``cotangent`` may then have any last axis, for instance a
            few directions by :func:`~sparse_hyper_jax.ops.whiten_cotangent`.
        inserted: weigh a tap as if it were placed.
        block: rows of the query that are looked at together; static.

    Returns:
        ``(..., h, reach)``, or ``(..., h, reach, e, m)`` of matrices, float32 or wider: of every
        sequence; add them up over a batch of at least four, as one alone is noisy.

    Raises:
        ValueError: shapes that do not agree, or a count below 1.

    Example:
        >>> from sparse_hyper_jax import attention
        >>> rows = jnp.eye(4)[jnp.array([0, 1, 0, 1, 2])][:, None]  # five steps, one head
        >>> target = jnp.roll(rows, 2, axis=0).at[:2].set(0)  # what was there two steps ago
        >>> gains = attention.lag_attention_gains(
        ...     0 * rows, rows, rows, jnp.zeros((1, 0), int), -target, reach=4
        ... )
        >>> gains[0].tolist()  # nothing is placed yet
        [2.0, 0.0, 3.0, 0.0]
    """
    rows = enter_rows(query, key, value, scale)
    taps = enter_taps(lags, placed, rows.query.shape[-2], near)
    cotangent = as_array("cotangent", cotangent).astype(rows.value.dtype)
    matrices = checks.check_flag("matrices", matrices)
    last = None if matrices else rows.value.shape[-1]
    shape = (*rows.query.shape[:-1], last)
    checks.check_shape("cotangent", cotangent, shape, "that of the output")
    checks.require(
        rows.query.shape[-3] >= 1,
        f"query of shape {rows.query.shape}",
        "at least one step",
        "leave empty sequences out",
    )
    reach = checks.check_count("reach", reach, least=1)
    block = checks.check_count("block", block, least=1)
    inserted = checks.check_flag("inserted", inserted)
    head = partial(_head_gains, reach=reach, matrices=matrices, inserted=inserted, block=block)

    def one(query: jax.Array, key: jax.Array, value: jax.Array, cotangent: jax.Array) -> jax.Array:
        query, key, value, cotangent = (
            array.swapaxes(0, 1) for array in (query, key, value, cotangent)
        )
        return over_heads(head, 3, 2)(query, cotangent, taps, key, value)

    return over_instances(one, rows.query.ndim - 3)(*rows, cotangent)


def _head_gains(
    query: jax.Array,
    cotangent: jax.Array,
    taps: HeadTaps,
    key: jax.Array,
    value: jax.Array,
    *,
    reach: int,
    matrices: bool,
    inserted: bool,
    block: int,
) -> jax.Array:
    """Give the gains ``(reach,)`` or ``(reach, e, m)`` of one head of one instance."""
    length = len(query)
    block, seen = min(block, length), min(reach, length)
    weights, divisor = head_weights(query, key, taps)
    output = head_values(weights, value, taps)
    # Whole blocks of rows; rows that are added at the end have a cotangent of 0.
    blocks = -(-length // block)
    more = blocks * block - length

    def in_blocks(array: jax.Array) -> jax.Array:
        padded = jnp.pad(array, [(0, more)] + [(0, 0)] * (array.ndim - 1))
        return padded.reshape(blocks, block, *array.shape[1:])

    keys, values = (jnp.pad(array, ((seen - 1, more), (0, 0))) for array in (key, value))
    of_block = _matrices_of if matrices else _numbers_of

    def add(total: jax.Array, rows: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        number, query, cotangent, output, divisor = rows
        start = number * block
        read = partial(lax.dynamic_slice_in_dim, start_index=start, slice_size=block + seen - 1)
        share = _shares(by_lag(query @ read(keys).T, seen), divisor[:, None], inserted)
        # Row t reaches back to the start, by t steps.
        times = start + jnp.arange(block, dtype=jnp.int32)
        inside = times[:, None] >= jnp.arange(seen, dtype=jnp.int32)[None]
        return total - of_block(jnp.where(inside, share, 0), read(values), output, cotangent), None

    numbers = jnp.arange(blocks, dtype=jnp.int32)
    of_rows = (numbers, *map(in_blocks, (query, cotangent, output, divisor)))
    shape = (value.shape[1], cotangent.shape[1]) if matrices else ()
    gains, _ = lax.scan(add, jnp.zeros((seen, *shape), query.dtype), of_rows)
    return jnp.pad(gains, ((0, reach - seen), *((0, 0) for _ in shape)))


def _numbers_of(
    share: jax.Array, values: jax.Array, output: jax.Array, cotangent: jax.Array
) -> jax.Array:
    """Give ``sum_t share (value - output) . cotangent`` by lag, ``(reach,)``."""
    toward = by_lag(cotangent @ values.T, share.shape[1])
    return jnp.sum(share * (toward - jnp.sum(output * cotangent, axis=-1)[:, None]), axis=0)


def _matrices_of(
    share: jax.Array, values: jax.Array, output: jax.Array, cotangent: jax.Array
) -> jax.Array:
    """Give ``sum_t share (value - output) cotangent^T`` by lag, ``(reach, e, m)``."""
    rows, reach = share.shape

    # One feature after another: all of them side by side are e times the memory.
    def of_feature(feature: tuple[jax.Array, jax.Array]) -> jax.Array:
        column, own = feature
        there = by_lag(jnp.broadcast_to(column, (rows, len(column))), reach)
        return (share * (there - own[:, None])).T @ cotangent

    return jnp.moveaxis(lax.map(of_feature, (values.T, output.T)), 0, 1)


def _shares(score: jax.Array, divisor: jax.Array, inserted: bool) -> jax.Array:
    """Give the weight of a tap in units of what the others have, or as if it were placed."""
    alone = divisor == -jnp.inf
    score = jnp.minimum(score - jnp.where(alone, 0, divisor), LARGEST_LOG_SHARE)
    return jnp.where(alone, 1, jax.nn.sigmoid(score) if inserted else jnp.exp(score))


def by_lag(products: jax.Array, reach: int) -> jax.Array:
    """Turn products ``(n, n + reach - 1)`` of rows and columns into ``(n, reach)`` by lag.

    Row i meets lag u in column ``i + reach - 1 - u``: one row later, one column further. A matrix
    that is one column wider, read from the same numbers one after another, has them below each
    other.
    """
    rows, width = products.shape
    longer = jnp.pad(products.reshape(-1), (0, rows))
    return longer.reshape(rows, width + 1)[:, reach - 1 :: -1]
