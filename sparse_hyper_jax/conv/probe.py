"""What a probe does: from inputs and cotangents of a layer to its next taps.

In any training loop, the cotangent is the gradient with respect to zeros that are added to what the
layer gives, before the non-linearity. No second model is needed::

    def loss(added, parameters, taps, batch):
        y = conv.lag_conv(batch.x, parameters["w"], taps.positions[:, 0], taps.placed) + added
        ...

    cotangent = jax.grad(loss)(jnp.zeros(shape_of_y), parameters, taps, batch)
    taps = conv.probe_lags(batch.x, cotangent, taps, reach=reach)
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.conv.observe import (
    lags_from,
    observe_delays,
    observe_lags,
    observe_offsets,
    place_own,
    place_shared,
)
from sparse_hyper_jax.entrance import as_array, check_random_key
from sparse_hyper_jax.ops import Taps
from sparse_hyper_jax.precision import wide_dtype


def probe_lags(
    x: jax.Array,
    cotangent: jax.Array,
    taps: Taps,
    count: int = 1,
    *,
    reach: int,
    strict: bool = False,
    directions: int = 8,
    min_z: float | jax.Array | None = 5.0,
    apart: int = 0,
) -> Taps:
    """Place taps at the lags whose gain stands out, for weights of all channels.

    :func:`~sparse_hyper_jax.ops.pursue_gains` of :func:`lag_gains`: with the cotangent whitened
    into a few directions, gains decorrelated between channels, and neighbours told apart by the
    autocovariance of ``x``. Inputs far from mean 0 hide gains: centre them.

    Args:
        x: ``(b, T, C)``, what :func:`lag_conv` reads; better eight sequences than one.
        cotangent: ``(b, T, O)``, the gradient of the loss with respect to what it gives, before
            the non-linearity.
        taps: ``k`` slots of rank 1.
        count: largest number of taps to place, static.
        reach: number of candidate lags, static.
        strict: the present is none of them.
        directions: see ``count`` of :func:`~sparse_hyper_jax.ops.whiten_cotangent`.
        min_z: see :func:`~sparse_hyper_jax.ops.pursue_gains`.
        apart: see :func:`~sparse_hyper_jax.ops.pursue`.

    Returns:
        the taps, with up to ``count`` more of them placed.

    Raises:
        ValueError: as those functions.

    Example:
        >>> from sparse_hyper_jax import conv, ops
        >>> x = jax.random.normal(jax.random.key(0), (4, 500, 2))
        >>> weights = jnp.array([[[1.0], [-1.0]], [[0.5], [0.5]]])
        >>> error = -conv.lag_conv(x, weights, lags=[17, 60])  # of y = 0 against the truth
        >>> taps = conv.probe_lags(x, error, ops.empty_taps(3), count=2, reach=100)
        >>> taps.positions[taps.placed].ravel().tolist()
        [17, 60]
    """
    seen = observe_lags(x, cotangent, reach=reach, strict=strict, directions=directions)
    return place_shared(
        seen, taps, count, min_z=min_z, apart=apart, allowed=lags_from(reach, strict=strict)
    )


def probe_offsets(
    x: jax.Array,
    cotangent: jax.Array,
    taps: Taps,
    count: int = 1,
    *,
    window: Sequence[int],
    wrap: bool = False,
    allowed: Any = None,
    directions: int = 8,
    min_z: float | jax.Array | None = 5.0,
    apart: int = 0,
) -> Taps:
    """Place taps at the cells of a window whose gain stands out: :func:`probe_lags` in a plane.

    Args:
        x: ``(b, H, W, C)``, what :func:`offset_conv` reads.
        cotangent: ``(b, H, W, O)``.
        taps: ``k`` slots of rank 2. Their positions are cells of the window; see
            :func:`window_offsets`.
        count: see :func:`probe_lags`.
        window: ``(height, width)`` of the candidates, static.
        wrap: the plane is a torus, at least twice the window less one.
        allowed: bool ``window``; for instance the cells that come before the middle. None allows
            all.
        directions: see :func:`probe_lags`.
        min_z: see there.
        apart: see there.

    Returns:
        the taps, with up to ``count`` more of them placed.

    Raises:
        ValueError: as those functions.

    Example:
        >>> from sparse_hyper_jax import conv, ops
        >>> x = jax.random.normal(jax.random.key(0), (4, 20, 20, 1))
        >>> error = -conv.offset_conv(x, jnp.ones((1, 1, 1)), [[-3, 2]])
        >>> taps = conv.probe_offsets(x, error, ops.empty_taps(2, rank=2), window=(9, 9))
        >>> conv.window_offsets(taps.positions, (9, 9))[taps.placed].tolist()
        [[-3, 2]]
    """
    seen = observe_offsets(x, cotangent, window=window, wrap=wrap, directions=directions)
    return place_shared(seen, taps, count, min_z=min_z, apart=apart, allowed=allowed)


def probe_delays(
    x: jax.Array,
    cotangent: jax.Array,
    taps: Taps,
    count: int = 1,
    *,
    reach: int,
    strict: bool = False,
    mixed: bool = False,
    directions: int = 8,
    min_z: float | jax.Array | None = 5.0,
    apart: int = 0,
) -> Taps:
    """Place delays that each channel has for itself, where its gain stands out.

    The gain of a lag is one number for each channel, or ``m`` with ``mixed``. Noise alone makes the
    sum of their squares a chi-square; its cube root is nearly normal, and says by how many standard
    deviations a lag stands out from those of its channel.

    Args:
        x: ``(b, T, C)``.
        cotangent: ``(b, T, C)``, the gradient of the loss with respect to the delayed channels.
            What follows has to weigh a channel, or its delay gains nothing: with weights that are
            not learned yet, mix.
        taps: slots of every channel: positions ``(C, k, 1)``, placed ``(C, k)``. What
            ``lag_conv(x, weights, taps.positions[..., 0].T, taps.placed.T)`` reads.
        count: largest number of delays to place in each channel, static.
        reach: number of candidate lags, static.
        strict: the present is none of them.
        mixed: the cotangent is ``(b, T, O)``, of what weights ``(k, C, O)`` make of the delayed
            channels. Then a delay is found whatever the weights of its channel are.
        directions: of the cotangent, if mixed; see :func:`probe_lags`.
        min_z: standard deviations; 5 places noise in fewer than one of 1,000 channels with 1,000
            candidates. None places ``count`` delays whatever they gain: right where every channel
            has one, and where candidates are few and inputs correlated, so that nothing stands
            out from its neighbours. May be traced.
        apart: see :func:`~sparse_hyper_jax.ops.pursue`.

    Returns:
        the taps, with up to ``count`` more of them placed in every channel.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> from sparse_hyper_jax import conv, ops
        >>> x = jax.random.normal(jax.random.key(0), (4, 500, 3))
        >>> error = -conv.lag_conv(x, jnp.ones((1, 3)), lags=[[17, 3, 80]])
        >>> taps = ops.Taps(jnp.zeros((3, 1, 1), int), jnp.zeros((3, 1), bool))
        >>> conv.probe_delays(x, error, taps, reach=100).positions.ravel().tolist()
        [17, 3, 80]
    """
    options = {"strict": strict, "mixed": mixed, "directions": directions}
    seen = observe_delays(x, cotangent, reach=reach, **options)
    return place_own(seen, taps, count, strict=strict, min_z=min_z, apart=apart)


def start_weights(
    key: jax.Array,
    weights: jax.Array,
    before: jax.Array,
    after: jax.Array,
    *,
    scale: float | jax.Array = 0.02,
) -> jax.Array:
    """Draw small weights for the taps that a probe has placed, and leave the others as they are.

    Args:
        key: a typed key.
        weights: ``(k, C, O)`` or ``(k, C)``.
        before: bool ``(k,)``, the taps that were placed before the probe.
        after: bool ``(k,)``, those that are placed now.
        scale: new weights are normal with standard deviation ``scale / sqrt(C)``; may be traced.

    Returns:
        the weights, in their dtype.

    Raises:
        ValueError: shapes that do not fit, a negative scale, a key that is none.

    Example:
        >>> from sparse_hyper_jax import conv
        >>> before, after = jnp.array([True, False, False]), jnp.array([True, True, False])
        >>> weights = conv.start_weights(jax.random.key(0), jnp.ones((3, 2)), before, after)
        >>> jnp.all(weights == 1, axis=1).tolist()
        [True, False, True]
    """
    check_random_key(key)
    weights = as_array("weights", weights, "floats")
    checks.require(
        weights.ndim in (2, 3),
        f"weights of shape {weights.shape}",
        "(k, C, O) or (k, C)",
        "reshape",
    )
    flags = [as_array(name, flag, "flags") for name, flag in (("before", before), ("after", after))]
    for name, flag in zip(("before", "after"), flags, strict=True):
        checks.check_shape(name, flag, weights.shape[:1], "one flag per tap")
    checks.check_number("scale", scale, at_least=0)
    fresh = (flags[1] & ~flags[0]).reshape(-1, *(1,) * (weights.ndim - 1))
    # The same numbers for every precision that weights may have.
    dtype = wide_dtype(weights)
    size = jnp.asarray(scale, dtype) / weights.shape[1] ** 0.5
    drawn = size * jax.random.normal(key, weights.shape, dtype)
    return jnp.where(fresh, drawn.astype(weights.dtype), weights)
