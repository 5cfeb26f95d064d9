"""The quicksort with one drawn halving per bucket instead of a mixture: a stochastic policy.

Nothing is mixed, so that the payload may be of integers and the loss any function of a permutation.
The gradient reaches the keys through the probability of what was drawn, as
:func:`~sparse_hyper_jax.estimators.score_function_loss` uses it: unbiased for the expected loss
(where not all halvings are candidates, between the jumps that it makes as the order of the keys and
with it the certain candidate changes), and noisier than that of the mixture.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax.checks import check_shape
from sparse_hyper_jax.precision import at_least_float32
from sparse_hyper_jax.sort.buckets import Buckets, buckets_at, num_levels, to_rows
from sparse_hyper_jax.sort.candidates import KEY_LIMIT, candidate_weights, propose
from sparse_hyper_jax.sort.split import (
    HalfPermutation,
    apply_split,
    check_options,
    check_payload,
    partition,
)


class Drawn(NamedTuple):
    """A drawn sort of ``n`` elements.

    Attributes:
        payload: pytree of ``(n, ...)``, permuted.
        keys: ``(n,)``, permuted likewise.
        log_probability: scalar, of the halvings drawn, given the proposals.
    """

    payload: Any
    keys: jax.Array
    log_probability: jax.Array


def draw_sort(
    key: jax.Array,
    keys: jax.Array,
    payload: Any,
    *,
    num_candidates: int = 16,
    certainty: jax.Array | float = 10.0,
) -> Drawn:
    """Draw a permutation that sorts more or less, by the odds that :func:`quicksort` mixes by.

    At every level every bucket takes one of its candidate halvings ``c`` with probability ``w_c``
    (see :func:`half_split`), and ``log_probability`` is the sum of ``log w_c`` over all of them.

    Args:
        key: typed random key.
        keys: ``(n,)`` keys, any ``n >= 1``; beyond 1e30 they count as 1e30.
        payload: pytree of arrays ``(n, ...)`` of any dtype.
        num_candidates: proposals per bucket, the certain one included.
        certainty: scalar, how sharply keys decide.

    Returns:
        :class:`Drawn`; gradient reaches the keys through the log probability alone.

    Raises:
        ValueError: wrong shapes or counts, or no random key.

    Reference: Bloem 2018, arXiv 1810.09184, for the proposals; Williams 1992 for the gradient.
    """
    check_shape("keys", keys, (None,), "(n,): one key per element; use jax.vmap for batches")
    n = len(keys)
    check_payload(payload, n, mixed=False)
    # No near proposals: their law depends on the keys, and no log probability would say how.
    check_options(key, keys, num_candidates=num_candidates, num_near=0, certainty=certainty)
    current = jnp.clip(at_least_float32(keys), -KEY_LIMIT, KEY_LIMIT)
    total = jnp.zeros((), current.dtype)
    levels = num_levels(n)
    level_keys = jax.random.split(key, max(levels, 1))
    for level in range(levels):
        split, log_probability = _draw_split(
            level_keys[level], current, buckets_at(n, level), num_candidates, certainty
        )
        current, payload = apply_split(split, (current, payload))
        total += log_probability
    return Drawn(payload, current.astype(keys.dtype), total)


def _draw_split(
    key: jax.Array,
    keys: jax.Array,
    buckets: Buckets,
    num_candidates: int,
    certainty: jax.Array | float,
) -> tuple[HalfPermutation, jax.Array]:
    """Draw one halving per bucket; give them as one permutation, and their log probability."""
    propose_key, choose_key = jax.random.split(key)
    rows = to_rows(keys, buckets)
    options = {"num_candidates": num_candidates, "num_near": 0, "certainty": certainty}
    upper, kept = propose(propose_key, rows, buckets, **options)
    weights = candidate_weights(rows, upper, kept, buckets, certainty)
    # A weight that underflows has no logarithm, and is never drawn.
    possible = weights > 0
    logs = jnp.where(possible, jnp.log(jnp.where(possible, weights, 1)), -jnp.inf)
    chosen = jax.random.categorical(choose_key, logs, axis=0)
    each = np.arange(len(buckets.sizes))
    sources, destinations = partition(upper[chosen, each][None], buckets)
    split = HalfPermutation(sources, destinations, jnp.ones(sources.shape, jnp.float32))
    return split, jnp.sum(logs[chosen, each])
