"""Layers whose last potential is taught: a rule that learns in every time step, and its oracle."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparse_hyper_jax.entrance import check_instance, check_optimizer_state
from sparse_hyper_jax.spiking.membrane_types import (
    DEFAULT_RULE,
    MembraneRule,
    MembraneScan,
    MembraneState,
    MembraneStep,
    enter,
    enter_state,
    membrane_state,
)
from sparse_hyper_jax.spiking.surrogates import spike, surrogate_slope


def membrane_loss_step(
    weights: Sequence[jax.Array],
    state: MembraneState,
    spikes: jax.Array,
    target: jax.Array,
    *,
    rule: MembraneRule = DEFAULT_RULE,
) -> MembraneStep:
    """Make one time step of spiking layers, and the gradient that is known in it.

    In each layer, with decay ``d`` and threshold ``th``, from the spikes ``s'`` in front of it::

        v <- min(d v + s' W, th)      s = [v >= th]      e <- d e + s'

    and with the target spikes ``y`` at the last, ``D`` backwards from layer to layer::

        err = (th y - v) m            m = (y xor s), or 1
        loss = mean over the batch of  sum err^2 / 2
        D_last = -err                 D_below = (D W^T) psi(v_below - th)
        dW = e^T D / batch            then v <- v (1 - s),  e <- e (1 - spikes / units)

    The trace ``e`` stands for what the potential has kept of past inputs, so the gradient needs no
    way back through time, and the error passes the ceiling at ``th`` as if it were none. In the
    first step it is the exact gradient of :func:`membrane_loss`. Where all outputs fire as they
    should, it is 0 with the mask "xor". That of an empty batch is 0.

    Args:
        weights: one matrix ``(inputs, outputs)`` for each layer.
        state: of the step before, or :func:`membrane_state`.
        spikes: ``(..., inputs)`` of this step; leading axes are a batch.
        target: ``(..., outputs)`` spikes of the last layer as they should be; for an autoencoder
            the input.
        rule: see :class:`MembraneRule`.

    Returns:
        the new state, loss, gradient, and the spikes of every layer.

    Raises:
        ValueError: shapes that do not fit.

    Reference: Roy, Panda, Roy 2019, arXiv 1906.08861.

    Example:
        >>> from sparse_hyper_jax.spiking import membrane_loss_step, membrane_state
        >>> weights, s = [jnp.full((2, 1), 0.75)], jnp.array([1.0, 0.0])
        >>> one = membrane_loss_step(weights, membrane_state(weights), s, jnp.ones(1))
        >>> float(one.loss), one.gradient[0][0].tolist()  # v = 0.75, err = 0.25
        (0.03125, [-0.25])
    """
    weights, spikes, target = enter(weights, spikes, target, rule)
    state = enter_state(weights, state, spikes)
    return _step(weights, state, spikes, target, rule)


def membrane_loss_scan(
    weights: Sequence[jax.Array],
    optimizer_state: optax.OptState,
    spikes: jax.Array,
    targets: jax.Array,
    *,
    optimizer: optax.GradientTransformation,
    rule: MembraneRule = DEFAULT_RULE,
) -> MembraneScan:
    """Learn from a sequence in every one of its steps, by :func:`membrane_loss_step`.

    One :func:`jax.lax.scan` whose carry holds neurons, weights and the optimizer's state; memory
    does not grow with time beyond the losses and spikes that are returned. The neurons begin at
    rest.

    Args:
        weights: see there.
        optimizer_state: ``optimizer.init(weights)``; the authors begin anew with every batch.
        spikes: ``(T, ..., inputs)``.
        targets: ``(T, ..., outputs)``.
        optimizer: makes an update of the gradient of each step.
        rule: see :class:`MembraneRule`.

    Returns:
        what has been learned, the losses and all spikes.

    Raises:
        ValueError: see there; sequences of unequal lengths.

    Reference: Roy, Panda, Roy 2019, arXiv 1906.08861.

    Example:
        >>> import optax
        >>> from sparse_hyper_jax.spiking import membrane_loss_scan
        >>> sgd, s = optax.sgd(0.1), jnp.ones((20, 2))
        >>> weights = [jnp.full((2, 1), 0.2)]
        >>> done = membrane_loss_scan(weights, sgd.init(weights), s, s[:, :1], optimizer=sgd)
        >>> bool(done.losses[-1] < done.losses[0]), done.spikes[0].shape
        (True, (20, 1))
    """
    check_instance("optimizer", optimizer, optax.GradientTransformation)
    weights, spikes, targets = enter(weights, spikes, targets, rule, over_time=True)
    check_optimizer_state(optimizer_state, optimizer.init, weights)

    def step(carry: Any, now: Any) -> tuple[Any, Any]:
        weights, moments, state = carry
        s, target = now
        one = _step(weights, state, s, target, rule)
        updates, moments = optimizer.update(one.gradient, moments, weights)
        return (optax.apply_updates(weights, updates), moments, one.state), (one.loss, one.spikes)

    start = membrane_state(weights, batch=spikes.shape[1:-1])
    carry, (losses, fired) = jax.lax.scan(
        step, (weights, optimizer_state, start), (spikes, targets)
    )
    return MembraneScan(carry[0], carry[1], losses, fired)


def membrane_loss(
    weights: Sequence[jax.Array],
    spikes: jax.Array,
    targets: jax.Array,
    *,
    rule: MembraneRule = DEFAULT_RULE,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Give the loss of a whole sequence, to be differentiated: backpropagation through time.

    The sum over time of the loss of :func:`membrane_loss_step`, with the same neurons, surrogate
    and masks. By :func:`jax.grad` it is what the rule there approximates without a way back; for
    a sequence of one step the two are equal. Resets, masks and the ceiling are constants, as there.

    Args:
        weights: see there.
        spikes: ``(T, ..., inputs)``.
        targets: ``(T, ..., outputs)``.
        rule: see :class:`MembraneRule`.

    Returns:
        the loss, and ``(T, ..., outputs)`` spikes of every layer, also for evaluation.

    Raises:
        ValueError: see there.

    Example:
        >>> from sparse_hyper_jax.spiking import membrane_loss
        >>> loss = lambda w: membrane_loss([w], jnp.ones((1, 2)), jnp.ones((1, 1)))[0]
        >>> jax.grad(loss)(jnp.full((2, 1), 0.25)).tolist()
        [[-0.5], [-0.5]]
    """
    weights, spikes, targets = enter(weights, spikes, targets, rule, over_time=True)
    options: Any = {"surrogate": rule.surrogate, "scale": rule.scale}

    def step(potentials: Any, now: Any) -> tuple[Any, Any]:
        s, target = now
        kept, fired = [], []
        for w, before in zip(weights, potentials, strict=True):
            v = _integrate(w, before, s, rule)
            s = spike(v - rule.threshold, **options)
            kept.append(v * (1 - jax.lax.stop_gradient(s)))
            fired.append(s)
        _, loss = _error(v, s, target, rule)
        return tuple(kept), (loss, tuple(fired))

    start = membrane_state(weights, batch=spikes.shape[1:-1]).v
    _, (losses, fired) = jax.lax.scan(step, start, (spikes, targets))
    return jnp.sum(losses), fired


def _step(
    weights: Sequence[jax.Array], state: Any, spikes: jax.Array, target: jax.Array, rule: Any
) -> MembraneStep:
    fired, potentials, traces = [spikes.astype(state.v[0].dtype)], [], []
    for w, v, trace in zip(weights, state.v, state.traces, strict=True):
        traces.append(rule.decay * trace + fired[-1])
        potentials.append(_integrate(w, v, fired[-1], rule))
        fired.append(spike(potentials[-1] - rule.threshold))
    error, loss = _error(potentials[-1], fired[-1], target, rule)
    gradient, back = [], -error
    for number in reversed(range(len(weights))):
        flat = [leaf.reshape(-1, leaf.shape[-1]) for leaf in (traces[number], back)]
        gradient.insert(0, _product(flat[0].T, flat[1]) / max(len(flat[0]), 1))
        if number:
            below = potentials[number - 1] - rule.threshold
            slope = surrogate_slope(below, surrogate=rule.surrogate, scale=rule.scale)
            back = _product(back, weights[number].astype(back.dtype).T) * slope
    if rule.reset_traces:
        traces = [_shrunk(*pair, rule) for pair in zip(traces, fired[1:], strict=True)]
    kept = tuple(v * (1 - s) for v, s in zip(potentials, fired[1:], strict=True))
    gradient = [g.astype(w.dtype) for g, w in zip(gradient, weights, strict=True)]
    return MembraneStep(MembraneState(kept, tuple(traces)), loss, gradient, tuple(fired[1:]))


def _integrate(w: jax.Array, v: jax.Array, spikes: jax.Array, rule: MembraneRule) -> jax.Array:
    """Add the input; a potential has a ceiling, through which its gradient passes."""
    raw = rule.decay * v + _product(spikes.astype(v.dtype), w.astype(v.dtype))
    cut = jax.lax.stop_gradient(jnp.minimum(raw, rule.threshold))
    through = jnp.where(jnp.isinf(raw), 0, raw)  # inf - inf would be NaN, below the ceiling too
    return cut + (through - jax.lax.stop_gradient(through))


def _error(
    v: jax.Array, spikes: jax.Array, target: jax.Array, rule: MembraneRule
) -> tuple[jax.Array, jax.Array]:
    """Give the error that counts, and its loss."""
    target, spikes = target.astype(v.dtype), jax.lax.stop_gradient(spikes)
    error = rule.threshold * target - v
    error = error * (target != spikes).astype(v.dtype) if rule.mask == "xor" else error
    size = max(math.prod(error.shape[:-1]), 1)
    return error, jnp.sum(jnp.sum(jnp.square(error), axis=-1)) / size / 2


def _shrunk(trace: jax.Array, spikes: jax.Array, rule: MembraneRule) -> jax.Array:
    units = rule.trace_units or spikes.shape[-1]
    # More spikes than that many neurons leave nothing.
    return trace * jnp.maximum(0, 1 - jnp.sum(spikes, axis=-1, keepdims=True) / units)


def _product(one: jax.Array, two: jax.Array) -> jax.Array:
    return jnp.matmul(one, two, precision=jax.lax.Precision.HIGHEST)
