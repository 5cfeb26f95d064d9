"""Embeddings as sums of a few rows of a small table: which rows a word has, how much of each."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_random_key
from sparse_hyper_jax.memory.reads import (
    Reads,
    enter_pair,
    enter_table,
    keep_inside,
    sum_rows,
    take_rows,
)


class WordRows(NamedTuple):
    """The rows of every word.

    Attributes:
        rows: int32 ``(V, k)``: numbers of rows of a table; one outside, such as -1, is an empty
            slot.
        values: ``(V, k)``: how much of each, learned.

    Example:
        >>> from sparse_hyper_jax import memory
        >>> words = memory.WordRows(jnp.array([[0, 2], [1, -1]]), jnp.ones((2, 2)))
        >>> memory.embed(jnp.array([[1.0], [10.0], [100.0]]), words, [0, 1]).tolist()
        [[101.0], [10.0]]
    """

    rows: jax.Array
    values: jax.Array


export.register_namedtuple_serialization(WordRows, serialized_name="sparse_hyper_jax.WordRows")


def hash_rows(key: jax.Array, num_words: int, num_rows: int, count: int) -> jax.Array:
    """Choose rows at random, each slot of a word from a part of the table of its own.

    Slot ``j`` draws from rows ``[j m / k, (j + 1) m / k)``, so that no word has a row twice, and
    two words have all rows in common with probability ``(k / m)**k``.

    Args:
        key: a typed key.
        num_words: number ``V`` of words.
        num_rows: number ``m`` of rows of the table, at least ``k``.
        count: number ``k`` of rows of each word.

    Returns:
        int32 ``(V, k)``.

    Raises:
        ValueError: counts below 1, or fewer rows than a word has.

    Reference: Tito Svenstrup et al. 2017, arXiv 1709.03933, hash embeddings.

    Example:
        >>> from sparse_hyper_jax import memory
        >>> rows = memory.hash_rows(jax.random.key(0), 1000, 100, 2)
        >>> rows.shape, bool((rows[:, 0] < 50).all()), bool((rows[:, 1] >= 50).all())
        ((1000, 2), True, True)
    """
    check_random_key(key)
    num_words = checks.check_count("num_words", num_words, least=1)
    count = checks.check_count("count", count, least=1)
    num_rows = checks.check_count("num_rows", num_rows, least=1, most=checks.INT32_CELLS - 1)
    checks.require(
        count <= num_rows,
        f"count={count} with num_rows={num_rows}",
        "at least one row for every slot",
        "lower count",
    )
    ends = np.arange(count + 1, dtype=np.int64) * num_rows // count
    low, high = (jnp.asarray(part, jnp.int32)[None] for part in (ends[:-1], ends[1:]))
    return jax.random.randint(key, (num_words, count), low, high, jnp.int32)


def word_reads(words: WordRows, ids: Any) -> Reads:
    """Give the rows of words, and how much of each.

    Args:
        words: rows and values ``(V, k)``.
        ids: integers ``(*batch,)``; one outside, such as -1, is padding and reads nothing.

    Returns:
        reads ``(*batch, k)``.

    Raises:
        ValueError: shapes that do not agree, or ids that are no integers.

    Example:
        >>> from sparse_hyper_jax import memory
        >>> words = memory.WordRows([[3, 5], [4, 6]], [[1.0, 2.0], [3.0, 4.0]])
        >>> [part.tolist() for part in memory.word_reads(words, [1, -1])]
        [[[4, 6], [-1, -1]], [[3.0, 4.0], [0.0, 0.0]]]
    """
    rows, values = enter_words(words)
    ids = as_array("ids", ids, "integers")
    places, kept = keep_inside(ids, rows.shape[0])
    return Reads(
        jnp.where(kept[..., None], take_rows(rows, places), -1),
        jnp.where(kept[..., None], take_rows(values, places), 0),
    )


def embed(table: Any, words: WordRows, ids: Any) -> jax.Array:
    """Embed words: ``e_w = sum_j values[w, j] table[rows[w, j]]``.

    A dense embedding has ``V d`` numbers, this one ``m d + V k``, and as many integers as values.

    Args:
        table: ``(m, d)``.
        words: rows and values ``(V, k)``.
        ids: integers ``(*batch,)``; one outside is padding.

    Returns:
        ``(*batch, d)``, float32 or wider; 0 for padding.

    Raises:
        ValueError: shapes that do not agree.

    Reference: Tito Svenstrup et al. 2017, arXiv 1709.03933.

    Example:
        >>> from sparse_hyper_jax import memory
        >>> words = memory.WordRows([[0, 1], [1, 2]], [[1.0, 1.0], [0.5, -1.0]])
        >>> memory.embed(jnp.eye(3), words, [1, -1]).tolist()
        [[0.0, 0.5, -1.0], [0.0, 0.0, 0.0]]
    """
    table = enter_table(table)
    checks.check_shape("table", table, (None, None), "(m, d)")
    return sum_rows(table, word_reads(words, ids))


def enter_words(words: Any) -> WordRows:
    """Check rows and values of words, which may also be a plain tuple.

    Raises:
        ValueError: not two parts, shapes that differ, or rows that are no integers.
    """
    cure = "pass WordRows(hash_rows(...), values)"
    rows, values = enter_pair("words", words, WordRows._fields, "WordRows", cure)
    checks.require(
        rows.ndim == 2 and len(rows) >= 1,
        f"rows of shape {rows.shape}",
        "(V, k) with at least one word",
        "give every word a row of slots",
    )
    return WordRows(rows, values)
