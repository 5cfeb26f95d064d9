"""Event-driven random backpropagation: errors are spikes, go back at random, teach at input spikes.

events -> I -> V -> spikes -> ... -> output          label
            |                          |              |
            |  gate                    E+, E- <- label - output,  they spike
            v                              |
W[j] += eta U gate(I)   at a spike of j    |  fixed random G
            ^------------- U <-------------'
"""

import math

import jax
import jax.numpy as jnp

from sparse_hyper_jax.checks import check_number, check_shape
from sparse_hyper_jax.entrance import as_array, as_int32, check_instance, check_random_key
from sparse_hyper_jax.precision import wide_dtype
from sparse_hyper_jax.spiking.erbp_types import (
    DEFAULT_ERBP,
    ErbpLayer,
    ErbpParameters,
    ErbpRule,
    ErbpState,
    ErbpStep,
    check_erbp_state,
    enter_parameters,
)


def erbp_step(
    key: jax.Array,
    parameters: ErbpParameters,
    state: ErbpState,
    events: jax.Array,
    label: jax.Array,
    *,
    learning_rate: float | jax.Array,
    rule: ErbpRule = DEFAULT_ERBP,
) -> ErbpStep:
    """Make one time step of a network that learns by error spikes over random feedback.

    In each layer, with ``[B]`` the synapses that pass a spike on, and ``e`` the error spikes::

        I <- I exp(-dt/tau_syn) + s' (W * [B])         V <- V + dt/tau_mem (I - V)
        s = [V >= th], not while silent                U <- U exp(-dt/tau_d) + (e+ - e-) G
        W[j] += eta U [abs(I) < gate]                  at every spike of input j

    The inputs are a list of events: rows of the first matrix are read, and changed, for them
    alone. Which synapses pass is drawn for the row of every slot of the list, each from the key and
    the number of its row, so that the order of events and padding change nothing; padding costs
    a draw too, and for a hidden layer every neuron is a slot, silent or not. There is no
    gradient, no weight is carried back, and no batch: instances come one after the other.

    Args:
        key: one random key for the step.
        parameters: see :func:`erbp_parameters`.
        state: of the step before, or :func:`erbp_state`.
        events: ``(n,)`` integers, number of the input of each event, twice for two of them;
            outside of the inputs padding.
        label: ``(classes,)`` spikes of what should come out in this step.
        learning_rate: ``eta``; may be traced; 0 for evaluation.
        rule: see :class:`ErbpRule`.

    Returns:
        parameters, state, and the spikes of every layer; NaN where a weight or label made them so.

    Raises:
        ValueError: shapes that do not fit.

    Reference: Neftci, Augustine, Paul, Detorakis 2017, arXiv 1612.05596; Kaiser et al. 2019, arXiv
    1904.04805.

    Example:
        >>> from sparse_hyper_jax.spiking import erbp_parameters, erbp_state, erbp_step
        >>> parameters = erbp_parameters(jax.random.key(0), (6, 5, 3))
        >>> given = parameters, erbp_state(parameters), jnp.array([2, 5, -1]), jnp.eye(3)[1]
        >>> one = erbp_step(jax.random.key(1), *given, learning_rate=0.01)
        >>> [s.shape for s in one.spikes], one.parameters.weights[0].shape
        ([(5,), (3,)], (6, 5))
    """
    check_random_key(key)
    check_instance("rule", rule, ErbpRule)
    check_number("learning_rate", learning_rate, at_least=0)
    parameters, label = enter_parameters(parameters), as_array("label", label)
    events = as_int32("events", events)
    check_shape("events", events, (None,), "(n,): the input of each event")
    check_shape("label", label, (parameters.weights[-1].shape[1],), "(classes,): spikes")
    check_erbp_state(parameters, state)
    dtype = wide_dtype(*parameters.weights)
    layers, fired, inputs = [], [], events
    for n, (w, before) in enumerate(zip(parameters.weights, state.layers, strict=True)):
        arrived = _pass_on(jax.random.fold_in(key, n), w, inputs, rule.keep)
        if fired:  # a spike that is NaN reaches all that hear it
            arrived = jnp.where(jnp.isnan(jnp.sum(fired[-1])), jnp.nan, arrived)
        layer, spikes = _fire(before, arrived, rule)
        layers.append(layer)
        fired.append(spikes)
        inputs = _active(spikes)
    potentials, error = _compare(state.errors, label.astype(dtype) - fired[-1], rule)
    fade, weights = math.exp(-rule.dt / rule.tau_dendrite), []
    for n, (w, g) in enumerate(zip(*parameters, strict=True)):
        heard = fade * layers[n].error + _product(error, g.astype(dtype))
        layers[n] = layers[n]._replace(error=heard)
        change = jnp.asarray(learning_rate, dtype) * heard
        change = change * (jnp.abs(layers[n].current) < rule.gate).astype(dtype)
        weights.append(_taught(w, _active(fired[n - 1]) if n else events, change))
    after = ErbpParameters(weights, parameters.feedback)
    return ErbpStep(after, ErbpState(layers, potentials), fired)


def passing_synapses(key: jax.Array, rows: jax.Array, outputs: int, keep: float) -> jax.Array:
    """Draw which synapses of these rows pass a spike on, flags ``(n, outputs)``.

    Args:
        key: of the layer in this step.
        rows: ``(n,)`` their numbers, of which alone with the key their flags depend.
        outputs: synapses of a row.
        keep: probability.
    """

    def one(row: jax.Array) -> jax.Array:
        return jax.random.bernoulli(jax.random.fold_in(key, row), keep, (outputs,))

    return jax.vmap(one)(rows)


def _active(spikes: jax.Array) -> jax.Array:
    """Number the neurons that fire, or may: NaN is no silence; -1 for the others."""
    return jnp.where(spikes != 0, jnp.arange(len(spikes)), -1)


def _pass_on(key: jax.Array, w: jax.Array, rows: jax.Array, keep: float) -> jax.Array:
    """Sum the rows of active inputs, of each the synapses that pass."""
    dtype = wide_dtype(w)
    real = ((rows >= 0) & (rows < len(w)))[:, None]
    safe = jnp.where(real[:, 0], rows, 0)
    passing = passing_synapses(key, safe, w.shape[1], keep)
    return jnp.sum(jnp.where(real & passing, w[safe].astype(dtype), 0), axis=0)


def _fire(layer: ErbpLayer, arrived: jax.Array, rule: ErbpRule) -> tuple[ErbpLayer, jax.Array]:
    current = math.exp(-rule.dt / rule.tau_synapse) * layer.current + arrived
    awake = layer.silent <= 0
    v = jnp.where(awake, layer.v + rule.dt / rule.tau_membrane * (current - layer.v), 0)
    spikes = awake & (v >= rule.threshold)
    left = layer.silent - rule.dt
    # What rounding leaves of a whole number of steps is no step more.
    left = jnp.where(left <= 1e-3 * rule.dt, 0, left)
    silent = jnp.where(spikes, rule.refractory, left).astype(left.dtype)
    return (
        layer._replace(current=current, v=jnp.where(spikes, 0, v), silent=silent),
        jnp.where(jnp.isnan(v), v, spikes.astype(v.dtype)),
    )


def _compare(
    potentials: jax.Array, missing: jax.Array, rule: ErbpRule
) -> tuple[jax.Array, jax.Array]:
    """Let error neurons hear what is missing, and what is too much; give ``e+ - e-``."""
    heard = rule.error_weight * jnp.stack([missing, -missing])
    potentials = jnp.maximum(0, potentials + heard)
    spikes = (potentials >= rule.threshold).astype(potentials.dtype)
    spikes = jnp.where(jnp.isnan(potentials), potentials, spikes)
    return potentials - rule.threshold * spikes, spikes[0] - spikes[1]


def _taught(w: jax.Array, active: jax.Array, change: jax.Array) -> jax.Array:
    """Add a change to the rows of active inputs, once for each event; round once."""
    rows = jnp.where(active < 0, len(w), active)
    added = jnp.broadcast_to(change, (len(rows), len(change)))
    return w.astype(change.dtype).at[rows].add(added, mode="drop").astype(w.dtype)


def _product(one: jax.Array, two: jax.Array) -> jax.Array:
    return jnp.matmul(one, two, precision=jax.lax.Precision.HIGHEST)
