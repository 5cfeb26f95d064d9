"""What callers of attention pass, checked once, and laid out by head."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.precision import wide_dtype


class HeadTaps(NamedTuple):
    """The lags of all heads, the near ones first.

    Attributes:
        lags: int32 ``(h, near + k)``.
        live: ``(h, near + k)``, false for an empty slot, and for a lag below 0.
    """

    lags: jax.Array
    live: jax.Array


class Rows(NamedTuple):
    """Queries, keys and values in one dtype, of 32 bits or more.

    Attributes:
        query: ``(..., T, h, d)``, or ``(..., h, d)`` for one step; multiplied by the scale.
        key: ``(..., T, g, d)``, or ``(..., g, d)``; g divides h.
        value: ``(..., T, g, e)``, or ``(..., g, e)``.
    """

    query: jax.Array
    key: jax.Array
    value: jax.Array


def enter_rows(query: Any, key: Any, value: Any, scale: Any, *, steps: bool = True) -> Rows:
    """Check queries, keys and values; promote them, and scale the queries.

    Args:
        query: see :func:`~sparse_hyper_jax.attention.lag_attention`.
        key: see there.
        value: see there.
        scale: see there.
        steps: whether they have an axis of time.
    """
    arrays = [
        as_array(name, array) for name, array in (("query", query), ("key", key), ("value", value))
    ]
    shapes = [array.shape for array in arrays]
    least = 3 if steps else 2
    leading = {shape[:-2] for shape in shapes}
    heads, key_heads, value_heads = (shape[-2] if len(shape) > 1 else 0 for shape in shapes)
    checks.require(
        all(len(shape) >= least for shape in shapes)
        and len(leading) == 1
        and shapes[0][-1] == shapes[1][-1] >= 1
        and key_heads == value_heads >= 1
        and heads % key_heads == 0,
        f"query, key and value of shapes {', '.join(map(str, shapes))}",
        "(..., T, h, d), (..., T, g, d) and (..., T, g, e)"
        if steps
        else "(..., h, d), (..., g, d) and (..., g, e)",
        "give them the same first axes, and a number of key heads g that divides h",
    )
    dtype = wide_dtype(*arrays)
    if scale is None:
        scale = 1 / math.sqrt(shapes[0][-1])
    checks.check_number("scale", scale)
    rows = Rows(*(array.astype(dtype) for array in arrays))
    return rows._replace(query=rows.query * jnp.asarray(scale, dtype))


def enter_taps(lags: Any, placed: Any, heads: int, near: Any) -> HeadTaps:
    """Check the lags of all heads; put the near ones before them."""
    lags = as_array("lags", lags, "integers")
    checks.check_shape("lags", lags, (heads, None), "(h, k): the lags of every head of the query")
    # Of 32 bits at least, so that a lag is not cut off, nor a length that it is compared with.
    lags = lags.astype(jnp.int64 if lags.dtype.itemsize == 8 else jnp.int32)
    placed = jnp.ones(lags.shape, bool) if placed is None else as_array("placed", placed, "flags")
    checks.check_shape("placed", placed, lags.shape, "a flag for every lag")
    near = checks.check_count("near", near)
    present = jnp.broadcast_to(jnp.arange(near, dtype=lags.dtype), (heads, near))
    lags = jnp.concatenate([present, lags], axis=1)
    placed = jnp.concatenate([jnp.ones((heads, near), bool), placed], axis=1)
    live = placed & (lags >= 0)
    most = jnp.iinfo(jnp.int32).max
    return HeadTaps(jnp.clip(lags, 0, most).astype(jnp.int32), live)


def over_instances(function: Callable[..., Any], axes: int) -> Callable[..., Any]:
    """Map a function of single instances over their leading axes."""
    for _ in range(axes):
        function = jax.vmap(function)
    return function


def over_heads(function: Callable[..., Any], of_query: int, of_key: int) -> Callable[..., Any]:
    """Map a function of single heads over the heads of queries, and of the keys that they share.

    Args:
        function: takes what belongs to a head of the query, then arrays of a head of the key.
        of_query: how many of the former, each with a first axis ``h``.
        of_key: how many of the latter, each with a first axis ``g``.

    Returns:
        a function of arrays with first axes of heads; what it gives has first axes ``h``.
    """
    inner = jax.vmap(function, in_axes=(0,) * of_query + (None,) * of_key)

    def mapped(*arrays: Any) -> Any:
        heads, groups = len(arrays[0]), len(arrays[-1])
        queries = jax.tree.map(
            lambda leaf: leaf.reshape(groups, heads // groups, *leaf.shape[1:]), arrays[:of_query]
        )
        found = jax.vmap(inner)(*queries, *arrays[of_query:])
        return jax.tree.map(lambda leaf: leaf.reshape(heads, *leaf.shape[2:]), found)

    return mapped
