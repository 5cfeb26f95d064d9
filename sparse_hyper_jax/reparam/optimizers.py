"""Powerpropagation inside a chain of optax transformations, from gradients of the weights."""

from typing import Any, Literal

import jax
import optax

from sparse_hyper_jax import checks
from sparse_hyper_jax.parameter_paths import Selector, is_kernel, map_selected
from sparse_hyper_jax.reparam.powers import (
    check_alpha,
    even_power,
    group_power,
    group_slope,
    odd_power,
)


def scale_by_power_jacobian(
    alpha: float, *, select: Selector = is_kernel, axes: tuple[int, ...] | None = None
) -> optax.GradientTransformation:
    """Multiply updates of kernels with the slope of the power: ``u -> alpha |theta|^(alpha-1) u``.

    From gradients of the *weights* (``jax.grad`` at ``reparam.to_weights(theta)``), its place in
    the chain decides the mode of training, and ``optax.apply_updates`` changes theta::

        optax.chain(scale_by_power_jacobian(alpha), optax.adam(1e-3))  # mode A
        optax.chain(optax.adam(1e-3), scale_by_power_jacobian(alpha))  # mode B

    Mode A is the same as differentiating with respect to theta. In mode B the optimizer adapts to
    the weights' gradient. For plain SGD they are one. Adam in mode A divides by the size of theta's
    gradient, and with it by most of the slope, so that small parameters move as fast as large ones;
    mode B keeps the slope and needs a smaller rate where parameters grow beyond 1.

    Args:
        alpha: Python number of at least 1.
        select: which leaves, as in ``powerprop``.
        axes: of a group, as in ``powerprop``.

    Returns:
        the transformation; ``update`` needs ``params``, which are theta.

    Raises:
        ValueError: alpha is smaller than 1; ``update`` is called without ``params``.
    """
    alpha = check_alpha(alpha)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        _check_params(params)

        def scaled(theta: jax.Array, one: jax.Array) -> jax.Array:
            if axes is not None:
                return group_slope(theta, one, alpha, axes)
            return (alpha * even_power(theta, alpha - 1) * one).astype(one.dtype)

        return _map_updates(scaled, select, params, updates), state

    return optax.GradientTransformation(optax.init_empty_state, update)


def add_power_decay(
    weight_decay: float,
    alpha: float,
    *,
    decay_on: Literal["theta", "w"] = "theta",
    select: Selector = is_kernel,
    axes: tuple[int, ...] | None = None,
) -> optax.GradientTransformation:
    """Add the gradient of weight decay, on theta or on w, to gradients of theta.

    ``decay_on="theta"`` adds ``lambda theta``, the gradient of ``(lambda / 2) sum theta^2``, which
    is ``(lambda / 2) sum |w|^(2 / alpha)``: for alpha = 2 an L1 penalty of ``lambda / 2`` on the
    weights. ``decay_on="w"`` adds ``lambda w alpha |theta|^(alpha - 1)``, the gradient of
    ``(lambda / 2) sum w^2``. Put it after :func:`scale_by_power_jacobian`, since it adds to
    gradients of theta.

    Args:
        weight_decay: lambda, at least 0.
        alpha: Python number of at least 1.
        decay_on: what is decayed.
        select: which leaves, as in ``powerprop``; the others are not decayed.
        axes: of a group, as in ``powerprop``.

    Returns:
        the transformation; ``update`` needs ``params``, which are theta.

    Raises:
        ValueError: an option is wrong; ``update`` is called without ``params``.

    Reference: for alpha = 2, Yasuda et al. 2024, arXiv 2402.17902.
    """
    alpha = check_alpha(alpha)
    checks.require(weight_decay >= 0, f"weight_decay={weight_decay}", "at least 0", "change it")
    checks.check_choice("decay_on", decay_on, ("theta", "w"))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        _check_params(params)

        def decayed(theta: jax.Array) -> jax.Array:
            if decay_on == "theta":
                return theta
            if axes is None:
                return alpha * odd_power(theta, 2 * alpha - 1)
            return group_slope(theta, group_power(theta, alpha, axes), alpha, axes)

        def added(theta: jax.Array, one: jax.Array) -> jax.Array:
            return (one + weight_decay * decayed(theta)).astype(one.dtype)

        return _map_updates(added, select, params, updates), state

    return optax.GradientTransformation(optax.init_empty_state, update)


def _check_params(params: Any) -> None:
    checks.require(
        params is not None,
        "update called without params",
        "theta, on which the slope depends",
        "call update(gradient, state, theta)",
    )


def _map_updates(function: Any, select: Selector, params: Any, updates: Any) -> Any:
    """Map selected leaves of the updates; the others come out as they came in."""
    changed = map_selected(function, select, params, updates, other=optax.MaskedNode())
    return jax.tree.map(
        lambda one, new: one if isinstance(new, optax.MaskedNode) else new, updates, changed
    )
