"""Weights as signed powers of what is trained: large ones grow, small ones stay small.

::

    theta ---- power ----> w = theta |theta|^(alpha - 1) ----> model ----> loss
      ^       powers.py, tree.py                                             |
      '--- optimizer <--- slope alpha |theta|^(alpha - 1) <--- dL/dw <-------'
                                optimizers.py

``powerprop(alpha)`` maps a whole parameter tree: ``to_theta`` once at the beginning, ``to_weights``
in every step and at the end. Either differentiate through ``to_weights``, or take gradients of the
weights and train with ``reparam.optimizer(inner)``. ``sparse_training(..., reparam=reparam)`` does
the latter itself: it needs the weights' gradient where the weights are masked.

Averages and norms of theta are not those of w: average, clip and compare weights, not theta.
What else holds for all functions is on the page Rules of the documentation.
"""

from sparse_hyper_jax.parameter_paths import is_kernel
from sparse_hyper_jax.reparam.optimizers import add_power_decay, scale_by_power_jacobian
from sparse_hyper_jax.reparam.powers import (
    group_power,
    inverse_group_power,
    inverse_power,
    power,
)
from sparse_hyper_jax.reparam.tree import Reparametrization, powerprop

__all__ = [
    "Reparametrization",
    "add_power_decay",
    "group_power",
    "inverse_group_power",
    "inverse_power",
    "is_kernel",
    "power",
    "powerprop",
    "scale_by_power_jacobian",
]
