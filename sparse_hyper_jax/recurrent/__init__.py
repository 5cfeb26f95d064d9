"""Recurrent nets in less memory and less time: truncation chosen by its bias, and online rules.

A cell is a function ``cell(params, h, x) -> h``, its state any pytree::

    window    lags.py      lag_gradients, lag_norms        how fast the gradient fades
       |      bias.py      fit_decay, bias_bound           what K steps neglect, at most
       |                   choose_lag                      K for a tolerated bias
       |      measured.py  bias_by_lag, measured_bias      the bias itself
    lag K     windows.py   tbptt_windows, window_scan      the windows of an epoch
       |      scans.py     tbptt_scan, weighted_scan       the same inside one scan
       |                   truncated_loss, artbp_weights   of one loss; at random, unbiased
    gradient  checkpointed.py  checkpointed_scan           all steps in the memory of their root
              online.py    rtrl                            no way back: exact
              approximate.py   snap1, uoro                 cheaper: biased, noisy
"""

from sparse_hyper_jax.recurrent.approximate import snap1, uoro
from sparse_hyper_jax.recurrent.bias import (
    LAG_BUCKETS,
    BiasBound,
    bias_bound,
    choose_lag,
    fit_decay,
)
from sparse_hyper_jax.recurrent.cells import Cell
from sparse_hyper_jax.recurrent.checkpointed import checkpointed_scan
from sparse_hyper_jax.recurrent.lags import LagNorms, lag_gradients, lag_norms
from sparse_hyper_jax.recurrent.measured import bias_by_lag, measured_bias
from sparse_hyper_jax.recurrent.online import OnlineRule, OnlineStep, rtrl
from sparse_hyper_jax.recurrent.scans import (
    RandomTruncation,
    artbp_weights,
    tbptt_scan,
    truncated_loss,
    weighted_scan,
)
from sparse_hyper_jax.recurrent.windows import Windows, tbptt_windows, window_scan

__all__ = [
    "LAG_BUCKETS",
    "BiasBound",
    "Cell",
    "LagNorms",
    "OnlineRule",
    "OnlineStep",
    "RandomTruncation",
    "Windows",
    "artbp_weights",
    "bias_bound",
    "bias_by_lag",
    "checkpointed_scan",
    "choose_lag",
    "fit_decay",
    "lag_gradients",
    "lag_norms",
    "measured_bias",
    "rtrl",
    "snap1",
    "tbptt_scan",
    "tbptt_windows",
    "truncated_loss",
    "uoro",
    "weighted_scan",
    "window_scan",
]
