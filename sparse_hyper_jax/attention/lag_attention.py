"""Attention whose heads look at a few lags, in time and memory of their number."""

from typing import Any

import jax

from sparse_hyper_jax.attention.entrance import enter_rows, enter_taps, over_heads, over_instances
from sparse_hyper_jax.attention.taps import HeadTaps, head_values, head_weights
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.precision import float_dtype


def lag_attention(
    query: Any,
    key: Any,
    value: Any,
    lags: Any,
    placed: Any = None,
    *,
    near: int = 0,
    scale: float | jax.Array | None = None,
) -> jax.Array:
    """Let every query attend to the positions at the lags of its head, and to the nearest ones.

    With ``U`` the lags of head h, that is 0 to ``near - 1`` and ``lags[h]`` where ``placed``::

        out[t, h] = sum_{u in U, u <= t} w_u value[t - u, h]
        w = softmax over u of scale * query[t, h] . key[t - u, h]

    A position before the start is masked before the softmax; a row with nothing to attend to is 0.
    A lag that is named twice counts twice. Time is that of ``T * (near + k)`` products, and so is
    the memory of logits; nothing is as large as ``T * T``, and no copy is kept of what is read.

    Args:
        query: ``(..., T, h, d)``.
        key: ``(..., T, g, d)``; each of g heads serves ``h / g`` heads of the query, the first
            ones the first.
        value: ``(..., T, g, e)``.
        lags: integers ``(h, k)``, steps back, 0 for the present; those below 0, or from T on, count
            for nothing.
        placed: flags ``(h, k)``, false for an empty slot, which counts for nothing; by default all
            are placed.
        near: number of nearest positions to which every head attends, the present one included.
        scale: of the logits, by default ``1 / sqrt(d)``; may be traced.

    Returns:
        ``(..., T, h, e)`` in the dtype of ``value``; logits, softmax and sums are float32 or wider.

    Raises:
        ValueError: shapes that do not agree, lags that are no integers, flags that are none.

    Reference: Child et al. 2019, arXiv 1904.10509, for heads that look at fixed lags.

    Example:
        >>> from sparse_hyper_jax import attention
        >>> rows = jnp.arange(4.0)[:, None, None]  # four steps, one head, one feature
        >>> out = attention.lag_attention(0 * rows, rows, rows, lags=[[2]], near=1)
        >>> out[:, 0, 0].tolist()  # the mean of now and two steps ago
        [0.0, 1.0, 1.0, 2.0]
    """
    rows = enter_rows(query, key, value, scale)
    taps = enter_taps(lags, placed, rows.query.shape[-2], near)

    def one(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        query, key, value = (array.swapaxes(0, 1) for array in (query, key, value))
        return attend_by_head(query, key, value, taps).swapaxes(0, 1)

    found = over_instances(one, rows.query.ndim - 3)(*rows)
    return found.astype(float_dtype(as_array("value", value)))


def attend_by_head(query: jax.Array, key: jax.Array, value: jax.Array, taps: HeadTaps) -> jax.Array:
    """Attend with heads first: ``(h, T, d)``, ``(g, T, d)`` and ``(g, T, e)`` to ``(h, T, e)``."""

    def head(query: jax.Array, taps: HeadTaps, key: jax.Array, value: jax.Array) -> jax.Array:
        weights, _ = head_weights(query, key, taps)
        return head_values(weights, value, taps)

    return over_heads(head, 2, 2)(query, taps, key, value)
