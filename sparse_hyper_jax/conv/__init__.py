"""Convolutions at learned lags and offsets: few taps, each anywhere, put where they gain most.

For ``k`` taps among ``reach`` candidate lags, of ``C`` channels to ``O``::

    sequences  entrance.py   (..., T, C), lags (k,) or (k, C), flags of the slots that hold a tap
       |       reads.py      k shifted copies: slices, no indices; one product with (k, C, O)
       |       lag.py        lag_conv           of whole sequences
       |       stream.py     lag_conv_step      of one step, from a ring of the last ones
       |       plane.py      offset_conv        of planes (..., H, W, C), offsets (k, 2)
       |       soft.py       soft_lag_conv      of taps between lags, to fine-tune or to compare
       |       adaptive.py   adaptive_conv      of taps that lie elsewhere for every output
       |                     adaptive_conv_hard
    output                   (..., T, O)
       |                     its cotangent
    gains      spectra.py    all differences at once, by FFT
       |       gains.py      lag_gains          (reach, C, O): the slope of every absent tap
       |                     autocovariance     (reach,): how alike neighbours are
       |       plane.py      offset_gains, offset_autocovariance
    taps       observe.py    what is looked at, and how it places taps
       |       probe.py      probe_lags, probe_offsets, probe_delays: where the next ones go
       |                     start_weights      small weights for them
       |       moments.py    clear_moments      and an optimizer that knows nothing of them yet
    kernels    export.py     lag_kernel, offset_kernel: dense, for other tools
"""

from sparse_hyper_jax.conv.adaptive import adaptive_conv, adaptive_conv_hard
from sparse_hyper_jax.conv.export import lag_kernel, offset_kernel
from sparse_hyper_jax.conv.gains import autocovariance, lag_gains
from sparse_hyper_jax.conv.lag import lag_conv
from sparse_hyper_jax.conv.moments import clear_moments
from sparse_hyper_jax.conv.plane import (
    offset_autocovariance,
    offset_conv,
    offset_gains,
    window_offsets,
)
from sparse_hyper_jax.conv.probe import probe_delays, probe_lags, probe_offsets, start_weights
from sparse_hyper_jax.conv.soft import LagShares, gaussian_shares, linear_shares, soft_lag_conv
from sparse_hyper_jax.conv.spectra import SHARINGS
from sparse_hyper_jax.conv.stream import LagStream, init_lag_stream, lag_conv_step

__all__ = [
    "SHARINGS",
    "LagShares",
    "LagStream",
    "adaptive_conv",
    "adaptive_conv_hard",
    "autocovariance",
    "clear_moments",
    "gaussian_shares",
    "init_lag_stream",
    "lag_conv",
    "lag_conv_step",
    "lag_gains",
    "lag_kernel",
    "linear_shares",
    "offset_autocovariance",
    "offset_conv",
    "offset_gains",
    "offset_kernel",
    "probe_delays",
    "probe_lags",
    "probe_offsets",
    "soft_lag_conv",
    "start_weights",
    "window_offsets",
]
