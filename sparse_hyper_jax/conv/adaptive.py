"""Convolutions whose taps lie elsewhere for every output: positions that the input decides."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import checks
from sparse_hyper_jax.conv.entrance import enter_weights
from sparse_hyper_jax.conv.reads import mix_reads, ready_weights
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.ops.device_axes import spread_by
from sparse_hyper_jax.ops.own_draws import GlobalFrom
from sparse_hyper_jax.ops.own_points import OwnPoints, as_rows, enter_own, own_cells, own_points
from sparse_hyper_jax.precision import wide_dtype


def adaptive_conv(
    key: jax.Array | None,
    x: Any,
    weights: Any,
    offsets: Any,
    variances: Any,
    *,
    causal: bool = False,
    stride: int = 1,
    num_global: int = 2,
    num_local: int = 2,
    region: Any = None,
    global_from: GlobalFrom = "density",
) -> jax.Array:
    """Convolve with taps whose offsets are those of the output cell, and can be learned.

    Tap j of output cell p is a Gaussian around ``stride * p + offsets[p, j]``, shared among its
    ``q = 2**r + num_global + num_local`` points by density, of which repeated ones are dropped::

        y[p] = sum_j (sum_q pi_pjq x[u_pjq]) weights[j],        sum_q pi_pjq = 1

    with 0 for all that lies outside of x. Offsets come from a network that sees x, from
    coordinates, or are parameters; with the same whole offsets everywhere and variances of 0 it is
    :func:`~sparse_hyper_jax.conv.lag_conv`, or :func:`~sparse_hyper_jax.conv.offset_conv`. The cost
    is that of ``k q`` reads of C numbers for every output cell, one by one, where lags that all
    share are read in slices.

    Gradients tell of the points that were drawn alone. For one instance; ``jax.vmap`` gives
    batches, with a key for each.

    Args:
        key: a typed key; may be None without global and local points.
        x: ``(T, C)``, or a plane ``(H, W, C)``.
        weights: ``(k, C, O)``; or ``(k, C)`` where every channel stays by itself.
        offsets: ``(T', k)`` in steps, negative for the past; for planes ``(H', W', k, 2)`` in rows
            and columns. ``T'`` is ``T / stride``, rounded up, and so on.
        variances: the shape of offsets, in squared steps; below 1e-12 they count as 1e-12.
        causal: no step reads what comes after it, where the sequence ends for its taps.
        stride: output cell p stands at ``stride * p``.
        num_global: points per tap drawn by its density, or from all cells.
        num_local: points per tap drawn from the region.
        region: lengths of the window around a mean; 8 each by default.
        global_from: see :func:`~sparse_hyper_jax.ops.sample_tuples`.

    Returns:
        ``(T', O)``, ``(T', C)``, or with rows and columns; float32 or wider.

    Raises:
        ValueError: shapes that do not fit, or a wrong option.

    References: Dai et al. 2017, arXiv 1703.06211, with two neighbours on every axis; Bloem 2018,
    arXiv 1810.09184.

    Example:
        >>> from sparse_hyper_jax import conv
        >>> x, weights = jnp.arange(0.0, 60.0, 10.0)[:, None], jnp.ones((1, 1, 1))
        >>> def last(offset):  # of all steps the same
        ...     offsets, variances = jnp.full((6, 1), offset), jnp.full((6, 1), 0.1)
        ...     options = {"num_global": 0, "num_local": 0}
        ...     return conv.adaptive_conv(None, x, weights, offsets, variances, **options)[5, 0]
        >>> float(last(-1.5).round(2)), bool(jax.grad(last)(-1.5) > 0)  # halfway between two
        (35.0, True)
    """
    x, offsets, stride = _enter(x, offsets, stride)
    weights = enter_weights(weights, offsets.shape[x.ndim - 1], x.shape[-1])
    padded = tuple(size + 2 for size in x.shape[:-1])
    offsets, variances, counts = enter_own(
        key,
        offsets,
        variances,
        padded,
        num_global=num_global,
        num_local=num_local,
        region=region,
        global_from=global_from,
    )
    dtype = wide_dtype(x, weights, offsets, variances)
    variances = as_rows(variances, dtype, single=x.ndim == 2)
    means, last = _places(offsets.astype(dtype), x, stride, causal)
    return _mix(
        x, weights, own_points(key, means, variances, padded, counts, last=last), offsets, dtype
    )


def adaptive_conv_hard(
    x: Any, weights: Any, offsets: Any, *, causal: bool = False, stride: int = 1
) -> jax.Array:
    """Convolve with every tap on the cell that is nearest to it: evaluation.

    The limit of :func:`adaptive_conv` for variances towards 0. Nothing is random, and no gradient
    reaches the offsets.

    Args:
        x: ``(T, C)``, or a plane ``(H, W, C)``.
        weights: ``(k, C, O)`` or ``(k, C)``.
        offsets: see :func:`adaptive_conv`; one of NaN makes its output NaN.
        causal: see there.
        stride: see there.

    Returns:
        as :func:`adaptive_conv`.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> from sparse_hyper_jax import conv
        >>> x, weights = jnp.arange(1.0, 6.0)[:, None], jnp.array([[[1.0]], [[10.0]]])
        >>> offsets = jnp.tile(jnp.array([[0.2, -2.9]]), (5, 1))
        >>> conv.adaptive_conv_hard(x, weights, offsets)[:, 0].tolist()
        [1.0, 2.0, 3.0, 14.0, 25.0]
    """
    x, offsets, stride = _enter(x, offsets, stride)
    weights = enter_weights(weights, offsets.shape[x.ndim - 1], x.shape[-1])
    dtype = wide_dtype(x, weights, offsets)
    means, last = _places(offsets.astype(dtype), x, stride, causal)
    padded = tuple(size + 2 for size in x.shape[:-1])
    return _mix(x, weights, own_cells(means, padded, last), offsets, dtype)


def _enter(x: Any, offsets: Any, stride: Any) -> tuple[jax.Array, jax.Array, int]:
    x, offsets = as_array("x", x), as_array("offsets", offsets)
    checks.require(
        x.ndim in (2, 3) and 0 not in x.shape,
        f"x of shape {x.shape}",
        "(T, C), or (H, W, C)",
        "pass one sequence or plane, and use jax.vmap for a batch",
    )
    stride = checks.check_count("stride", stride, least=1)
    cells = tuple(-(-size // stride) for size in x.shape[:-1])
    wanted = (*cells, None) if x.ndim == 2 else (*cells, None, 2)
    checks.check_shape("offsets", offsets, wanted, "(T', k), or (H', W', k, 2): taps of every cell")
    checks.require(
        offsets.shape[x.ndim - 1] >= 1,
        f"offsets of shape {offsets.shape}",
        "at least one tap",
        "pass an offset for every tap of weights",
    )
    return x, offsets, stride


def _places(
    offsets: jax.Array, x: jax.Array, stride: int, causal: Any
) -> tuple[jax.Array, jax.Array | None]:
    """Give means ``(n, r)`` in x with a cell of zeros on every side, and the last cell of each."""
    rank, causal = x.ndim - 1, checks.check_flag("causal", causal)
    checks.require(
        rank == 1 or not causal,
        f"causal=True for planes, x of shape {x.shape}",
        "a sequence, which has a past",
        "leave causal out",
    )
    out, taps = offsets.shape[:rank], offsets.shape[rank]
    # Counted from the cell of zeros that stands before the first.
    own = np.moveaxis(np.indices(out) * stride + 1, 0, -1)[..., None, :]
    own = np.broadcast_to(own, (*out, taps, rank))
    means = as_rows(offsets, offsets.dtype, single=rank == 1)
    last = jnp.asarray(own.reshape(-1), jnp.int32) if causal else None
    return means + jnp.asarray(own.reshape(-1, rank), offsets.dtype), last


def _mix(
    x: jax.Array, weights: jax.Array, points: OwnPoints, offsets: jax.Array, dtype: Any
) -> jax.Array:
    """Read at all points, and mix."""
    rank, channels = x.ndim - 1, x.shape[-1]
    padded = jnp.pad(x.astype(dtype), [(1, 1)] * rank + [(0, 0)])
    rows = padded.reshape(math.prod(padded.shape[:-1]), channels)
    live = points.logs != -jnp.inf
    shares = jnp.where(live, jnp.exp(jnp.where(live, points.logs, 0)), 0).astype(dtype)
    taken = spread_by(rows, points.cells).at[points.cells].get(mode="promise_in_bounds")
    # What is dropped is zeroed before the product: it may be NaN.
    reads = jnp.sum(shares[..., None] * jnp.where(live[..., None], taken, 0), axis=1)
    out, taps = offsets.shape[:rank], offsets.shape[rank]
    reads = reads.reshape(*out, taps, channels)
    every = [reads[..., tap, :] for tap in range(taps)]
    return mix_reads(every, ready_weights(weights.astype(dtype), jnp.ones(taps, bool)))
