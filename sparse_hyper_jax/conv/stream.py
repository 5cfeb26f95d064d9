"""One step after the other: what a convolution remembers of a stream, and no work but its taps."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export

from sparse_hyper_jax import checks
from sparse_hyper_jax.conv.entrance import INT32_MAX, enter_lags, enter_weights, widened
from sparse_hyper_jax.conv.reads import mix_reads, ready_weights
from sparse_hyper_jax.entrance import as_array, check_instance


class LagStream(NamedTuple):
    """The last steps of a stream, in a ring: the newest overwrites the oldest.

    Attributes:
        past: ``(..., reach, C)``, 0 before the first step.
        at: int32 ``()``, where the next step goes.

    Example:
        >>> from sparse_hyper_jax import conv
        >>> conv.init_lag_stream(reach=100, channels=3, batch_shape=(2,)).past.shape
        (2, 100, 3)
    """

    past: jax.Array
    at: jax.Array


export.register_namedtuple_serialization(LagStream, serialized_name="sparse_hyper_jax.LagStream")


def init_lag_stream(
    reach: int, channels: int, batch_shape: Sequence[int] = (), *, dtype: Any = jnp.float32
) -> LagStream:
    """Make a stream of which nothing has been seen.

    Args:
        reach: number of steps to remember, the present one included, static.
        channels: ``C``.
        batch_shape: lengths of the leading axes, for streams that advance together.
        dtype: of what is remembered.

    Returns:
        zeros ``(*batch_shape, reach, C)``.

    Raises:
        ValueError: no step or no channel.

    Example:
        >>> from sparse_hyper_jax import conv
        >>> stream = conv.init_lag_stream(reach=4, channels=1)
        >>> for x in (1.0, 2.0, 3.0):
        ...     stream, y = conv.lag_conv_step(stream, [x], weights=[[[1.0]]], lags=[1])
        >>> y.tolist()
        [2.0]
    """
    reach = checks.check_count("reach", reach, least=1, most=INT32_MAX)
    channels = checks.check_count("channels", channels, least=1)
    batch = checks.check_index_shape("batch_shape", batch_shape)
    return LagStream(jnp.zeros((*batch, reach, channels), dtype), jnp.zeros((), jnp.int32))


def lag_conv_step(
    stream: LagStream,
    x: jax.Array,
    weights: jax.Array,
    lags: jax.Array,
    placed: Any = None,
    *,
    strict: bool = False,
) -> tuple[LagStream, jax.Array]:
    """Take the next step of a stream: what :func:`lag_conv` gives for it, at the cost of its taps.

    ``k`` rows are read from a ring of ``reach`` rows, ``O(k C O)`` per step however far they reach.
    Give the stream away (``donate_argnums``) and it is changed in place.

    Args:
        stream: of :func:`init_lag_stream`, or of the step before.
        x: ``(..., C)``, the present; the leading axes are those of the stream.
        weights: as for :func:`lag_conv`.
        lags: as there; those from ``reach`` on, the length of the ring, count for nothing.
        placed: as there.
        strict: as there: ``y`` depends on the steps before ``x`` alone.

    Returns:
        the next stream, and ``(..., O)`` or ``(..., C)``, float32 or wider.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> from sparse_hyper_jax import conv
        >>> stream = conv.init_lag_stream(reach=4, channels=1)
        >>> step = lambda stream, x: conv.lag_conv_step(stream, x, [[[1.0]]], lags=[2])
        >>> _, y = jax.lax.scan(step, stream, jnp.arange(1.0, 6.0)[:, None])
        >>> y.ravel().tolist()
        [0.0, 0.0, 1.0, 2.0, 3.0]
    """
    past, at = enter_stream(stream)
    reach, channels = past.shape[-2:]
    x = as_array("x", x)
    checks.check_shape("x", x, (*past.shape[:-2], channels), "the stream's axes without its steps")
    taps = enter_lags(lags, placed, channels=channels, reach=reach, strict=strict)
    weights = enter_weights(weights, taps.lags.shape[0], channels)
    # Python's remainder: a place before the first row is one before the last.
    past = jax.lax.dynamic_update_index_in_dim(past, x.astype(past.dtype), at, axis=-2)
    following = LagStream(past, (at + 1) % reach)
    rows = (at - jnp.clip(taps.lags, 0, reach - 1)) % reach
    remembered, weights = widened(past, weights)
    reads = [
        jnp.where(live.reshape((1,) * (x.ndim - live.ndim) + live.shape), _row(remembered, row), 0)
        for row, live in zip(rows, taps.live, strict=True)
    ]
    return following, mix_reads(reads, ready_weights(weights, taps.live))


def enter_stream(stream: Any) -> LagStream:
    """Return a stream after checking it.

    Raises:
        ValueError: another type, or shapes that are none of a stream.
    """
    check_instance("stream", stream, tuple, list)
    checks.require(
        len(stream) == len(LagStream._fields),
        f"a stream of {len(stream)} parts",
        "the past and where the next step goes",
        "pass what init_lag_stream or lag_conv_step gave",
    )
    past, at = as_array("stream.past", stream[0]), as_array("stream.at", stream[1], "integers")
    checks.require(
        past.ndim >= 2 and at.ndim == 0,
        f"stream.past of shape {past.shape} and stream.at of shape {at.shape}",
        "(..., reach, C) and ()",
        "pass what init_lag_stream or lag_conv_step gave",
    )
    return LagStream(past, at)


def _row(past: jax.Array, row: jax.Array) -> jax.Array:
    """Read a row ``()`` of all channels, or a row ``(C,)`` for each."""
    if row.ndim == 0:
        return jax.lax.dynamic_index_in_dim(past, row, axis=-2, keepdims=False)

    def of_channel(channel: jax.Array, its: jax.Array) -> jax.Array:
        return jax.lax.dynamic_index_in_dim(channel, its, axis=-1, keepdims=False)

    return jax.vmap(of_channel, in_axes=(-1, 0), out_axes=-1)(past, row)
