"""Softmax and normalisation over the rows or columns of a sparse matrix."""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.ops.inside import check_in_range, clip_inside
from sparse_hyper_jax.precision import at_least_float32, float_dtype

NORMALIZERS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "none": lambda values: values,
    "abs": jnp.abs,
    "relu": jax.nn.relu,
}
"""What is divided by its sum, beside ``softplus``, which needs to know the segments."""

PositiveMethod = Literal["none", "softplus", "abs", "relu"]
METHODS = get_args(PositiveMethod)

FAR = 12.0
"""Below minus this the series of the softplus is exact after three terms."""


class Segments(NamedTuple):
    """Which segment each entry belongs to.

    Attributes:
        ids: int32 ``(n,)``, inside.
        count: number of segments.
        are_sorted: whether the ids never decrease.
    """

    ids: jax.Array
    count: int
    are_sorted: bool

    def totals(self, values: jax.Array) -> jax.Array:
        """Sum each segment."""
        return jax.ops.segment_sum(values, self.ids, self.count, indices_are_sorted=self.are_sorted)

    def largest(self, values: jax.Array) -> jax.Array:
        """Give the largest value of each segment, as a constant."""
        return jax.ops.segment_max(
            jax.lax.stop_gradient(values),
            self.ids,
            self.count,
            indices_are_sorted=self.are_sorted,
        )

    def for_each(self, numbers: jax.Array) -> jax.Array:
        """Give every entry the number of its segment."""
        return numbers.at[self.ids].get(mode="promise_in_bounds")


def segment_softmax(
    logits: jax.Array,
    segment_ids: jax.Array,
    num_segments: int,
    *,
    mask: jax.Array | None = None,
    indices_are_sorted: bool = False,
    debug: bool = False,
) -> jax.Array:
    """Take the softmax over each segment, exact and stable.

    ``y_i = exp(l_i - m_s) / sum_{j in s} exp(l_j - m_s)`` with ``m_s`` the segment's largest logit,
    so logits of any size are safe. A logit of -inf means "never"; one of NaN or +inf makes its
    segment NaN, as in ``jax.nn.softmax``.

    Args:
        logits: ``(n, *features)``.
        segment_ids: int ``(n,)``, for instance a column of a sparse matrix's indices. A number
            outside of ``0 .. num_segments - 1``, such as -1, marks padding: the entry takes no
            part, receives 0 and has slope 0, whatever it holds.
        num_segments: static number of segments.
        mask: bool ``(n,)``; false entries take no part and receive 0. None keeps all.
        indices_are_sorted: promise that ``segment_ids`` never decreases.
        debug: check by ``checkify`` that no segment number lies outside.

    Returns:
        ``(n, *features)`` in the dtype of ``logits``; each segment with a kept entry sums to 1, a
        segment without one is all 0.

    Raises:
        ValueError: lengths that differ.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> logits, rows = jnp.log(jnp.array([1.0, 3.0, 5.0, 9.0])), jnp.array([0, 0, 1, -1])
        >>> print(ops.segment_softmax(logits, rows, num_segments=2).round(2))
        [0.25 0.75 1.   0.  ]
    """
    logits = as_array("logits", logits)
    segments, kept = enter_segments(
        logits, segment_ids, num_segments, mask, indices_are_sorted=indices_are_sorted, debug=debug
    )
    shares = _softmax(at_least_float32(logits), segments, kept)
    # What takes no part may stand beside NaN: in a segment to whose number it was moved.
    return jnp.where(kept, shares, 0).astype(float_dtype(logits))


def segment_normalize(
    values: jax.Array,
    segment_ids: jax.Array,
    num_segments: int,
    *,
    method: PositiveMethod = "softplus",
    mask: jax.Array | None = None,
    indices_are_sorted: bool = False,
    debug: bool = False,
) -> jax.Array:
    """Divide the values of each segment by their sum.

    ``y_i = f(v_i) / sum_{j in s} f(v_j)`` with ``f`` one of ``softplus``, ``abs``, ``relu`` or
    ``none``. Neither very large nor very small values do harm: a segment counts in units of its
    largest value. NaN makes its segment NaN.

    Args:
        values: ``(n, *features)``.
        segment_ids: int ``(n,)``. A number outside of ``0 .. num_segments - 1`` marks padding, see
            :func:`segment_softmax`.
        num_segments: static number of segments.
        method: the name of ``f``.
        mask: bool ``(n,)``; false entries take no part and receive 0. None keeps all.
        indices_are_sorted: promise that ``segment_ids`` never decreases.
        debug: check by ``checkify`` that no segment number lies outside.

    Returns:
        ``(n, *features)`` in the dtype of ``values``; a segment whose sum is 0 is all 0.

    Raises:
        ValueError: lengths that differ, or an unknown method.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> values, rows = jnp.array([1.0, 3.0, 5.0]), jnp.array([0, 0, 1])
        >>> ops.segment_normalize(values, rows, num_segments=2, method="abs").tolist()
        [0.25, 0.75, 1.0]
    """
    checks.check_choice("method", method, METHODS)
    values = as_array("values", values)
    segments, kept = enter_segments(
        values, segment_ids, num_segments, mask, indices_are_sorted=indices_are_sorted, debug=debug
    )
    # Before f, or a NaN in a dropped row would reach its gradient.
    work = jnp.where(kept, at_least_float32(values), 0)
    if method == "softplus":
        part, size = _softplus(work, segments, kept)
        part = jnp.where(kept, part, 0)
    else:
        part = jnp.where(kept, NORMALIZERS[method](work), 0)
        size = segments.largest(jnp.abs(part))
    shares = jnp.where(kept, _shares(part, size, segments), 0)
    return shares.astype(float_dtype(values))


def _softmax(logits: jax.Array, segments: Segments, kept: jax.Array) -> jax.Array:
    # A logit of -inf says "masked" as well, and may fill a whole segment. NaN does not.
    kept = kept & (logits != -jnp.inf)
    # A dropped logit becomes the finite lowest number, not -inf: -inf - (-inf) in a segment that
    # is dropped as a whole would be NaN.
    logits = jnp.where(kept, logits, jnp.finfo(logits.dtype).min)
    # The maximum cancels in the result, so its gradient, awkward at ties, is not needed.
    exponent = logits - segments.for_each(segments.largest(logits))
    powers = jnp.where(kept, jnp.exp(jnp.where(kept, exponent, 0)), 0)
    return _divide(powers, segments.for_each(segments.totals(powers)))


def _shares(values: jax.Array, size: jax.Array, segments: Segments) -> jax.Array:
    """Divide by the sums of the segments, in units of a power of two near each one's largest."""
    # A power of two changes no digit, so that a sum of exactly 0 stays one.
    info = jnp.finfo(values.dtype)
    size = jax.lax.stop_gradient(jnp.where(jnp.isfinite(size) & (size > 0), size, 1))
    size = jnp.clip(size, info.tiny, 1 / info.tiny)
    unit = 1 / jax.lax.reduce_precision(size, info.nexp, 0)
    values = values * segments.for_each(unit)
    return _divide(values, segments.for_each(segments.totals(values)))


def _divide(part: jax.Array, whole: jax.Array) -> jax.Array:
    # Double where: the unused branch must not divide by 0 either, or its gradient is NaN.
    empty = jnp.abs(whole) < jnp.finfo(whole.dtype).tiny
    return jnp.where(empty, 0, part / jnp.where(empty, 1, whole))


def _softplus(
    values: jax.Array, segments: Segments, kept: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Give ``log(1 + exp(v))``, with a common factor in segments of very negative values.

    There it is next to ``exp(v)``, which would vanish: ``exp(v - m)`` does not. The second result
    tells how large the largest of each segment is.
    """
    lowest = jnp.finfo(values.dtype).min
    largest = segments.largest(jnp.where(kept, values, lowest))
    shifts = jnp.clip(largest + FAR, lowest, 0)
    shift = segments.for_each(shifts)
    far = values < -FAR
    power = jnp.exp(jnp.where(far, values, -FAR))
    series = jnp.exp(jnp.where(far, values - shift, -FAR)) * (1 - power * (1 / 2 - power / 3))
    size = jax.nn.softplus(largest - shifts)
    return jnp.where(far, series, jax.nn.softplus(jnp.where(far, 0, values))), size


def enter_segments(
    array: jax.Array,
    segment_ids: jax.Array,
    num_segments: int,
    mask: jax.Array | None,
    *,
    indices_are_sorted: bool,
    debug: bool,
) -> tuple[Segments, jax.Array]:
    """Give the segments, and bool ``(n, *features)`` for entries that take part."""
    checks.require(
        array.ndim >= 1, f"an array of shape {array.shape}", "(n, *features)", "add an axis"
    )
    ids = as_array("segment_ids", segment_ids)
    checks.check_shape("segment_ids", ids, array.shape[:1], "one segment per entry")
    checks.check_integers("segment_ids", ids)
    count = checks.check_count("num_segments", num_segments, least=1, most=checks.INT32_CELLS - 1)
    if checks.check_flag("debug", debug):
        check_in_range(ids[:, None], (count,))
    clipped, kept = clip_inside(ids[:, None], (count,))
    if mask is not None:
        mask = as_array("mask", mask, "flags")
        checks.check_shape("mask", mask, array.shape[:1], "one flag per entry")
        kept = kept & mask
    are_sorted = checks.check_flag("indices_are_sorted", indices_are_sorted)
    kept = jnp.broadcast_to(kept.reshape(-1, *(1,) * (array.ndim - 1)), array.shape)
    return Segments(clipped[:, 0], count, are_sorted), kept
