"""Soft sort, ranks and top-k of any number of elements, exact in ``O(n log n)``, with no matrix.

The soft permutation is that of SoftSort, from ``soft_permutation.py``: place ``p`` mixes the
elements whose keys are near the ``p``-th smallest one. Elsewhere an ``n x n`` matrix, it is the
kernel of ``kernel.py`` with normalised rows here: one sort and two passes over the payload, nothing
random and nothing left out. Ranks and shares normalise its columns instead: the odds of the places
that an element may take.

Reference: Prillo and Eisenschlos 2020, arXiv 2006.16038, for the relaxation.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax.checks import check_count, check_flag
from sparse_hyper_jax.sort.entrance import enter_payload
from sparse_hyper_jax.sort.kernel import Order, find_bounds, find_within, smooth
from sparse_hyper_jax.sort.recurrence import decaying_sums, decaying_sums_ahead
from sparse_hyper_jax.sort.soft_permutation import (
    Sortable,
    apply,
    arrange,
    enter_sort,
    find_permutation,
    with_value,
)
from sparse_hyper_jax.sort.split import widen_keys

Payload = TypeVar("Payload")


def soft_sort(
    keys: jax.Array,
    payload: Payload,
    *,
    certainty: jax.Array | float = 10.0,
    segment_ids: jax.Array | None = None,
    weights: jax.Array | None = None,
    descending: bool = False,
    hard: bool = False,
    straight_through: bool = False,
) -> Payload:
    """Sort a payload by its keys, with gradients for keys and payload.

    ``out[p] = sum_q w[q] K[p, q] payload[q] / sum_q w[q] K[p, q]``, ``K[p, q] = exp(-certainty *
    |s[p] - keys[q]|)``, with ``s`` the sorted keys, ``w`` the weights, one each by default, and
    sums over the elements of one list. Rows sum to one. As ``certainty`` grows they become those of
    the exact sort; equal keys share their places evenly, with the gradient of their given order.
    Time ``O(n log n)``, memory ``O(n)`` times the payload's width, for any ``n``.

    Only ``certainty * (difference of keys)`` matters: :func:`standardise` the keys, so that
    ``certainty`` has one meaning throughout training, or learn it (as ``exp`` of a parameter). Keys
    of ``n`` elements lie ``n`` times closer together: a ``certainty`` in proportion to ``n`` blurs
    over the same number of neighbours.

    Args:
        keys: ``(n,)`` keys, any ``n >= 1``. Soft keys beyond 1e30, infinities among them, count as
            1e30; a NaN spoils its list.
        payload: pytree of arrays ``(n, ...)``; floating, unless ``hard``. Put the keys in to have
            them sorted too.
        certainty: scalar above 0, may be traced and learned; inverse of the distance of keys over
            which a weight falls by ``e``.
        segment_ids: ``(n,)`` integers, which list an element belongs to; lists are sorted each on
            its own and come out in ascending order of their number, so that numbers that ascend
            already leave every list where it is. Numbers are names: any integer is one, -1 too, and
            padding is a list of its own. ``None`` for a single list.
        weights: ``(n,)`` numbers or flags: an element of weight ``w`` is mixed in as ``w`` equal
            ones would be. One of weight 0, or below, is padding and counts for nothing, whatever it
            holds: the last places of its list are left for such elements, and receive 0.
        descending: from the largest key to the smallest; equal keys still keep their given order.
        hard: exact, stable sort: for a single list equal to indexing by
            ``jnp.argsort(keys, stable=True)``, ties included, NaN last.
        straight_through: return the exact order, with the gradient of the soft sort.

    Returns:
        The same tree of shapes and dtypes, sorted; 16-bit leaves are mixed in float32.

    Raises:
        ValueError: wrong shapes or dtypes.

    Reference: Prillo and Eisenschlos 2020, arXiv 2006.16038.

    Example:
        >>> from sparse_hyper_jax.sort import soft_sort
        >>> keys, payload = jnp.array([0.3, -1.2, 0.9]), jnp.array([30.0, 10.0, 90.0])
        >>> print(np.asarray(soft_sort(keys, payload, certainty=2.0)).round(1))
        [12.1 42.6 75.4]
        >>> print(soft_sort(keys, payload, descending=True, hard=True))
        [90. 30. 10.]
        >>> matrix = jnp.array([[3.0, 2.0], [1.0, 5.0]])
        >>> print(jax.vmap(lambda x: soft_sort(x, x, hard=True), 1, 1)(matrix))  # along axis 0
        [[1. 2.]
         [3. 5.]]
    """
    sortable = enter_sort(keys, certainty, segment_ids, weights, descending=descending, hard=hard)
    straight_through = check_flag("straight_through", straight_through)
    payload = enter_payload("payload", payload, len(sortable.keys), mixed=not sortable.hard)
    # As wide as the payload, of which :func:`soft_argsort` cannot know.
    permutation = find_permutation(sortable, certainty, payload)
    return apply(permutation, payload, False, straight_through)


def soft_ranks(
    keys: jax.Array,
    *,
    certainty: jax.Array | float = 10.0,
    segment_ids: jax.Array | None = None,
    weights: jax.Array | None = None,
    descending: bool = False,
    hard: bool = False,
    straight_through: bool = False,
) -> jax.Array:
    """Return the expected rank of every element, from 0 for the smallest key, with gradients.

    ``rank[q] = sum_p p K[p, q] / sum_p K[p, q]`` over the places ``p`` of its list, with ``K`` as
    in :func:`soft_sort`. Between 0 and ``n - 1``; equal keys have equal ranks, in the limit of a
    large ``certainty`` the mean of their places. Summed as differences to the hard rank, so that
    rounding grows with the number of neighbours that mix, not with ``n``.

    Args:
        keys: ``(n,)`` keys, as in :func:`soft_sort`.
        certainty: scalar above 0, as in :func:`soft_sort`.
        segment_ids: ``(n,)`` integers, which list an element belongs to, as in :func:`soft_sort`;
            each counts from 0.
        weights: ``(n,)`` numbers or flags: an element of weight ``w`` takes as many places as ``w``
            equal ones, and its rank is their mean, so weights below 1 bring ranks down to -1/2. One
            of weight 0 or below takes none and has rank 0.
        descending: rank 0 for the largest key.
        hard: exact ranks, ties broken by position, NaN last, as int32 unless there are weights.
        straight_through: return the exact ranks as floats, with the gradient of the soft ones.

    Returns:
        ``(n,)``, in the order of the elements; at least float32, unless ``hard``.

    Raises:
        ValueError: wrong shapes or dtypes.

    Example:
        >>> from sparse_hyper_jax.sort import soft_ranks
        >>> print(np.asarray(soft_ranks(jnp.array([0.3, -1.2, 0.9]), certainty=4.0)).round(2))
        [1.08 0.   1.92]
        >>> print(soft_ranks(jnp.array([5.0, 1.0, 7.0]), segment_ids=jnp.array([0, 0, 1])))
        [1. 0. 0.]
    """
    sortable = enter_sort(keys, certainty, segment_ids, weights, descending=descending, hard=hard)
    straight_through = check_flag("straight_through", straight_through)
    if sortable.hard:
        order = sortable.find_order(sortable.keys)
        return _restore(sortable, order, _places(order, _sorted_weights(sortable, order)))
    order, decays = arrange(sortable, widen_keys(sortable.keys), certainty)
    weights = _sorted_weights(sortable, order, decays.dtype)
    counts = jnp.ones_like(decays) if weights is None else weights
    below = decaying_sums(decays, counts)
    above = decaying_sums_ahead(decays, counts)
    # The sum over q < p of K[p, q] (p - q) is F applied to that of K[p, q], q < p: each step moves
    # all that came before by the distance of two places, 1 but for weights. Likewise above.
    steps = (counts[1:] + counts[:-1]) / 2
    edge = jnp.zeros_like(counts[:1])
    behind = decaying_sums(decays, (below - counts) * jnp.concatenate([edge, steps]))
    ahead = decaying_sums_ahead(decays, (above - counts) * jnp.concatenate([steps, edge]))
    exact = _places(order, weights).astype(decays.dtype)
    ranks = exact + (ahead - behind) / _divisor(sortable, below + above - counts)
    ranks = with_value(exact, ranks) if straight_through else ranks
    return _restore(sortable, order, ranks)


def soft_top_k(
    keys: jax.Array,
    k: int,
    *,
    certainty: jax.Array | float = 10.0,
    segment_ids: jax.Array | None = None,
    weights: jax.Array | None = None,
    hard: bool = False,
    straight_through: bool = False,
) -> jax.Array:
    """Return how far every element belongs to the ``k`` of largest key, from 0 to 1.

    ``share[q] = sum_{p >= n - k} K[p, q] / sum_p K[p, q]`` over the places of its list, with ``K``
    as in :func:`soft_sort`: the chance that the element takes one of the last ``k`` places. Shares
    add up to ``k`` in the limit of a large ``certainty``; before, a few elements far from a dense
    cluster lose part of theirs to it. (The ``k`` largest themselves: :func:`soft_largest`.)

    Args:
        keys: ``(n,)`` keys, as in :func:`soft_sort`.
        k: how many, from 0; all of a list that has no more.
        certainty: scalar above 0, as in :func:`soft_sort`.
        segment_ids: ``(n,)`` integers, which list an element belongs to; ``k`` of each.
        weights: ``(n,)`` numbers or flags: an element of weight ``w`` takes as many of the ``k``
            places as ``w`` equal ones, and its share is their mean. One of weight 0 or below takes
            none and has share 0.
        hard: exact selection, 0 or 1, or a part where weights leave one; of equal keys the later
            one goes first, and NaN before all.
        straight_through: return the exact selection, with the gradient of the soft one.

    Returns:
        ``(n,)``, in the order of the elements; at least float32.

    Raises:
        ValueError: wrong shapes or dtypes, or a negative ``k``.

    Example:
        >>> from sparse_hyper_jax.sort import soft_top_k
        >>> keys = jnp.array([0.3, -1.2, 0.9, 0.4])
        >>> print(np.asarray(soft_top_k(keys, 2, certainty=8.0)).round(2))
        [0.31 0.   0.99 0.69]
    """
    sortable = enter_sort(keys, certainty, segment_ids, weights, hard=hard)
    straight_through = check_flag("straight_through", straight_through)
    k = min(check_count("k", k), 2**30 if weights is not None else len(sortable.keys))
    if sortable.hard:
        order = sortable.find_order(sortable.keys)
        exact = _last(order, k, _sorted_weights(sortable, order))
        return _restore(sortable, order, exact.astype(jnp.float32))
    order, decays = arrange(sortable, widen_keys(sortable.keys), certainty)
    weights = _sorted_weights(sortable, order, decays.dtype)
    counts = jnp.ones_like(decays) if weights is None else weights
    last = _last(order, k, weights).astype(decays.dtype)
    shares = smooth(decays, counts * last) / _divisor(sortable, smooth(decays, counts))
    shares = with_value(last, shares) if straight_through else shares
    return _restore(sortable, order, shares)


def _sorted_weights(
    sortable: Sortable, order: Order, dtype: np.dtype | None = None
) -> jax.Array | None:
    """Return the weights in sorted order, if there are any."""
    weights = sortable.weights
    if weights is None:
        return None
    return order.arrange(weights if dtype is None else weights.astype(dtype))


def _places(order: Order, weights: jax.Array | None) -> jax.Array:
    """Return the place of every sorted element in its list; with weights the mean of its places."""
    if weights is None:
        return find_bounds(order.starts).rank
    ends = decaying_sums(find_within(order.starts, weights.dtype), weights)
    return ends - (weights + 1) / 2


def _last(order: Order, k: int, weights: jax.Array | None) -> jax.Array:
    """Mark the last ``k`` sorted places of every list; with weights by the part that is in them."""
    if weights is None:
        rank, size = find_bounds(order.starts)
        return rank >= size - k
    behind = decaying_sums_ahead(find_within(order.starts, weights.dtype), weights) - weights
    none = weights == 0
    return jnp.where(none, 0, jnp.clip((k - behind) / jnp.where(none, 1, weights), 0, 1))


def _divisor(sortable: Sortable, totals: jax.Array) -> jax.Array:
    """Return sums to divide by: where nothing counts they are 0, and so is what is divided."""
    return totals if sortable.weights is None else jnp.where(totals == 0, 1, totals)


def _restore(sortable: Sortable, order: Order, results: jax.Array) -> jax.Array:
    """Bring results into the order of the elements; 0 for those that count for nothing."""
    results = order.restore(results)
    if sortable.weights is None:
        return results
    return jnp.where(sortable.weights == 0, jnp.zeros_like(results), results)
