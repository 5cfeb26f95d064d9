"""Candidate halvings: which elements of every bucket go up, and how likely each proposal is."""

from itertools import combinations
from math import comb

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax.checks import require_given
from sparse_hyper_jax.sort.buckets import Buckets
from sparse_hyper_jax.sort.permutations import invert

KEY_LIMIT = 1e30
"""Keys beyond this count as this, so that sums over a bucket stay finite in float32."""


def at_rank(ordered: jax.Array, ranks: np.ndarray) -> jax.Array:
    """Pick one element of every row: ``(..., B, m)`` and static ranks ``(B,)`` to ``(..., B)``."""
    return ordered[..., np.arange(len(ranks), dtype=np.int32), ranks]


def upper_by_key(keys: jax.Array, buckets: Buckets) -> jax.Array:
    """Mark the elements that go up: those of stable rank at least ``lower`` within their bucket.

    Ties are broken by position and NaN ranks last, as in ``jnp.argsort``.

    Args:
        keys: ``(..., B, m)`` numbers, what the elements of a bucket are compared by.
        buckets: layout of the level.

    Returns:
        ``(..., B, m)`` bool; exactly ``sizes - lower`` elements of each bucket, and all padding.
    """
    if keys.dtype == jnp.bool_:
        keys = keys.astype(jnp.uint8)
    floating = jnp.issubdtype(keys.dtype, jnp.floating)
    last = jnp.nan if floating else jnp.iinfo(keys.dtype).max
    present = jnp.broadcast_to(buckets.present, keys.shape)
    order = jnp.argsort(jnp.where(present, keys, last), axis=-1, stable=True)
    leading = (1,) * (keys.ndim - 2)
    return invert(order) >= buckets.lower.reshape(*leading, -1, 1)


def upper_by_chance(key: jax.Array, count: int, buckets: Buckets) -> jax.Array:
    """Mark a uniformly random half of every bucket, ``count`` times.

    Args:
        key: typed random key.
        count: number of proposals ``C``.
        buckets: layout of the level.

    Returns:
        ``(C, B, m)`` bool; exactly ``sizes - lower`` elements of each bucket, and all padding.
    """
    slots = np.arange(buckets.width, dtype=np.uint32)
    # The slot in the low bits makes priorities unique, so one sort of plain numbers finds the
    # element of rank ``lower``: several times faster than an argsort.
    low_bits = np.uint32((1 << (buckets.width - 1).bit_length()) - 1)
    bits = jax.random.bits(key, (count, *buckets.slots.shape), jnp.uint32)
    last = jnp.uint32(2**32 - 1)
    priorities = jnp.where(buckets.present[None], (bits & ~low_bits) | slots[None, None], last)
    least_up = at_rank(jnp.sort(priorities, axis=-1), buckets.lower)
    return priorities >= least_up[..., None]


def enumerable(buckets: Buckets, num_candidates: int) -> bool:
    """Tell whether ``num_candidates`` suffice for all halvings of the largest bucket."""
    return comb(buckets.width, buckets.width // 2) <= num_candidates


def all_halves(buckets: Buckets) -> tuple[jax.Array, jax.Array]:
    """List every balanced assignment of every bucket.

    Returns:
        upper ``(C, B, m)`` bool and kept ``(C, B)`` bool, with ``C`` the number of halvings of the
        largest bucket. A bucket that is smaller by one has fewer: its remaining rows are not kept.
    """
    width = buckets.width
    # Sizes differ by at most one. Both tables are small and are spread over the buckets by the
    # program: as constants of that size, they would take the compiler minutes.
    full, short = (_halves(size, width) for size in (width, width - 1))
    is_full = jnp.asarray(buckets.sizes == width)
    upper = jnp.where(is_full[None, :, None], full[0][:, None], short[0][:, None])
    return upper, jnp.where(is_full[None], full[1][:, None], short[1][:, None])


def _halves(size: int, width: int) -> tuple[jax.Array, jax.Array]:
    """List the halvings of one bucket in a row of ``width`` slots.

    Returns:
        upper ``(C, width)`` and kept ``(C,)``, with ``C`` the number of halvings of a full row.
    """
    low = size // 2
    upper = np.ones((comb(width, width // 2), width), bool)
    # Also in rows that are not kept: they have no weight, but must be permutations.
    upper[:, :low] = False
    choices = list(combinations(range(size), low))
    for row, down in enumerate(choices):
        upper[row] = True
        upper[row, list(down)] = False
    kept = np.arange(len(upper)) < len(choices)
    # Opaque to the compiler, which would else work out everything that follows from them.
    return jax.lax.optimization_barrier((jnp.asarray(upper), jnp.asarray(kept)))


def first_occurrences(upper: jax.Array) -> jax.Array:
    """Mark the candidates that differ from all earlier ones of their bucket.

    Assignments are compared exactly, eight elements at a time.

    Args:
        upper: ``(C, B, m)`` bool.

    Returns:
        ``(C, B)`` bool; the first candidate is always kept.
    """
    packed = jnp.packbits(upper, axis=-1)
    equal = (packed[:, None] == packed[None]).all(axis=-1)
    earlier = np.tri(len(upper), k=-1, dtype=bool)[:, :, None]
    return ~(equal & earlier).any(axis=1)


def propose(
    key: jax.Array | None,
    keys: jax.Array,
    buckets: Buckets,
    *,
    num_candidates: int,
    num_near: int,
    certainty: jax.Array | float,
) -> tuple[jax.Array, jax.Array]:
    """Propose balanced assignments of the elements of every bucket to its two halves.

    All of them where there are at most ``num_candidates``. Otherwise the certain one (the upper
    half by key), ``num_near`` near it (the upper half by key plus logistic noise of scale
    ``1 / certainty``), and uniformly random ones for the rest; repeated ones are not kept.

    Args:
        key: typed random key; may be ``None`` if nothing is random.
        keys: ``(B, m)`` current keys in bucket rows.
        buckets: layout of the level.
        num_candidates: number of proposals ``C``, the certain one included.
        num_near: how many of them are drawn near the current order.
        certainty: scalar above 0, inverse of the scale of the noise.

    Returns:
        upper ``(C, B, m)`` bool and kept ``(C, B)`` bool, without gradient.
    """
    if num_candidates > 1 and enumerable(buckets, num_candidates):
        return all_halves(buckets)
    keys = jax.lax.stop_gradient(keys)
    proposals = [upper_by_key(keys, buckets)[None]]
    if num_candidates == 1:
        return proposals[0], first_occurrences(proposals[0])
    key = require_given(key, "key=None", "a random key", "pass jax.random.key(seed)")
    far_key = key
    if num_near:
        near_key, far_key = jax.random.split(key)
        noise = jax.random.logistic(near_key, (num_near, *keys.shape), keys.dtype)
        # Scaled keys plus noise, not keys plus scaled noise: no division.
        scaled = jax.lax.stop_gradient(jnp.asarray(certainty, keys.dtype)) * keys
        proposals.append(upper_by_key(scaled[None] + noise, buckets))
    if num_far := num_candidates - 1 - num_near:
        proposals.append(upper_by_chance(far_key, num_far, buckets))
    upper = jnp.concatenate(proposals)
    return upper, first_occurrences(upper)


def candidate_weights(
    keys: jax.Array,
    upper: jax.Array,
    kept: jax.Array,
    buckets: Buckets,
    certainty: jax.Array | float,
) -> jax.Array:
    """Return the weight of every candidate in every bucket.

    With ``p_i = sigmoid(certainty * (k_i - pivot))`` the chance that element ``i`` goes up, a
    candidate has weight ``prod_up p_i * prod_down (1 - p_i)``, normalised over the kept ones.
    Because ``log p_i - log(1 - p_i) = certainty * (k_i - pivot)``, and because all candidates have
    the same factor ``prod_i (1 - p_i)``, that is exactly

        ``w_c = softmax_c( sum_{i up in c} certainty * (k_i - pivot) )``

    which neither saturates nor underflows. Every candidate has equally many elements up, so the
    pivot cancels as well; it is subtracted (without gradient) to keep the sum accurate.

    Args:
        keys: ``(B, m)`` current keys in bucket rows.
        upper: ``(C, B, m)`` bool.
        kept: ``(C, B)`` bool.
        buckets: layout of the level.
        certainty: scalar above 0; how sharply keys decide.

    Returns:
        ``(C, B)`` weights that sum to one over ``C``; zero where not kept.
    """
    pivot = jax.lax.stop_gradient(_pivots(keys, buckets))
    certainty = jnp.asarray(certainty, keys.dtype)
    logits = jnp.clip(certainty * (keys - pivot[:, None]), -KEY_LIMIT, KEY_LIMIT)
    scores = jnp.where(upper & buckets.present[None], logits[None], 0).sum(axis=-1)
    return jax.nn.softmax(jnp.where(kept, scores, -jnp.inf), axis=0)


def _pivots(keys: jax.Array, buckets: Buckets) -> jax.Array:
    """Return the mean of the two middle order statistics of every bucket, ``(B,)``."""
    ordered = jnp.sort(jnp.where(buckets.present, keys, jnp.inf), axis=-1)
    below = at_rank(ordered, np.maximum(buckets.lower - 1, 0))
    # Halved before the sum, which could overflow.
    return below / 2 + at_rank(ordered, buckets.lower) / 2
