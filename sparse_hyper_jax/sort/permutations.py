"""Permutations of the leading axis as gathers, both ways, and on every kind of mesh."""

import jax
import jax.numpy as jnp

from sparse_hyper_jax.ops.device_axes import spread_by


def invert(permutations: jax.Array) -> jax.Array:
    """Return the inverses of permutations of ``0 .. m - 1`` along the last axis."""
    slots = jnp.arange(permutations.shape[-1], dtype=jnp.int32)
    slots = jnp.broadcast_to(slots, permutations.shape)
    return jnp.put_along_axis(
        jnp.zeros_like(slots), permutations, slots, axis=-1, inplace=False, mode="promise_in_bounds"
    )


def permute(leaf: jax.Array, sources: jax.Array, destinations: jax.Array) -> jax.Array:
    """Return ``leaf[sources]`` whose transpose is ``leaf[destinations]``: a gather both ways.

    The transpose of a plain gather is a scatter, several times slower here. A permutation solves
    ``x[destinations] = leaf`` for ``x``; told so, JAX takes the given solution for the forward
    pass, the given transposed one for the backward pass, and still supports forward mode.
    """
    leaf = spread_by(leaf, sources)
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return _take(leaf, sources)
    moved = jax.lax.custom_linear_solve(
        lambda array: _take(array, destinations),
        leaf,
        solve=lambda _, array: _take(array, sources),
        transpose_solve=lambda _, array: _take(array, destinations),
    )
    # Once more for what comes back: a slope may be the same for the whole batch, as that of a sum.
    return spread_by(moved, sources)


def _take(array: jax.Array, index: jax.Array) -> jax.Array:
    return array.at[index].get(mode="promise_in_bounds", unique_indices=True)
