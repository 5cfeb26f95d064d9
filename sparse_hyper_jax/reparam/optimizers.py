"""Powerpropagation inside a chain of optax transformations, from gradients of the weights."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from sparse_hyper_jax import checks
from sparse_hyper_jax.parameter_paths import Selector, check_selector, is_kernel, map_updates
from sparse_hyper_jax.precision import wide_dtype
from sparse_hyper_jax.reparam.powers import (
    check_alpha,
    check_axes,
    group_power,
    group_slope,
    odd_power,
)
from sparse_hyper_jax.reparam.tree import powerprop


def scale_by_power_jacobian(
    alpha: float, *, select: Selector = is_kernel, axes: tuple[int, ...] | None = None
) -> optax.GradientTransformation:
    """Multiply updates of kernels with the slope of the power: ``u -> alpha |theta|^(alpha-1) u``.

    A link of a chain of your own; ``powerprop(alpha).optimizer(inner)`` puts it in its place, and
    ``sparse_training(inner, ..., reparam=powerprop(alpha))`` does so itself. From gradients of the
    *weights* (``jax.grad`` at ``reparam.to_weights(theta)``), its place decides the mode of
    training, and ``optax.apply_updates`` changes theta::

        optax.chain(scale_by_power_jacobian(alpha), optax.adam(1e-3))  # mode A, adapt_to="theta"
        optax.chain(optax.adam(1e-3), scale_by_power_jacobian(alpha))  # mode B, "weights"

    Args:
        alpha: Python number of at least 1.
        select: which leaves, as in ``powerprop``.
        axes: of a group, as in ``powerprop``.

    Returns:
        the transformation; ``update`` needs ``params``, which are theta.

    Raises:
        ValueError: alpha is smaller than 1; ``update`` is called without ``params``.

    Example:
        >>> import optax
        >>> from sparse_hyper_jax.reparam import scale_by_power_jacobian
        >>> theta = {"kernel": jnp.array([[2.0, -0.5]])}
        >>> optimizer = optax.chain(scale_by_power_jacobian(2.0), optax.sgd(1.0))
        >>> gradient = {"kernel": jnp.ones((1, 2))}  # of the weights theta |theta|
        >>> updates, _ = optimizer.update(gradient, optimizer.init(theta), theta)
        >>> updates["kernel"].tolist()  # the large one moves four times as far
        [[-4.0, -1.0]]
    """
    return powerprop(alpha, select=select, axes=axes).scale_by_jacobian()


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
        weight_decay: lambda, at least 0; may be traced, and so follow a schedule by
            ``optax.inject_hyperparams(add_power_decay, static_args=("alpha", "select"))``.
        alpha: Python number of at least 1.
        decay_on: what is decayed.
        select: which leaves, as in ``powerprop``; the others are not decayed.
        axes: of a group, as in ``powerprop``.

    Returns:
        the transformation; ``update`` needs ``params``, which are theta.

    Raises:
        ValueError: an option is wrong; ``update`` is called without ``params``.

    Reference: for alpha = 2, Yasuda et al. 2024, arXiv 2402.17902.

    Example:
        >>> from sparse_hyper_jax.reparam import add_power_decay
        >>> theta, nothing = {"kernel": jnp.array([[2.0, -0.5]])}, {"kernel": jnp.zeros((1, 2))}
        >>> for what in ("theta", "w"):  # gradients of |w| and of w^2 / 2, seen from theta
        ...     decay = add_power_decay(1.0, 2.0, decay_on=what)
        ...     print(decay.update(nothing, decay.init(theta), theta)[0]["kernel"].tolist())
        [[2.0, -0.5]]
        [[16.0, -0.25]]
    """
    alpha = check_alpha(alpha)
    checks.check_number("weight_decay", weight_decay, at_least=0)
    check_selector("select", select)
    if axes is not None:
        check_axes(axes)
    checks.check_choice("decay_on", decay_on, ("theta", "w"))

    def decayed(theta: jax.Array) -> jax.Array:
        if decay_on == "theta":
            return theta
        if axes is None:
            return alpha * odd_power(theta, 2 * alpha - 1)
        own = check_axes(axes, theta.ndim)
        return group_slope(theta, group_power(theta, alpha, own), alpha, own)

    def added(theta: jax.Array, update: jax.Array) -> jax.Array:
        wide = wide_dtype(theta, update)
        decay = jnp.asarray(weight_decay, wide) * decayed(theta).astype(wide)
        return (update.astype(wide) + decay).astype(update.dtype)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return map_updates(added, select, updates, params), state

    return optax.GradientTransformation(optax.init_empty_state, update)
