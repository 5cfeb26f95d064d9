"""The quicksort with one drawn halving per bucket instead of a mixture: a stochastic policy.

Nothing is mixed, so that the payload may be of integers and the loss any function of a permutation.
The gradient reaches the keys through the probability of what was drawn, as
:func:`~sparse_hyper_jax.estimators.score_function_loss` uses it: unbiased for the expected loss
(where not all halvings are candidates, between the jumps that it makes as the order of the keys and
with it the certain candidate changes), and noisier than that of the mixture.
"""

from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax.ops.device_axes import spread_by
from sparse_hyper_jax.sort.buckets import Buckets, buckets_at, num_levels, to_rows
from sparse_hyper_jax.sort.candidates import candidate_weights, propose
from sparse_hyper_jax.sort.entrance import (
    SplitOptions,
    enter_keys,
    enter_options,
    enter_payload,
)
from sparse_hyper_jax.sort.split import HalfPermutation, mix, partition, widen_keys


class Drawn(NamedTuple):
    """A drawn sort of ``n`` elements.

    Attributes:
        payload: pytree of ``(n, ...)``, permuted.
        keys: ``(n,)``, permuted likewise.
        log_probability: scalar, of the halvings drawn, given the proposals.

    Example:
        >>> from sparse_hyper_jax.sort import draw_sort
        >>> drawn = draw_sort(jax.random.key(0), jnp.array([2.0, 1.0]), jnp.array([20, 10]))
        >>> drawn._fields
        ('payload', 'keys', 'log_probability')
    """

    payload: Any
    keys: jax.Array
    log_probability: jax.Array


jax.export.register_namedtuple_serialization(Drawn, serialized_name="sparse_hyper_jax.sort.Drawn")


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
        keys: ``(n,)`` keys, any ``n >= 1``; beyond 1e30 they count as 1e30, and with a NaN the log
            probability is NaN.
        payload: pytree of arrays ``(n, ...)``, also of integers; a list of numbers is an array.
        num_candidates: proposals per bucket, the certain one included.
        certainty: scalar above 0, may be traced; how sharply keys decide.

    Returns:
        :class:`Drawn`; gradient reaches the keys through the log probability alone.

    Raises:
        ValueError: wrong shapes or counts, or no random key.

    Reference: Bloem 2018, arXiv 1810.09184, for the proposals; Williams 1992 for the gradient.

    Example:
        >>> from sparse_hyper_jax.sort import draw_sort
        >>> keys, payload = jnp.array([0.3, -1.2, 0.9, 0.0]), jnp.array([30, 10, 90, 20])
        >>> drawn = draw_sort(jax.random.key(0), keys, payload, certainty=100.0)
        >>> print(drawn.payload, jnp.exp(drawn.log_probability).round(2))
        [10 20 30 90] 1.0
    """
    # No near proposals: their law depends on the keys, and no log probability would say how.
    options = enter_options(
        key, num_candidates=num_candidates, num_near=0, certainty=certainty, hard=False
    )
    keys = enter_keys(keys, floating=True)
    n = len(keys)
    payload = enter_payload("payload", payload, n, mixed=False)
    current = widen_keys(keys)
    total = jnp.zeros((), current.dtype)
    levels = num_levels(n)
    level_keys = jax.random.split(key, max(levels, 1))
    for level in range(levels):
        split, log_probability = _draw_split(
            level_keys[level], current, buckets_at(n, level), options
        )
        current, payload = mix((current, payload), split)
        total += log_probability
    return Drawn(payload, current.astype(keys.dtype), total)


def _draw_split(
    key: jax.Array, keys: jax.Array, buckets: Buckets, options: SplitOptions
) -> tuple[HalfPermutation, jax.Array]:
    """Draw one halving per bucket; give them as one permutation, and their log probability."""
    propose_key, choose_key = jax.random.split(key)
    rows = to_rows(keys, buckets)
    upper, kept = propose(propose_key, rows, buckets, **options)
    weights = candidate_weights(rows, upper, kept, buckets, options["certainty"])
    # A weight that underflows has no logarithm, and is never drawn. One that is NaN stays so.
    never = weights == 0
    logs = jnp.where(never, -jnp.inf, jnp.log(jnp.where(never, 1, weights)))
    chosen = jax.random.categorical(choose_key, logs, axis=0)
    each = np.arange(len(buckets.sizes))
    sources, destinations = partition(spread_by(upper, chosen)[chosen, each][None], buckets)
    split = HalfPermutation(sources, destinations, jnp.ones(sources.shape, jnp.float32))
    return split, jnp.sum(logs[chosen, each])
