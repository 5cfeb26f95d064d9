"""Losses that learn keys from the true order alone: no payload, no matrix, ``O(n log n)``."""

import jax
import jax.numpy as jnp

from sparse_hyper_jax.checks import check_shape
from sparse_hyper_jax.sort.kernel import (
    check_keys,
    find_bounds,
    find_decays,
    find_order,
    smooth,
    soft_keys,
)
from sparse_hyper_jax.sort.soft import soft_ranks


def order_loss(
    keys: jax.Array,
    labels: jax.Array,
    *,
    certainty: jax.Array | float = 10.0,
    segment_ids: jax.Array | None = None,
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
            indices that ``argsort`` gives. Elements with equal labels may come in either order.
        certainty: scalar above 0, may be traced and learned.
        segment_ids: ``(n,)`` integers, which list an element belongs to; places are compared
            within lists.

    Returns:
        Scalar, at least float32: the mean over all elements.

    Raises:
        ValueError: wrong shapes or dtypes.

    Reference: Prillo and Eisenschlos 2020, arXiv 2006.16038, for the relaxation.
    """
    check_keys(keys, certainty, segment_ids, hard=False)
    labels = _check_labels(labels, keys)
    wide = soft_keys(keys)
    fixed = jax.lax.stop_gradient(wide)
    # Among equal keys the right order is taken, so that the gradient is the one towards it; among
    # equal labels that of the keys, so that such elements need not change places.
    order = find_order(fixed, labels, segment_ids=segment_ids)
    true = find_order(labels, fixed, segment_ids=segment_ids)
    current, wanted = order.arrange(wide), true.arrange(wide)
    totals = smooth(find_decays(current, order.starts, certainty), jnp.ones_like(wide))
    return jnp.mean(certainty * jnp.abs(current - wanted) + jnp.log(totals))


def rank_loss(
    keys: jax.Array,
    labels: jax.Array,
    *,
    certainty: jax.Array | float = 10.0,
    segment_ids: jax.Array | None = None,
) -> jax.Array:
    """Return the squared error of the soft ranks, scaled as in Spearman's correlation.

    ``loss = 6 / (n^2 - 1) * mean_i( (rank[i] - r[i])^2 )`` with
    :func:`~sparse_hyper_jax.sort.soft_ranks` and the true ranks ``r``, where equal labels have the
    mean of their ranks. For distinct labels and keys, in the limit of a large ``certainty``, it is
    one minus Spearman's rank correlation: 0 for the right order, 2 for the reverse.

    Args:
        keys: ``(n,)`` keys, any ``n >= 1``.
        labels: ``(n,)`` numbers that say the right order.
        certainty: scalar above 0, may be traced and learned.
        segment_ids: ``(n,)`` integers, which list an element belongs to; a list of one counts zero.

    Returns:
        Scalar, at least float32: the mean over all elements, each scaled by the length of its list.

    Raises:
        ValueError: wrong shapes or dtypes.
    """
    labels = _check_labels(labels, keys)
    ranks = soft_ranks(keys, certainty=certainty, segment_ids=segment_ids)
    true = find_order(labels, segment_ids=segment_ids)
    wanted, sizes = _mean_ranks(labels[true.order], true.starts)
    # In floats, as the square of a length from 46,341 on is no int32; a list of one divides by 1.
    scale = 6 / jnp.maximum(jnp.square(sizes.astype(ranks.dtype)) - 1, 1)
    return jnp.mean(scale * jnp.square(true.arrange(ranks) - wanted))


def _mean_ranks(labels: jax.Array, starts: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the mean rank of each group of equal sorted labels, and the length of its list."""
    rank, size = find_bounds(starts)
    group = find_bounds(starts | jnp.append(True, labels[1:] != labels[:-1]))
    first = rank - group.rank
    return first + 0.5 * (group.size - 1), size


def _check_labels(labels: jax.Array, keys: jax.Array) -> jax.Array:
    """Return the labels as an array, or raise if there is not one per key."""
    check_shape("labels", labels, jnp.shape(keys), "(n,): one label per key")
    return jnp.asarray(labels)
