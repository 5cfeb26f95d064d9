"""From the sizes of gradients by lag to a bound of the bias, and to the lag that keeps it.

All of it runs on the host, in NumPy's double precision: a lag is the shape of a window, chosen once
in a while. What a bias is, beside its bound, is in ``measured.py``.

**Convention.** K is the number of steps that are kept: lags 0 to K - 1. Entry ``K - 1`` of an array
belongs to K steps.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from sparse_hyper_jax import checks

LAG_BUCKETS = (2, 4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 60, 100)
"""Lags to round up to: every lag is a program of its own to compile."""

DecayMethod = Literal["lsq", "max", "quantile"]
METHODS = get_args(DecayMethod)


class BiasBound(NamedTuple):
    """What truncation to K steps costs, for K from 1 to W; entry ``K - 1`` belongs to K.

    Attributes:
        delta_hat: ``(W,)``, bound of the neglected gradient relative to the whole one; infinite
            where nothing bounds it.
        tail: ``(W,)``, the bound E of the neglected gradient itself, in units of
            ``max |dh / dparams|``, which the ratio does not need.

    Example:
        >>> from sparse_hyper_jax import recurrent
        >>> phi = 0.5 ** np.arange(4)
        >>> bound = recurrent.bias_bound(phi, phi.cumsum(), tau=2, beta=0.5)
        >>> len(bound.tail), bool(np.all(np.diff(bound.tail) < 0))  # more steps, less bias
        (4, True)
    """

    delta_hat: np.ndarray
    tail: np.ndarray


def fit_decay(
    phi: Any, *, start: int = 0, method: DecayMethod = "lsq", floor: float = -50.0
) -> float:
    """Estimate the factor beta by which gradients shrink from lag to lag.

    Over the lags ``k >= start`` with ``log phi[k] > floor``: the slope of a least-squares line
    through ``(k, log phi[k])`` ("lsq"), the largest slope of a line from the first of them, so that
    none lies above it ("max"), or the 0.95 quantile of the slopes between all pairs ("quantile").
    With fewer than two such lags it is 1: nothing is known of a decay.

    Args:
        phi: ``(W,)`` sizes, of :func:`lag_norms`.
        start: first lag that counts.
        method: "lsq", "max" or "quantile".
        floor: logarithm below which a size is taken for rounding.

    Returns:
        beta > 0; NaN if a size is not finite.

    Raises:
        ValueError: no vector, a negative size, a lag or method that does not exist.

    Reference: Aicher, Foti, Fox 2019, arXiv 1905.07473.

    Example:
        >>> from sparse_hyper_jax import recurrent
        >>> round(recurrent.fit_decay(0.8 ** np.arange(10)), 6)
        0.8
    """
    phi = _sizes("phi", phi)
    start = checks.check_count("start", start, most=len(phi) - 1)
    checks.check_choice("method", method, METHODS)
    _check_known("floor", floor)
    if not np.isfinite(phi).all():
        return math.nan
    with np.errstate(divide="ignore"):
        logs = np.log(phi)
    lags = np.arange(start, len(phi))[logs[start:] > float(floor)]
    if len(lags) < 2:
        return 1.0
    with np.errstate(over="ignore"):
        beta = float(np.exp(_slope(lags, logs[lags], method)))
    return max(beta, float(np.finfo(np.float64).tiny))  # a factor below all doubles is not 0


def _slope(lags: np.ndarray, logs: np.ndarray, method: DecayMethod) -> float:
    if method == "lsq":
        centred = lags - lags.mean()
        return float(centred @ logs / (centred @ centred))
    if method == "max":
        return float(np.max((logs[1:] - logs[0]) / (lags[1:] - lags[0])))
    one, two = np.triu_indices(len(lags), 1)
    return float(np.quantile((logs[two] - logs[one]) / (lags[two] - lags[one]), 0.95))


def bias_bound(phi: Any, cum: Any, *, tau: int, beta: float) -> BiasBound:
    """Bound the relative bias of a gradient that goes K steps back, for all K.

    Where ``phi[k + 1] <= beta phi[k]`` for all ``k >= tau``, what K steps neglect is at most::

        E(K) = sum_{k=K}^{tau-1} phi[k] + phi[tau] / (1 - beta)          K <= tau
               phi[tau] beta^(K - tau) / (1 - beta)                      K >= tau
        delta_hat(K) = E(K) / max_K' (cum[K' - 1] - E(K'))

    It compares states where the theorem compares parameters, and lengths of rows with the length of
    a mean: a knob on the safe side, not a calibrated bias. Print :func:`measured_bias` beside it.

    Args:
        phi: ``(W,)`` of :func:`lag_norms`.
        cum: ``(W,)``, likewise.
        tau: lag, from 0 to W - 1, from which on the decay counts.
        beta: of :func:`fit_decay`; from 1 on nothing is bounded, unless ``phi[tau]`` is 0.

    Returns:
        :class:`BiasBound`, which falls with K; ``delta_hat`` is infinite for all K where no sum of
        gradients exceeds what it may lack, and NaN where phi, cum or beta is.

    Raises:
        ValueError: no vectors of one length, a negative size, a ``tau`` outside.

    Reference: Aicher, Foti, Fox 2019, arXiv 1905.07473. Its published code counts the gradient at
    tau twice and pairs sums and tails of different lags; this does neither.

    Example:
        >>> from sparse_hyper_jax import recurrent
        >>> phi = 0.5 ** np.arange(6)
        >>> recurrent.bias_bound(phi, phi.cumsum(), tau=3, beta=0.5).tail.tolist()
        [1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125]
    """
    phi, cum = _sizes("phi", phi), _sizes("cum", cum)
    checks.require(
        len(phi) == len(cum), f"{len(phi)} phi and {len(cum)} cum", "as many", "pass one window's"
    )
    tau = checks.check_count("tau", tau, most=len(phi) - 1)
    beta = _decay(beta)
    kept = np.arange(1, len(phi) + 1)
    tail = np.where(
        kept <= tau, _from_tau(phi[tau], beta, 0), _from_tau(phi[tau], beta, kept - tau)
    )
    until_tau = np.append(phi[:tau], 0)[::-1].cumsum()[::-1]  # sum_{k=K}^{tau-1} for K = 0 .. tau
    tail[:tau] += until_tau[1:]
    with np.errstate(invalid="ignore"):
        low = np.max(cum - tail)
    # A sum that has overflown would bound everything by 0.
    low = np.nan if low == np.inf else low
    if np.isnan(beta) or np.isnan(phi).any():  # also where they would not be read
        return BiasBound(np.full(len(phi), np.nan), np.full(len(phi), np.nan))
    delta_hat = np.full(len(phi), np.inf) if low <= 0 else tail / low
    return BiasBound(delta_hat, tail)


def _from_tau(size: float, beta: float, steps: Any) -> np.ndarray:
    """Give ``size beta^steps / (1 - beta)`` for steps of at least 0."""
    steps = np.maximum(steps, 0)
    # What is zero stays zero by any factor: a hard end, as that of a shift register.
    if size == 0:
        return np.zeros(np.shape(steps))
    if beta >= 1:
        return np.full(np.shape(steps), np.inf)
    return size * beta**steps / (1 - beta)


def choose_lag(
    delta_hat: Any,
    delta: float,
    *,
    k_min: int,
    k_max: int,
    buckets: Sequence[int] | None = None,
) -> int:
    """Choose the smallest number of steps whose bound is below a tolerated relative bias.

    ``K = min{K : delta_hat[K - 1] < delta}`` between ``k_min`` and ``k_max``, and ``k_max`` where
    there is none; beyond W the last bound holds. Bounds may rise again, as biases do. Gradient
    descent with a relative bias below 1 converges, slowed down by ``1 / (1 - delta)``.

    Args:
        delta_hat: ``(W,)`` of :func:`bias_bound`; NaN bounds nothing.
        delta: what is tolerated, above 0; from 1 on nothing is promised.
        k_min: smallest lag.
        k_max: largest.
        buckets: lags to round up to, for instance ``LAG_BUCKETS``, so that few programs are
            compiled in a run; None for any lag.

    Returns:
        a Python int.

    Raises:
        ValueError: no vector, ``delta`` not above 0, limits in the wrong order.

    Reference: Aicher, Foti, Fox 2019, arXiv 1905.07473.

    Example:
        >>> from sparse_hyper_jax import recurrent
        >>> recurrent.choose_lag([2.0, 0.8, 0.4, 0.1], 0.5, k_min=1, k_max=8)
        3
    """
    bounds = _vector("delta_hat", delta_hat)
    _check_known("delta", delta, above=0)
    k_min = checks.check_count("k_min", k_min, least=1)
    k_max = checks.check_count("k_max", k_max, least=k_min)
    rounded, below = sorted(_buckets(buckets)), bounds < float(delta)
    for lag in range(k_min, k_max):
        longer = min(next((bucket for bucket in rounded if bucket >= lag), lag), k_max)
        # Biases that were measured rise again: what was rounded up to is looked at, not its lag.
        if below[min(longer, len(below)) - 1]:
            return longer
    return k_max


def _buckets(buckets: Any) -> list[int]:
    if buckets is None:
        return []
    checks.require(
        isinstance(buckets, Sequence | np.ndarray) and np.ndim(buckets) == 1,
        f"buckets={buckets!r:.80}",
        "lags in a row, or None",
        "pass a tuple of ints as buckets",
    )
    return [checks.check_count("buckets", one, least=1) for one in buckets]


def _check_known(name: str, number: Any, **limits: float) -> None:
    """Raise unless this is one number, of which the host knows the value."""
    checks.require(
        not isinstance(number, Tracer),
        f"a traced {name}",
        "a known number",
        f"pass {name} from outside of jax.jit",
    )
    checks.check_number(name, number, **limits)


def _vector(name: str, numbers: Any) -> np.ndarray:
    """Return known numbers as doubles; arrays of JAX could lose half of their digits."""
    try:
        vector = np.asarray(numbers)
    except (TypeError, ValueError):  # traced, or ragged
        vector = np.asarray(None)
    checks.require(
        any(jnp.issubdtype(vector.dtype, kind) for kind in (jnp.floating, jnp.integer))
        and vector.ndim == 1
        and len(vector) > 0,
        f"{name}={numbers!r:.80}",
        "a vector of known numbers, one per lag",
        f"pass {name} from outside of jax.jit",
    )
    return vector.astype(np.float64)


def _sizes(name: str, numbers: Any) -> np.ndarray:
    vector = _vector(name, numbers)
    checks.require(
        not np.any(vector < 0),
        f"{name} with {vector.min():g}",
        "sizes of at least 0",
        "pass the arrays of lag_norms",
    )
    return vector


def _decay(beta: Any) -> float:
    real = checks.is_real(beta) and not isinstance(beta, Tracer)
    value = float(beta) if real and np.shape(beta) == () else -1.0
    # NaN is what fit_decay says of sizes that are none; the bounds then are NaN too.
    checks.require(not value < 0, f"beta={beta!r}", "one number of at least 0", "change beta")
    return value
