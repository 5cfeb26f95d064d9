"""Reparametrise chosen leaves of a parameter tree and leave the model's code alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_instance
from sparse_hyper_jax.parameter_paths import (
    Selector,
    check_selector,
    is_kernel,
    map_selected,
    map_updates,
)
from sparse_hyper_jax.precision import at_least_float32
from sparse_hyper_jax.reparam.powers import (
    check_alpha,
    check_axes,
    group_power,
    inverse_group_power,
    inverse_power,
    power,
)


class JacobianState(NamedTuple):
    """Empty; it tells that a chain multiplies with the Jacobian, which must be done once."""


@dataclass(frozen=True)
class Reparametrization:
    """A pair of functions between parameters theta and weights w of the selected leaves.

    The optimizer sees theta, the model sees w::

        theta = reparam.to_theta(params)
        gradient = jax.grad(lambda theta: loss(reparam.to_weights(theta), batch))(theta)

    Or the optimizer gets gradients of the weights (``pruning`` needs these, at masked entries too)
    and turns them into updates of theta::

        optimizer = reparam.optimizer(optax.adam(1e-3))
        gradient = jax.grad(loss)(reparam.to_weights(theta), batch)
        updates, state = optimizer.update(gradient, state, theta)

    Trees are of any kind: the state of ``nnx.split``, Linen's dict, plain pytrees. Apply
    ``to_weights`` once, outside any scan over layers or microbatches: inside it would be computed
    again and again. A weight that is used in two places must be one leaf, as in ``nnx.split``.

    Example:
        >>> from sparse_hyper_jax.reparam import Reparametrization
        >>> positive = Reparametrization(jnp.exp, jnp.log)  # of kernels
        >>> theta = positive.to_theta({"kernel": jnp.array([[1.0, 4.0]]), "bias": jnp.zeros(2)})
        >>> theta["kernel"].round(2).tolist() == jnp.log(jnp.array([[1.0, 4.0]])).round(2).tolist()
        True
        >>> print(*positive.to_weights(theta)["kernel"][0].round(2), *theta["bias"])
        1.0 4.0 0.0 0.0
    """

    forward: Callable[[jax.Array], jax.Array]
    """Theta to w, for one leaf."""

    inverse: Callable[[jax.Array], jax.Array]
    """w to theta, for one leaf."""

    select: Selector = is_kernel
    """Which leaves are meant."""

    elementwise: bool = True
    """Whether an entry of w depends on the same entry of theta alone."""

    adapt_to: Literal["theta", "weights"] = "theta"
    """Whose gradient an optimizer adapts to, see :meth:`optimizer`."""

    def __post_init__(self) -> None:
        for name in ("forward", "inverse"):
            value = getattr(self, name)
            checks.require(
                callable(value), f"{name}={value!r:.80}", "a function of a leaf", f"change {name}"
            )
        check_selector("select", self.select)
        checks.check_flag("elementwise", self.elementwise)
        checks.check_choice("adapt_to", self.adapt_to, ("theta", "weights"))

    def optimizer(
        self, inner: optax.GradientTransformation
    ) -> optax.GradientTransformationExtraArgs:
        """Make an optimizer of theta that takes gradients of the weights.

        With ``adapt_to="theta"`` the gradient is multiplied with the Jacobian dw/dtheta first,
        which is the same as differentiating with respect to theta: the optimizer sees theta's
        gradient, and so do clipping and :func:`~sparse_hyper_jax.reparam.add_power_decay` in it.
        With ``adapt_to="weights"`` it sees that of the weights, and its updates are multiplied.

        Args:
            inner: any optimizer.

        Returns:
            the transformation; ``update`` needs ``params``, which are theta.

        Raises:
            ValueError: ``inner`` is no optimizer.
        """
        check_instance("inner", inner, optax.GradientTransformation)
        links = self.scale_by_jacobian(), inner
        return optax.with_extra_args_support(
            optax.chain(*(links if self.adapt_to == "theta" else links[::-1]))
        )

    def scale_by_jacobian(self) -> optax.GradientTransformation:
        """Multiply updates of the selected leaves with the (transposed) Jacobian dw/dtheta.

        Returns:
            the transformation; its ``update`` needs ``params``, which are theta.
        """

        def scaled(theta: jax.Array, update: jax.Array) -> jax.Array:
            weights, pull_back = jax.vjp(self.forward, theta)
            return pull_back(update.astype(weights.dtype))[0].astype(update.dtype)

        def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
            return map_updates(scaled, self.select, updates, params), state

        return optax.GradientTransformation(lambda params: JacobianState(), update)

    def to_theta(self, weights: Any) -> Any:
        """Give the parameters of ordinary weights, at least in float32.

        Raises:
            ValueError: nothing is selected.
        """

        def inverse(leaf: jax.Array) -> jax.Array:
            return self.inverse(at_least_float32(as_array("weights", leaf)))

        return map_selected(inverse, self.select, weights)

    def to_weights(self, theta: Any) -> Any:
        """Give the weights that the model uses: ordinary parameters, to keep or to export.

        Raises:
            ValueError: nothing is selected.
        """
        return map_selected(self.forward, self.select, theta)


def powerprop(
    alpha: float,
    *,
    select: Selector = is_kernel,
    axes: tuple[int, ...] | None = None,
    dtype: Any = None,
    adapt_to: Literal["theta", "weights"] = "theta",
) -> Reparametrization:
    """Reparametrise kernels by powerpropagation: ``w = theta |theta|^(alpha - 1)``.

    A gradient step on theta moves a weight by ``-lr alpha^2 |w|^(2 - 2/alpha) dL/dw``, in first
    order: large weights move more, small ones stay small, and for alpha >= 2 hardly any changes its
    sign. The initial weights, and so the network, are the same for every alpha. Typical weights are
    far below 1, so training is slower than with alpha = 1 at the same rate.

    Args:
        alpha: Python number of at least 1; 1 is the plain network.
        select: which leaves; by default kernels. Two reparametrisations with selectors that exclude
            each other give two alphas.
        axes: None, or the axes of a leaf along which a group extends
            (:func:`~sparse_hyper_jax.reparam.group_power`).
        dtype: of the weights, by default that of theta.
        adapt_to: whose gradient an optimizer adapts to, in :meth:`Reparametrization.optimizer`.
            Adam on theta divides by the size of theta's gradient, and with it by most of the slope,
            so that small parameters move as fast as large ones; on weights it keeps the slope and
            needs a smaller rate where parameters grow beyond 1. For plain SGD both are one.

    Raises:
        ValueError: alpha is smaller than 1, or no Python number; another option is wrong.

    Reference: Schwarz et al. 2021, arXiv 2110.00296.

    Example:
        >>> import optax
        >>> from sparse_hyper_jax.reparam import powerprop
        >>> reparam = powerprop(2.0)
        >>> theta = reparam.to_theta({"kernel": jnp.array([[4.0], [0.25]])})
        >>> optimizer = reparam.optimizer(optax.sgd(0.125))  # takes gradients of the weights
        >>> gradient = {"kernel": jnp.ones((2, 1))}  # at reparam.to_weights(theta)
        >>> updates, _ = optimizer.update(gradient, optimizer.init(theta), theta)
        >>> reparam.to_weights(optax.apply_updates(theta, updates))["kernel"].tolist()
        [[2.25], [0.140625]]
    """
    alpha = check_alpha(alpha)
    if axes is not None:
        check_axes(axes)
    checks.require(
        dtype is None or jnp.issubdtype(dtype, jnp.floating),
        f"dtype={dtype!r}",
        "a type of floats, or None for that of theta",
        "pass for instance dtype=jnp.bfloat16",
    )

    def forward(theta: jax.Array) -> jax.Array:
        weights = power(theta, alpha) if axes is None else group_power(theta, alpha, axes)
        return weights if dtype is None else weights.astype(dtype)

    def inverse(weights: jax.Array) -> jax.Array:
        if axes is None:
            return inverse_power(weights, alpha)
        return inverse_group_power(weights, alpha, axes)

    return Reparametrization(forward, inverse, select, axes is None, adapt_to)
