"""Grown entries: their first values, the updates that lead there, the optimizer's state for them.

A tree of first weights, ``grown``, holds NaN at all other entries and ``optax.MaskedNode()`` for
leaves that are not pruned.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparse_hyper_jax.parameter_paths import Selector, is_left_out, replace_selected
from sparse_hyper_jax.placement import placed_like
from sparse_hyper_jax.reparam import Reparametrization


def first_parameters(
    select: Selector, reparam: Reparametrization | None, params: Any, grown: Any
) -> Any:
    """Give parameters in which grown entries have their first weights; all others stay."""
    weights = [jnp.nan_to_num(leaf) for leaf in jax.tree.leaves(grown)]
    target = replace_selected(select, params, weights)
    target = target if reparam is None else reparam.to_theta(target)

    def chosen(leaf: jax.Array, there: jax.Array, grown: Any) -> jax.Array:
        leaf = jnp.asarray(leaf)
        if is_left_out(grown):
            return leaf
        return jnp.where(jnp.isnan(grown), leaf, there.astype(leaf.dtype))

    return jax.tree.map(chosen, params, target, grown)


def spread_as(params: Any, grown: Any) -> Any:
    """Let first weights lie on the devices of their parameters, whichever way they were chosen."""

    def spread(leaf: jax.Array, grown: Any) -> Any:
        return grown if is_left_out(grown) else placed_like(grown, jnp.asarray(leaf))

    return jax.tree.map(spread, params, grown)


def move_grown(leaf: jax.Array, target: jax.Array, grown: Any, step: jax.Array) -> jax.Array:
    """Give the update that moves grown entries to their first value, and nothing else."""
    stay = jnp.full_like(step, -0.0)
    if is_left_out(grown):
        return stay
    way = target.astype(step.dtype) - jnp.asarray(leaf, step.dtype)
    return jnp.where(jnp.isnan(grown), stay, way)


def moved_by(step: Any, params: Any) -> Any:
    """Apply updates that are at least as wide as the parameters, and round once."""

    def moved(leaf: jax.Array, update: jax.Array) -> jax.Array:
        leaf = jnp.asarray(leaf)
        return (leaf.astype(update.dtype) + update).astype(leaf.dtype)

    return jax.tree.map(moved, params, step)


def renew_grown(inner: optax.GradientTransformation, state: Any, fresh: Any, grown: Any) -> Any:
    """Take the state of grown entries from a fresh one: not all begin at zero."""

    def places(leaf: Any, grown: Any) -> Any:
        # What an optimizer keeps in another shape, as adafactor does, belongs to no single entry.
        if is_left_out(leaf):
            return leaf
        if is_left_out(grown) or jnp.shape(leaf) != grown.shape:
            return False
        return ~jnp.isnan(grown)

    renewed = optax.tree_utils.tree_map_params(
        inner,
        places,
        state,
        grown,
        transform_non_params=lambda leaf: False,
        is_leaf=is_left_out,
    )

    def take(old: Any, new: Any, renew: Any) -> Any:
        return old if renew is False else jnp.where(renew, new.astype(old.dtype), old)

    return jax.tree.map(take, state, fresh, renewed)
