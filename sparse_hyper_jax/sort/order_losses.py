"""Losses that learn keys from the true order alone: no payload, no matrix, ``O(n log n)``."""

import jax
import jax.numpy as jnp

from sparse_hyper_jax.sort.entrance import (
    check_certainty,
    enter_keys,
    enter_labels,
    enter_lists,
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

    Returns:
        Scalar, at least float32: the mean over all elements.

    Raises:
        ValueError: wrong shapes or dtypes.

    Reference: Prillo and Eisenschlos 2020, arXiv 2006.16038, for the relaxation.
    """
    check_certainty(certainty)
    keys = enter_keys(keys, floating=True)
    labels = enter_labels(labels, len(keys))
    segment_ids = enter_lists(segment_ids, len(keys))
    wide = widen_keys(keys)
    fixed = jax.lax.stop_gradient(wide)
    # Among equal keys the right order is taken, so that the gradient is the one towards it; among
    # equal labels that of the keys, so that such elements need not change places.
    order = find_order(fixed, labels, segment_ids=segment_ids)
    true = find_order(labels, fixed, segment_ids=segment_ids)
    current, wanted = order.arrange(wide), true.arrange(wide)
    totals = smooth(find_decays(current, order.starts, certainty), jnp.ones_like(wide))
    pulls = jnp.asarray(certainty, wide.dtype) * jnp.abs(current - wanted)
    return _unless_nan(labels, jnp.mean(pulls + jnp.log(totals)))


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
        labels: ``(n,)`` numbers that say the right order; a NaN makes the loss NaN.
        certainty: scalar above 0, may be traced and learned.
        segment_ids: ``(n,)`` integers, which list an element belongs to; a list of one counts zero.

    Returns:
        Scalar, at least float32: the mean over all elements, each scaled by the length of its list.

    Raises:
        ValueError: wrong shapes or dtypes.
    """
    keys = enter_keys(keys, floating=True)
    labels = enter_labels(labels, len(keys))
    segment_ids = enter_lists(segment_ids, len(keys))
    ranks = soft_ranks(keys, certainty=certainty, segment_ids=segment_ids)
    true = find_order(labels, segment_ids=segment_ids)
    # In floats, as the square of a length from 46,341 on is no int32.
    wanted, sizes = (
        part.astype(ranks.dtype) for part in _doubled_ranks(true.arrange(labels), true.starts)
    )
    scale = 6 / jnp.maximum(jnp.square(sizes) - 1, 1)  # a list of one divides by 1
    errors = jnp.square(true.arrange(ranks) - wanted / 2)
    return _unless_nan(labels, jnp.mean(scale * errors))


def _doubled_ranks(labels: jax.Array, starts: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return twice the mean rank of each group of equal sorted labels, and its list's length."""
    rank, size = find_bounds(starts)
    group = find_bounds(starts | find_changes(labels))
    return 2 * (rank - group.rank) + group.size - 1, size


def _unless_nan(labels: jax.Array, loss: jax.Array) -> jax.Array:
    """Return the loss; NaN, and so its slopes, where a label is: it stands nowhere in the order."""
    if not jnp.issubdtype(labels.dtype, jnp.floating):
        return loss
    return loss * jnp.where(jnp.isnan(labels).any(), jnp.nan, 1)
