"""The bias that truncation has, measured against the gradient of a whole window."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from sparse_hyper_jax import checks
from sparse_hyper_jax.diagnostics import norm_ratio
from sparse_hyper_jax.entrance import as_int32, check_function
from sparse_hyper_jax.precision import at_least_float32, wide_dtype
from sparse_hyper_jax.recurrent.cells import (
    Cell,
    as_params,
    as_unrolled,
    check_scalar,
    flattened,
)
from sparse_hyper_jax.recurrent.lags import lengths


def measured_bias(
    loss_of_lag: Callable[[Any, Any], Any], params: Any, *, lag: Any, reference: Any
) -> jax.Array:
    """Measure the relative bias that truncation has: ``|g_K - g| / |g|``, over all parameters.

    One or two further backward passes, and the number that a user of a bound wants beside it.

    Args:
        loss_of_lag: ``(params, K) -> scalar``, a loss whose gradient goes K steps back, for
            instance :func:`truncated_loss`; K is traced, so that one program serves all.
        params: pytree of floats.
        lag: K.
        reference: number of steps that stands for all, as a rule those of the window.

    Returns:
        scalar, float32 or wider; NaN or infinite where the reference is 0.

    Raises:
        ValueError: a loss that is no number, parameters that are no floats, lags below 1.

    Example:
        >>> from sparse_hyper_jax import recurrent
        >>> def loss_of_lag(params, lag):
        ...     return recurrent.truncated_loss(
        ...         lambda a, h, x: a * h + x, lambda a, h: h.sum(), params,
        ...         jnp.zeros(1), jnp.ones((3, 1)), lag=lag,
        ...     )
        >>> round(float(recurrent.measured_bias(loss_of_lag, 0.5, lag=1, reference=3)), 3)
        0.25
    """
    check_function("loss_of_lag", loss_of_lag, "a function (params, K) -> scalar")
    params = as_params(params)
    lags = [as_lag("lag", lag), as_lag("reference", reference)]

    def loss(params: Any, lag: jax.Array) -> jax.Array:
        return check_scalar(loss_of_lag(params, lag))

    # One program for both, run twice.
    gradients = jax.lax.map(lambda lag: jax.grad(loss)(params, lag), jnp.stack(lags))
    short, whole = (jax.tree.map(lambda leaf, n=n: leaf[n], gradients) for n in range(2))
    short, whole = (jax.tree.map(at_least_float32, one) for one in (short, whole))
    return norm_ratio(jax.tree.map(jnp.subtract, short, whole), whole)


def bias_by_lag(cell: Cell, loss: Any, params: Any, h0: Any, xs: Any) -> jax.Array:
    """Measure the relative bias of all truncations to K steps, by one backward pass.

    ``|g_K - g_W| / |g_W|`` for K from 1 to W, as :func:`measured_bias` gives for one K: every step
    gets parameters of its own, whose gradients are then added up by lag. It needs memory for W
    times the parameters. ``choose_lag(biases, delta, ...)`` takes it as it takes a bound, and is
    then neither on the safe side nor loose: what W steps neglect is not seen.

    Args:
        cell: ``(params, h, x) -> h``.
        loss: ``(params, h) -> scalar`` of the last state; what it reads of the parameters itself is
            part of every gradient.
        params: pytree of floats.
        h0: state before the first step, a pytree of floats.
        xs: pytree of ``(W, ...)``.

    Returns:
        ``(W,)``, entry ``K - 1`` for K steps, the last one 0; float32 or wider; NaN or infinite
        where the whole gradient is 0.

    Raises:
        ValueError: the cell changes what kind of state it is, no steps, parameters that are no
            floats, a loss that is no number.

    Example:
        >>> from sparse_hyper_jax import recurrent
        >>> biases = recurrent.bias_by_lag(
        ...     lambda a, h, x: a * h + x, lambda a, h: h.sum(), 0.5, jnp.zeros(1), jnp.ones((3, 1))
        ... )
        >>> biases.tolist()  # of 1.5 + 1.0 * 0.5 + 0.0 * 0.25
        [0.25, 0.0, 0.0]
    """
    check_function("loss", loss, "a function (params, h) -> scalar")
    params = as_params(params)
    h0, xs, length = as_unrolled(cell, params, h0, xs)

    def last_loss(own: Any, params: Any) -> jax.Array:
        h, _ = jax.lax.scan(lambda h, both: (cell(both[0], h, both[1]), None), h0, (own, xs))
        return check_scalar(loss(params, h))

    own = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (length, *leaf.shape)), params)
    by_step, direct = jax.grad(last_loss, argnums=(0, 1))(own, params)
    dtype = wide_dtype(*jax.tree.leaves(params))
    shares = jnp.concatenate(
        [leaf.astype(dtype).reshape(length, -1) for leaf in jax.tree.leaves(by_step)], axis=1
    )
    # Added up from the earliest step on, so that no difference of large sums is what remains.
    until = jnp.cumsum(shares, axis=0)
    whole = until[-1] + flattened(direct, dtype)
    neglected = jnp.flip(jnp.concatenate([jnp.zeros_like(until[:1]), until[:-1]]), axis=0)
    return lengths(neglected) / lengths(whole)


def as_lag(name: str, lag: Any) -> jax.Array:
    """Return a number of steps as int32; it may be traced.

    Raises:
        ValueError: no integer, or below 1.
    """
    if isinstance(lag, Tracer):
        lag = as_int32(name, lag)
        checks.check_shape(name, lag, (), "one number of steps")
        return lag
    return jnp.asarray(checks.check_count(name, lag, least=1, most=2**31 - 1), jnp.int32)
