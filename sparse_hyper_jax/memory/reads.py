"""Weighted sums of a few rows of a table: what every read of this room comes down to."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_same_shape
from sparse_hyper_jax.ops.device_axes import spread_by
from sparse_hyper_jax.ops.inside import clip_inside
from sparse_hyper_jax.precision import wide_dtype


class Reads(NamedTuple):
    """Which rows are read, and with what weights.

    Attributes:
        rows: int32 ``(*batch, q)``: numbers of rows, of a grid row-major, the last axis fastest.
        shares: ``(*batch, q)`` floats.

    Example:
        >>> from sparse_hyper_jax import memory
        >>> reads = memory.Reads(jnp.array([[0, 2]]), jnp.array([[0.5, 0.5]]))
        >>> memory.read_rows(jnp.array([[1.0], [10.0], [100.0]]), reads).tolist()
        [[50.5]]
    """

    rows: jax.Array
    shares: jax.Array


export.register_namedtuple_serialization(Reads, serialized_name="sparse_hyper_jax.Reads")


def read_rows(table: Any, reads: Reads) -> jax.Array:
    """Give weighted sums of rows: ``y = sum_q shares[q] table[rows[q]]``.

    Args:
        table: ``(*cells, d)``; its rows are numbered row-major.
        reads: rows and shares ``(*batch, q)``. A row outside counts for nothing, whatever its
            share.

    Returns:
        ``(*batch, d)``, float32 or wider. The slope of the table is that of the rows alone, 0 in
        all others, and that of the shares is ``table[rows[q]] . dL/dy``.

    Raises:
        ValueError: shapes that do not agree.

    Example:
        >>> from sparse_hyper_jax import memory
        >>> table = jnp.arange(6.0).reshape(3, 2)
        >>> memory.read_rows(table, memory.Reads([0, 2, -1], [1.0, 0.5, 9.0])).tolist()
        [2.0, 3.5]
    """
    table, reads = enter_table(table), enter_reads(reads)
    return sum_rows(table, reads)


def sum_rows(table: jax.Array, reads: Reads) -> jax.Array:
    """Do what :func:`read_rows` says, without checks."""
    dtype = wide_dtype(table, reads.shares)
    rows, kept = keep_inside(reads.rows, math.prod(table.shape[:-1]))
    # Before the product: what padding reads may be NaN.
    read = jnp.where(kept[..., None], take_rows(table.astype(dtype), rows), 0)
    shares = jnp.where(kept, reads.shares.astype(dtype), 0)
    return jnp.sum(read * shares[..., None], axis=-2)


def keep_inside(numbers: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Give numbers that are safe to read with, int32, and flags of those below ``count``."""
    cells, kept = clip_inside(numbers[..., None], (count,))
    return cells[..., 0], kept


def take_rows(table: jax.Array, rows: jax.Array) -> jax.Array:
    """Read rows that lie inside: ``(*cells, d)`` at ``(*batch, q)`` gives ``(*batch, q, d)``."""
    if rows.ndim > 1:  # a batch may be spread over devices: each instance reads for itself
        return jax.vmap(take_rows, in_axes=(None, 0))(table, rows)
    flat = spread_by(table.reshape(math.prod(table.shape[:-1]), table.shape[-1]), rows)
    return flat.at[rows].get(mode="promise_in_bounds", wrap_negative_indices=False)


def enter_table(table: Any) -> jax.Array:
    """Return a table ``(*cells, d)`` of at least one row, which int32 can number.

    Raises:
        ValueError: another shape, or no real numbers.
    """
    table = as_array("table", table)
    checks.require(
        table.ndim >= 2 and 0 not in table.shape[:-1],
        f"table of shape {table.shape}",
        "(*cells, d) with at least one row",
        "give the table an axis of rows before that of features",
    )
    checks.check_flat_size("a table of cells", table.shape[:-1])
    return table


def enter_rows(name: str, rows: Any) -> jax.Array:
    """Return numbers of rows as int32, or int64 if they come in 64 bits.

    Narrower ones could not hold every row, and unsigned ones no -1.

    Raises:
        ValueError: no integers.
    """
    rows = as_array(name, rows, "integers")
    return cast_rows(rows, jnp.dtype(jnp.int64 if rows.dtype.itemsize == 8 else jnp.int32))


def cast_rows(rows: jax.Array, dtype: np.dtype) -> jax.Array:
    """Cast numbers of rows; one that does not fit is that of no row, -1."""
    if rows.dtype == dtype:
        return rows
    cast = rows.astype(dtype)
    fits = (cast.astype(rows.dtype) == rows) & ((cast < 0) == (rows < 0))
    return jnp.where(fits, cast, -1)


def enter_reads(reads: Any) -> Reads:
    """Check reads, which may also be a plain tuple.

    Raises:
        ValueError: not two parts, shapes that differ, or rows that are no integers.
    """
    cure = "pass what grid_shares or word_reads gives"
    rows, shares = enter_pair("reads", reads, Reads._fields, "Reads", cure)
    checks.require(
        rows.ndim >= 1,
        f"rows of shape {rows.shape}",
        "(*batch, q)",
        "give rows an axis of those that are summed",
    )
    return Reads(rows, shares)


def enter_pair(
    name: str, pair: Any, fields: tuple[str, ...], kind: str, change: str
) -> tuple[jax.Array, jax.Array]:
    """Check rows and a number for each of them, which may also come as a plain tuple.

    Args:
        name: of the argument.
        pair: integers and numbers of one shape.
        fields: names of both.
        kind: of tuple that is expected.
        change: what cures a mistake.

    Raises:
        ValueError: not two parts, shapes that differ, or rows that are no integers.
    """
    checks.require(
        isinstance(pair, tuple | list) and len(pair) == 2,
        f"{name}={pair!r:.80}",
        f"{kind}({', '.join(fields)}), or a plain tuple of these",
        change,
    )
    rows, numbers = enter_rows(fields[0], pair[0]), as_array(fields[1], pair[1])
    check_same_shape(**dict(zip(fields, (rows, numbers), strict=True)))
    return rows, numbers
