"""Attention at learned positions: lags that all share, found by exact gains, or pointers.

Hard taps, placed where a probe finds most to gain, and trained on between::

    query, key, value (..., T, h, d), lags (h, k)
       |   lag_attention.py  lag_attention        out (..., T, h, e), nothing of size T * T
       |   step.py           lag_attention_step   the same, one step at a time
    cotangent of out
       |   gains.py          lag_attention_gains  (..., h, reach), what a tap there would gain
    taps
       |   pursuit.py        pursue_lags          the best one is placed, if it stands out
       |   probe.py          probe_attention      both at once, also for projections to come
       |                     swap_lag             the least important one goes for a better one

Where every query has positions of its own, which a network makes and a gradient moves::

    query, key, value (T, h, d), means (T, h, k)
       |   pointers.py       pointer_attention       a few points about each mean
       |                     pointer_attention_hard  the nearest ones: evaluation
    out (T, h, e)
"""

from sparse_hyper_jax.attention.gains import lag_attention_gains
from sparse_hyper_jax.attention.lag_attention import lag_attention
from sparse_hyper_jax.attention.pointers import pointer_attention, pointer_attention_hard
from sparse_hyper_jax.attention.probe import probe_attention
from sparse_hyper_jax.attention.pursuit import (
    LagTaps,
    empty_lags,
    lag_importance,
    pursue_lags,
    swap_lag,
)
from sparse_hyper_jax.attention.step import LagCache, lag_attention_cache, lag_attention_step

__all__ = [
    "LagCache",
    "LagTaps",
    "empty_lags",
    "lag_attention",
    "lag_attention_cache",
    "lag_attention_gains",
    "lag_attention_step",
    "lag_importance",
    "pointer_attention",
    "pointer_attention_hard",
    "probe_attention",
    "pursue_lags",
    "swap_lag",
]
