"""Attention whose queries say where they look: positions of their own, which a gradient moves."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.attention.entrance import over_heads
from sparse_hyper_jax.attention.taps import masked_softmax
from sparse_hyper_jax.entrance import as_array, as_int32
from sparse_hyper_jax.ops.device_axes import spread_by
from sparse_hyper_jax.ops.own_draws import GlobalFrom
from sparse_hyper_jax.ops.own_points import OwnPoints, as_rows, enter_own, own_cells, own_points
from sparse_hyper_jax.precision import float_dtype, wide_dtype


class _Reads(NamedTuple):
    """What attends to what: in one dtype of 32 bits or more, the query scaled."""

    query: jax.Array
    key: jax.Array
    value: jax.Array
    means: jax.Array
    shape: tuple[int, ...]
    last: jax.Array | None
    near: int


def pointer_attention(
    random_key: jax.Array | None,
    query: Any,
    key: Any,
    value: Any,
    means: Any,
    *,
    variances: Any,
    causal: bool = True,
    times: Any = None,
    near: int = 0,
    shape: Any = None,
    num_global: int = 4,
    num_local: int = 4,
    region: Any = None,
    global_from: GlobalFrom = "density",
    scale: float | jax.Array | None = None,
) -> jax.Array:
    """Let every query attend to a few points around the positions that it points to.

    Pointer j of query t in head h is a Gaussian over the positions of the keys. It has
    ``q = 2**r + num_global + num_local`` points u, of which repeated ones and, if ``causal``, those
    after t are dropped, and shares pi that sum to 1 over the others. Points of a pointer beyond t
    are drawn about t. With all ``k q`` points of the query::

        out[t, h] = sum_p w_p value[u_p, h]
        w = softmax over p of scale * query[t, h] . key[u_p, h] + log pi_p

    So a pointer counts as much as one key, and two that point to the same position count twice. A
    query whose points are all dropped gets 0. As variances fall to 0 this becomes
    :func:`pointer_attention_hard`. Time and memory are those of ``T (k q + near)`` products: there
    is no list of pairs, and nothing of ``T * T``.

    Gradients reach means and variances through the shares, and tell of the points that were drawn
    alone: a position that a query has not read says nothing. So let variances begin at the width
    that has to be searched and fall slowly, and use this where content tells a position, not where
    a position has to be searched by content.

    For one instance; ``jax.vmap`` gives batches, with a key for each.

    Args:
        random_key: a typed key; may be None without global and local points.
        query: ``(T, h, d)``.
        key: ``(S, g, d)``; each of g heads serves ``h / g`` heads of the query, the first ones the
            first.
        value: ``(S, g, e)``.
        means: ``(T, h, k)`` positions among the keys, from 0 to ``S - 1``; with ``shape``
            ``(T, h, k, r)``. Those outside count as so far outside.
        variances: the shape of means, in squared positions; below 1e-12 they count as 1e-12.
        causal: no query reads a key after its own position, which for a pointer is the end of the
            sequence.
        times: integers ``(T,)``, the position of every query among the keys; by default query t is
            at t, and T is S. For causal attention alone.
        near: number of nearest positions to which every query attends besides, its own included;
            for causal attention alone.
        shape: the r lengths of the axes on which keys lie, the last one fastest, if these are not a
            sequence: height and width of an image, for instance. Static.
        num_global: points per pointer drawn by its density, or from all positions.
        num_local: points per pointer drawn from the region.
        region: r lengths of the window around a mean from which local points come; 8 each by
            default.
        global_from: see :func:`~sparse_hyper_jax.ops.sample_tuples`.
        scale: of the logits, by default ``1 / sqrt(d)``; may be traced.

    Returns:
        ``(T, h, e)`` in the dtype of ``value``; shares, softmax and sums are float32 or wider.

    Raises:
        ValueError: shapes that do not agree, or a wrong option.

    Reference: Bloem 2018, arXiv 1810.09184, for the shares.

    Example:
        >>> from sparse_hyper_jax import attention
        >>> rows = jnp.arange(8.0)[:, None, None]  # eight steps, one head, one feature
        >>> def read(mean):  # of the last query, which points to a mean between two steps
        ...     options = {"variances": jnp.full((8, 1, 1), 0.1), "num_global": 0, "num_local": 0}
        ...     means = jnp.full((8, 1, 1), mean)
        ...     out = attention.pointer_attention(None, 0 * rows, rows, rows, means, **options)
        ...     return out[-1, 0, 0]
        >>> round(float(read(2.5)), 3), bool(jax.grad(read)(2.5) > 0)
        (2.5, True)
    """
    means, variances = as_array("means", means), as_array("variances", variances)
    reads = _enter(
        query, key, value, means, causal=causal, times=times, near=near, shape=shape, scale=scale
    )
    means, variances, counts = enter_own(
        random_key,
        means,
        variances,
        reads.shape,
        num_global=num_global,
        num_local=num_local,
        region=region,
        global_from=global_from,
    )
    dtype, single = wide_dtype(means, variances), shape is None
    centres, spreads = (as_rows(part, dtype, single=single) for part in (means, variances))
    last = _last_of_each(reads)
    points = own_points(random_key, centres, spreads, reads.shape, counts, last=last)
    return _attend(reads, points).astype(float_dtype(as_array("value", value)))


def pointer_attention_hard(
    query: Any,
    key: Any,
    value: Any,
    means: Any,
    *,
    causal: bool = True,
    times: Any = None,
    near: int = 0,
    shape: Any = None,
    scale: float | jax.Array | None = None,
) -> jax.Array:
    """Let every query attend to the positions nearest to where it points: evaluation.

    The limit of :func:`pointer_attention` for variances towards 0. Nothing is random, and no
    gradient reaches the means.

    Args:
        query: ``(T, h, d)``.
        key: ``(S, g, d)``.
        value: ``(S, g, e)``.
        means: ``(T, h, k)``, or ``(T, h, k, r)``; one of NaN makes its row NaN.
        causal: see :func:`pointer_attention`; a pointer to what is to come reads the query's own
            position, on several axes nothing.
        times: see there.
        near: see there.
        shape: see there.
        scale: see there.

    Returns:
        ``(T, h, e)`` in the dtype of ``value``.

    Raises:
        ValueError: shapes that do not agree, or a wrong option.

    Example:
        >>> from sparse_hyper_jax import attention
        >>> rows = jnp.arange(8.0)[:, None, None]
        >>> means = jnp.maximum(rows - 2.4, 0)  # some two steps ago
        >>> attention.pointer_attention_hard(0 * rows, rows, rows, means)[:, 0, 0].tolist()
        [0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    """
    means = as_array("means", means)
    reads = _enter(
        query, key, value, means, causal=causal, times=times, near=near, shape=shape, scale=scale
    )
    flat = as_rows(means, wide_dtype(means), single=shape is None)
    points = own_cells(flat, reads.shape, _last_of_each(reads))
    return _attend(reads, points).astype(float_dtype(as_array("value", value)))


def _enter(
    query: Any,
    key: Any,
    value: Any,
    means: jax.Array,
    *,
    causal: Any,
    times: Any,
    near: Any,
    shape: Any,
    scale: Any,
) -> _Reads:
    """Check all that both functions take."""
    query, key, value = (
        as_array(name, rows) for name, rows in (("query", query), ("key", key), ("value", value))
    )
    shapes = [rows.shape for rows in (query, key, value)]
    checks.require(
        all(len(one) == 3 for one in shapes)
        and shapes[1][:2] == shapes[2][:2]
        and shapes[0][2] == shapes[1][2]
        and min(*shapes[0], *shapes[1]) >= 1
        and shapes[0][1] % shapes[1][1] == 0,
        f"query, key and value of shapes {', '.join(map(str, shapes))}",
        "(T, h, d), (S, g, d) and (S, g, e), of at least 1 each",
        "give a number of key heads g that divides h, and use jax.vmap for a batch",
    )
    (steps, heads, width), length = shapes[0], shapes[1][0]
    sizes = (length,) if shape is None else checks.check_index_shape("shape", shape)
    checks.require(
        math.prod(sizes) == length,
        f"shape={sizes} for {length} keys",
        "lengths whose product is the number of keys",
        "change shape, or leave it out for a sequence",
    )
    wanted = (steps, heads, None) if shape is None else (steps, heads, None, len(sizes))
    checks.check_shape("means", means, wanted, "(T, h, k), or (T, h, k, r) with shape")
    last, near = _last_cells(checks.check_flag("causal", causal), times, near, steps, length)
    scale = 1 / math.sqrt(width) if scale is None else scale
    checks.check_number("scale", scale)
    dtype = wide_dtype(query, key, value)
    query, key, value = (rows.astype(dtype) for rows in (query, key, value))
    return _Reads(query * jnp.asarray(scale, dtype), key, value, means, sizes, last, near)


def _last_cells(
    causal: bool, times: Any, near: Any, steps: int, length: int
) -> tuple[jax.Array | None, int]:
    """Give the last key that each query may read, ``(T,)``, and the number of nearest ones."""
    near = checks.check_count("near", near)
    if not causal:
        checks.require(
            times is None and near == 0,
            f"causal=False with {'near' if times is None else 'times'}",
            "neither times nor near, which say where a query is",
            "leave them out, or set causal to True",
        )
        return None, 0
    if times is None:
        checks.require(
            steps == length,
            f"{steps} queries and {length} keys without times",
            "as many keys as queries where query t is at position t",
            "pass times, the position of every query",
        )
        return jnp.arange(steps, dtype=jnp.int32), near
    times = as_int32("times", times)
    checks.check_shape("times", times, (steps,), "one position for every query")
    return jnp.clip(times, -1, length - 1), near


def _last_of_each(reads: _Reads) -> jax.Array | None:
    """Give the last key of every pointer, ``(T * h * k,)``."""
    if reads.last is None:
        return None
    _, heads, count, *_ = reads.means.shape
    return jnp.repeat(reads.last, heads * count)


def _attend(reads: _Reads, points: OwnPoints) -> jax.Array:
    """Attend to all points of a query, and to the nearest positions: ``(T, h, e)``."""
    steps, heads, pointers, *_ = reads.means.shape
    dtype = wide_dtype(reads.query, points.logs)

    def of_heads(part: jax.Array) -> jax.Array:
        part = part.reshape(steps, heads, pointers, part.shape[1])
        return jax.lax.collapse(part, 2).swapaxes(0, 1)

    cells, logs = of_heads(points.cells), of_heads(points.logs)
    if reads.near and reads.last is not None:
        back = reads.last[:, None] - jnp.arange(reads.near, dtype=jnp.int32)[None]
        size = (heads, *back.shape)
        cells = jnp.concatenate([cells, jnp.broadcast_to(back[None], size)], axis=-1)
        there = jnp.where(back >= 0, jnp.zeros((), logs.dtype), -jnp.inf)
        logs = jnp.concatenate([logs, jnp.broadcast_to(there[None], size)], axis=-1)
    query, key, value = (rows.astype(dtype).swapaxes(0, 1) for rows in reads[:3])
    out = over_heads(_attend_head, 3, 2)(query, cells, logs.astype(dtype), key, value)
    return out.swapaxes(0, 1)


@partial(jax.jit, inline=True)  # outside of jit one program, not many
def _attend_head(
    query: jax.Array, cells: jax.Array, logs: jax.Array, key: jax.Array, value: jax.Array
) -> jax.Array:
    """Attend from ``(T, d)`` to the keys ``(S, d)`` at cells ``(T, p)``: ``(T, e)``."""
    live = logs != -jnp.inf
    cells = jnp.where(live, cells, 0)

    def read(rows: jax.Array) -> jax.Array:
        taken = spread_by(rows, cells).at[cells].get(mode="promise_in_bounds")
        # What is dropped is zeroed before any product: it may be NaN.
        return jnp.where(live[..., None], taken, 0)

    scores = jnp.sum(query[:, None] * read(key), axis=-1) + jnp.where(live, logs, 0)
    weights, _ = masked_softmax(scores.T, live.T)
    return jnp.sum(weights.T[..., None] * read(value), axis=1)
