"""Attention at lags one step at a time, with the keys and values of the reach alone."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export, lax

from sparse_hyper_jax import checks
from sparse_hyper_jax.attention.entrance import (
    HeadTaps,
    enter_rows,
    enter_taps,
    over_heads,
    over_instances,
)
from sparse_hyper_jax.attention.taps import masked_softmax
from sparse_hyper_jax.entrance import as_array, check_instance
from sparse_hyper_jax.precision import float_dtype


class LagCache(NamedTuple):
    """The last keys and values of a sequence, in a ring.

    Attributes:
        keys: ``(..., reach, g, d)``.
        values: ``(..., reach, g, e)``.
        slot: int32 ``(...)``, where the next row goes: there lies the oldest of a full ring.
        filled: int32 ``(...)``, how many rows there are, up to ``reach``.

    Example:
        >>> from sparse_hyper_jax import attention
        >>> rows = jnp.arange(5.0)[:, None, None]  # five steps, one head, one feature
        >>> cache = attention.lag_attention_cache(rows, rows, reach=3)
        >>> cache.keys[:, 0, 0].tolist(), int(cache.slot), int(cache.filled)
        ([2.0, 3.0, 4.0], 0, 3)
    """

    keys: jax.Array
    values: jax.Array
    slot: jax.Array
    filled: jax.Array


export.register_namedtuple_serialization(LagCache, serialized_name="sparse_hyper_jax.LagCache")


def lag_attention_cache(key: Any, value: Any, *, reach: int) -> LagCache:
    """Give the cache of a sequence that has been read so far, or of one that starts.

    Args:
        key: ``(..., T, g, d)``; T may be 0.
        value: ``(..., T, g, e)``.
        reach: how many steps are kept, the present one included: more than every lag, and at least
            ``near``; static.

    Returns:
        :class:`LagCache`, in the dtypes of key and value.

    Raises:
        ValueError: shapes that do not agree, or a reach below 1.

    Example:
        >>> from sparse_hyper_jax import attention
        >>> none = jnp.zeros((8, 0, 2, 16))  # eight sequences that start, two heads
        >>> attention.lag_attention_cache(none, none, reach=100).keys.shape
        (8, 100, 2, 16)
    """
    key, value = as_array("key", key), as_array("value", value)
    checks.require(
        key.ndim == value.ndim >= 3 and key.shape[:-1] == value.shape[:-1],
        f"key and value of shapes {key.shape} and {value.shape}",
        "(..., T, g, d) and (..., T, g, e)",
        "give them the same first axes",
    )
    reach = checks.check_count("reach", reach, least=1)
    leading, length = key.shape[:-3], key.shape[-3]
    kept = min(length, reach)

    def ring(rows: jax.Array) -> jax.Array:
        rows = rows.astype(float_dtype(rows))
        last = lax.slice_in_dim(rows, length - kept, length, axis=-3)
        more = [(0, 0)] * (rows.ndim - 3) + [(0, reach - kept), (0, 0), (0, 0)]
        return jnp.pad(last, more)

    slot, filled = (jnp.full(leading, number, jnp.int32) for number in (kept % reach, kept))
    return LagCache(ring(key), ring(value), slot, filled)


def lag_attention_step(
    cache: LagCache,
    query: Any,
    key: Any,
    value: Any,
    lags: Any,
    *,
    placed: Any = None,
    near: int = 0,
    scale: float | jax.Array | None = None,
) -> tuple[jax.Array, LagCache]:
    """Attend from one more step, and keep its key and value.

    Step by step this gives what :func:`lag_attention` gives at once, in ``near + k`` reads a step.

    Args:
        cache: from :func:`lag_attention_cache` or the last step.
        query: ``(..., h, d)``.
        key: ``(..., g, d)``.
        value: ``(..., g, e)``.
        lags: integers ``(h, k)``; those from the reach of the cache on count for nothing.
        placed: flags ``(h, k)``, see :func:`lag_attention`.
        near: see there.
        scale: see there.

    Returns:
        ``(..., h, e)`` in the dtype of ``value``, and the next cache.

    Raises:
        ValueError: shapes that do not agree with each other or with the cache, or ``near`` beyond
            its reach.

    Example:
        >>> from sparse_hyper_jax import attention
        >>> row = jnp.zeros((0, 1, 1))
        >>> cache, said = attention.lag_attention_cache(row, row, reach=3), []
        >>> for x in jnp.arange(4.0)[:, None, None]:  # one head, one feature
        ...     out, cache = attention.lag_attention_step(cache, 0 * x, x, x, [[2]], near=1)
        ...     said.append(float(out[0, 0]))
        >>> said
        [0.0, 1.0, 1.0, 2.0]
    """
    check_instance("cache", cache, LagCache)
    rows = enter_rows(query, key, value, scale, steps=False)
    taps = enter_taps(lags, placed, rows.query.shape[-2], near)
    checks.check_shape("cache.keys", cache.keys, _ring_shape(cache.keys, rows.key), "for this key")
    checks.check_shape(
        "cache.values", cache.values, _ring_shape(cache.keys, rows.value), "for this value"
    )
    reach = cache.keys.shape[-3]
    checks.require(
        near <= reach, f"near={near} of a cache of reach={reach}", "at most its reach", "lower near"
    )
    kept = LagCache(
        _written(cache.keys, rows.key, cache.slot),
        _written(cache.values, rows.value, cache.slot),
        (cache.slot + 1) % reach,
        jnp.minimum(cache.filled + 1, reach),
    )
    found = over_instances(partial(_read, taps=taps), rows.query.ndim - 2)(
        rows.query, kept.keys, kept.values, cache.slot, kept.filled
    )
    return found.astype(float_dtype(as_array("value", value))), kept


def _ring_shape(keys: jax.Array, row: jax.Array) -> tuple[int | None, ...]:
    reach = jnp.shape(keys)[-3] if jnp.ndim(keys) >= 3 else None
    return (*row.shape[:-2], reach, *row.shape[-2:])


def _written(ring: jax.Array, row: jax.Array, slot: jax.Array) -> jax.Array:
    """Put a row into the ring of every instance."""

    def one(ring: jax.Array, row: jax.Array, slot: jax.Array) -> jax.Array:
        return lax.dynamic_update_index_in_dim(ring, row.astype(ring.dtype), slot, 0)

    return over_instances(one, row.ndim - 2)(ring, row, slot)


def _read(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    slot: jax.Array,
    filled: jax.Array,
    *,
    taps: HeadTaps,
) -> jax.Array:
    """Attend from one step of one instance: ``(h, d)`` to ``(h, e)``."""

    def head(query: jax.Array, taps: HeadTaps, keys: jax.Array, values: jax.Array) -> jax.Array:
        live = taps.live & (taps.lags < filled)
        places = jnp.where(live, slot - taps.lags, 0) % len(keys)
        # What is dropped is zeroed before the product: it may be NaN.
        key, value = (
            jnp.where(live[:, None], ring[places].astype(query.dtype), 0) for ring in (keys, values)
        )
        weights, _ = masked_softmax(jnp.sum(query[None] * key, axis=-1), live)
        return jnp.sum(weights[:, None] * value, axis=0)

    by_head = (ring.swapaxes(0, 1) for ring in (keys, values))
    return over_heads(head, 2, 2)(query, taps, *by_head)
