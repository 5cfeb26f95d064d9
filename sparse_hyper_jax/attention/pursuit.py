"""Where the next lags of attention go, and which of those that are there does least."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, as_int32, check_function
from sparse_hyper_jax.ops.gains import z_scores
from sparse_hyper_jax.ops.pursue import Taps, pursue
from sparse_hyper_jax.precision import at_least_float32


class LagTaps(NamedTuple):
    """The lags of all heads, for ``lag_attention(query, key, value, *taps)``.

    Attributes:
        lags: int32 ``(h, k)``, steps back; 0 in an empty slot.
        placed: ``(h, k)``; false marks an empty slot, which counts for nothing.

    Example:
        >>> from sparse_hyper_jax import attention
        >>> taps = attention.LagTaps(jnp.array([[7, 0]]), jnp.array([[True, False]]))
        >>> taps.lags[taps.placed].tolist()
        [7]
    """

    lags: jax.Array
    placed: jax.Array


export.register_namedtuple_serialization(LagTaps, serialized_name="sparse_hyper_jax.LagTaps")


def empty_lags(heads: int, count: int) -> LagTaps:
    """Make slots of which none holds a lag.

    Args:
        heads: number h of heads, static.
        count: number k of slots of each, static.

    Returns:
        taps of shape ``(h, k)``.

    Raises:
        ValueError: no head, or a negative count.

    Example:
        >>> from sparse_hyper_jax import attention
        >>> attention.empty_lags(2, 3).placed.tolist()
        [[False, False, False], [False, False, False]]
    """
    shape = checks.check_count("heads", heads, least=1), checks.check_count("count", count)
    return LagTaps(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool))


def pursue_lags(
    gains: Any,
    taps: LagTaps,
    count: int = 1,
    *,
    near: int = 0,
    apart: int = 0,
    min_z: float | jax.Array | None = 5.0,
) -> LagTaps:
    """Place lags where gains stand out, in every head by itself.

    A slot is filled by the lag of the largest gain that is not there yet, if by
    :func:`~sparse_hyper_jax.ops.z_scores` it exceeds those of all open lags by more than ``min_z``.
    Place one per probe, train, and probe again: neighbours and rivals of a lag lose their gain once
    it is placed.

    Args:
        gains: ``(h, reach)``, from :func:`lag_attention_gains`, added up over a batch of at least
            four sequences.
        taps: of the heads, ``(h, k)``.
        count: largest number of lags to place in each head, static.
        near: number of nearest lags, which are there in any case.
        apart: see :func:`~sparse_hyper_jax.ops.pursue`.
        min_z: what z has to exceed; None places ``count`` lags whatever they gain. May be traced.

    Returns:
        the taps, with up to ``count`` more of them placed in every head.

    Raises:
        ValueError: shapes that do not agree, or a negative count.

    Example:
        >>> from sparse_hyper_jax import attention
        >>> gains = jnp.sin(jnp.arange(40.0))[None].at[0, 17].set(30.0)
        >>> taps = attention.pursue_lags(gains, attention.empty_lags(1, 2), count=2)
        >>> taps.lags.tolist(), taps.placed.tolist()
        ([[17, 0]], [[True, False]])
    """
    taps = enter_lags(taps)
    gains = at_least_float32(as_array("gains", gains))
    heads = taps.lags.shape[0]
    checks.check_shape("gains", gains, (heads, None), "(h, reach): those of every head")
    near = checks.check_count("near", near)
    if min_z is not None:
        checks.check_number("min_z", min_z)
    reach = jnp.arange(gains.shape[1], dtype=jnp.int32)

    def head(gains: jax.Array, lags: jax.Array, placed: jax.Array) -> tuple[jax.Array, jax.Array]:
        there = jnp.any((reach[:, None] == lags[None]) & placed[None], axis=1)
        allowed = (reach >= near) & ~there
        scores = gains if min_z is None else z_scores(gains, allowed=allowed)
        found = pursue(
            scores,
            Taps(lags[:, None], placed),
            count,
            apart=apart,
            allowed=allowed,
            threshold=min_z,
        )
        return found.positions[:, 0], found.placed

    return LagTaps(*jax.vmap(head)(gains, *taps))


def lag_importance(loss: Callable[[LagTaps], jax.Array], taps: LagTaps) -> jax.Array:
    """Give the rise of the loss when each lag is taken away, all else as it is.

    That is exact, by one evaluation of the loss for each slot, and not an estimate by gradients: a
    lag to which rows have turned altogether has a gradient near 0.

    Args:
        loss: ``taps -> scalar``.
        taps: of the heads, ``(h, k)``.

    Returns:
        ``(h, k)``, 0 for empty slots.

    Raises:
        ValueError: taps that are none, or a loss that is no function or gives no number.

    Example:
        >>> from sparse_hyper_jax import attention
        >>> taps = attention.LagTaps(jnp.array([[4, 9]]), jnp.array([[True, True]]))
        >>> loss = lambda taps: -jnp.sum(jnp.where(taps.placed, taps.lags, 0)).astype(float)
        >>> attention.lag_importance(loss, taps).tolist()
        [[4.0, 9.0]]
    """
    check_function("loss", loss, "a function of taps that gives a number")
    taps = enter_lags(taps)
    slots = jnp.arange(taps.placed.size, dtype=jnp.int32)

    def without(slot: jax.Array) -> jax.Array:
        kept = (slots != slot).reshape(taps.placed.shape)
        return _number_of(loss, _masked(taps.lags, taps.placed & kept))

    # One after another: side by side they would hold as many copies of what the loss computes.
    losses = jax.lax.map(without, slots).reshape(taps.placed.shape)
    return jnp.where(taps.placed, losses - _number_of(loss, taps), 0)


def swap_lag(
    loss: Callable[[LagTaps], jax.Array],
    gains: Callable[[LagTaps], jax.Array],
    taps: LagTaps,
    *,
    near: int = 0,
    apart: int = 0,
) -> LagTaps:
    """Take the least important lag of every head away, and keep a better one if there is one.

    Pursuit only adds: a lag that noise has chosen stays. Once all slots are filled, swaps mend
    that. No lag has weights of its own, so whether a swap is one for the better shows at once.

    Args:
        loss: ``taps -> scalar``, on a batch that did not choose the lags.
        gains: ``taps -> (h, reach)``, see :func:`lag_attention_gains`.
        taps: of the heads, ``(h, k)``; heads without a placed lag get one.
        near: see :func:`pursue_lags`.
        apart: see there.

    Returns:
        the taps with one lag of every head replaced, if the loss is lower with them.

    Raises:
        ValueError: taps that are none, or functions that are none or give something else.

    Example:
        >>> from sparse_hyper_jax import attention
        >>> taps = attention.LagTaps(jnp.array([[3, 8]]), jnp.array([[True, True]]))
        >>> wanted = jnp.array([0.0, 0, 0, 1, 0, 0, 2, 0, 0, 0])[None]  # 3, and 6 still more
        >>> loss = lambda taps: -jnp.sum(jnp.where(taps.placed, wanted[0][taps.lags], 0))
        >>> attention.swap_lag(loss, lambda taps: wanted, taps).lags.tolist()
        [[3, 6]]
    """
    check_function("gains", gains, "a function of taps that gives the gains of all lags")
    taps = enter_lags(taps)
    if not taps.placed.shape[1]:
        return taps
    importance = jnp.where(taps.placed, lag_importance(loss, taps), jnp.inf)
    worst = jnp.argmin(importance, axis=1).astype(jnp.int32)
    chosen = jnp.arange(taps.placed.shape[1], dtype=jnp.int32)[None] == worst[:, None]
    left = _masked(taps.lags, taps.placed & ~chosen)
    found = pursue_lags(gains(left), left, near=near, apart=apart, min_z=None)
    better = _number_of(loss, found) < _number_of(loss, taps)
    return jax.tree.map(lambda new, old: jnp.where(better, new, old), found, taps)


def enter_lags(taps: Any) -> LagTaps:
    """Check taps, which may also be a plain tuple of lags and flags; mask the empty slots.

    Raises:
        ValueError: not two parts, shapes that do not agree, no integers, or no flags.
    """
    checks.require(
        isinstance(taps, tuple | list) and len(taps) == 2,
        f"taps={taps!r:.80}",
        "LagTaps(lags, placed), or a plain tuple of these",
        "pass LagTaps, for instance empty_lags(4, 8)",
    )
    lags, placed = as_int32("lags", taps[0]), as_array("placed", taps[1], "flags")
    checks.check_shape("lags", lags, (None, None), "(h, k): the lags of every head")
    checks.check_shape("placed", placed, lags.shape, "a flag for every lag")
    return _masked(lags, placed)


def _number_of(loss: Callable[[LagTaps], jax.Array], taps: LagTaps) -> jax.Array:
    """Give the loss with these taps.

    Raises:
        ValueError: it is no number.
    """
    value = as_array("loss(taps)", loss(taps))
    checks.require(
        value.shape == (), f"a loss of shape {value.shape}", "one number", "take its mean over rows"
    )
    return value


def _masked(lags: jax.Array, placed: jax.Array) -> LagTaps:
    return LagTaps(jnp.where(placed, lags, 0), placed)
