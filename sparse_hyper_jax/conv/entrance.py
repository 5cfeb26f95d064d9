"""What the functions of this room take, cast and checked: once, where it comes in."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, as_int32
from sparse_hyper_jax.precision import wide_dtype

INT32_MAX = 2**31 - 1


class LiveLags(NamedTuple):
    """Lags that were checked, with what makes the empty slots among them count for nothing."""

    lags: jax.Array
    """int32 ``(k,)`` or ``(k, C)``."""

    live: jax.Array
    """bool, of that shape: placed, and one of the lags that may be read."""


def enter_sequences(name: str, x: Any) -> jax.Array:
    """Return sequences as an array ``(..., T, C)``.

    Raises:
        ValueError: fewer axes, or no step.
    """
    x = as_array(name, x)
    checks.require(
        x.ndim >= 2 and min(x.shape[-2:]) >= 1,
        f"{name} of shape {x.shape}",
        "(..., T, C): at least one step and one channel, after the axes of the batch",
        f"give {name} an axis of time and one of channels",
    )
    return x


def enter_lags(
    lags: Any, placed: Any, *, channels: int, reach: int | None, strict: bool
) -> LiveLags:
    """Check lags and tell which of them count.

    Args:
        lags: integers ``(k,)`` or ``(k, C)``.
        placed: flags of that shape; None for all true.
        channels: ``C``.
        reach: lags from here on count for nothing; None for no limit.
        strict: neither does lag 0.

    Raises:
        ValueError: another shape or kind, or no lag.
    """
    lags = as_int32("lags", lags)
    checks.require(
        lags.ndim in (1, 2) and lags.shape[0] >= 1 and lags.shape[1:] in ((), (channels,)),
        f"lags of shape {lags.shape} for {channels} channels",
        f"(k,), the lags of all channels, or (k, {channels}), those of each, with k at least 1",
        "pass taps.positions[:, 0] of one-axis taps",
    )
    live = lags >= int(checks.check_flag("strict", strict))
    if reach is not None:
        live &= lags < checks.check_count("reach", reach, least=1, most=INT32_MAX)
    return LiveLags(lags, live if placed is None else live & enter_placed(placed, lags.shape))


def enter_offsets(offsets: Any, placed: Any) -> tuple[jax.Array, jax.Array]:
    """Return offsets ``(k, 2)`` as int32, and the flags ``(k,)`` of those that are placed.

    Raises:
        ValueError: another shape or kind, or no offset.
    """
    offsets = as_int32("offsets", offsets)
    checks.require(
        offsets.ndim == 2 and offsets.shape[0] >= 1 and offsets.shape[1] == 2,
        f"offsets of shape {offsets.shape}",
        "(k, 2): rows and columns, with k at least 1",
        "pass window_offsets(taps.positions, window)",
    )
    shape = offsets.shape[:1]
    return offsets, jnp.ones(shape, bool) if placed is None else enter_placed(placed, shape)


def enter_window(window: Any) -> tuple[int, int]:
    """Return the height and width of a window.

    Raises:
        ValueError: no two lengths.
    """
    shape = checks.check_index_shape("window", window)
    checks.require(
        len(shape) == 2, f"window={window!r}", "a height and a width", "pass for instance (9, 9)"
    )
    return shape[0], shape[1]


def enter_planes(name: str, x: Any) -> jax.Array:
    """Return planes as an array ``(..., H, W, C)``.

    Raises:
        ValueError: fewer axes, or an empty plane.
    """
    x = as_array(name, x)
    checks.require(
        x.ndim >= 3 and min(x.shape[-3:]) >= 1,
        f"{name} of shape {x.shape}",
        "(..., H, W, C): at least one row, column and channel, after the axes of the batch",
        f"give {name} axes of rows, columns and channels",
    )
    return x


def enter_placed(placed: Any, shape: tuple[int, ...]) -> jax.Array:
    """Return the flags of placed taps.

    Raises:
        ValueError: no flags, or not one for each tap.
    """
    placed = as_array("placed", placed, "flags")
    checks.check_shape("placed", placed, shape, "one flag for every lag or offset")
    return placed


def enter_weights(weights: Any, taps: int, channels: int) -> jax.Array:
    """Return weights ``(k, C, O)``, or ``(k, C)`` where no channel reads another.

    Raises:
        ValueError: another shape.
    """
    weights = as_array("weights", weights)
    checks.require(
        weights.ndim in (2, 3) and weights.shape[:2] == (taps, channels),
        f"weights of shape {weights.shape} for {taps} taps and {channels} channels",
        f"({taps}, {channels}, O), or ({taps}, {channels}) where each channel stays by itself",
        "change weights, or the lags or channels that they belong to",
    )
    return weights


def check_cotangent(cotangent: jax.Array, x: jax.Array, sharing: str) -> None:
    """Raise unless there is one for every place that is read.

    Raises:
        ValueError: another shape.
    """
    channels = x.shape[-1:] if sharing == "channel" else cotangent.shape[-1:]
    meaning = "the axes of x" + ", and its channels" * (sharing == "channel")
    checks.check_shape("cotangent", cotangent, (*x.shape[:-1], *channels), meaning)


def widened(*arrays: jax.Array) -> list[jax.Array]:
    """Cast arrays to the one dtype in which they are added up: float32 or wider."""
    dtype = wide_dtype(*arrays)
    return [array.astype(dtype) for array in arrays]
