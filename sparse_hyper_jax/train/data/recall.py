"""Recall at hidden lags: what was said for this key, at one of a few places that are not told."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from sparse_hyper_jax.checks import INT32_CELLS, check_count, check_shape, require
from sparse_hyper_jax.entrance import as_int32, check_random_key


class Recall(NamedTuple):
    """A sequence in which every step says a key and a value, and asks for a key.

    Attributes:
        keys: int32 ``(T,)``, what is said, from 0 on.
        values: int32 ``(T,)``, what is said with it.
        asked: int32 ``(T,)``, a key that was said at one of the hidden lags.
        answers: int32 ``(T,)``, the value that was said there.
        known: ``(T,)``, false where the chosen lag reaches before the start: there a random key is
            asked for, and the answer means nothing.

    Example:
        >>> from sparse_hyper_jax.train.data import make_recall
        >>> recall = make_recall(jax.random.key(0), jnp.array([3]), length=50)
        >>> bool(jnp.all(recall.asked[3:] == recall.keys[:-3]))
        True
        >>> bool(jnp.all(recall.answers[3:] == recall.values[:-3]))
        True
    """

    keys: jax.Array
    values: jax.Array
    asked: jax.Array
    answers: jax.Array
    known: jax.Array


def make_recall(
    key: jax.Array, lags: jax.Array, *, length: int, keys: int = 32, values: int = 8
) -> Recall:
    """Draw a sequence whose every step asks for what was said at one of the hidden lags.

    Keys and values are independent and uniform. A step draws one of the lags, reads the key that
    was said there, and asks for it. So neither will do alone: by content, the key was said at every
    ``keys``-th step; by position, only one of the lags is right. Two lags may hold the same key:
    then even who knows the lags has to guess. The lags also show in plain correlations: the answer
    equals the value at each of them more often than elsewhere.

    Args:
        key: typed key.
        lags: ``(n,)`` integers from 1 on, the hidden lags, the least below ``length``; a traced one
            that is no lag finds nothing.
        length: T, steps.
        keys: how many there are.
        values: how many there are.

    Returns:
        :class:`Recall`; batches come by ``jax.vmap`` over keys.

    Raises:
        ValueError: no vector of integers, a known lag below 1, known lags that all reach before the
            start, or a count below 1 or from 2**31 on.

    Example:
        >>> from sparse_hyper_jax.train.data import make_recall
        >>> draw = lambda key: make_recall(key, jnp.array([5, 80]), length=256)
        >>> batch = jax.vmap(draw)(jax.random.split(jax.random.key(0), 4))
        >>> batch.asked.shape, int(batch.known[0].sum()) > 150
        ((4, 256), True)
    """
    check_random_key(key)
    given, lags = lags, as_int32("lags", lags)
    check_shape("lags", lags, (None,), "one integer per hidden lag")
    require(lags.size > 0, "no lags", "at least one", "pass some")
    length = check_count("length", length, 1, INT32_CELLS - 1)
    keys = check_count("keys", keys, 1, INT32_CELLS - 1)
    values = check_count("values", values, 1, INT32_CELLS - 1)
    # What was given: inside of a program its array is traced even where the numbers are known.
    if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(given)):
        least, most = np.min(np.asarray(given)), np.max(np.asarray(given))
        require(
            bool(1 <= least < length),
            f"lags from {least} to {most}, with length={length}",
            "lags from 1 on, of which the least is below the length",
            "change lags, or raise length",
        )
    of_key, of_value, of_lag, of_rest = jax.random.split(key, 4)
    said = jax.random.randint(of_key, (length,), 0, keys, jnp.int32)
    with_it = jax.random.randint(of_value, (length,), 0, values, jnp.int32)
    chosen = lags[jax.random.randint(of_lag, (length,), 0, lags.size)]
    source = jnp.arange(length, dtype=jnp.int32) - chosen
    known = (source >= 0) & (chosen >= 1)
    source = jnp.where(known, source, 0)
    rest = jax.random.randint(of_rest, (length,), 0, keys, jnp.int32)
    return Recall(said, with_it, jnp.where(known, said[source], rest), with_it[source], known)
