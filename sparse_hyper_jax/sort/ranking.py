"""Discounted cumulative gain of ranked lists, as a loss on soft places and as an exact metric."""

from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax.checks import check_count
from sparse_hyper_jax.ops.device_axes import spread_alike
from sparse_hyper_jax.precision import at_least_float32
from sparse_hyper_jax.sort.entrance import enter_keys, enter_labels, enter_mask
from sparse_hyper_jax.sort.kernel import find_bounds, find_within, smooth
from sparse_hyper_jax.sort.order_losses import unless_nan
from sparse_hyper_jax.sort.soft_permutation import (
    SoftPermutation,
    Sortable,
    apply,
    arrange,
    as_permutation,
    enter_sort,
)
from sparse_hyper_jax.sort.split import widen_keys


def ndcg_loss(
    keys: jax.Array,
    gains: jax.Array,
    *,
    k: int | None = None,
    certainty: jax.Array | float = 10.0,
    segment_ids: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Return one minus the normalised discounted cumulative gain of softly sorted lists.

    ``1 - mean over lists( sum_{p < k} (P gains)[p] / log2(p + 2) / ideal )`` with ``P`` the soft
    permutation of :func:`~sparse_hyper_jax.sort.soft_sort` from the largest key down, and ``ideal``
    the same sum for gains in descending order. It becomes one minus :func:`ndcg` as ``certainty``
    grows. Before, places may share an element of large gain, so that a loss can lie a little below
    0. Time ``O(n log n)``, memory ``O(n)``.

    Args:
        keys: ``(n,)`` scores, the largest of a list first; bring them to one scale by
            :func:`~sparse_hyper_jax.sort.standardise`.
        gains: ``(n,)`` numbers of at least 0, what an element is worth; commonly ``2**relevance -
            1``.
        k: how many of the first places count; None for all.
        certainty: scalar above 0, may be traced and learned.
        segment_ids: ``(n,)`` integers, which list (query) an element belongs to; any integer names
            one.
        mask: ``(n,)`` flags; false for padding, which takes no part, whatever it holds.

    Returns:
        Scalar, at least float32: the mean over the lists that have something to gain; 0 if none
        has.

    Raises:
        ValueError: wrong shapes or dtypes.

    References: Järvelin and Kekäläinen 2002 (doi 10.1145/582415.582418) for the metric; Pobrotyn
    and Białobrzeski 2021, arXiv 2102.07831, for the loss.

    Example:
        >>> from sparse_hyper_jax.sort import ndcg_loss
        >>> scores, gains = jnp.array([2.0, -1.0, 0.5]), jnp.array([0.0, 3.0, 1.0])
        >>> print(f"{ndcg_loss(scores, gains):.3f} {ndcg_loss(gains, gains):.3f}")
        0.413 0.000
    """
    sortable, gains = _enter(keys, gains, certainty, segment_ids, mask, hard=False)
    order, decays = arrange(sortable, widen_keys(sortable.keys, gains), certainty)
    gained = _gained(as_permutation(sortable, order, decays), gains, sortable, k)
    return 1 - gained


def ndcg(
    keys: jax.Array,
    gains: jax.Array,
    *,
    k: int | None = None,
    segment_ids: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Return the normalised discounted cumulative gain of lists sorted by their keys.

    ``mean over lists( sum_{p < k} gains[p] / log2(p + 2) / ideal )``, places ``p`` from the largest
    key down, ``ideal`` the same sum for gains in descending order.

    Args:
        keys: ``(n,)`` scores, the largest of a list first; equal ones keep their given order, and
            NaN goes last.
        gains: ``(n,)`` numbers of at least 0; commonly ``2**relevance - 1``.
        k: how many of the first places count; None for all.
        segment_ids: ``(n,)`` integers, which list (query) an element belongs to; any integer names
            one.
        mask: ``(n,)`` flags; false for padding, which takes no part, whatever it holds.

    Returns:
        Scalar in [0, 1], float32 or wider: the mean over the lists that have something to gain;
        1 if none has. No gradient for the keys.

    Raises:
        ValueError: wrong shapes or dtypes.

    Reference: Järvelin and Kekäläinen 2002, doi 10.1145/582415.582418.

    Example:
        >>> from sparse_hyper_jax.sort import ndcg
        >>> scores, gains = jnp.array([2.0, -1.0, 0.5]), jnp.array([0.0, 3.0, 1.0])
        >>> print(f"{ndcg(scores, gains):.3f} {ndcg(gains, gains):.3f}")
        0.587 1.000
    """
    sortable, gains = _enter(keys, gains, 1.0, segment_ids, mask, hard=True)
    permutation = as_permutation(sortable, sortable.find_order(sortable.keys), None)
    return unless_nan(sortable.keys, _gained(permutation, gains, sortable, k))


def _enter(
    keys: Any, gains: Any, certainty: Any, segment_ids: Any, mask: Any, *, hard: bool
) -> tuple[Sortable, jax.Array]:
    """Return what is to be sorted, largest first, and its gains: 0 for padding."""
    length = len(enter_keys(keys, floating=False))
    present = enter_mask(mask, length)
    sortable = enter_sort(keys, certainty, segment_ids, present, descending=True, hard=hard)
    gains = at_least_float32(enter_labels(gains, length, "gains"))
    gains = spread_alike(gains, sortable.keys)[0]
    return sortable, gains if present is None else jnp.where(present, gains, 0)


def _gained(
    permutation: SoftPermutation, gains: jax.Array, sortable: Sortable, k: int | None
) -> jax.Array:
    """Return the mean share of the ideal that lists gain; 1 if there is nothing to gain."""
    # By list, then by gain: lists, which are as long, stand where they stand in the permutation.
    ideal = sortable.find_order(-gains)
    rank = find_bounds(ideal.starts).rank
    discounts = 1 / jnp.log2(rank.astype(gains.dtype) + 2)
    if k is not None:
        discounts = jnp.where(rank < check_count("k", k, 1), discounts, 0)
    gained = discounts * apply(permutation, gains, False, False)
    totals = smooth(find_within(ideal.starts, gains.dtype), discounts * ideal.arrange(gains))
    empty = totals <= 0
    shares = jnp.where(empty, 0, gained / jnp.where(empty, 1, totals))
    lists = (ideal.starts & ~empty).sum(dtype=jnp.int32)
    return jnp.where(lists == 0, 1, shares.sum() / jnp.maximum(lists, 1).astype(gains.dtype))
