"""Deep continuous local learning: every layer is taught by a readout of its own, in every step."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparse_hyper_jax.checks import check_number, check_shape, require
from sparse_hyper_jax.entrance import as_array, check_instance
from sparse_hyper_jax.precision import wide_dtype
from sparse_hyper_jax.spiking.membrane_types import enter_batch, enter_weights
from sparse_hyper_jax.spiking.surrogates import Surrogate, check_surrogate, spike


class DecolleLayer(NamedTuple):
    """What a layer keeps from step to step.

    Example:
        >>> from sparse_hyper_jax.spiking import DecolleLayer
        >>> DecolleLayer._fields
        ('q', 'p', 'refractory', 'spikes')
    """

    q: jax.Array
    """``(..., inputs)`` input spikes, faded."""

    p: jax.Array
    """``(..., inputs)`` these, faded again."""

    refractory: jax.Array
    """``(..., outputs)`` what own spikes have left behind."""

    spikes: jax.Array
    """``(..., outputs)`` of the step before."""


class DecolleStep(NamedTuple):
    """What :func:`decolle_step` returns.

    Example:
        >>> from sparse_hyper_jax.spiking import DecolleStep
        >>> DecolleStep._fields
        ('losses', 'state', 'scores')
    """

    losses: jax.Array
    """``(layers,)``, each with a gradient for its own layer alone, mean over the batch."""

    state: list[DecolleLayer]
    """From which no gradient flows back; with the spikes of every layer."""

    scores: list[jax.Array]
    """``(..., classes)`` what each layer's readout says in this step."""


def decolle_state(weights: Sequence[jax.Array], *, batch: Sequence[int] = ()) -> list[DecolleLayer]:
    """Give the state before the first step: all is 0.

    Args:
        weights: one matrix ``(inputs, outputs)`` for each layer.
        batch: lengths of the axes of a batch.

    Returns:
        the state of every layer.

    Raises:
        ValueError: weights that do not follow one another, or lengths that are no counts.

    Example:
        >>> from sparse_hyper_jax.spiking import decolle_state
        >>> decolle_state([jnp.ones((4, 3))], batch=(2,))[0].p.shape
        (2, 4)
    """
    weights = enter_weights(weights)
    dtype, batch = wide_dtype(*weights), enter_batch(batch)
    zeros = [[jnp.zeros((*batch, size), dtype) for size in w.shape] for w in weights]
    return [DecolleLayer(inner, inner, outer, outer) for inner, outer in zeros]


def decolle_step(
    weights: Sequence[jax.Array],
    readouts: Sequence[jax.Array],
    state: Sequence[DecolleLayer],
    spikes: jax.Array,
    target: jax.Array,
    *,
    alpha: float | jax.Array = 0.97,
    beta: float | jax.Array = 0.92,
    gamma: float | jax.Array = 0.65,
    surrogate: Surrogate = "boxcar",
    scale: float | jax.Array | None = None,
) -> DecolleStep:
    """Make one time step of layers, each with a loss by a fixed random readout of its own.

    In each layer, with ``sg`` a stopped gradient, and from the spikes ``s'`` in front of it::

        P <- alpha P + (1 - alpha) Q         Q <- beta Q + (1 - beta) sg s'
        R <- gamma R - s_before              U = sg P W + sg R
        s = [U >= 0], slope psi(U)           L = smooth_l1(s G - target)

    The state carries no gradient, so the gradient of a step, ``jax.grad`` of the sum of losses for
    the weights, is local in time and in depth: for a layer it is that of its own loss in this
    step, with all it has kept as constants, and memory does not grow with time. ``P`` sees the
    ``Q`` of the step before. Here ``P`` and ``Q`` weigh their inputs so that a constant one is
    passed on as it is; the authors' have the gains ``1 / (1 - alpha)`` and ``1 / (1 - beta)`` in
    the weights, and rates smaller by as much.

    Args:
        weights: one matrix ``(inputs, outputs)`` for each layer.
        readouts: one matrix ``(outputs, classes)`` for each; no gradient.
        state: of the step before, or :func:`decolle_state`.
        spikes: ``(..., inputs)`` of this step; leading axes are a batch.
        target: ``(..., classes)`` what all readouts should say, one-hot for classes.
        alpha: share of ``P`` that a step leaves.
        beta: of ``Q``.
        gamma: of the refractory ``R``.
        surrogate: slope of a spike, see :func:`~sparse_hyper_jax.spiking.surrogate_slope`.
        scale: of the slope, see there.

    Returns:
        losses, the new state, and scores, whose sum over time and layers is a prediction.

    Raises:
        ValueError: shapes that do not fit, a share beyond 0 to 1.

    Reference: Kaiser, Mostafa, Neftci 2020, arXiv 1811.10766.

    Example:
        >>> from sparse_hyper_jax.spiking import decolle_state, decolle_step
        >>> weights, readouts = [jnp.ones((4, 3))], [jnp.ones((3, 2))]
        >>> one = decolle_step(
        ...     weights, readouts, decolle_state(weights), jnp.ones(4), jnp.array([1.0, 0.0])
        ... )
        >>> one.losses.shape, one.state[0].spikes.tolist(), one.scores[0].tolist()
        ((1,), [1.0, 1.0, 1.0], [3.0, 3.0])
    """
    weights = enter_weights(weights)
    spikes, target = as_array("spikes", spikes), as_array("target", target)
    readouts = _check(weights, readouts, state, spikes, target)
    for name, share in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        check_number(name, share, at_least=0, at_most=1)
    check_surrogate(surrogate, scale)
    dtype = wide_dtype(*weights)
    alpha, beta, gamma = (jnp.asarray(share, dtype) for share in (alpha, beta, gamma))
    losses, layers, scores = [], [], []
    inputs, target = jax.lax.stop_gradient((spikes.astype(dtype), target.astype(dtype)))
    for w, g, layer in zip(weights, readouts, jax.lax.stop_gradient(list(state)), strict=True):
        p = alpha * layer.p + (1 - alpha) * layer.q
        q = beta * layer.q + (1 - beta) * inputs
        refractory = gamma * layer.refractory - layer.spikes
        # Also for the shares: what a neuron has kept is a constant of its step.
        p, q, refractory = jax.lax.stop_gradient((p, q, refractory))
        u = _product(p, w.astype(dtype)) + refractory
        s = spike(u, surrogate=surrogate, scale=scale)
        score = _product(s, jax.lax.stop_gradient(g.astype(dtype)))
        loss = _smooth_l1(score - target)
        losses.append(jnp.sum(loss) / max(loss.size, 1))  # of an empty batch 0
        inputs = jax.lax.stop_gradient(s)
        layers.append(DecolleLayer(q, p, refractory, inputs))
        scores.append(jax.lax.stop_gradient(score))
    return DecolleStep(jnp.stack(losses), layers, scores)


def _smooth_l1(error: jax.Array) -> jax.Array:
    """Square up to 1, linear beyond; summed over classes."""
    size = jnp.abs(error)
    return jnp.sum(jnp.where(size < 1, jnp.square(error) / 2, size - 0.5), axis=-1)


def _product(one: jax.Array, two: jax.Array) -> jax.Array:
    return jnp.matmul(one, two, precision=jax.lax.Precision.HIGHEST)


def _check(
    weights: Sequence[jax.Array], readouts: Any, state: Any, spikes: jax.Array, target: jax.Array
) -> list[jax.Array]:
    require(
        isinstance(readouts, Sequence) and len(readouts) == len(weights),
        f"readouts {readouts!r:.80}",
        f"a list of {len(weights)} matrices, one for each layer",
        "pass [(outputs, classes), ...]",
    )
    readouts = [as_array(f"readout {n}", g) for n, g in enumerate(readouts, 1)]
    require(
        target.ndim > 0, "target of shape ()", "(..., classes)", "pass one number for each class"
    )
    check_shape("target", target, (*spikes.shape[:-1], target.shape[-1]), "(..., classes)")
    for n, (w, g) in enumerate(zip(weights, readouts, strict=True), 1):
        check_shape(f"readout {n}", g, (w.shape[1], target.shape[-1]), "(outputs, classes)")
    check_shape("spikes", spikes, (*spikes.shape[:-1], weights[0].shape[0]), "(..., inputs)")
    require(
        isinstance(state, Sequence) and len(state) == len(weights),
        f"state={state!r:.80}",
        f"a list of {len(weights)} DecolleLayers",
        "pass decolle_state(weights, batch=...)",
    )
    for layer in state:
        check_instance("state of a layer", layer, DecolleLayer)
    found = jax.tree.map(jnp.shape, list(state))
    wanted = jax.tree.map(jnp.shape, decolle_state(weights, batch=spikes.shape[:-1]))
    require(
        found == wanted,
        f"a state of shapes {found}",
        f"{wanted}",
        "pass the state of the step before, or decolle_state(weights, batch=...)",
    )
    return readouts
