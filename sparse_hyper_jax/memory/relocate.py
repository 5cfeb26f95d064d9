"""Let words change their rows: the one that does least goes, the one that gains most comes."""

from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.memory.gains import RowGains
from sparse_hyper_jax.memory.reads import (
    cast_rows,
    enter_rows,
    enter_table,
    keep_inside,
    take_rows,
)
from sparse_hyper_jax.memory.words import WordRows, enter_words
from sparse_hyper_jax.norms import norm
from sparse_hyper_jax.precision import at_least_float32, wide_dtype


def row_importance(words: WordRows, table: Any) -> jax.Array:
    """Give the size of what each row brings to a word: ``|v_wj| ||table[rows_wj]||``.

    Args:
        words: rows and values ``(V, k)``.
        table: ``(m, d)``.

    Returns:
        ``(V, k)``, float32 or wider; 0 for empty slots.

    Raises:
        ValueError: shapes that do not agree.

    Example:
        >>> from sparse_hyper_jax import memory
        >>> words = memory.WordRows(jnp.array([[0, 1, -1]]), jnp.array([[-2.0, 1.0, 9.0]]))
        >>> memory.row_importance(words, jnp.array([[3.0, 4.0], [0.0, 1.0]])).tolist()
        [[10.0, 1.0, 0.0]]
    """
    rows, values = enter_words(words)
    table = enter_table(table)
    checks.check_shape("table", table, (None, None), "(m, d)")
    dtype = wide_dtype(values, table)
    places, kept = keep_inside(rows, table.shape[0])
    # Zeros first: what an empty slot reads or holds may be NaN.
    read = jnp.where(kept[..., None], take_rows(table.astype(dtype), places), 0)
    sizes = norm(read, (read.ndim - 1,))[..., 0]
    return jnp.abs(jnp.where(kept, values.astype(dtype), 0)) * sizes


def relocate_rows(
    words: WordRows,
    gains: RowGains,
    importance: Any,
    *,
    min_z: float | jax.Array | None = None,
    max_share: float | jax.Array | None = None,
) -> WordRows:
    """Let every word exchange its least important row for the absent one of the largest gain.

    One row per word and call, with value 0, from which it grows as its gain says. Call it every
    hundred steps or so: a row that has not had the time to grow is the next to go. Gains and
    importance have no common unit, so that a word whose rows are all needed would lose one for a
    gain of next to nothing: ``max_share`` protects them. Rows that stay keep their value; where
    ``rows`` differs from before, what an optimizer remembers of the value is to be cleared.

    Args:
        words: rows and values ``(V, k)``.
        gains: of absent rows, from :func:`row_gains`.
        importance: ``(V, k)``, such as that of :func:`row_importance`. What is NaN or infinite
            stays; of equal ones the first slot goes.
        min_z: by how many times a gain has to exceed the root mean square of all gains of its word;
            None takes any that is positive. May be traced. No calibrated test.
        max_share: a row goes only if its importance is at most this share of that of all rows of
            its word, from 0 to 1; None for any. May be traced. A word of NaN in its importance
            then keeps all its rows.

    Returns:
        rows and values; of words without gain the same.

    Raises:
        ValueError: shapes that do not agree.

    Reference: Evci et al. 2020, arXiv 1911.11134, for drop and grow.

    Example:
        >>> from sparse_hyper_jax import memory
        >>> words = memory.WordRows(jnp.array([[0, 1]]), jnp.array([[2.0, 0.5]]))
        >>> gains = memory.RowGains(jnp.array([[7]]), jnp.array([[3.0]]), jnp.array([1.0]))
        >>> after = memory.relocate_rows(words, gains, jnp.abs(words.values), min_z=2.0)
        >>> after.rows.tolist(), after.values.tolist()
        ([[0, 7]], [[2.0, 0.0]])
    """
    rows, values = enter_words(words)
    found = _enter_gains(gains, len(rows))
    importance = at_least_float32(as_array("importance", importance))
    checks.check_shape("importance", importance, rows.shape, "one number per slot")
    if 0 in (rows.shape[1], found.rows.shape[1]):
        return WordRows(rows, values)
    best, gain = cast_rows(found.rows[:, 0], rows.dtype), found.gains[:, 0]
    threshold = jnp.zeros_like(gain)
    if min_z is not None:
        checks.check_number("min_z", min_z)
        threshold = jnp.maximum(jnp.asarray(min_z, gain.dtype) * found.noise.astype(gain.dtype), 0)
    ranked = jnp.where(jnp.isfinite(importance), importance, jnp.inf)
    goes = jnp.argmin(ranked, axis=1, keepdims=True) == jnp.arange(rows.shape[1])[None]
    least = jnp.min(ranked, axis=1)
    moved = (best >= 0) & (gain > threshold) & (least < jnp.inf)
    if max_share is not None:
        checks.check_number("max_share", max_share, at_least=0, at_most=1)
        limit = jnp.asarray(max_share, importance.dtype) * jnp.sum(importance, axis=1)
        moved &= least <= limit  # not where one is unknown
    # Already there, in gains made by hand: no word has a row twice.
    moved &= ~(rows == best[:, None]).any(axis=1)
    change = goes & moved[:, None]
    return WordRows(jnp.where(change, best[:, None], rows), jnp.where(change, 0, values))


def _enter_gains(gains: Any, words: int) -> RowGains:
    """Check gains, which may also be a plain tuple."""
    checks.require(
        isinstance(gains, tuple | list) and len(gains) == 3,
        f"gains={gains!r:.80}",
        "RowGains(rows, gains, noise)",
        "pass what row_gains gives",
    )
    rows = enter_rows("rows", gains[0])
    numbers = at_least_float32(as_array("gains", gains[1]))
    noise = at_least_float32(as_array("noise", gains[2]))
    checks.check_shape("gains", numbers, (words, None), "(V, c): the candidates of every word")
    checks.check_shape("rows", rows, numbers.shape, "one per gain")
    checks.check_shape("noise", noise, (words,), "one number per word")
    return RowGains(rows, numbers, noise)
