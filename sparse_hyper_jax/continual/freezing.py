"""Entries that no optimizer moves, whatever it remembers."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparse_hyper_jax import checks
from sparse_hyper_jax.parameter_paths import is_left_out
from sparse_hyper_jax.pruning import Masks


def freeze_updates(updates: Any, frozen: Masks) -> Any:
    """Take the updates of frozen entries away.

    They become -0.0 and not 0.0, because adding 0.0 turns an entry of -0.0 into 0.0.

    Args:
        updates: what goes into ``optax.apply_updates``, after momentum, decay and clipping.
        frozen: true where an entry stays; ``optax.MaskedNode()`` for leaves that are free.
    """

    def freeze(leaf: jax.Array, mask: Any) -> jax.Array:
        return leaf if is_left_out(mask) else jnp.where(mask, jnp.asarray(-0.0, leaf.dtype), leaf)

    return jax.tree.map(freeze, updates, frozen)


def freeze_entries(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Put an optimizer behind :func:`freeze_updates`.

    ``update(gradient, state, params, frozen=masks)``: the masks are an argument of each step, so
    that the next task needs no new compilation.

    Args:
        inner: any optimizer; whatever it adds to updates of frozen entries is taken away.

    Raises:
        ValueError: ``update`` is called without ``frozen``.
    """
    inner = optax.with_extra_args_support(inner)

    def update(
        updates: Any, state: Any, params: Any = None, *, frozen: Masks = None, **extra: Any
    ) -> tuple[Any, Any]:
        checks.require(
            frozen is not None,
            "update called without frozen",
            "masks of what stays",
            "call update(gradient, state, params, frozen=masks)",
        )
        step, state = inner.update(updates, state, params, **extra)
        return freeze_updates(step, frozen), state

    return optax.GradientTransformationExtraArgs(inner.init, update)
