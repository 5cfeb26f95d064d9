"""Scans of a cell whose gradient is cut, or weighed, on its way back through time."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_function, check_random_key
from sparse_hyper_jax.precision import at_least_float32, wide_dtype
from sparse_hyper_jax.recurrent.cells import Cell, as_unrolled, check_scalar
from sparse_hyper_jax.recurrent.measured import as_lag


class RandomTruncation(NamedTuple):
    """Where a gradient is cut at random, and what the other steps make up for it.

    Attributes:
        cut: ``(T,)`` bool, whether the gradient of step t stops before the state it began with.
        weights: ``(T,)``, 0 where it is cut, else ``1 / (1 - c[t])``, which is 1 on average over
            both; for :func:`weighted_scan`.

    Example:
        >>> from sparse_hyper_jax import recurrent
        >>> cut, weights = recurrent.artbp_weights(jax.random.key(0), jnp.full(4, 0.2))
        >>> bool(jnp.all(jnp.where(cut, weights == 0, weights == 1.25)))
        True
    """

    cut: jax.Array
    weights: jax.Array


def weighted_scan(cell: Cell, params: Any, h0: Any, xs: Any, weights: Any) -> tuple[Any, Any]:
    """Run a cell over a sequence, with the gradient times a weight before every step.

    The states are those of ``jax.lax.scan``. Backwards, what step t hands to the state it began
    with is multiplied by ``weights[t]``: 1 keeps it, 0 cuts it off (also where it is not finite).
    Infinite states keep it unless the weight is 0.

    Args:
        cell: ``(params, h, x) -> h``.
        params: any pytree.
        h0: state before the first step, a pytree of floats.
        xs: pytree of ``(T, ...)``.
        weights: ``(T,)``, which get no gradient themselves.

    Returns:
        the last state, and the states of all steps: a pytree of ``(T, ...)``.

    Raises:
        ValueError: the cell changes what kind of state it is, no steps, weights of another length.

    Example:
        >>> from sparse_hyper_jax import recurrent
        >>> def last(a, weights):
        ...     step = lambda a, h, x: a * h + x
        ...     return recurrent.weighted_scan(step, a, 1.0, jnp.ones(2), jnp.array(weights))[0]
        >>> [float(jax.grad(last)(0.5, weights)) for weights in ([1.0, 1.0], [1.0, 0.0])]
        [2.0, 1.5]
    """
    h0, xs, length = as_unrolled(cell, params, h0, xs)
    weights = as_array("weights", weights)
    checks.check_shape("weights", weights, (length,), "one per step")
    return _scan(cell, params, h0, xs, jax.lax.stop_gradient(weights))


def tbptt_scan(cell: Cell, params: Any, h0: Any, xs: Any, *, lag: Any) -> tuple[Any, Any]:
    """Run a cell over a sequence, with the gradient cut before every ``lag``-th step.

    The gradients are those of disjoint windows (``tbptt_windows(..., form="disjoint")``), in one
    scan: cut before steps 0, K, 2K, ... The loss of a step reaches 1 to K steps back.

    Args:
        cell: ``(params, h, x) -> h``.
        params: any pytree.
        h0: state before the first step, a pytree of floats; it gets no gradient.
        xs: pytree of ``(T, ...)``.
        lag: K, at least 1; may be traced, so that another lag needs no other program.

    Returns:
        the last state, and the states of all steps: a pytree of ``(T, ...)``.

    Raises:
        ValueError: the cell changes what kind of state it is, no steps, a lag below 1.

    Example:
        >>> from sparse_hyper_jax import recurrent
        >>> decay = lambda a, h, x: a * h + x
        >>> def last(a, lag):
        ...     return recurrent.tbptt_scan(decay, a, 0.0, jnp.ones(4), lag=lag)[0]
        >>> [round(float(jax.grad(last)(0.5, lag)), 3) for lag in (1, 2, 4)]
        [1.75, 2.5, 2.75]
    """
    h0, xs, length = as_unrolled(cell, params, h0, xs)
    kept = jnp.arange(length, dtype=jnp.int32) % as_lag("lag", lag) != 0
    return _scan(cell, params, h0, xs, kept.astype(jnp.float32))


def truncated_loss(cell: Cell, loss: Any, params: Any, h0: Any, xs: Any, *, lag: Any) -> jax.Array:
    """Give the loss after the last step, whose gradient goes ``lag`` steps back.

    The value is the same for all lags; the gradient is that of lags 0 to K - 1, what the loss reads
    of the parameters itself included. For :func:`measured_bias`.

    Args:
        cell: ``(params, h, x) -> h``.
        loss: ``(params, h) -> scalar``.
        params: any pytree.
        h0: state before the first step, a pytree of floats.
        xs: pytree of ``(W, ...)``.
        lag: K, at least 1; from W + 1 on nothing is cut, and h0 gets a gradient too; may be traced.

    Returns:
        scalar.

    Raises:
        ValueError: the cell changes what kind of state it is, no steps, a loss that is no number.

    Example:
        >>> from sparse_hyper_jax import recurrent
        >>> decay, last = lambda a, h, x: a * h + x, lambda a, h: h
        >>> def loss(a, lag):
        ...     return recurrent.truncated_loss(decay, last, a, 0.0, jnp.ones(4), lag=lag)
        >>> [round(float(jax.grad(loss)(0.5, lag)), 3) for lag in (1, 2, 4)]
        [1.75, 2.5, 2.75]
    """
    check_function("loss", loss, "a function (params, h) -> scalar")
    h0, xs, length = as_unrolled(cell, params, h0, xs)
    kept = jnp.arange(length, dtype=jnp.int32) != length - as_lag("lag", lag)
    h, _ = _scan(cell, params, h0, xs, kept.astype(jnp.float32))
    return check_scalar(loss(params, h))


def artbp_weights(key: jax.Array, probabilities: Any) -> RandomTruncation:
    """Cut a gradient at random steps, and weigh the others so that it is right on average.

    ``cut[t]`` with probability ``c[t]``; where it is not cut, the gradient is divided by
    ``1 - c[t]``. Unbiased, since the weights of all steps are independent with mean 1; their
    product, hence the variance, grows with the way back unless cuts are rare.

    Args:
        key: typed key.
        probabilities: ``(T,)``, c, from 0 to below 1.

    Returns:
        :class:`RandomTruncation`, for :func:`weighted_scan`.

    Raises:
        ValueError: no vector, or, where they are known, a probability outside.

    Reference: Tallec, Ollivier 2017, "Unbiasing truncated backpropagation through time", arXiv
    1705.08209.

    Example:
        >>> from sparse_hyper_jax import recurrent
        >>> drawn = recurrent.artbp_weights(jax.random.key(0), jnp.full(6, 0.5))
        >>> bool(jnp.all(drawn.weights == jnp.where(drawn.cut, 0, 2)))
        True
    """
    check_random_key(key)
    probabilities = at_least_float32(as_array("probabilities", probabilities))
    checks.check_shape("probabilities", probabilities, (None,), "one per step")
    if probabilities.size and not isinstance(probabilities, Tracer):
        known = np.asarray(probabilities)  # may be known inside of jax.jit too
        checks.require(
            not np.any((known < 0) | (known >= 1)),
            f"probabilities from {known.min()} to {known.max()}",
            "numbers from 0 to below 1",
            "cut for certain by tbptt_scan",
        )
    cut = jax.random.bernoulli(key, probabilities)
    return RandomTruncation(cut, jnp.where(cut, probabilities * 0, 1 / (1 - probabilities)))


def _scan(cell: Cell, params: Any, h0: Any, xs: Any, weights: jax.Array) -> tuple[Any, Any]:
    def step(h: Any, inputs: tuple[Any, jax.Array]) -> tuple[Any, Any]:
        x, weight = inputs
        h = cell(params, jax.tree.map(lambda leaf: _weigh(leaf, weight), h), x)
        return h, h

    return jax.lax.scan(step, h0, (xs, weights))


def _weigh(state: jax.Array, weight: jax.Array) -> jax.Array:
    """Return the state, with its derivative times a weight."""
    fixed = jax.lax.stop_gradient(state)
    # In the wider dtype: rounded to 16 bits, a weight would be off in every step alike.
    wide, weight = (leaf.astype(wide_dtype(state, weight)) for leaf in (state, weight))
    # The difference is 0: what is added has a derivative and no value. (A rule of our own would be
    # dropped where JAX differentiates a scan twice.)
    weighed = fixed + (weight * (wide - jax.lax.stop_gradient(wide))).astype(state.dtype)
    # Chosen, not multiplied: what is cut off is gone also where it is not finite.
    # An infinite state has no such difference, and goes on as it is.
    whole = (weight == 1) | jnp.isinf(fixed)
    return jnp.where(weight == 0, fixed, jnp.where(whole, state, weighed))
