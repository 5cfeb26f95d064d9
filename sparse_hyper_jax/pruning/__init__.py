"""Sparse networks: masks, how many entries they keep, and how they come about in training.

    density ---> densities of arrays ---> scores ---> masks ---> masked weights ---> loss
             distributions.py          method.py    select.py      masks.py            |
                                       prune.py     patterns.py                        |
                                       regrow.py         ^                             |
                                       fan_in.py         |                             |
                                       top_kast.py       |                             |
                                       fixed.py          '--- training.py <--- dL/dw --'

``magnitude_masks(weights, 0.1)`` prunes once. ``sparse_training(optimizer,
method, density=0.1)`` is an optax transformation that trains with masks from the first step on,
or prunes little by little. Masks are bool arrays of the parameters' shapes, those of single entries
also of their shardings; they are applied to weights in the forward pass, and parameters stay dense.
On dense hardware that costs as much as no mask at all: count operations if you like, but do not
call them time. ``prox_2_to_4`` moves weights towards the 2:4 pattern of recent GPUs, the
``k_support_norm`` of a row towards about k entries.

Of entries with the same score the first are kept, and NaN before everything, so that it is seen.
What is checked, and what holds on several devices, is on the page Rules of the documentation.
"""

from sparse_hyper_jax.pruning.distributions import Distribution, count_kept, erk, uniform
from sparse_hyper_jax.pruning.fan_in import SRigL
from sparse_hyper_jax.pruning.fixed import Fixed
from sparse_hyper_jax.pruning.k_norms import k_support_norm, top_k_norm
from sparse_hyper_jax.pruning.masks import (
    DensityReport,
    Masks,
    apply_masks,
    combine_masks,
    density_report,
    global_magnitude_masks,
    magnitude_masks,
    pack_masks,
    unpack_masks,
)
from sparse_hyper_jax.pruning.method import Kept, Method, Snapshot
from sparse_hyper_jax.pruning.patterns import (
    Blocks,
    Channels,
    ConstantFanIn,
    NofM,
    Pattern,
    Unstructured,
)
from sparse_hyper_jax.pruning.proximal import penalty_2_to_4, prox_2_to_4
from sparse_hyper_jax.pruning.proximal_training import ProximalState, proximal_training
from sparse_hyper_jax.pruning.prune import Prune
from sparse_hyper_jax.pruning.regrow import SET, DropAndGrow, RigL
from sparse_hyper_jax.pruning.schedules import Schedule, gradual, one_shot, periodic
from sparse_hyper_jax.pruning.select import keep_largest
from sparse_hyper_jax.pruning.top_kast import TopKAST
from sparse_hyper_jax.pruning.training import SparseState, sparse_training

__all__ = [
    "SET",
    "Blocks",
    "Channels",
    "ConstantFanIn",
    "DensityReport",
    "Distribution",
    "DropAndGrow",
    "Fixed",
    "Kept",
    "Masks",
    "Method",
    "NofM",
    "Pattern",
    "ProximalState",
    "Prune",
    "RigL",
    "SRigL",
    "Schedule",
    "Snapshot",
    "SparseState",
    "TopKAST",
    "Unstructured",
    "apply_masks",
    "combine_masks",
    "count_kept",
    "density_report",
    "erk",
    "global_magnitude_masks",
    "gradual",
    "k_support_norm",
    "keep_largest",
    "magnitude_masks",
    "one_shot",
    "pack_masks",
    "penalty_2_to_4",
    "periodic",
    "prox_2_to_4",
    "proximal_training",
    "sparse_training",
    "top_k_norm",
    "uniform",
    "unpack_masks",
]
