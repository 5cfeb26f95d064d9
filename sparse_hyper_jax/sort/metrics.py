"""How well keys order labels, counting equal labels as right in whichever order they come."""

import jax
import jax.numpy as jnp

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.entrance import as_array, check_same_shape
from sparse_hyper_jax.ops.device_axes import spread_alike, spread_by
from sparse_hyper_jax.precision import wide_dtype
from sparse_hyper_jax.sort.kernel import Order, find_bounds, find_order, find_within, smooth
from sparse_hyper_jax.sort.order_losses import enter_labelled, find_doubled_ranks, unless_nan


def exact_match(keys: jax.Array, labels: jax.Array) -> jax.Array:
    """Tell for each sequence whether its keys put all labels in ascending order.

    ``all(labels[argsort(keys)] == sort(labels))``: it is labels that are compared, not
    permutations, so that elements with equal labels may come in either order.

    Args:
        keys: ``(..., n)`` numbers to sort by; equal keys keep their order.
        labels: ``(..., n)`` true values.

    Returns:
        ``(...)`` bool; its mean is the accuracy. False where a key or a label is NaN.

    Raises:
        ValueError: the shapes differ or there is no element.

    Example:
        >>> from sparse_hyper_jax.sort import exact_match
        >>> bool(exact_match([0.1, 0.7, 0.4], [10, 30, 20]))
        True
    """
    right, nan = _right_places(keys, labels)
    return right.all(axis=-1) & ~nan


def element_match(keys: jax.Array, labels: jax.Array) -> jax.Array:
    """Return for each sequence the share of places that hold the right label.

    ``mean(labels[argsort(keys)] == sort(labels))``

    Args:
        keys: ``(..., n)`` numbers to sort by; equal keys keep their order.
        labels: ``(..., n)`` true values.

    Returns:
        ``(...)`` in [0, 1], float32 or wider; NaN where a key or a label is. No gradient.

    Raises:
        ValueError: the shapes differ or there is no element.

    Example:
        >>> from sparse_hyper_jax.sort import element_match
        >>> float(element_match([0.1, 0.7, 0.4, 0.9], [10, 20, 30, 40]))  # two changed places
        0.5
    """
    right, nan = _right_places(keys, labels)
    share = right.mean(axis=-1, dtype=wide_dtype(jnp.asarray(keys), jnp.asarray(labels)))
    return jnp.where(nan, jnp.nan, share)


def spearman(
    keys: jax.Array,
    labels: jax.Array,
    *,
    segment_ids: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Return Spearman's rank correlation between keys and labels, the mean over lists.

    The correlation of their ranks, where equal numbers have the mean of theirs: 1 for the same
    order, -1 for the reverse.

    Args:
        keys: ``(n,)`` numbers to sort by.
        labels: ``(n,)`` true values.
        segment_ids: ``(n,)`` integers, which list an element belongs to; any integer names one.
        mask: ``(n,)`` flags; false for padding, which takes no part, whatever it holds.

    Returns:
        Scalar in [-1, 1], float32 or wider: the mean over the lists in which neither all keys nor
        all labels are equal, NaN if there is none, or where a key or a label is. No gradient: learn
        by :func:`~sparse_hyper_jax.sort.rank_loss`.

    Raises:
        ValueError: wrong shapes or dtypes.

    Reference: Spearman 1904, doi 10.2307/1412159.

    Example:
        >>> from sparse_hyper_jax.sort import spearman
        >>> keys, labels = jnp.array([0.1, 0.7, 0.4, 0.9]), jnp.array([1, 2, 3, 4])
        >>> round(float(spearman(keys, labels)), 3)
        0.8
        >>> round(float(spearman(keys, labels, segment_ids=jnp.array([0, 0, 1, 1]))), 3)
        1.0
    """
    keys, labels, lists, absent = enter_labelled(keys, labels, segment_ids, mask, floating=False)
    dtype = wide_dtype(keys, labels)
    keys, labels = jax.lax.stop_gradient(spread_alike(keys, labels))
    by_key, by_label = (
        find_order(part, segment_ids=lists, absent=absent) for part in (keys, labels)
    )
    starts = by_label.starts
    within, size = find_within(starts, dtype), find_bounds(starts).size.astype(dtype)

    def centred(order: Order, numbers: jax.Array) -> jax.Array:
        """Give ranks less their mean, in the order of the labels."""
        doubled = find_doubled_ranks(order.arrange(numbers), order.starts)[0]
        return (by_label.arrange(order.restore(doubled)).astype(dtype) - (size - 1)) / 2

    one, two = centred(by_key, keys), centred(by_label, labels)
    products = smooth(within, jnp.stack([one * two, one * one, two * two], axis=1))
    counted = starts & (products[:, 1] > 0) & (products[:, 2] > 0)
    if absent is not None:
        counted = counted & ~by_label.arrange(absent)
    each = jnp.where(counted, _correlation(jnp.where(counted[:, None], products, 1)), 0)
    mean = each.sum() / counted.sum(dtype=jnp.int32).astype(dtype)
    return unless_nan(keys, unless_nan(labels, mean))


def _correlation(products: jax.Array) -> jax.Array:
    """Return ``xy / sqrt(xx yy)`` of sums ``(xy, xx, yy)`` in the last axis."""
    # Two roots: the product of two sums, ``n^6 / 144``, overflows float32 from 6 million ranks on.
    return products[..., 0] / jnp.sqrt(products[..., 1]) / jnp.sqrt(products[..., 2])


def _right_places(keys: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mark the places ``(..., n)`` where sorting by keys puts the label that belongs there.

    Beside them the sequences ``(...)`` in which any number is NaN.
    """
    keys, labels = as_array("keys", keys), as_array("labels", labels)
    shape = check_same_shape(keys=keys, labels=labels)
    require(
        len(shape) >= 1 and shape[-1] != 0,
        f"keys of shape {shape}",
        "(..., n) with at least one element",
        "leave it out, or reshape keys and labels",
    )
    nan = jnp.isnan(keys) | jnp.isnan(labels)
    keys, labels = (spread_by(array, nan.astype(jnp.int32)) for array in (keys, labels))
    ordered = jax.lax.sort((keys, labels), dimension=-1, is_stable=True, num_keys=1)[1]
    return ordered == jnp.sort(labels, axis=-1), nan.any(axis=-1)
