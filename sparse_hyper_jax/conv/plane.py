"""Convolutions of planes with few taps, each at any offset, and the gain of every offset."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.conv.entrance import (
    check_cotangent,
    enter_offsets,
    enter_planes,
    enter_weights,
    enter_window,
    widened,
)
from sparse_hyper_jax.conv.reads import mix_reads, ready_weights
from sparse_hyper_jax.conv.spectra import SHARINGS, correlation
from sparse_hyper_jax.entrance import as_int32


def offset_conv(
    x: jax.Array,
    weights: jax.Array,
    offsets: jax.Array,
    placed: Any = None,
    *,
    window: Sequence[int] | None = None,
    wrap: bool = False,
) -> jax.Array:
    """Convolve planes with a kernel that is zero but for a few offsets; the size stays.

    ``y[p] = sum_j x[p + offsets[j]] weights[j]`` at every place ``p``, with 0 outside of the plane.
    Offsets may be traced. Taps of equal offsets add up; an empty slot, and an offset outside of
    ``window``, count for nothing.

    Args:
        x: ``(..., H, W, C)``; batches lead.
        weights: ``(k, C, O)``; or ``(k, C)`` where every channel stays by itself.
        offsets: integers ``(k, 2)``, down and to the right; see :func:`window_offsets`.
        placed: bool ``(k,)``; false marks an empty slot. None for all true.
        window: height and width of the offsets that may be read, around 0, static: from
            ``-(height // 2)`` to ``height - 1 - height // 2``. Less memory if it is small. None for
            all.
        wrap: the plane is a torus.

    Returns:
        ``(..., H, W, O)`` or ``(..., H, W, C)``, float32 or wider.

    Raises:
        ValueError: shapes that do not fit, offsets that are no integers.

    Example:
        >>> from sparse_hyper_jax import conv
        >>> x = jnp.arange(6.0).reshape(2, 3, 1)
        >>> right, below = jnp.array([[0, 1]]), jnp.array([[1, 0]])
        >>> conv.offset_conv(x, jnp.ones((1, 1, 1)), right)[..., 0].tolist()
        [[1.0, 2.0, 0.0], [4.0, 5.0, 0.0]]
        >>> conv.offset_conv(x, jnp.ones((1, 1, 1)), below, wrap=True)[..., 0].tolist()
        [[3.0, 4.0, 5.0], [0.0, 1.0, 2.0]]
    """
    x = enter_planes("x", x)
    offsets, live = enter_offsets(offsets, placed)
    weights = enter_weights(weights, offsets.shape[0], x.shape[-1])
    wrap = checks.check_flag("wrap", wrap)
    sizes = x.shape[-3], x.shape[-2]
    if window is not None:
        spans = window_spans(enter_window(window))
        for axis, (low, high) in enumerate(spans):
            live &= (offsets[:, axis] >= low) & (offsets[:, axis] <= high)
        pads = [(-low, high) for low, high in spans]
    elif wrap:
        offsets = offsets % jnp.array(sizes, jnp.int32)[None]
        pads = [(0, size - 1) for size in sizes]
    else:
        pads = [(size, size) for size in sizes]
    if not wrap:
        # From a plane's size on there is nothing left of it.
        pads = [(min(b, size), min(a, size)) for (b, a), size in zip(pads, sizes, strict=True)]
    x, weights = widened(x, weights)
    return mix_reads(_reads(x, offsets, live, pads, wrap=wrap), ready_weights(weights, live))


def offset_gains(
    x: jax.Array,
    cotangent: jax.Array,
    window: Sequence[int],
    *,
    sharing: str = "shared",
    wrap: bool = False,
) -> jax.Array:
    """Differentiate with respect to the weights of a virtual tap at every offset of a window.

    ``G[s] = sum_{b,p} x[b, p + s]^T cotangent[b, p]``, exact, by FFT, as :func:`lag_gains` in a
    plane. Cell ``(i, j)`` of the window is the offset ``(i - height // 2, j - width // 2)``.

    Args:
        x: ``(..., H, W, C)``, what :func:`offset_conv` reads.
        cotangent: ``(..., H, W, O)``, the gradient of the loss with respect to what it gives.
        window: ``(height, width)``, static; with ``wrap`` no larger than the plane.
        sharing: see :func:`lag_gains`.
        wrap: the plane is a torus.

    Returns:
        ``(height, width, C, O)``, or ``(height, width, C)`` per channel, float32 or wider.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> from sparse_hyper_jax import conv, ops
        >>> x = jax.random.normal(jax.random.key(0), (20, 20, 1))
        >>> truth = conv.offset_conv(x, jnp.ones((1, 1, 1)), [[-3, 2]])
        >>> gains = conv.offset_gains(x, -truth, (9, 9))  # of y = 0 against the truth
        >>> taps = ops.pursue(jnp.abs(gains[..., 0, 0]), ops.empty_taps(1, rank=2))
        >>> conv.window_offsets(taps.positions, (9, 9)).tolist()
        [[-3, 2]]
    """
    checks.check_choice("sharing", sharing, SHARINGS)
    window, wrap = enter_window(window), checks.check_flag("wrap", wrap)
    x, cotangent = enter_planes("x", x), enter_planes("cotangent", cotangent)
    check_cotangent(cotangent, x, sharing)
    _check_once_around(window, x, wrap=wrap)
    x, cotangent = widened(x, cotangent)
    return correlation(x, cotangent, window_spans(window), sharing=sharing, circular=wrap)


def offset_autocovariance(x: jax.Array, window: Sequence[int], *, wrap: bool = False) -> jax.Array:
    """Measure how much planes resemble themselves some cells away: :func:`autocovariance` in 2-d.

    ``r[s] = mean_c sum_{b,p} (x[b, p + s, c] - m[c]) (x[b, p, c] - m[c]) / (b H W)``.

    Args:
        x: ``(..., H, W, C)``.
        window: ``(height, width)``, static: differences between any two cells of it are measured.
            With ``wrap``, twice the window less one is at most the plane.
        wrap: the plane is a torus.

    Returns:
        ``(2 height - 1, 2 width - 1)``, float32 or wider, difference 0 in the middle: what
        :func:`~sparse_hyper_jax.ops.pursue_gains` takes.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> from sparse_hyper_jax import conv
        >>> columns = jnp.tile(jnp.array([1.0, -1.0]), (4, 2))[..., None]
        >>> conv.offset_autocovariance(columns, (1, 2)).tolist()
        [[-0.75, 1.0, -0.75]]
    """
    height, width = enter_window(window)
    x, wrap = enter_planes("x", x), checks.check_flag("wrap", wrap)
    _check_once_around((2 * height - 1, 2 * width - 1), x, wrap=wrap)
    (x,) = widened(x)
    centred = x - jnp.mean(x, tuple(range(x.ndim - 1)), keepdims=True)
    spans = ((1 - height, height - 1), (1 - width, width - 1))
    of_channels = correlation(centred, centred, spans, sharing="channel", circular=wrap)
    return jnp.sum(of_channels, axis=-1) / x.size


def window_offsets(positions: jax.Array, window: Sequence[int]) -> jax.Array:
    """Turn cells of a window, as taps have them, into offsets from its middle.

    Args:
        positions: integers ``(k, 2)``, from 0.
        window: ``(height, width)``.

    Returns:
        int32 ``(k, 2)``: ``positions - (height // 2, width // 2)``.

    Raises:
        ValueError: another shape.

    Example:
        >>> from sparse_hyper_jax import conv
        >>> conv.window_offsets([[0, 0], [4, 6]], (9, 9)).tolist()
        [[-4, -4], [0, 2]]
    """
    height, width = enter_window(window)
    positions = as_int32("positions", positions)
    checks.check_shape("positions", positions, (None, 2), "(k, 2): rows and columns")
    return positions - jnp.array([[height // 2, width // 2]], jnp.int32)


def window_spans(window: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Smallest and largest offset of a window along both axes."""
    return tuple((-(size // 2), size - 1 - size // 2) for size in window)


def _reads(
    x: jax.Array, offsets: jax.Array, live: jax.Array, pads: list[tuple[int, int]], *, wrap: bool
) -> list[jax.Array]:
    """Give ``x[p + offset]`` for every tap, 0 for empty ones."""
    width = [(0, 0)] * (x.ndim - 3)
    padded = jnp.pad(x, [*width, *pads, (0, 0)], mode="wrap" if wrap else "constant")
    before = jnp.array([[pad[0] for pad in pads]], jnp.int32)
    after = jnp.array([[pad[1] for pad in pads]], jnp.int32)
    reads = []
    for (row, column), kept in zip(before + jnp.clip(offsets, -before, after), live, strict=True):
        rows = jax.lax.dynamic_slice_in_dim(padded, row, x.shape[-3], axis=-3)
        read = jax.lax.dynamic_slice_in_dim(rows, column, x.shape[-2], axis=-2)
        reads.append(jnp.where(kept, read, 0))
    return reads


def _check_once_around(window: tuple[int, int], x: jax.Array, *, wrap: bool) -> None:
    """Raise if on a circle two of the differences were one."""
    sizes = x.shape[-3:-1]
    checks.require(
        not wrap or all(cells <= size for cells, size in zip(window, sizes, strict=True)),
        f"differences over {window} cells of a torus of {sizes}",
        "each difference once",
        "take a smaller window",
    )
