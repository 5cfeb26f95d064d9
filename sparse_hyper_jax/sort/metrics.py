"""How well keys order labels, counting equal labels as right in whichever order they come."""

import jax
import jax.numpy as jnp

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.entrance import as_array, check_same_shape
from sparse_hyper_jax.ops.device_axes import spread_by
from sparse_hyper_jax.precision import wide_dtype


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
    """
    right, nan = _right_places(keys, labels)
    share = right.mean(axis=-1, dtype=wide_dtype(jnp.asarray(keys), jnp.asarray(labels)))
    return jnp.where(nan, jnp.nan, share)


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
