"""How well keys order labels, counting equal labels as right in whichever order they come."""

import jax
import jax.numpy as jnp

from sparse_hyper_jax.checks import require


def exact_match(keys: jax.Array, labels: jax.Array) -> jax.Array:
    """Tell for each sequence whether its keys put all labels in ascending order.

    ``all(labels[argsort(keys)] == sort(labels))``: it is labels that are compared, not
    permutations, so that elements with equal labels may come in either order.

    Args:
        keys: ``(..., n)`` numbers to sort by; equal keys keep their order.
        labels: ``(..., n)`` true values.

    Returns:
        ``(...)`` bool; its mean is the accuracy.

    Raises:
        ValueError: the shapes differ or there is no axis of elements.
    """
    return _right_places(keys, labels).all(axis=-1)


def element_match(keys: jax.Array, labels: jax.Array) -> jax.Array:
    """Return for each sequence the share of places that hold the right label.

    ``mean(labels[argsort(keys)] == sort(labels))``

    Args:
        keys: ``(..., n)`` numbers to sort by; equal keys keep their order.
        labels: ``(..., n)`` true values.

    Returns:
        ``(...)`` float in [0, 1].

    Raises:
        ValueError: the shapes differ or there is no axis of elements.
    """
    return _right_places(keys, labels).mean(axis=-1)


def _right_places(keys: jax.Array, labels: jax.Array) -> jax.Array:
    """Mark the places, ``(..., n)``, where sorting by keys puts the label that belongs there."""
    keys, labels = jnp.asarray(keys), jnp.asarray(labels)
    require(
        keys.ndim >= 1 and keys.shape == labels.shape,
        f"keys of shape {keys.shape} and labels of shape {labels.shape}",
        "two equal shapes (..., n): one key and one label per element",
        "drop the trailing axis of the keys, or repeat the labels",
    )
    order = jnp.argsort(keys, axis=-1, stable=True)
    return jnp.take_along_axis(labels, order, axis=-1) == jnp.sort(labels, axis=-1)
