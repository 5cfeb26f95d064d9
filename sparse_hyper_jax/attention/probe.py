"""What a probe does: from rows and cotangents of an attention to its next lags.

In any training loop, the cotangent is the gradient with respect to zeros that are added to what the
heads give, before the projection of the output. No second model is needed::

    def loss(added, parameters, taps, batch):
        out = attention.lag_attention(*rows_of(parameters, batch), *taps) + added
        ...

    cotangent = jax.grad(loss)(jnp.zeros(shape_of_out), parameters, taps, batch)
    taps = attention.probe_attention(*rows_of(parameters, batch), cotangent, taps, reach=reach)
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.attention.gains import lag_attention_gains
from sparse_hyper_jax.attention.pursuit import LagTaps, enter_lags, pursue_lags
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.ops.gains import decorrelated_gains, whiten_cotangent
from sparse_hyper_jax.ops.probe import pursue_gains
from sparse_hyper_jax.ops.pursue import Taps
from sparse_hyper_jax.placement import gathered
from sparse_hyper_jax.precision import at_least_float32


def probe_attention(
    query: Any,
    key: Any,
    value: Any,
    cotangent: Any,
    taps: LagTaps,
    *,
    reach: int,
    count: int = 1,
    near: int = 0,
    scale: float | jax.Array | None = None,
    directions: int | None = 8,
    min_z: float | jax.Array | None = 5.0,
    apart: int = 0,
) -> LagTaps:
    """Place lags whose gain stands out, in every head by itself.

    Gains are those of inserted taps (see :func:`lag_attention_gains`). With ``directions`` they are
    those of matrices between the features of the values, decorrelated, and that many whitened
    directions of the cotangent: what an attention would gain whose projections adapt to the tap.
    What all lags have in common, by taking weight from the taps that are there, is no gain of one
    of them: their median is subtracted. Then see :func:`~sparse_hyper_jax.ops.pursue_gains`.
    Without ``directions`` values count as they are (:func:`pursue_lags`): that is cheaper, and
    enough once projections agree with what is asked for, as tied embeddings do from the first.

    Args:
        query: ``(b, T, h, d)``, what :func:`lag_attention` reads; at least four sequences.
        key: ``(b, T, g, d)``.
        value: ``(b, T, g, e)``.
        cotangent: ``(b, T, h, e)``, the gradient of the loss with respect to what it gives.
        taps: of the heads, ``(h, k)``.
        reach: number of candidate lags, from 0 on, static.
        count: largest number of lags to place in each head, static; rather one per probe.
        near: see :func:`lag_attention`.
        scale: see there.
        directions: see ``count`` of :func:`~sparse_hyper_jax.ops.whiten_cotangent`; None for gains
            of values as they are.
        min_z: what z has to exceed, see :func:`~sparse_hyper_jax.ops.z_scores`; None places
            ``count`` lags whatever they gain. May be traced.
        apart: see :func:`~sparse_hyper_jax.ops.pursue`.

    Returns:
        the taps, with up to ``count`` more of them placed in every head.

    Raises:
        ValueError: shapes that do not agree, or a count below 1.

    Example:
        >>> from sparse_hyper_jax import attention
        >>> rows = jax.random.normal(jax.random.key(0), (4, 300, 1, 3))
        >>> out = attention.lag_attention(0 * rows, rows, rows, [[40]])  # what should come out
        >>> taps = attention.empty_lags(heads=1, count=2)
        >>> taps = attention.probe_attention(0 * rows, rows, rows, -out, taps, reach=64)
        >>> taps.lags[taps.placed].tolist()
        [40]
    """
    taps = enter_lags(taps)
    heads = taps.lags.shape[0]
    if directions is None:
        query, key, value, cotangent = map(_gathered, (query, key, value, cotangent))
        found = lag_attention_gains(
            query,
            key,
            value,
            taps.lags,
            cotangent,
            placed=taps.placed,
            reach=reach,
            near=near,
            scale=scale,
            inserted=True,
        )
        found = found.reshape(-1, heads, found.shape[-1]).sum(0)
        return pursue_lags(found, taps, count, near=near, min_z=min_z, apart=apart)
    found = observe_attention(
        query,
        key,
        value,
        cotangent,
        taps,
        reach=reach,
        near=near,
        scale=scale,
        directions=directions,
    )
    return place_observed(found, taps, count, near=near, min_z=min_z, apart=apart)


def observe_attention(
    query: Any,
    key: Any,
    value: Any,
    cotangent: Any,
    taps: LagTaps,
    *,
    reach: int,
    near: int,
    scale: float | jax.Array | None,
    directions: int,
) -> jax.Array:
    """Give gains of matrices ``(h, reach, e, m)`` of a batch, whitened and decorrelated.

    That is the first half of a probe, which may be made inside of a backward pass.
    """
    query, key, value, cotangent = map(_gathered, (query, key, value, cotangent))
    value, cotangent = at_least_float32(value), at_least_float32(cotangent)
    checks.require(
        value.ndim >= 3 and cotangent.ndim >= 3,
        f"value and cotangent of shapes {value.shape} and {cotangent.shape}",
        "(b, T, g, e) and (b, T, h, e)",
        "give them axes of time, heads and features",
    )
    # Where nothing is live a tap would bring the mean too, which is no gain of this lag.
    value = value - value.mean(tuple(range(value.ndim - 2)), keepdims=True)
    white = jax.vmap(partial(whiten_cotangent, count=directions), -2, -2)(cotangent)
    gains = lag_attention_gains(
        query,
        key,
        value,
        taps.lags,
        white,
        placed=taps.placed,
        reach=reach,
        near=near,
        scale=scale,
        matrices=True,
        inserted=True,
    )
    gains = gains.reshape(-1, *gains.shape[-4:]).sum(0)
    covariance = jax.vmap(_covariance, -2)(value)
    shared = gains.shape[0] // covariance.shape[0]
    return jax.vmap(decorrelated_gains)(gains, jnp.repeat(covariance, shared, axis=0))


def place_observed(
    gains: jax.Array,
    taps: LagTaps,
    count: int,
    *,
    near: int,
    min_z: float | jax.Array | None,
    apart: int,
) -> LagTaps:
    """Place lags by gains ``(h, reach, e, m)``, in every head by itself: the second half."""
    near = checks.check_count("near", near)
    allowed = jnp.arange(gains.shape[1], dtype=jnp.int32) >= near

    def head(gains: jax.Array, taps: LagTaps) -> LagTaps:
        # Any tap takes weight from the others, which alone may be a gain: the same at every lag.
        common = jnp.nanmedian(jnp.where(allowed[:, None, None], gains, jnp.nan), axis=0)
        found = pursue_gains(
            gains - common[None],
            Taps(taps.lags[:, None], taps.placed),
            count,
            apart=apart,
            allowed=allowed,
            min_z=min_z,
        )
        return LagTaps(found.positions[:, 0], found.placed)

    return jax.vmap(head)(gains, taps)


def _gathered(array: Any) -> jax.Array:
    """Give an array whole to every device: a probe is rare, and sums over all sequences."""
    return gathered(as_array("rows", array))


def _covariance(features: jax.Array) -> jax.Array:
    """Give the covariance ``(e, e)`` of features ``(..., e)``, over all other axes."""
    samples = features.reshape(-1, features.shape[-1])
    centred = samples - samples.mean(0, keepdims=True)
    return centred.T @ centred / jnp.asarray(len(samples), centred.dtype)
