"""Softmax and normalisation over the rows or columns of a sparse matrix."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.precision import at_least_float32

NORMALIZERS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "none": lambda values: values,
    "softplus": jax.nn.softplus,
    "abs": jnp.abs,
    "relu": jax.nn.relu,
}


def segment_softmax(
    logits: jax.Array,
    segment_ids: jax.Array,
    num_segments: int,
    *,
    mask: jax.Array | None = None,
    indices_are_sorted: bool = False,
) -> jax.Array:
    """Take the softmax over each segment, exact and stable.

    ``y_i = exp(l_i - m_s) / sum_{j in s} exp(l_j - m_s)`` with ``m_s`` the segment's largest logit,
    so logits of any size are safe.

    Args:
        logits: ``(n, *features)``.
        segment_ids: int ``(n,)``, for instance a column of a sparse matrix's indices.
        num_segments: static number of segments.
        mask: bool ``(n,)``; false entries take no part and receive 0. None keeps all.
        indices_are_sorted: promise that ``segment_ids`` never decreases.

    Returns:
        ``(n, *features)`` in the dtype of ``logits``; each segment with a kept entry sums to 1, a
        segment without one is all 0.

    Raises:
        ValueError: lengths that differ.
    """
    logits = _check(logits, segment_ids, num_segments, mask)
    # A logit of -inf says "masked" as well, and may fill a whole segment.
    kept = _kept(logits, mask) & (logits > -jnp.inf)
    work = at_least_float32(logits)
    # A dropped logit becomes the finite lowest number, not -inf: -inf - (-inf) in a segment that
    # is dropped as a whole would be NaN.
    work = jnp.where(kept, work, jnp.finfo(work.dtype).min)
    options = {"num_segments": num_segments, "indices_are_sorted": indices_are_sorted}
    # The maximum cancels in the result, so its gradient, awkward at ties, is not needed.
    largest = jax.ops.segment_max(jax.lax.stop_gradient(work), segment_ids, **options)
    exponent = jnp.where(kept, work - largest[segment_ids], 0.0)
    powers = jnp.where(kept, jnp.exp(exponent), 0.0)
    total = jax.ops.segment_sum(powers, segment_ids, **options)
    return _divide(powers, total[segment_ids]).astype(logits.dtype)


def segment_normalize(
    values: jax.Array,
    segment_ids: jax.Array,
    num_segments: int,
    *,
    method: str = "softplus",
    mask: jax.Array | None = None,
    indices_are_sorted: bool = False,
) -> jax.Array:
    """Divide the values of each segment by their sum.

    ``y_i = f(v_i) / sum_{j in s} f(v_j)`` with ``f`` one of ``softplus``, ``abs``, ``relu`` or
    ``none``.

    Args:
        values: ``(n, *features)``.
        segment_ids: int ``(n,)``.
        num_segments: static number of segments.
        method: the name of ``f``.
        mask: bool ``(n,)``; false entries take no part and receive 0. None keeps all.
        indices_are_sorted: promise that ``segment_ids`` never decreases.

    Returns:
        ``(n, *features)`` in the dtype of ``values``; a segment whose sum is 0 is all 0.

    Raises:
        ValueError: lengths that differ, or an unknown method.
    """
    checks.check_choice("method", method, tuple(NORMALIZERS))
    values = _check(values, segment_ids, num_segments, mask)
    kept = _kept(values, mask)
    # Twice: before f, or a NaN in a dropped row would reach its gradient; after f, as f(0) may
    # differ from 0.
    work = jnp.where(kept, at_least_float32(values), 0.0)
    work = jnp.where(kept, NORMALIZERS[method](work), 0.0)
    total = jax.ops.segment_sum(
        work, segment_ids, num_segments, indices_are_sorted=indices_are_sorted
    )
    return _divide(work, total[segment_ids]).astype(values.dtype)


def _divide(part: jax.Array, whole: jax.Array) -> jax.Array:
    # Double where: the unused branch must not divide by 0 either, or its gradient is NaN.
    empty = whole == 0
    return jnp.where(empty, 0.0, part / jnp.where(empty, 1.0, whole))


def _kept(array: jax.Array, mask: jax.Array | None) -> jax.Array:
    if mask is None:
        return jnp.ones(array.shape, bool)
    return jnp.broadcast_to(jnp.reshape(mask, (-1, *(1,) * (array.ndim - 1))), array.shape)


def _check(
    array: jax.Array, segment_ids: jax.Array, num_segments: int, mask: jax.Array | None
) -> jax.Array:
    array = jnp.asarray(array)
    checks.require(
        array.ndim >= 1, f"an array of shape {array.shape}", "(n, *features)", "add an axis"
    )
    checks.check_shape("segment_ids", segment_ids, array.shape[:1], "one segment per entry")
    checks.check_integers("segment_ids", segment_ids)
    checks.check_count("num_segments", num_segments, least=1)
    if mask is not None:
        checks.check_shape("mask", mask, array.shape[:1], "one flag per entry")
    # Integers would round the shares to 0.
    return array if jnp.issubdtype(array.dtype, jnp.inexact) else at_least_float32(array)
