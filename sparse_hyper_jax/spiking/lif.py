"""The leaky integrate-and-fire neuron, by itself and over time; and input that fires at random."""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from sparse_hyper_jax.checks import check_choice, check_count, check_flag, check_number, require
from sparse_hyper_jax.entrance import as_array, check_random_key
from sparse_hyper_jax.precision import at_least_float32, wide_dtype
from sparse_hyper_jax.spiking.surrogates import Surrogate, check_surrogate, spike

Reset = Literal["zero", "subtract"]


class LIF(NamedTuple):
    """What :func:`lif` returns, or :func:`lif_step` without the axis of time.

    Example:
        >>> from sparse_hyper_jax.spiking import LIF
        >>> LIF._fields
        ('v', 'spikes', 'potentials')
    """

    v: jax.Array
    """``(...)`` the potential after the last step and its reset: the state."""

    spikes: jax.Array
    """``(T, ...)`` zeros and ones."""

    potentials: jax.Array
    """``(T, ...)`` potentials before the reset, those that reach the threshold."""


def lif_step(
    v: jax.Array,
    current: jax.Array,
    *,
    decay: float | jax.Array,
    threshold: float | jax.Array = 1.0,
    reset: Reset = "zero",
    detach_reset: bool = True,
    surrogate: Surrogate = "superspike",
    scale: float | jax.Array | None = None,
) -> LIF:
    """Make one step of leaky neurons that integrate a current and fire; see :func:`lif`.

    Args:
        v: ``(...)`` the state.
        current: ``(...)`` of the same shape.
        decay: see there.
        threshold: see there.
        reset: see there.
        detach_reset: see there.
        surrogate: see :func:`~sparse_hyper_jax.spiking.surrogate_slope`.
        scale: see there.

    Returns:
        the new state, spikes and potentials before the reset.

    Raises:
        ValueError: see :func:`lif`.

    Example:
        >>> from sparse_hyper_jax.spiking import lif_step
        >>> one = lif_step(jnp.array([0.5, 1.5]), jnp.array([0.25, 0.5]), decay=0.5)
        >>> one.spikes.tolist(), one.v.tolist()
        ([0.0, 1.0], [0.5, 0.0])
    """
    v, current = as_array("v", v), as_array("current", current)
    _check(v, current.shape, reset, scale, surrogate)
    detach = check_flag("detach_reset", detach_reset)
    dtype = wide_dtype(v, current)
    neuron = _Neuron(
        *_per_neuron(decay, threshold, v.shape, dtype), reset, detach, surrogate, scale
    )
    return _step(neuron, v.astype(dtype), current)


def lif(
    currents: jax.Array,
    *,
    decay: float | jax.Array,
    threshold: float | jax.Array = 1.0,
    reset: Reset = "zero",
    detach_reset: bool = True,
    surrogate: Surrogate = "superspike",
    scale: float | jax.Array | None = None,
    v: jax.Array | None = None,
) -> LIF:
    """Run leaky neurons that integrate currents and fire, in one :func:`jax.lax.scan`.

    In every step, with the threshold ``th``::

        v <- decay v + I        s = [v >= th]        v <- v (1 - s)    or    v - th s

    A constant current below ``th (1 - decay)`` never makes one fire; a larger one does every
    ``ceil(log(1 - th (1 - decay) / I) / log(decay))`` steps, if the reset is to zero.

    Args:
        currents: ``(T, ...)``.
        decay: share of the potential that a step leaves, from 0 to 1: one number, or one for each
            neuron of the last axes.
        threshold: where a neuron fires, one number or several in the same way.
        reset: ``"zero"``, or ``"subtract"`` the threshold, which forgets nothing.
        detach_reset: whether no gradient passes through the reset.
        surrogate: slope of a spike, see :func:`~sparse_hyper_jax.spiking.surrogate_slope`.
        scale: of the slope, see there.
        v: ``(...)`` the state to begin with; by default 0.

    Returns:
        the state, spikes and potentials, float32 or wider.

    Raises:
        ValueError: shapes that do not fit, a decay beyond its limits, an unknown option.

    Reference: Gerstner, Kistler, Naud, Paninski 2014, "Neuronal Dynamics", chapter 1.

    Example:
        >>> from sparse_hyper_jax.spiking import lif
        >>> lif(jnp.full(8, 0.5), decay=0.75).spikes.tolist()
        [0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0]
        >>> int(lif(jnp.full(8, 0.5), decay=1, reset="subtract").spikes.sum())  # 8 / 2
        4
    """
    currents = as_array("currents", currents)
    require(currents.ndim > 0, "currents of shape ()", "(T, ...)", "pass currents over time")
    v = jnp.zeros(currents.shape[1:], currents.dtype) if v is None else as_array("v", v)
    _check(v, currents.shape[1:], reset, scale, surrogate)
    detach = check_flag("detach_reset", detach_reset)
    dtype = wide_dtype(v, currents)
    neuron = _Neuron(
        *_per_neuron(decay, threshold, v.shape, dtype), reset, detach, surrogate, scale
    )

    def step(v: jax.Array, current: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        one = _step(neuron, v, current)
        return one.v, (one.spikes, one.potentials)

    v, (spikes, potentials) = jax.lax.scan(step, v.astype(dtype), currents)
    return LIF(v, spikes, potentials)


def poisson_spikes(key: jax.Array, probabilities: jax.Array, *, steps: int) -> jax.Array:
    """Draw spikes: in every step each input fires by itself with its probability.

    ``s_t = [u_t < p]`` with ``u`` uniform in ``[0, 1)``: at a rate ``r`` in Hz and steps of ``dt``
    seconds, ``p = r dt``.

    Args:
        key: one random key.
        probabilities: ``(...)`` from 0, which never fires, to 1, which always does.
        steps: number ``T`` of steps.

    Returns:
        ``(T, ...)`` zeros and ones, float32 or wider, without a gradient; NaN where a probability
        is NaN.

    Raises:
        ValueError: no key, or steps that are no count.

    Example:
        >>> from sparse_hyper_jax.spiking import poisson_spikes
        >>> poisson_spikes(jax.random.key(0), jnp.array([0.0, 1.0]), steps=3).tolist()
        [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]
    """
    check_random_key(key)
    probabilities = at_least_float32(as_array("probabilities", probabilities))
    steps = check_count("steps", steps)
    dtype, rates = probabilities.dtype, jax.lax.stop_gradient(probabilities)[None]
    drawn = jax.random.uniform(key, (steps, *probabilities.shape), dtype)
    return jnp.where(jnp.isnan(rates), rates, (drawn < rates).astype(dtype))


class _Neuron(NamedTuple):
    """Constants of neurons, spread over them."""

    decay: jax.Array
    threshold: jax.Array
    reset: str
    detach_reset: bool
    surrogate: Surrogate
    scale: Any


def _step(neuron: _Neuron, v: jax.Array, current: jax.Array) -> LIF:
    # A neuron that keeps nothing forgets an infinite potential too: 0 * inf would be NaN.
    before = jnp.where((neuron.decay == 0) & jnp.isinf(v), 0, v)
    v = neuron.decay * before + current.astype(v.dtype)
    s = spike(v - neuron.threshold, surrogate=neuron.surrogate, scale=neuron.scale)
    fired = jax.lax.stop_gradient(s) if neuron.detach_reset else s
    if neuron.reset == "zero":
        # An infinite potential fires, and inf * 0 would be NaN ever after.
        kept = jnp.where(v == jnp.inf, 0, v) * (1 - fired)
    else:
        # A threshold of infinity times a spike that never comes would be NaN.
        kept = v - jnp.where(neuron.threshold == jnp.inf, 0, neuron.threshold) * fired
    return LIF(kept, s, v)


def _check(v: jax.Array, shape: Any, reset: str, scale: Any, surrogate: str) -> None:
    require(
        v.shape == shape,
        f"v of shape {v.shape} with currents of shape {shape} in a step",
        "the same shape",
        "reshape v",
    )
    check_choice("reset", reset, ("zero", "subtract"))
    check_surrogate(surrogate, scale)


def _per_neuron(decay: Any, threshold: Any, shape: Any, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """Spread decay and threshold over the neurons."""
    found = []
    limits = {"decay": (0.0, 1.0), "threshold": (-math.inf, math.inf)}
    for name, given in (("decay", decay), ("threshold", threshold)):
        array = as_array(name, given)
        _check_limits(name, given, array.shape, *limits[name])
        require(
            array.shape == shape[len(shape) - array.ndim :],
            f"{name} of shape {array.shape} for neurons of shape {shape}",
            f"() or the last axes of {shape}",
            f"reshape {name}",
        )
        found.append(jnp.broadcast_to(array.astype(dtype), shape))
    return found[0], found[1]


def _check_limits(name: str, given: Any, shape: tuple[int, ...], least: float, most: float) -> None:
    """Check one number, or several as far as their values are known."""
    if shape == ():
        check_number(name, given, at_least=least, at_most=most)
    elif not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(given)):
        known = np.asarray(given, np.float64)
        beyond = known[~((known >= least) & (known <= most))]  # NaN too
        expected = (
            f" at least {least:g} and at most {most:g}" if math.isfinite(most) else ", no NaN"
        )
        require(
            not beyond.size, f"{name} with {beyond[:3]}", f"numbers{expected}", f"change {name}"
        )
