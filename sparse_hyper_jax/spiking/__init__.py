"""Neurons that fire: spikes with a slope to learn by, rules that learn while time runs.

A spike is 0 or 1; what learns by it needs a slope in its place, or none at all::

    image, events -> spikes in time -> potentials -> spikes -> readout, picture
        poisson_spikes        lif, spike      |
        follow_activity                       |  what a step learns by
                                              v
    membrane_loss_step   membrane.py   the error of the last potential, traces of inputs
    decolle_step         decolle.py    a readout of every layer, local in depth and time
    erbp_step            erbp.py       random feedback, when an input spike comes; no slope at all

    slopes      surrogates.py   spike, surrogate_slope: five, for both modes of differentiation
    neuron      lif.py          lif, lif_step, poisson_spikes
    attention   attention.py    a window that follows the events, read by a glimpse

There is one neuron, and no zoo of them: for networks of many kinds see the library spyx.
"""

from sparse_hyper_jax.spiking.attention import (
    ActivityState,
    activity_state,
    follow_activity,
    glimpse_at,
    readdress,
)
from sparse_hyper_jax.spiking.decolle import (
    DecolleLayer,
    DecolleStep,
    decolle_state,
    decolle_step,
)
from sparse_hyper_jax.spiking.erbp import erbp_step
from sparse_hyper_jax.spiking.erbp_types import (
    ErbpLayer,
    ErbpParameters,
    ErbpRule,
    ErbpState,
    ErbpStep,
    erbp_parameters,
    erbp_state,
)
from sparse_hyper_jax.spiking.lif import LIF, lif, lif_step, poisson_spikes
from sparse_hyper_jax.spiking.membrane import (
    membrane_loss,
    membrane_loss_scan,
    membrane_loss_step,
)
from sparse_hyper_jax.spiking.membrane_types import (
    MembraneRule,
    MembraneScan,
    MembraneState,
    MembraneStep,
    membrane_state,
)
from sparse_hyper_jax.spiking.surrogates import SURROGATES, spike, surrogate_slope

__all__ = [
    "LIF",
    "SURROGATES",
    "ActivityState",
    "DecolleLayer",
    "DecolleStep",
    "ErbpLayer",
    "ErbpParameters",
    "ErbpRule",
    "ErbpState",
    "ErbpStep",
    "MembraneRule",
    "MembraneScan",
    "MembraneState",
    "MembraneStep",
    "activity_state",
    "decolle_state",
    "decolle_step",
    "erbp_parameters",
    "erbp_state",
    "erbp_step",
    "follow_activity",
    "glimpse_at",
    "lif",
    "lif_step",
    "membrane_loss",
    "membrane_loss_scan",
    "membrane_loss_step",
    "membrane_state",
    "poisson_spikes",
    "readdress",
    "spike",
    "surrogate_slope",
]
