"""From raw parameters to output: learn a sparse tensor without ever holding the dense one.

For ``k`` tuples of rank ``r`` with ``q = 2**r + num_global + num_local`` points each, ``P = k q``::

    raw parameters      bounds.py       bound_means, bound_variances
         |                              (k, r), (k,) -> (k, r), (k, r)
    continuous tuples   sample.py       sample_tuples
         |                              (k, r) -> (k, q, r) int32
    integer tuples      duplicates.py   first_occurrence
         |                              (P, r) -> (P,) bool
    kept mask           densities.py    log_densities, proportions
         |                              (P, r), (k, r) -> (P, k)
    proportions         mix.py          mix_values          locality.py, nearby.py: near points only
         |                              (P, k), (k,) -> (P,)
    sparse entries      multiply.py     sparse_multiply
         |                              (P, R), (P,), x -> y
    output

Where all outputs share the positions, taps on cells take the place of tuples (``pursue.py``)::

    gains of all cells  gains.py        whiten_cotangent, decorrelated_gains
         |                              (*cells, C, m)
    scores              gains.py        residual_scores, z_scores
         |                              (*cells)
    taps                pursue.py       pursue, drop_taps   probe.py: pursue_gains, pursue_halves
                                        (k, r), (k,)

``relax.py`` composes the middle four, ``hyperlayer.py`` all of them. Public functions check and
cast what comes in (``entrance.py``, ``plan.py``), once: what they call trusts it. Functions work on
one instance: ``jax.vmap`` gives batches, or put a batch that shares the sparse tensor on the last
axis of ``x``.
"""

from sparse_hyper_jax.ops.bounds import bound_means, bound_variances, invert_means
from sparse_hyper_jax.ops.sample import round_means, sample_tuples
from sparse_hyper_jax.ops.duplicates import first_occurrence
from sparse_hyper_jax.ops.distances import DENSITIES
from sparse_hyper_jax.ops.densities import log_densities, proportions
from sparse_hyper_jax.ops.mix import mix_values
from sparse_hyper_jax.ops.locality import Locality, fit_locality
from sparse_hyper_jax.ops.nearby import Nearby, mix_nearby
from sparse_hyper_jax.ops.multiply import sparse_multiply
from sparse_hyper_jax.ops.templates import Template, make_template, stitch
from sparse_hyper_jax.ops.relax import relax, settle
from sparse_hyper_jax.ops.relocate import Relocations, leaving_gains, relocate, surplus
from sparse_hyper_jax.ops.pursue import Taps, drop_taps, empty_taps, pursue
from sparse_hyper_jax.ops.gains import (
    decorrelated_gains,
    residual_scores,
    whiten_cotangent,
    z_scores,
)
from sparse_hyper_jax.ops.probe import pursue_gains, pursue_halves, split_half_p_values
from sparse_hyper_jax.ops.hyperlayer import hyperlayer, hyperlayer_hard
from sparse_hyper_jax.ops.accumulate import accumulate_over_ranges
from sparse_hyper_jax.ops.segments import segment_normalize, segment_softmax
from sparse_hyper_jax.ops.segment_logs import segment_log_softmax, segment_logsumexp
from sparse_hyper_jax.ops.regularize import variance_log_mean, variance_norm
from sparse_hyper_jax.ops.convert import from_bcoo, from_dense, to_bcoo, to_dense
from sparse_hyper_jax.ops.oracle import dense_relaxation
from sparse_hyper_jax.types import ContinuousTuples, SparseEntries

__all__ = [
    "DENSITIES",
    "ContinuousTuples",
    "Locality",
    "Nearby",
    "Relocations",
    "SparseEntries",
    "Taps",
    "Template",
    "accumulate_over_ranges",
    "bound_means",
    "bound_variances",
    "decorrelated_gains",
    "dense_relaxation",
    "drop_taps",
    "empty_taps",
    "first_occurrence",
    "fit_locality",
    "from_bcoo",
    "from_dense",
    "hyperlayer",
    "hyperlayer_hard",
    "invert_means",
    "leaving_gains",
    "log_densities",
    "make_template",
    "mix_nearby",
    "mix_values",
    "proportions",
    "pursue",
    "pursue_gains",
    "pursue_halves",
    "relax",
    "relocate",
    "residual_scores",
    "round_means",
    "sample_tuples",
    "segment_log_softmax",
    "segment_logsumexp",
    "segment_normalize",
    "segment_softmax",
    "settle",
    "sparse_multiply",
    "split_half_p_values",
    "stitch",
    "surplus",
    "to_bcoo",
    "to_dense",
    "variance_log_mean",
    "variance_norm",
    "whiten_cotangent",
    "z_scores",
]
