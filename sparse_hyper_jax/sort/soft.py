"""Soft sort, ranks and top-k of any number of elements, exact in ``O(n log n)``, with no matrix.

The soft permutation is that of SoftSort: over elements ``q``,

    ``P[p, q] = softmax_q( -certainty * |sort(keys)[p] - keys[q]| )``

so that place ``p`` mixes the elements whose keys are near the ``p``-th smallest one. Elsewhere an
``n x n`` matrix, it is the kernel of ``kernel.py`` with normalised rows here: one sort and two
passes over the payload, nothing random and nothing left out. (Only where a matrix is smaller than
the payload anyway, ``n <= 128`` and a wider payload, is it made.)

Reference: Prillo and Eisenschlos 2020, arXiv 2006.16038, for the relaxation.
"""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from sparse_hyper_jax.checks import check_count, check_flag
from sparse_hyper_jax.sort.entrance import (
    check_certainty,
    enter_keys,
    enter_lists,
    enter_payload,
)
from sparse_hyper_jax.sort.kernel import Order, find_bounds, find_decays, find_order, smooth
from sparse_hyper_jax.sort.recurrence import decaying_sums, decaying_sums_ahead
from sparse_hyper_jax.sort.split import widen_keys

Payload = TypeVar("Payload")

SHORT = 128
"""Up to so many elements a payload that is wider than that is mixed by a small matrix.

A product costs ``n`` multiplications for each number of the payload, the recurrences some passes
over it; on two processor cores the product took 0.6 of their time at ``n = 128``, width 784.
"""


def soft_sort(
    keys: jax.Array,
    payload: Payload,
    *,
    certainty: jax.Array | float = 10.0,
    segment_ids: jax.Array | None = None,
    hard: bool = False,
) -> Payload:
    """Sort a payload by its keys in ascending order, with gradients for keys and payload.

    ``out[p] = sum_q K[p, q] payload[q] / sum_q K[p, q]``, ``K[p, q] = exp(-certainty * |s[p] -
    keys[q]|)``, with ``s`` the sorted keys and sums over the elements of one list. Rows of weights
    sum to one. As ``certainty`` grows they become those of the exact sort; equal keys share their
    places evenly, with the gradient of their given order. Time ``O(n log n)``, memory ``O(n)``
    times the payload's width, for any ``n``.

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
        hard: exact, stable sort: for a single list equal to indexing by
            ``jnp.argsort(keys, stable=True)``, ties included, NaN last.

    Returns:
        The same tree of shapes and dtypes, sorted; 16-bit leaves are mixed in float32.

    Raises:
        ValueError: wrong shapes or dtypes.

    Reference: Prillo and Eisenschlos 2020, arXiv 2006.16038.
    """
    keys, segment_ids, hard = _enter(keys, certainty, segment_ids, hard)
    payload = enter_payload("payload", payload, len(keys), mixed=not hard)
    if hard:
        return jax.tree.map(find_order(keys, segment_ids=segment_ids).arrange, payload)
    # As wide as the payload: weights that are rounded before would not sum to one.
    order, decays = _arrange(widen_keys(keys, payload), certainty, segment_ids)
    totals = smooth(decays, jnp.ones_like(decays))

    def mix(leaf: jax.Array) -> jax.Array:
        flat = leaf.astype(decays.dtype).reshape(len(keys), -1)
        if segment_ids is None and len(keys) <= min(SHORT, flat.shape[1] - 1):
            mixed = _mix_wide(order, decays, flat)
        else:
            mixed = smooth(decays, order.arrange(flat))
        mixed = mixed / totals[:, None]
        return mixed.reshape(leaf.shape).astype(leaf.dtype)

    return jax.tree.map(mix, payload)


def _mix_wide(order: Order, decays: jax.Array, payload: jax.Array) -> jax.Array:
    """Mix a payload ``(n, width)`` by the kernel as a matrix, for few rows that are wide.

    The matrix is then smaller than the payload, and one product with it takes fewer passes over
    the payload's memory than the recurrences do.
    """
    kernel = smooth(decays, order.arrange(jnp.eye(len(decays), dtype=decays.dtype)))
    return jnp.matmul(kernel, payload, precision=jax.lax.Precision.HIGHEST)


def soft_ranks(
    keys: jax.Array,
    *,
    certainty: jax.Array | float = 10.0,
    segment_ids: jax.Array | None = None,
    hard: bool = False,
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
        hard: exact ranks, ties broken by position, NaN last, as int32.

    Returns:
        ``(n,)``, in the order of the elements; at least float32, unless ``hard``.

    Raises:
        ValueError: wrong shapes or dtypes.
    """
    keys, segment_ids, hard = _enter(keys, certainty, segment_ids, hard)
    if hard:
        order = find_order(keys, segment_ids=segment_ids)
        return order.restore(find_bounds(order.starts).rank)
    order, decays = _arrange(widen_keys(keys), certainty, segment_ids)
    below = decaying_sums(decays, jnp.ones_like(decays))
    above = decaying_sums_ahead(decays, jnp.ones_like(decays))
    # The sum over q < p of K[p, q] (p - q) is F applied to that of K[p, q], q < p: each step moves
    # all that came before one place further away. Likewise above.
    behind = decaying_sums(decays, below - 1)
    ahead = decaying_sums_ahead(decays, above - 1)
    rank = find_bounds(order.starts).rank.astype(decays.dtype)
    ranks = rank + (ahead - behind) / (below + above - 1)
    return order.restore(ranks)


def soft_top_k(
    keys: jax.Array,
    k: int,
    *,
    certainty: jax.Array | float = 10.0,
    segment_ids: jax.Array | None = None,
    hard: bool = False,
) -> jax.Array:
    """Return how far every element belongs to the ``k`` of largest key, from 0 to 1.

    ``share[q] = sum_{p >= n - k} K[p, q] / sum_p K[p, q]`` over the places of its list, with ``K``
    as in :func:`soft_sort`: the chance that the element takes one of the last ``k`` places. Shares
    add up to ``k`` in the limit of a large ``certainty``; before, a few elements far from a dense
    cluster lose part of theirs to it. (The last ``k`` rows of a :func:`soft_sort` are the ``k``
    largest themselves.)

    Args:
        keys: ``(n,)`` keys, as in :func:`soft_sort`.
        k: how many, from 0; all of a list that has no more.
        certainty: scalar above 0, as in :func:`soft_sort`.
        segment_ids: ``(n,)`` integers, which list an element belongs to; ``k`` of each.
        hard: exact selection, 0 or 1; of equal keys the later one goes first, and NaN before all.

    Returns:
        ``(n,)``, in the order of the elements; at least float32.

    Raises:
        ValueError: wrong shapes or dtypes, or a negative ``k``.
    """
    keys, segment_ids, hard = _enter(keys, certainty, segment_ids, hard)
    k = min(check_count("k", k), len(keys))
    if hard:
        order = find_order(keys, segment_ids=segment_ids)
        return order.restore(_last(order, k).astype(jnp.float32))
    order, decays = _arrange(widen_keys(keys), certainty, segment_ids)
    last = _last(order, k).astype(decays.dtype)
    return order.restore(smooth(decays, last) / smooth(decays, jnp.ones_like(decays)))


def _enter(
    keys: Any, certainty: Any, segment_ids: Any, hard: Any
) -> tuple[jax.Array, jax.Array | None, bool]:
    """Return the checked keys and lists, and whether exact sorting is asked for."""
    hard = check_flag("hard", hard)
    check_certainty(certainty)
    keys = enter_keys(keys, floating=not hard)
    return keys, enter_lists(segment_ids, len(keys)), hard


def _arrange(
    wide: jax.Array, certainty: jax.Array | float, segment_ids: jax.Array | None
) -> tuple[Order, jax.Array]:
    """Return the order of the widened keys and the decays between sorted ones."""
    order = find_order(jax.lax.stop_gradient(wide), segment_ids=segment_ids)
    return order, find_decays(order.arrange(wide), order.starts, certainty)


def _last(order: Order, k: int) -> jax.Array:
    """Mark the last ``k`` sorted places of every list."""
    rank, size = find_bounds(order.starts)
    return rank >= size - k
