"""The two products of a list of entries, each the derivative of the other.

For entries ``p`` with a row ``target_p``, a column ``source_p`` and a value ``v_p``::

    spmm    y[t, f] = sum over p with target_p = t of v_p x[source_p, f]
    sddmm   v_p     = sum_f left[target_p, f] right[source_p, f]

``sddmm`` is the derivative of ``spmm`` towards the values, ``spmm`` with rows and columns exchanged
the one towards ``x``, and the other way round. So they are two primitives with these rules, closed
under differentiation of any order and mode, and under ``vmap``. That lets each platform run what
suits it. Elsewhere it is a gather and a segment sum. On a CPU, XLA would write the gathered rows
and their products, entries times features, to memory and read them again; a loop over the entries
keeps them in registers and is up to an order of magnitude faster.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from sparse_hyper_jax.ops.device_axes import explicit_axes, vary_alike

STRIP = 64
"""Features that the loop treats at once; XLA unrolls a row of up to so many and no longer one."""

LAST_INDEX = 2**31 - 1

FEWEST_FEATURES = 32
"""With fewer the loop costs more than it saves."""


@partial(jax.jit, static_argnames=("out_cells", "layout"))
def spmm(
    target: jax.Array,
    source: jax.Array,
    values: jax.Array,
    x: jax.Array,
    *,
    out_cells: int,
    layout: str = "any",
) -> jax.Array:
    """Multiply a sparse matrix by a dense one.

    Args:
        target: int32 ``(n,)``, rows of the entries, inside ``out_cells``.
        source: int32 ``(n,)``, columns of the entries, inside ``in_cells``.
        values: ``(n,)``.
        x: ``(in_cells, features)`` in the dtype of ``values``.
        out_cells: number of rows.
        layout: ``"rows"`` if the entries are ordered by row and every row has the same number of
            them, ``"sorted"`` if they are ordered by row, else ``"any"``; ``"transposed"`` where
            ``x`` is a cotangent.

    Returns:
        ``(out_cells, features)``.
    """
    operands = vary_alike(target, source, values, x)
    return spmm_p.bind(*operands, out_cells=out_cells, layout=layout)


@jax.jit
def sddmm(target: jax.Array, source: jax.Array, left: jax.Array, right: jax.Array) -> jax.Array:
    """Give the product of two dense matrices at the cells of a sparse one.

    Args:
        target: int32 ``(n,)``, rows of ``left``.
        source: int32 ``(n,)``, rows of ``right``.
        left: ``(out_cells, features)``.
        right: ``(in_cells, features)``.

    Returns:
        ``(n,)``: row ``target_p`` of ``left`` times row ``source_p`` of ``right``.
    """
    return sddmm_p.bind(*vary_alike(target, source, left, right))


def _spmm(
    target: jax.Array,
    source: jax.Array,
    values: jax.Array,
    x: jax.Array,
    *,
    out_cells: int,
    layout: str,
) -> jax.Array:
    products = values[:, None] * x[source]
    if layout == "rows":
        per_row = len(target) // max(1, out_cells)
        return products.reshape(out_cells, per_row, x.shape[1]).sum(axis=1)
    return jax.ops.segment_sum(products, target, out_cells, indices_are_sorted=layout == "sorted")


def _sddmm(target: jax.Array, source: jax.Array, left: jax.Array, right: jax.Array) -> jax.Array:
    return jnp.sum(left[target] * right[source], axis=1)


def _spmm_loop(
    target: jax.Array,
    source: jax.Array,
    values: jax.Array,
    x: jax.Array,
    *,
    out_cells: int,
    layout: str,
) -> jax.Array:
    if _better_gathered(target, x, transposed=layout == "transposed"):
        return _spmm(target, source, values, x, out_cells=out_cells, layout=layout)
    y = vary_alike(jnp.zeros((out_cells, x.shape[1]), x.dtype), x)[0]
    for first, width in _strips(x.shape[1]):

        def add(y: jax.Array, entry: tuple[jax.Array, ...], part: Any = (first, width)) -> Any:
            row, column, value = entry
            total = _row(y, row, *part) + value * _row(x, column, *part)
            return jax.lax.dynamic_update_slice(y, total, _corner(row, part[0])), None

        y = jax.lax.scan(add, y, (target, source, values))[0]
    return y


def _sddmm_loop(
    target: jax.Array, source: jax.Array, left: jax.Array, right: jax.Array
) -> jax.Array:
    if _better_gathered(target, left, transposed=True):
        return _sddmm(target, source, left, right)
    dots = jnp.zeros((), left.dtype)
    for first, width in _strips(left.shape[1]):

        def dot(_: None, entry: tuple[jax.Array, ...], part: Any = (first, width)) -> Any:
            row, column = entry
            return None, _tree_sum(_row(left, row, *part) * _row(right, column, *part))

        dots += jax.lax.scan(dot, None, (target, source))[1]
    return dots


def _better_gathered(entries: jax.Array, rows: jax.Array, *, transposed: bool) -> bool:
    # A gather fuses with what computes a cotangent; a loop needs all its rows in memory, which
    # costs more than it saves where most of them are not read.
    few = transposed and 4 * len(entries) < len(rows)
    return few or rows.shape[1] < FEWEST_FEATURES


def _strips(features: int) -> Iterator[tuple[int, int]]:
    """Cut features into strips, first and width, of ``STRIP`` and then smaller powers of two."""
    first = 0
    while first < features:
        width = min(STRIP, 1 << (features - first).bit_length() - 1)
        yield first, width
        first += width


def _row(matrix: jax.Array, number: jax.Array, first: int, width: int) -> jax.Array:
    # One slice of memory; indexing would become a gather.
    return jax.lax.dynamic_slice(matrix, _corner(number, first), (1, width))


def _corner(row: jax.Array, first: int) -> tuple[jax.Array, jax.Array]:
    return row, jnp.full_like(row, first)


def _tree_sum(row: jax.Array) -> jax.Array:
    """Sum a power of two of numbers in halves: a plain sum adds one, waits, adds the next."""
    while row.shape[1] > 1:
        half = row.shape[1] // 2
        row = row[:, :half] + row[:, half:]
    return row[0, 0]


def _spmm_jvp(primals: Any, tangents: Any, **params: Any) -> tuple[jax.Array, Any]:
    return _bilinear_jvp(partial(spmm, **params), primals, tangents)


def _sddmm_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, Any]:
    return _bilinear_jvp(sddmm, primals, tangents)


def _bilinear_jvp(product: Any, primals: Any, tangents: Any) -> tuple[jax.Array, Any]:
    target, source, left, right = primals
    y = product(*primals)
    # A tangent that is known to be zero costs nothing: no gradient towards x where none is needed.
    parts = []
    if type(tangents[2]) is not ad.Zero:
        parts.append(product(target, source, tangents[2], right))
    if type(tangents[3]) is not ad.Zero:
        parts.append(product(target, source, left, tangents[3]))
    return y, sum(parts[1:], parts[0]) if parts else ad.Zero(jax.typeof(y).to_tangent_aval())


def _spmm_transpose(
    cotangent: Any,
    target: jax.Array,
    source: jax.Array,
    values: Any,
    x: Any,
    **params: Any,
) -> tuple[Any, ...]:
    if type(cotangent) is ad.Zero:
        return None, None, None, None
    if ad.is_undefined_primal(values):
        return None, None, sddmm(target, source, cotangent, x), None
    params = {"out_cells": x.aval.shape[0], "layout": "transposed"}
    return None, None, None, spmm(source, target, values, cotangent, **params)


def _sddmm_transpose(
    cotangent: Any, target: jax.Array, source: jax.Array, left: Any, right: Any
) -> tuple[Any, ...]:
    if type(cotangent) is ad.Zero:
        return None, None, None, None
    if ad.is_undefined_primal(left):
        rows = left.aval.shape[0]
        return None, None, spmm(target, source, cotangent, right, out_cells=rows), None
    rows = right.aval.shape[0]
    return None, None, None, spmm(source, target, cotangent, left, out_cells=rows)


def _spmm_batch(operands: Any, axes: Any, *, out_cells: int, layout: str) -> tuple[jax.Array, int]:
    """Put the instances' matrices on one block diagonal, or a batch of ``x`` among its features."""
    params = {"out_cells": out_cells, "layout": layout}
    count, spread = _count_instances(operands, axes)
    if axes[:3] == (None, None, None) and not spread:
        target, source, values, x = operands
        x = jnp.moveaxis(x, axes[3], 1)
        flat = x.reshape(x.shape[0], x.shape[1] * x.shape[2])
        return spmm(target, source, values, flat, **params).reshape(out_cells, *x.shape[1:]), 1
    if spread or not isinstance(count, int):
        return jax.vmap(partial(_spmm, **params))(*_apart(operands, axes, count)), 0
    (target, source, values, x), mapped = _instances_first(operands, axes)
    if count * max(out_cells, x.shape[-2]) > LAST_INDEX:
        return jax.vmap(partial(_spmm, **params), in_axes=axes)(*operands), 0
    params["out_cells"] *= count
    y = spmm(
        _shift(target, count, out_cells),
        _shift(source, count, x.shape[-2] if mapped[3] else 0),
        jnp.broadcast_to(values, (count, values.shape[-1])).reshape(-1),
        x.reshape(math.prod(x.shape[:-1]), x.shape[-1]),
        **params,
    )
    return y.reshape(count, out_cells, x.shape[-1]), 0


def _sddmm_batch(operands: Any, axes: Any) -> tuple[jax.Array, int]:
    count, spread = _count_instances(operands, axes)
    if spread or not isinstance(count, int):
        return jax.vmap(_sddmm)(*_apart(operands, axes, count)), 0
    (target, source, left, right), mapped = _instances_first(operands, axes)
    if count * max(left.shape[-2], right.shape[-2]) > LAST_INDEX:
        return jax.vmap(_sddmm, in_axes=axes)(*operands), 0
    entries = target.shape[-1]
    target = _shift(target, count, left.shape[-2] if mapped[2] else 0)
    source = _shift(source, count, right.shape[-2] if mapped[3] else 0)
    left, right = (
        matrix.reshape(math.prod(matrix.shape[:-1]), matrix.shape[-1]) for matrix in (left, right)
    )
    return sddmm(target, source, left, right).reshape(count, entries), 0


def _count_instances(operands: Any, axes: Any) -> tuple[int, bool]:
    """Count a batch, and tell whether it is spread over devices on a mesh of ``Explicit`` axes.

    Then a device has its own instances, of which no other needs to know. How many there are may be
    a symbol, in a program that is exported for any batch.
    """
    pairs = list(zip(operands, axes, strict=True))
    count = next(operand.shape[axis] for operand, axis in pairs if axis is not None)
    return count, any(explicit_axes(*pair)[1] is not None for pair in pairs)


def _apart(operands: Any, axes: Any, count: int) -> list[jax.Array]:
    """Give every instance its own operands, spread over devices as any of them is."""
    found = [explicit_axes(operand, axis) for operand, axis in zip(operands, axes, strict=True)]
    mesh, spread = next((pair for pair in found if pair[1] is not None), (None, None))

    def own(operand: jax.Array, axis: int | None) -> jax.Array:
        if axis is None:
            operand = jnp.broadcast_to(operand[None], (count, *operand.shape))
        else:
            operand = jnp.moveaxis(operand, axis, 0)
        if mesh is None:
            return operand
        place = jax.P(spread, *[None] * (operand.ndim - 1))
        return jax.sharding.reshard(operand, jax.NamedSharding(mesh, place))

    return list(map(own, operands, axes))


def _instances_first(operands: Any, axes: Any) -> tuple[list[jax.Array], list[bool]]:
    mapped = [axis is not None for axis in axes]
    moved = [
        jnp.moveaxis(operand, axis, 0) if flag else operand
        for operand, axis, flag in zip(operands, axes, mapped, strict=True)
    ]
    return moved, mapped


def _shift(indices: jax.Array, count: int, stride: int) -> jax.Array:
    """Let instance ``i`` of ``count`` index the rows from ``i * stride`` on."""
    first = jnp.arange(count, dtype=indices.dtype)[:, None] * stride
    return (first + indices).reshape(-1)


def _on_one_device(context: Any) -> bool:
    """Tell whether a program, or what a ``shard_map`` runs of it, stays on one device."""
    if hasattr(context, "manual_axes"):
        return set(context.mesh.axis_names) == set(context.manual_axes)
    return getattr(context, "num_devices", None) == 1


def _define(name: str, *, reference: Any, loop: Any, jvp: Any, transpose: Any, batch: Any) -> Any:
    primitive = Primitive(name)
    primitive.def_impl(reference)  # without jit, as under jax.disable_jit
    # Shapes, and over which axes of a mesh the result varies, follow from the plain version.
    primitive.def_abstract_eval(
        lambda *avals, **params: jax.make_jaxpr(partial(reference, **params))(*avals).out_avals[0]
    )
    plain, looped = (mlir.lower_fun(way, multiple_results=False) for way in (reference, loop))

    def lower_on_cpu(context: Any, *operands: Any, **params: Any) -> Any:
        # The compiler would spread a loop by talking between devices in each of its rounds.
        alone = _on_one_device(context.module_context.axis_context)
        lengths = [length for aval in context.avals_in for length in aval.shape]
        # A length may be a symbol, in a program that is exported for any batch.
        known = all(isinstance(length, int) and length > 0 for length in lengths)
        return (looped if alone and known else plain)(context, *operands, **params)

    mlir.register_lowering(primitive, plain)
    mlir.register_lowering(primitive, lower_on_cpu, platform="cpu")
    ad.primitive_jvps[primitive] = jvp
    ad.primitive_transposes[primitive] = transpose
    batching.primitive_batchers[primitive] = batch
    return primitive


spmm_p = _define(
    "spmm",
    reference=_spmm,
    loop=_spmm_loop,
    jvp=_spmm_jvp,
    transpose=_spmm_transpose,
    batch=_spmm_batch,
)
sddmm_p = _define(
    "sddmm",
    reference=_sddmm,
    loop=_sddmm_loop,
    jvp=_sddmm_jvp,
    transpose=_sddmm_transpose,
    batch=_sddmm_batch,
)
