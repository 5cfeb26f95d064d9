"""Objectives of their own for the parts of a network: no gradient crosses from one to another.

A network is a list of components, each four functions or modules; inputs and targets meet in each::

    x -> forward_1 -> s_1 -> forward_2 -> s_2 ...     what is kept of the input
              bridge_1 |         bridge_2 |           objective: bridge_l(s_l) is t_l
    y -> encode_1  -> t_1 -> encode_2  -> t_2 ...     what is to be told of the target
      <- decode_1     |   <- decode_2     |           objective: decode_l(t_l) is t_(l-1)

    losses      associated.py  associated_losses    of all components, from one forward pass
    prediction                 associated_predict   up one way, over a bridge, down the other
    schedule    pipelined.py   pipelined_steps      every component on a batch of its own
"""

from sparse_hyper_jax.local.associated import (
    AssociatedLosses,
    Component,
    associated_losses,
    associated_predict,
)
from sparse_hyper_jax.local.pipelined import PipelinedSteps, pipelined_steps

__all__ = [
    "AssociatedLosses",
    "Component",
    "PipelinedSteps",
    "associated_losses",
    "associated_predict",
    "pipelined_steps",
]
