"""What a loss would gain if a word had one more row: the best few of all, in bounded memory."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export, lax

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.memory.reads import enter_rows, enter_table
from sparse_hyper_jax.ops.best import best_of_blocks, per_size
from sparse_hyper_jax.precision import wide_dtype


class RowGains(NamedTuple):
    """The best absent rows of every word.

    Attributes:
        rows: int32 ``(V, c)``, best first; -1 where there are no more.
        gains: ``(V, c)``, -inf where there are no more.
        noise: ``(V,)``, root mean square of the gains of all absent rows of a word: what a gain has
            to stand out from.

    Example:
        >>> from sparse_hyper_jax import memory
        >>> gains = memory.RowGains(jnp.array([[4]]), jnp.array([[6.0]]), jnp.array([2.0]))
        >>> float(gains.gains[0, 0] / gains.noise[0])
        3.0
    """

    rows: jax.Array
    gains: jax.Array
    noise: jax.Array


export.register_namedtuple_serialization(RowGains, serialized_name="sparse_hyper_jax.RowGains")


def row_gains(
    table: Any,
    cotangent: Any,
    rows: Any,
    count: int = 1,
    *,
    positive: bool = False,
    unit_rows: bool = True,
    block: int = 256,
) -> RowGains:
    """Give the absent rows of the largest gain, of all ``m`` for every word, exactly.

    With ``e_w = sum_j v_wj table[j]`` and ``delta_w = dL/de_w``, summed over where the word stands,
    a row that the word does not have has the gradient ``delta_w . table[j]`` at ``v_wj = 0``. Its
    gain is the size of that, divided by ``||table[j]||`` if ``unit_rows``: as much change of the
    embedding from every row. A block of rows is looked at at a time, and the best are carried on:
    memory is ``V block`` numbers, time that of a product ``(V, d) (d, m)``, once in a while and not
    in every step.

    The gain is of first order, and of the batch that made ``delta``: a word that does not stand in
    it gains nothing.

    Args:
        table: ``(m, d)``.
        cotangent: ``(V, d)``: the gradient of the loss with respect to the embedding of each word.
        rows: integers ``(V, k)``: those that words have, which are no candidates.
        count: how many to give for every word, ``c``, at most ``m``; static.
        positive: values stay positive: then the gain is ``-delta_w . table[j]``.
        unit_rows: see above.
        block: number of rows that are looked at together, static.

    Returns:
        rows and gains, as constants: gradients do not pass. Of equal gains the first row counts.

    Raises:
        ValueError: shapes that do not agree, or a count below 1.

    Example:
        >>> from sparse_hyper_jax import memory
        >>> table = jnp.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
        >>> cotangent = jnp.array([[-1.0, 0.0], [0.0, 3.0]])
        >>> gains = memory.row_gains(table, cotangent, rows=[[1], [1]])
        >>> gains.rows.tolist(), gains.gains.round(2).tolist()
        ([[0], [2]], [[1.0], [2.119999885559082]])
    """
    table = enter_table(table)
    checks.check_shape("table", table, (None, None), "(m, d)")
    number, width = table.shape
    cotangent, rows = as_array("cotangent", cotangent), enter_rows("rows", rows)
    checks.check_shape("cotangent", cotangent, (None, width), "(V, d), d as in table")
    words = cotangent.shape[0]
    checks.check_shape("rows", rows, (words, None), "(V, k): those that every word has")
    count = min(checks.check_count("count", count, least=1), number)
    block = min(checks.check_count("block", block, least=1), number)
    positive = checks.check_flag("positive", positive)
    unit_rows = checks.check_flag("unit_rows", unit_rows)
    dtype = wide_dtype(table, cotangent)
    table, cotangent = lax.stop_gradient((table.astype(dtype), cotangent.astype(dtype)))
    padded = jnp.pad(table, ((0, -number % block), (0, 0)))

    def gains_of(start: jax.Array) -> jax.Array:
        part = lax.dynamic_slice_in_dim(padded, start, block)
        slopes = jnp.matmul(cotangent, part.T, precision=lax.Precision.HIGHEST)
        gains = -slopes if positive else jnp.abs(slopes)
        return per_size(gains, part) if unit_rows else gains

    def opened_of(start: jax.Array) -> jax.Array:
        numbers = start + jnp.arange(block, dtype=jnp.int32)
        closed = jnp.broadcast_to(numbers >= number, (words, block))
        for slot in range(rows.shape[1]):
            closed = closed | (rows[:, slot, None] == numbers[None].astype(rows.dtype))
        return ~closed

    sizes = {"rows": words, "columns": number, "count": count, "block": block}
    return RowGains(*best_of_blocks(gains_of, opened_of, **sizes, dtype=dtype))
