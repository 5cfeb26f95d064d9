"""Entries that no optimizer moves, whatever it remembers."""

from typing import Any

import optax

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import check_instance
from sparse_hyper_jax.pruning import Masks
from sparse_hyper_jax.pruning.masks import replace_entries


def freeze_updates(updates: Any, frozen: Masks) -> Any:
    """Take the updates of frozen entries away.

    They become -0.0 and not 0.0, because adding 0.0 turns an entry of -0.0 into 0.0. Adding -0.0
    changes no number but those below the smallest normal one, where a device flushes them to 0, as
    a CPU does; :func:`~sparse_hyper_jax.continual.add_task` puts these back.

    Args:
        updates: what goes into ``optax.apply_updates``, after momentum, decay and clipping.
        frozen: true where an entry stays; ``optax.MaskedNode()`` for leaves that are free.

    Returns:
        the updates.

    Raises:
        ValueError: a mask has another shape than its leaf, or is not bool.

    Example:
        >>> from sparse_hyper_jax.continual import freeze_updates
        >>> frozen = {"kernel": jnp.array([True, False])}
        >>> freeze_updates({"kernel": jnp.array([0.5, 0.5])}, frozen)["kernel"].tolist()
        [-0.0, 0.5]
    """
    return replace_entries(updates, frozen, -0.0, where=True)


def freeze_entries(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Let an optimizer see no gradient of frozen entries, and take their updates away.

    ``update(gradient, state, params, frozen=masks)``: the masks are an argument of each step, so
    that the next task needs no new compilation. Clipping measures the gradient of free entries
    alone, however full the network is (put it before decay, which reads all parameters); momentum
    or decay cannot move frozen ones.

    Args:
        inner: any optimizer.

    Returns:
        the transformation.

    Raises:
        ValueError: ``inner`` is no optimizer; ``update`` is called without ``frozen``, or with
            masks that do not fit.

    Example:
        >>> import optax
        >>> from sparse_hyper_jax.continual import freeze_entries
        >>> optimizer, params = freeze_entries(optax.adamw(0.1)), jnp.array([1.0, 1.0])
        >>> state, frozen = optimizer.init(params), jnp.array([True, False])
        >>> for _ in range(3):
        ...     updates, state = optimizer.update(jnp.ones(2), state, params, frozen=frozen)
        ...     params = optax.apply_updates(params, updates)
        >>> params[0].item(), bool(params[1] < 0.8)  # neither momentum nor decay moved the first
        (1.0, True)
    """
    check_instance("inner", inner, optax.GradientTransformation)
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
        free = replace_entries(updates, frozen, 0.0, where=True)
        step, state = inner.update(free, state, params, **extra)
        return freeze_updates(step, frozen), state

    return optax.GradientTransformationExtraArgs(inner.init, update)
