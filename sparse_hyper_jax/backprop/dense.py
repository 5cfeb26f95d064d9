"""A dense layer whose backward pass multiplies only what is propagated."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.backprop.adaptive import AdaptiveLadder
from sparse_hyper_jax.backprop.choice import Sparsifier, place_rows, spread
from sparse_hyper_jax.backprop.compact import CompactGradient, check_compact, empty_compact
from sparse_hyper_jax.backprop.memory import Memory, Rule, SelectOn, prepare, propagate
from sparse_hyper_jax.backprop.rules import (
    LAYOUTS,
    Layout,
    align,
    check_differentiated,
    check_memory,
    make_rule,
    materialise,
    memory_axes,
    split_primals,
)
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.placement import (
    gathered,
    placed_like,
    product_over_rows,
    with_whole_rows,
)
from sparse_hyper_jax.precision import at_least_float32, wide_dtype


class _Options(NamedTuple):
    rule: Rule
    dense_bias: bool
    layout: Layout
    precision: Any


def sparse_dense(
    key: jax.Array | None,
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    memory: Memory | None = None,
    *,
    sparsifier: Sparsifier,
    eta: float = 0.8,
    select_on: SelectOn = "corrected",
    dense_bias: bool = True,
    layout: Layout = "out_in",
    compact: CompactGradient | None = None,
    precision: Any = None,
) -> jax.Array:
    """Multiply by a dense kernel; on the way back, only with the propagated components.

    With rows ``x (B, n_in)``, ``W (n_out, n_in)``, the cotangent g of the output, memory m::

        forward:   y = x W^T + b
        backward:  a = g + m,  s = S(a),  dx = s W,  dW = s^T x,  db = sum_B g,
                   m' = eta * (a - s)

    and the gradient with respect to ``memory`` is ``m'``. Where the sparsifier chooses columns for
    all rows (:class:`UnifiedTopK`, :class:`CandidateTopK`, :class:`BlockTopK`,
    :class:`UnifiedRandomK`, :class:`AdaptiveLadder`), both products shrink to ``c / n_out`` of
    their size; the others mask and multiply densely. The forward pass stays dense: it is a third of
    a dense step, so a whole step becomes three times as fast at the most. Where no gradient is
    taken it is the plain layer, for any batch size.

    Reverse mode only. Second derivatives are those of this sparse gradient with its choice of
    components held fixed: no Hessian of the loss, and not symmetric.

    Args:
        key: a typed key for random sparsifiers, fresh for every step and layer; else None.
        x: ``(..., n_in)``.
        kernel: ``(n_out, n_in)``, or ``(n_in, n_out)`` with ``layout="in_out"``.
        bias: ``(n_out,)`` or None.
        memory: from :func:`~sparse_hyper_jax.backprop.init_memory` with the shape ``(..., n_out)``
            of the output; None forgets what is not propagated.
        sparsifier: which components.
        eta: share of the rest that is remembered, from 0 to 1; may be traced, gets no gradient.
        select_on: ``"corrected"`` or ``"gradient"``, see
            :func:`~sparse_hyper_jax.backprop.sparsify_cotangent`.
        dense_bias: the bias gets the whole cotangent (as in meProp's code); otherwise ``sum_B s``.
        layout: ``"out_in"`` has a unit's weights side by side, which is faster here.
        compact: zeros from :func:`empty_compact`. Their gradient is then the kernel's, without its
            zero rows, and the kernel itself must not be differentiated.
        precision: of the products, see ``jax.lax.dot``.

    Returns:
        ``(..., n_out)``.

    Raises:
        ValueError: shapes or options do not fit; where a gradient is taken: a memory of another
            batch size, a memory or a compact gradient that is not differentiated.

    Reference: Sun et al. 2017, arXiv 1706.06197; Zhang et al. 2020, arXiv 1905.10194.

    Example:
        >>> from sparse_hyper_jax.backprop import UnifiedTopK, sparse_dense
        >>> x, kernel, targets = jnp.ones((8, 5)), jnp.zeros((100, 5)), jnp.arange(100.0)
        >>> loss = lambda kernel: jnp.mean((sparse_dense(
        ...     None, x, kernel, sparsifier=UnifiedTopK(0.1)) - targets[None]) ** 2)
        >>> gradient = jax.grad(loss)(kernel)
        >>> jnp.flatnonzero(gradient[:, 0]).tolist()  # the ten units that are furthest off
        [90, 91, 92, 93, 94, 95, 96, 97, 98, 99]
    """
    checks.check_choice("layout", layout, LAYOUTS)
    dense_bias = checks.check_flag("dense_bias", dense_bias)
    kernel, x = _floats("kernel", kernel), _floats("x", x)
    checks.check_shape("kernel", kernel, (None, None), f"({', '.join(layout.split('_'))})")
    n_out, n_in = kernel.shape if layout == "out_in" else kernel.shape[::-1]
    checks.check_last_axis("x", x, n_in)
    if bias is not None:
        bias = _floats("bias", bias)
        checks.check_shape("bias", bias, (n_out,), "(n_out,)")
    uses_over = memory_axes(memory)
    if compact is not None:
        check_compact(compact, x, empty_compact(kernel, sparsifier, layout=layout))
    (x, kernel, bias, memory, compact), over = align(x, kernel, bias, memory, compact)
    axes = () if memory is None else tuple(sorted(over - uses_over))
    out_shape = (*x.shape[:-1], n_out)
    rule, draw = make_rule(
        sparsifier, eta, select_on, key=key, memory=memory, out_shape=out_shape, axes=axes
    )
    options = _Options(rule, dense_bias, layout, precision)
    return _layer(options, draw, _Arrays(x, kernel, bias, memory, compact))


def _floats(name: str, array: Any) -> jax.Array:
    """Integers count as float32."""
    array = as_array(name, array)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else at_least_float32(array)


class _Arrays(NamedTuple):
    x: Any
    kernel: Any
    bias: Any
    memory: Any
    compact: Any


def _multiply(options: _Options, arrays: _Arrays) -> jax.Array:
    x, matrix, bias = _of_one_dtype(arrays.x, arrays.kernel, arrays.bias)
    y = jnp.matmul(
        x, matrix.T if options.layout == "out_in" else matrix, precision=options.precision
    )
    return y if bias is None else y + jnp.broadcast_to(bias, y.shape)


def _of_one_dtype(*arrays: jax.Array | None) -> list[Any]:
    """Give arrays the wider dtype where they differ."""
    types = {array.dtype for array in arrays if array is not None}
    dtype = types.pop() if len(types) == 1 else wide_dtype(*types)
    return [None if array is None else array.astype(dtype) for array in arrays]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _layer(options: _Options, draw: Any, arrays: _Arrays) -> jax.Array:
    return _multiply(options, arrays)


def _forward(options: _Options, *arguments: Any) -> tuple[jax.Array, Any]:
    (draw, arrays), (_, asked) = split_primals(arguments)
    y = _multiply(options, arrays)
    check_memory(arrays.memory, y.shape, 1)
    training = any(jax.tree.leaves(asked._replace(memory=None, compact=None)))
    training = training or any(jax.tree.leaves(asked.compact))
    check_differentiated(asked.memory, training=training)
    checks.require(
        asked.compact is None or not asked.kernel,
        "a differentiated kernel beside a compact gradient",
        "one of the two",
        "differentiate with respect to the compact gradient alone, or pass compact=None",
    )
    checks.require(
        asked.compact is None or all(jax.tree.leaves(asked.compact)) or not training,
        "a compact gradient outside the differentiated arguments",
        "a gradient with respect to it: it is how the kernel's is returned",
        "differentiate with respect to it as well, or pass compact=None",
    )
    return y, (draw, arrays)


def _backward(options: _Options, saved: Any, cotangent: Any) -> tuple[Any, Any]:
    draw, arrays = saved
    rule = options.rule
    cotangent = materialise(cotangent)
    rows = with_whole_rows(cotangent.reshape(-1, cotangent.shape[-1]))
    corrected = prepare(rule, rows, arrays.memory)

    def finish(sparsifier: Sparsifier) -> _Arrays:
        fixed = rule._replace(sparsifier=sparsifier)
        sparse = propagate(fixed, draw, corrected, arrays.memory)
        taken = sparse.taken.astype(rows.dtype)
        dbias = None
        if arrays.bias is not None:
            whole = rows if options.dense_bias else spread(taken, sparse.choice, rows.shape[-1])
            dbias = placed_like(jnp.sum(whole, axis=0).astype(arrays.bias.dtype), arrays.bias)
        dx, dkernel, compact = _products(options, taken, sparse.choice.columns, arrays)
        dx = placed_like(dx.reshape(arrays.x.shape).astype(arrays.x.dtype), arrays.x)
        dkernel = None if dkernel is None else placed_like(dkernel, arrays.kernel)
        return _Arrays(dx, dkernel, dbias, sparse.memory, compact)

    if not isinstance(rule.sparsifier, AdaptiveLadder):
        return None, finish(rule.sparsifier)
    number = rule.sparsifier.rung(corrected.source, corrected.peak)
    rungs = rule.sparsifier.rungs(rows.shape[-1])
    return None, jax.lax.switch(number, [partial(finish, rung) for rung in rungs])


def _products(
    options: _Options, taken: jax.Array, columns: jax.Array | None, arrays: _Arrays
) -> tuple[jax.Array, Any, Any]:
    """Give the gradients of input, kernel and compact gradient."""
    dot, over_rows = (
        partial(product, precision=options.precision) for product in (jnp.matmul, product_over_rows)
    )
    rows_first = options.layout == "out_in"
    x, kernel = with_whole_rows(arrays.x.reshape(-1, arrays.x.shape[-1])), arrays.kernel
    taken, x, wide = _of_one_dtype(taken, x, gathered(kernel))
    if columns is None:
        dx = dot(taken, wide if rows_first else wide.T)
        dkernel = over_rows(taken, x) if rows_first else over_rows(x, taken)
        return dx, dkernel.astype(kernel.dtype), None
    dx = dot(taken, wide[columns] if rows_first else wide[:, columns].T)
    if arrays.compact is not None:
        gradient = CompactGradient(columns, over_rows(taken, x), jnp.ones((), jnp.float32))
        like = arrays.compact
        return dx, None, jax.tree.map(lambda leaf, to: leaf.astype(to.dtype), gradient, like)
    # In whole rows also for the other layout: looking up columns costs more.
    rows = over_rows(taken, x).astype(kernel.dtype)
    whole = place_rows(rows, columns, kernel.shape[0 if rows_first else 1])
    return dx, whole if rows_first else whole.T, None


_layer.defvjp(_forward, _backward, symbolic_zeros=True)
