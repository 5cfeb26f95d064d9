"""Convolutions at learned lags and offsets: few taps, each anywhere, put where they gain most.

For ``k`` taps among ``reach`` candidate lags, of ``C`` channels to ``O``::

    sequences  entrance.py   (..., T, C), lags (k,) or (k, C)
       |       reads.py      k shifted copies: slices, no indices
       |       lag.py        lag_conv           one product with (k, C, O)
    output
       |                     its cotangent (..., T, O)
    gains      gains.py      lag_gains          (reach, C, O), the slope of every absent tap
       |                     autocovariance     (reach,), to tell neighbours apart
    taps                     ops.pursue         where the next tap goes
"""

from sparse_hyper_jax.conv.gains import autocovariance, lag_gains
from sparse_hyper_jax.conv.lag import lag_conv
from sparse_hyper_jax.conv.spectra import SHARINGS

__all__ = ["SHARINGS", "autocovariance", "lag_conv", "lag_gains"]
