"""How well keys order labels, counting equal labels as right in whichever order they come."""

import jax
import jax.numpy as jnp

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.entrance import as_array, check_same_shape
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
    keys, labels = _enter(keys, labels)
    return _right_places(keys, labels).all(axis=-1) & ~_any_nan(keys, labels)


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
    keys, labels = _enter(keys, labels)
    share = _right_places(keys, labels).mean(axis=-1, dtype=wide_dtype(keys, labels))
    return jnp.where(_any_nan(keys, labels), jnp.nan, share)


def _enter(keys: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return both as arrays, or raise if there is not one label per key."""
    keys, labels = as_array("keys", keys), as_array("labels", labels)
    shape = check_same_shape(keys=keys, labels=labels)
    require(
        len(shape) >= 1 and shape[-1] != 0,
        f"keys of shape {shape}",
        "(..., n) with at least one element",
        "leave it out, or reshape keys and labels",
    )
    return keys, labels


def _any_nan(*arrays: jax.Array) -> jax.Array:
    """Tell for each sequence whether any number of it is NaN."""
    return jnp.stack([jnp.isnan(array).any(axis=-1) for array in arrays]).any(axis=0)


def _right_places(keys: jax.Array, labels: jax.Array) -> jax.Array:
    """Mark the places, ``(..., n)``, where sorting by keys puts the label that belongs there."""
    order = jnp.argsort(keys, axis=-1, stable=True)
    return jnp.take_along_axis(labels, order, axis=-1) == jnp.sort(labels, axis=-1)
