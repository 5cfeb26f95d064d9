"""How close a sparse gradient is to the dense one."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparse_hyper_jax import checks
from sparse_hyper_jax.backprop.memory import Memory


def gradient_cosine(gradient: Any, reference: Any) -> jax.Array:
    """Give the cosine of the angle between two gradients, over all their arrays together.

    ``<u, v> / (|u| |v|)``; 0 if one of them is zero. With a positive cosine, small enough steps
    along the gradient still descend.

    Args:
        gradient: pytree of arrays.
        reference: the same structure, for instance the gradient of the dense layers.

    Returns:
        float32 scalar from -1 to 1.

    Raises:
        ValueError: different structures or shapes.
    """
    _check_same(gradient, reference)
    # Scaled to the largest entry first, so that squares neither vanish nor overflow.
    first, second = _scaled(gradient), _scaled(reference)
    product = optax.tree.vdot(first, second)
    lengths = optax.tree.norm(first) * optax.tree.norm(second)
    return jnp.where(lengths == 0, 0, product / jnp.where(lengths == 0, 1, lengths))


def norm_ratio(gradient: Any, reference: Any) -> jax.Array:
    """Give the length of a gradient relative to another: ``|u| / |v|``.

    Infinite if only v is zero, NaN if both are.

    Args:
        gradient: pytree of arrays.
        reference: the same structure.

    Returns:
        float32 scalar.

    Raises:
        ValueError: different structures or shapes.
    """
    _check_same(gradient, reference)
    return _norm(gradient) / _norm(reference)


def share_of_units_used(memory: Memory) -> jax.Array:
    """Give the share of units that were propagated at least once.

    Args:
        memory: made with ``count=True``.

    Returns:
        scalar from 0 to 1.

    Raises:
        ValueError: a memory without counts.
    """
    checks.require(
        memory.counts is not None,
        "a memory without counts",
        "one that counts",
        "make it with init_memory(..., count=True)",
    )
    return jnp.mean(memory.counts > 0)


def _check_same(gradient: Any, reference: Any) -> None:
    one, two = (jax.tree.map(jnp.shape, tree) for tree in (gradient, reference))
    checks.require(
        one == two,
        f"gradients of shapes {one} and {two}",
        "the same arrays",
        "pass gradients of the same parameters, with kernels in the same layout",
    )


def _largest(tree: Any) -> jax.Array:
    sizes = [jnp.max(jnp.abs(leaf), initial=0) for leaf in jax.tree.leaves(tree)]
    largest = jnp.max(jnp.stack([size.astype(jnp.float32) for size in sizes]))
    return jnp.where(largest > 0, largest, 1)


def _scaled(tree: Any) -> Any:
    largest = _largest(tree)
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32) / largest, tree)


def _norm(tree: Any) -> jax.Array:
    return optax.tree.norm(_scaled(tree)) * _largest(tree)
