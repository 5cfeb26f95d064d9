"""Reparametrise chosen leaves of a parameter tree and leave the model's code alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax.parameter_paths import Selector, is_kernel, map_selected
from sparse_hyper_jax.precision import at_least_float32
from sparse_hyper_jax.reparam.powers import (
    check_alpha,
    group_power,
    inverse_group_power,
    inverse_power,
    power,
)


@dataclass(frozen=True)
class Reparametrization:
    """A pair of functions between parameters theta and weights w of the selected leaves.

    The optimizer sees theta, the model sees w::

        theta = reparam.to_theta(params)
        gradient = jax.grad(lambda theta: loss(reparam.to_weights(theta), batch))(theta)

    Trees are of any kind: the state of ``nnx.split``, Linen's dict, plain pytrees. Apply
    ``to_weights`` once, outside any scan over layers or microbatches: inside it would be computed
    again and again. A weight that is used in two places must be one leaf, as in ``nnx.split``.
    """

    forward: Callable[[jax.Array], jax.Array]
    """Theta to w, for one leaf."""

    inverse: Callable[[jax.Array], jax.Array]
    """w to theta, for one leaf."""

    select: Selector = is_kernel
    """Which leaves are meant."""

    elementwise: bool = True
    """Whether an entry of w depends on the same entry of theta alone."""

    def to_theta(self, weights: Any) -> Any:
        """Give the parameters of ordinary weights, at least in float32.

        Raises:
            ValueError: nothing is selected.
        """

        def inverse(leaf: jax.Array) -> jax.Array:
            leaf = jnp.asarray(leaf)
            return self.inverse(at_least_float32(leaf))

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

    Raises:
        ValueError: alpha is smaller than 1, or no Python number.

    Reference: Schwarz et al. 2021, arXiv 2110.00296.
    """
    alpha = check_alpha(alpha)

    def forward(theta: jax.Array) -> jax.Array:
        weights = power(theta, alpha) if axes is None else group_power(theta, alpha, axes)
        return weights if dtype is None else weights.astype(dtype)

    def inverse(weights: jax.Array) -> jax.Array:
        if axes is None:
            return inverse_power(weights, alpha)
        return inverse_group_power(weights, alpha, axes)

    return Reparametrization(forward, inverse, select, elementwise=axes is None)
