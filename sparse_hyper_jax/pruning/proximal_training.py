"""An optimizer that takes a proximal step towards the 2:4 pattern after each of its own."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparse_hyper_jax import checks
from sparse_hyper_jax.checks import require_given
from sparse_hyper_jax.entrance import check_instance
from sparse_hyper_jax.parameter_paths import (
    Selector,
    check_selector,
    is_kernel,
    replace_selected,
    selected_leaves,
)
from sparse_hyper_jax.pruning.proximal import prox_2_to_4


class ProximalState(NamedTuple):
    """The state of :func:`proximal_training`.

    Example:
        >>> import optax
        >>> from sparse_hyper_jax.pruning import ProximalState, proximal_training
        >>> params = {"kernel": jnp.ones((4, 1))}
        >>> state = proximal_training(optax.sgd(0.1), 1.0).init(params)
        >>> isinstance(state, ProximalState), int(state.steps)
        (True, 0)
    """

    inner: Any
    """That of the optimizer."""

    steps: jax.Array
    """int32 scalar, finished steps."""


def proximal_training(
    inner: optax.GradientTransformation,
    strength: float | Callable[[jax.Array], Any],
    *,
    axis: int = -2,
    select: Selector = is_kernel,
) -> optax.GradientTransformationExtraArgs:
    """Wrap an optimizer: every step ends with :func:`prox_2_to_4` of the new parameters.

    ``params + updates = prox(params + inner updates, strength)``. With a strength that rises,
    groups of four lose their smallest weights one after the other, and each as soon as the loss
    lets it; when all have two left, the step only keeps the others at zero.

    Args:
        inner: the optimizer.
        strength: lambda in units of 1 / weight, at least 0; or a schedule of it: a function of the
            number of finished steps.
        axis: along which four neighbours are a group: of kernels ``(inputs, outputs)`` the inputs,
            which are summed over.
        select: which leaves; the length of their axis has to be a multiple of 4.

    Returns:
        a transformation whose ``update`` needs the parameters; its updates are as wide as these.

    Raises:
        ValueError: a strength that is known and negative, or an axis that does not fit.

    Reference: Kübler et al. 2025, arXiv 2501.18015.

    Example:
        >>> import optax
        >>> from sparse_hyper_jax.pruning import proximal_training
        >>> params = {"kernel": jnp.array([[1.0], [0.75], [0.5], [0.25]])}
        >>> optimizer = proximal_training(optax.set_to_zero(), 5.0)
        >>> updates, state = optimizer.update(params, optimizer.init(params), params)
        >>> (optax.apply_updates(params, updates)["kernel"][:, 0] > 0).tolist()
        [True, True, False, False]
    """
    check_instance("inner", inner, optax.GradientTransformation)
    if not callable(strength):
        checks.check_number("strength", strength, at_least=0)
    check_selector("select", select)
    own = optax.with_extra_args_support(inner)

    def closer(leaf: jax.Array, steps: jax.Array) -> jax.Array:
        force: Any = strength(steps) if callable(strength) else strength
        return prox_2_to_4(leaf, force, axis=axis)

    def init(params: Any) -> ProximalState:
        for leaf in selected_leaves(select, params):
            jax.eval_shape(lambda leaf: closer(leaf, jnp.int32(0)), leaf)  # shapes that do not fit
        return ProximalState(own.init(params), jnp.zeros((), jnp.int32))

    def update(
        updates: Any, state: Any, params: Any = None, **extra: Any
    ) -> tuple[Any, ProximalState]:
        params = require_given(
            params, "params=None", "the parameters", "call update(gradient, state, params)"
        )
        updates, inner_state = own.update(updates, state.inner, params, **extra)
        moved = [
            # As wide as the parameter: else what is added would not be what is missing to zero.
            (closer(leaf + step, state.steps) - leaf).astype(jnp.result_type(leaf, step))
            for leaf, step in zip(
                selected_leaves(select, params), selected_leaves(select, updates), strict=True
            )
        ]
        updates = replace_selected(select, updates, moved)
        return updates, ProximalState(inner_state, state.steps + 1)

    return optax.GradientTransformationExtraArgs(init, update)
