"""Losses that learn keys from the true order alone: no payload, no matrix, ``O(n log n)``."""

from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax.sort.entrance import (
    check_certainty,
    enter_keys,
    enter_labels,
    enter_lists,
    enter_mask,
)
from sparse_hyper_jax.sort.kernel import (
    find_bounds,
    find_changes,
    find_decays,
    find_order,
    smooth,
)
from sparse_hyper_jax.sort.soft import soft_ranks
from sparse_hyper_jax.sort.split import widen_keys


def order_loss(
    keys: jax.Array,
    labels: jax.Array,
    *,
    certainty: jax.Array | float = 10.0,
    segment_ids: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Return the cross-entropy of the soft permutation at the entries of the true one.

    With ``P`` the permutation of :func:`~sparse_hyper_jax.sort.soft_sort`, ``s`` the sorted keys
    and ``t[p]`` the element that belongs in place ``p``,

        ``loss = -mean_p log P[p, t[p]]
        = mean_p( certainty * |s[p] - keys[t[p]]| + log sum_q exp(-certainty * |s[p] - s[q]|) )``

    The first term pulls every key towards the one that now stands in its place, however far away;
    the second, at most ``log n``, pushes neighbours apart. Only ``n`` entries are ever computed.
    (Normalised over places instead of elements, the loss would be the same: both sums run over all
    sorted keys.) It depends on the scale of the keys: :func:`~sparse_hyper_jax.sort.standardise`
    them, unless that scale is meant to be learned.

    Args:
        keys: ``(n,)`` keys, any ``n >= 1``; beyond 1e30 they count as 1e30.
        labels: ``(n,)`` numbers that say the right order: true values, or ranks, but not the
            indices that ``argsort`` gives. Elements with equal labels may come in either order; a
            NaN makes the loss NaN.
        certainty: scalar above 0, may be traced and learned.
        segment_ids: ``(n,)`` integers, which list an element belongs to; places are compared
            within lists. Any integer names one, as in :func:`~sparse_hyper_jax.sort.soft_sort`.
        mask: ``(n,)`` flags; false for padding, which takes no part, whatever it holds.

    Returns:
        Scalar, at least float32: the mean over all elements that take part; 0 if none does.

    Raises:
        ValueError: wrong shapes or dtypes.

    Reference: Prillo and Eisenschlos 2020, arXiv 2006.16038, for the relaxation.

    Example:
        >>> from sparse_hyper_jax.sort import order_loss
        >>> keys = jnp.array([-1.2, 0.0, 1.2])
        >>> right, wrong = jnp.array([10, 20, 50]), jnp.array([50, 20, 10])
        >>> [round(float(order_loss(keys, labels)), 3) for labels in (right, wrong)]
        [0.0, 16.0]
    """
    check_certainty(certainty)
    keys, labels, segment_ids, absent = enter_labelled(keys, labels, segment_ids, mask)
    wide = widen_keys(keys)
    fixed = jax.lax.stop_gradient(wide)
    # Among equal keys the right order is taken, so that the gradient is the one towards it; among
    # equal labels that of the keys, so that such elements need not change places.
    options = {"segment_ids": segment_ids, "absent": absent}
    order = find_order(fixed, labels, **options)
    true = find_order(labels, fixed, **options)
    current, wanted = order.arrange(wide), true.arrange(wide)
    totals = smooth(find_decays(current, order.starts, certainty), jnp.ones_like(wide))
    pulls = jnp.asarray(certainty, wide.dtype) * jnp.abs(current - wanted)
    counts = None if absent is None else order.arrange(~absent)
    return unless_nan(labels, _mean(pulls + jnp.log(totals), counts))


def rank_loss(
    keys: jax.Array,
    labels: jax.Array,
    *,
    certainty: jax.Array | float = 10.0,
    segment_ids: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Return the squared error of the soft ranks, scaled as in Spearman's correlation.

    ``loss = 6 / (n^2 - 1) * mean_i( (rank[i] - r[i])^2 )`` with
    :func:`~sparse_hyper_jax.sort.soft_ranks` and the true ranks ``r``, where equal labels have the
    mean of their ranks. For distinct labels and keys, in the limit of a large ``certainty``, it is
    one minus Spearman's rank correlation: 0 for the right order, 2 for the reverse.

    Args:
        keys: ``(n,)`` keys, any ``n >= 1``.
        labels: ``(n,)`` numbers that say the right order; a NaN makes the loss NaN.
        certainty: scalar above 0, may be traced and learned.
        segment_ids: ``(n,)`` integers, which list an element belongs to; a list of one counts zero.
        mask: ``(n,)`` flags; false for padding, which takes no part, whatever it holds.

    Returns:
        Scalar, at least float32: the mean over all elements that take part, each scaled by the
        length of its list; 0 if none does.

    Raises:
        ValueError: wrong shapes or dtypes.

    Example:
        >>> from sparse_hyper_jax.sort import rank_loss
        >>> keys = jnp.array([-1.2, 0.0, 1.2])
        >>> for labels in ([1, 2, 3], [2, 1, 3], [3, 2, 1]):
        ...     print(f"{rank_loss(keys, labels):.3f}")
        0.000
        0.500
        2.000
    """
    check_certainty(certainty)
    keys, labels, segment_ids, absent = enter_labelled(keys, labels, segment_ids, mask)
    ranks = soft_ranks(
        keys,
        certainty=certainty,
        segment_ids=segment_ids,
        weights=None if absent is None else ~absent,
    )
    true = find_order(labels, segment_ids=segment_ids, absent=absent)
    # In floats, as the square of a length from 46,341 on is no int32.
    wanted, sizes = (
        part.astype(ranks.dtype) for part in find_doubled_ranks(true.arrange(labels), true.starts)
    )
    scale = 6 / jnp.maximum(jnp.square(sizes) - 1, 1)  # a list of one divides by 1
    errors = jnp.square(true.arrange(ranks) - wanted / 2)
    counts = None if absent is None else true.arrange(~absent)
    return unless_nan(labels, _mean(scale * errors, counts))


def enter_labelled(
    keys: Any, labels: Any, segment_ids: Any, mask: Any, *, floating: bool = True
) -> tuple[jax.Array, jax.Array, jax.Array | None, jax.Array | None]:
    """Return checked keys, labels and lists, and which elements are absent: those are all 0."""
    keys = enter_keys(keys, floating=floating)
    labels = enter_labels(labels, len(keys))
    lists, mask = enter_lists(segment_ids, len(keys)), enter_mask(mask, len(keys))
    if mask is None:
        return keys, labels, lists, None
    keys, labels = (jnp.where(mask, part, jnp.zeros_like(part)) for part in (keys, labels))
    return keys, labels, lists, ~mask


def _mean(numbers: jax.Array, counts: jax.Array | None) -> jax.Array:
    """Return the mean of the numbers that count; 0 if none does."""
    if counts is None:
        return jnp.mean(numbers)
    total = jnp.where(counts, numbers, 0).sum()
    return total / jnp.maximum(counts.sum(dtype=jnp.int32), 1).astype(numbers.dtype)


def find_doubled_ranks(labels: jax.Array, starts: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return twice the mean rank of each group of equal sorted labels, and its list's length."""
    rank, size = find_bounds(starts)
    group = find_bounds(starts | find_changes(labels))
    return 2 * (rank - group.rank) + group.size - 1, size


def unless_nan(labels: jax.Array, result: jax.Array) -> jax.Array:
    """Return a result; NaN, and so its slopes, where a label is: it stands nowhere in the order."""
    if not jnp.issubdtype(labels.dtype, jnp.floating):
        return result
    return result * jnp.where(jnp.isnan(labels).any(), jnp.nan, 1)
