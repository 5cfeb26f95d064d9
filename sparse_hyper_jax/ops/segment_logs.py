"""Logarithms of sums of exponentials over segments, and of their shares."""

import jax
import jax.numpy as jnp

from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.ops.segments import Segments, enter_segments
from sparse_hyper_jax.precision import at_least_float32, float_dtype


def segment_logsumexp(
    logits: jax.Array,
    segment_ids: jax.Array,
    num_segments: int,
    *,
    mask: jax.Array | None = None,
    indices_are_sorted: bool = False,
    debug: bool = False,
) -> jax.Array:
    """Take the logarithm of the sum of exponentials over each segment, exact and stable.

    ``y_s = log sum_{i in s} exp(l_i)``, for logits of any size. A logit of -inf adds nothing; one
    of NaN or +inf makes its segment NaN.

    Args:
        logits: ``(n, *features)``.
        segment_ids: int ``(n,)``. A number outside of ``0 .. num_segments - 1``, such as -1, marks
            padding: the entry takes no part and has slope 0, whatever it holds.
        num_segments: static number of segments.
        mask: bool ``(n,)``; false entries take no part. None keeps all.
        indices_are_sorted: promise that ``segment_ids`` never decreases.
        debug: check by ``checkify`` that no segment number lies outside.

    Returns:
        ``(num_segments, *features)``, at least float32; -inf, with slope 0, for a segment without
        a kept entry.

    Raises:
        ValueError: lengths that differ.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> logits, ids = jnp.log(jnp.array([1.0, 2.0, 5.0])), jnp.array([0, 0, 1])
        >>> print(np.exp(ops.segment_logsumexp(logits, ids, 3)).round(3))
        [3. 5. 0.]
    """
    logits = as_array("logits", logits)
    segments, kept = enter_segments(
        logits, segment_ids, num_segments, mask, indices_are_sorted=indices_are_sorted, debug=debug
    )
    return _logsumexp(at_least_float32(logits), segments, kept)[0]


def segment_log_softmax(
    logits: jax.Array,
    segment_ids: jax.Array,
    num_segments: int,
    *,
    mask: jax.Array | None = None,
    indices_are_sorted: bool = False,
    debug: bool = False,
) -> jax.Array:
    """Take the logarithm of the softmax over each segment, exact also where the softmax is 0.

    ``y_i = l_i - log sum_{j in s} exp(l_j)``, with the rules of :func:`segment_softmax`.

    Args:
        logits: ``(n, *features)``.
        segment_ids: int ``(n,)``. A number outside of ``0 .. num_segments - 1``, such as -1, marks
            padding, see :func:`segment_softmax`.
        num_segments: static number of segments.
        mask: bool ``(n,)``; false entries take no part. None keeps all.
        indices_are_sorted: promise that ``segment_ids`` never decreases.
        debug: check by ``checkify`` that no segment number lies outside.

    Returns:
        ``(n, *features)`` in the dtype of ``logits``. Entries that take no part receive 0, so that
        a sum over all is one over the kept; a logit of -inf receives -inf, or NaN beside one.

    Raises:
        ValueError: lengths that differ.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> logits, ids = jnp.array([0.0, 500.0, 0.0, 0.0]), jnp.array([0, 0, 1, 1])
        >>> print(np.asarray(ops.segment_log_softmax(logits, ids, 2)).round(2))
        [-500.      0.     -0.69   -0.69]
    """
    logits = as_array("logits", logits)
    segments, kept = enter_segments(
        logits, segment_ids, num_segments, mask, indices_are_sorted=indices_are_sorted, debug=debug
    )
    wide = at_least_float32(logits)
    finite = kept & (wide != -jnp.inf)
    # As differences to the largest: large logits of nearly the same size would lose their digits.
    _, top, logs = _logsumexp(wide, segments, kept)
    below, logs = jnp.where(finite, wide - segments.for_each(top), 0), segments.for_each(logs)
    never = jnp.where(jnp.isnan(logs), jnp.nan, -jnp.inf).astype(wide.dtype)
    shares = jnp.where(finite, below - logs, jnp.where(kept, never, 0))
    return shares.astype(float_dtype(logits))


def _logsumexp(
    logits: jax.Array, segments: Segments, kept: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Give ``top + logs``, the largest logit of each segment as a constant, and the rest."""
    # A logit of -inf says "masked" as well, and may fill a whole segment. NaN does not.
    kept = kept & (logits != -jnp.inf)
    logits = jnp.where(kept, logits, jnp.finfo(logits.dtype).min)
    top = segments.largest(logits)
    # Double where: -inf - (-inf) would be NaN, and of 0 the logarithm has no slope.
    exponent = jnp.where(kept, logits - segments.for_each(top), 0)
    totals = segments.totals(jnp.where(kept, jnp.exp(exponent), 0))
    empty = totals == 0
    logs = jnp.log(jnp.where(empty, 1, totals))
    return jnp.where(empty, -jnp.inf, top + logs), top, logs
