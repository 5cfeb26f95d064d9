"""Soft quantiles, median, least and largest values of a list, or of many lists, in ``O(n log n)``.

All of them read the softly sorted keys ``v = P keys`` (see ``soft_permutation.py``) at places of
each list: one sort and one pass over two numbers per element, however many quantiles are read.
"""

from typing import Any, NamedTuple, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from sparse_hyper_jax.checks import INT32_CELLS, check_count, check_flag, require, require_given
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.ops.device_axes import spread_alike
from sparse_hyper_jax.ops.inside import clip_inside
from sparse_hyper_jax.sort.kernel import find_bounds, find_within, smooth
from sparse_hyper_jax.sort.recurrence import decaying_sums
from sparse_hyper_jax.sort.soft_permutation import Sortable, arrange, enter_sort, with_value
from sparse_hyper_jax.sort.split import widen_keys


class ReadOptions(TypedDict, total=False):
    """How values are read off sorted keys: the options of :func:`soft_quantile`."""

    certainty: jax.Array | float
    segment_ids: jax.Array | None
    num_segments: int | None
    weights: jax.Array | None
    hard: bool
    straight_through: bool


def soft_quantile(
    keys: jax.Array,
    q: jax.Array | float,
    *,
    certainty: jax.Array | float = 10.0,
    segment_ids: jax.Array | None = None,
    num_segments: int | None = None,
    weights: jax.Array | None = None,
    hard: bool = False,
    straight_through: bool = False,
) -> jax.Array:
    """Return quantiles of the keys, with gradients for keys, quantiles and weights.

    ``(1 - t) v[p] + t v[p + 1]`` with ``v = soft_sort(keys, keys)`` and ``p + t = q (n - 1)``:
    linear interpolation as in ``jnp.quantile``, to which it comes as ``certainty`` grows. Weighted,
    element ``i`` stands in the middle ``m[i]`` of its weight, ``m[i] = sum_{j < i} w[j] + w[i] /
    2``, and place ``m[0] + q (m[n - 1] - m[0])`` is read between the two next to it: only ratios
    of weights matter. Time ``O(n log n)`` for any number of quantiles, memory ``O(n)``.

    Args:
        keys: ``(n,)`` keys, any ``n >= 1``, beyond 1e30 counted as 1e30; a NaN spoils its list.
        q: quantiles from 0 to 1, a number or an array of any shape; may be traced.
        certainty: scalar above 0, as in :func:`soft_sort`, in units of the keys.
        segment_ids: ``(n,)`` integers, which list an element belongs to. A number outside of ``0 ..
            num_segments - 1``, such as -1, marks padding, which counts for nothing.
        num_segments: static number of lists; goes with ``segment_ids``.
        weights: ``(n,)`` numbers or flags, how much an element counts; 0 or below for padding.
        hard: exact quantiles.
        straight_through: return the exact quantiles, with the gradient of the soft ones.

    Returns:
        The shape of ``q``, behind ``num_segments`` if there are lists; at least float32. 0 for a
        list without elements.

    Raises:
        ValueError: wrong shapes or dtypes, a quantile outside of 0 to 1, or one of ``segment_ids``
            and ``num_segments`` without the other.

    Reference: Prillo and Eisenschlos 2020, arXiv 2006.16038, for the relaxation.

    Example:
        >>> from sparse_hyper_jax.sort import soft_quantile
        >>> keys, ids = jnp.array([3.0, 1.0, 2.0, 9.0, 7.0]), jnp.array([0, 0, 0, 1, 1])
        >>> print(np.asarray(soft_quantile(keys, 0.25, certainty=4.0)).round(2))
        2.0
        >>> ends = jnp.array([0.0, 1.0])
        >>> print(np.asarray(soft_quantile(keys, ends, segment_ids=ids, num_segments=2)).round(2))
        [[1. 3.]
         [7. 9.]]
    """
    straight_through = check_flag("straight_through", straight_through)
    q = _enter_quantiles(q)
    sortable = enter_sort(keys, certainty, segment_ids, weights, hard=hard)
    places = _find_places(sortable, certainty, num_segments)
    level = q.reshape(1, -1).astype(places.exact.dtype)
    exact, soft = (_read(places, values, level) for values in (places.exact, places.soft))
    chosen = _choose(exact, soft, sortable.hard, straight_through)
    return chosen.reshape(*(() if segment_ids is None else (len(chosen),)), *q.shape)


def soft_median(keys: jax.Array, **options: Unpack[ReadOptions]) -> jax.Array:
    """Return the median of the keys, with gradients: ``soft_quantile(keys, 0.5)``.

    Args:
        keys: ``(n,)`` keys.
        **options: as of :func:`soft_quantile`.

    Returns:
        Scalar, or ``(num_segments,)``; at least float32.

    Raises:
        ValueError: as :func:`soft_quantile`.

    Example:
        >>> from sparse_hyper_jax.sort import soft_median
        >>> print(np.asarray(soft_median(jnp.array([3.0, 1.0, 100.0]), certainty=2.0)).round(2))
        2.96
    """
    return soft_quantile(keys, 0.5, **options)


def soft_min(keys: jax.Array, **options: Unpack[ReadOptions]) -> jax.Array:
    """Return the least key, with gradients: ``soft_quantile(keys, 0)``.

    ``sum_q softmax_q(-certainty * keys) keys[q]``, a mean that lies above the least key.

    Args:
        keys: ``(n,)`` keys.
        **options: as of :func:`soft_quantile`.

    Returns:
        Scalar, or ``(num_segments,)``; at least float32.

    Raises:
        ValueError: as :func:`soft_quantile`.

    Example:
        >>> from sparse_hyper_jax.sort import soft_min
        >>> print(np.asarray(soft_min(jnp.array([3.0, 1.0, 2.0]), certainty=2.0)).round(3))
        1.149
    """
    return soft_quantile(keys, 0.0, **options)


def soft_max(keys: jax.Array, **options: Unpack[ReadOptions]) -> jax.Array:
    """Return the largest key, with gradients: ``soft_quantile(keys, 1)``.

    ``sum_q softmax_q(certainty * keys) keys[q]``, a mean that lies below the largest key.

    Args:
        keys: ``(n,)`` keys.
        **options: as of :func:`soft_quantile`.

    Returns:
        Scalar, or ``(num_segments,)``; at least float32.

    Raises:
        ValueError: as :func:`soft_quantile`.

    Example:
        >>> from sparse_hyper_jax.sort import soft_max
        >>> keys, ids = jnp.array([3.0, 1.0, 2.0, 5.0]), jnp.array([0, 0, 1, 1])
        >>> print(np.asarray(soft_max(keys, segment_ids=ids, num_segments=2)).round(2))
        [3. 5.]
    """
    return soft_quantile(keys, 1.0, **options)


def soft_largest(
    keys: jax.Array,
    k: int,
    *,
    certainty: jax.Array | float = 10.0,
    segment_ids: jax.Array | None = None,
    num_segments: int | None = None,
    weights: jax.Array | None = None,
    hard: bool = False,
    straight_through: bool = False,
) -> jax.Array:
    """Return the ``k`` largest keys, from the largest down, with gradients.

    The first ``k`` places of ``soft_sort(keys, keys, descending=True)``, of every list. (Other
    payloads of the ``k`` largest: the first ``k`` rows of that sort; how far each element is among
    them: :func:`soft_top_k`.)

    Args:
        keys: ``(n,)`` keys, as in :func:`soft_quantile`; a NaN spoils its list.
        k: how many, from 1 to ``n``.
        certainty: scalar above 0, as there.
        segment_ids: ``(n,)`` integers, which list an element belongs to, as there.
        num_segments: static number of lists; goes with ``segment_ids``.
        weights: ``(n,)`` numbers or flags, how much an element is mixed in; each of weight above 0
            takes one place.
        hard: the exact ones.
        straight_through: return the exact ones, with the gradient of the soft ones.

    Returns:
        ``(k,)``, or ``(num_segments, k)``; at least float32. 0 where a list has no more elements.

    Raises:
        ValueError: as :func:`soft_quantile`, or another ``k``.

    Example:
        >>> from sparse_hyper_jax.sort import soft_largest
        >>> keys = jnp.array([3.0, 1.0, 2.0, 5.0])
        >>> print(np.asarray(soft_largest(keys, 2, certainty=8.0)).round(2))
        [5. 3.]
    """
    straight_through = check_flag("straight_through", straight_through)
    sortable = enter_sort(keys, certainty, segment_ids, weights, hard=hard)
    k = check_count("k", k, 1, len(sortable.keys))
    places = _find_places(sortable, certainty, num_segments)
    below = np.arange(k, dtype=np.int32)[None, :]
    exists = below < places.size[:, None]
    at = jnp.where(exists, places.last[:, None] - below, places.first[:, None])
    exact, soft = (
        jnp.where(exists, _spoil(places, _take(values, at)), 0)
        for values in (places.exact, places.soft)
    )
    chosen = _choose(exact, soft, sortable.hard, straight_through)
    return chosen if segment_ids is not None else chosen[0]


class Places(NamedTuple):
    """Sorted keys, and where each of ``S`` lists stands among them.

    Attributes:
        exact: ``(n,)``, the sorted keys.
        soft: ``(n,)``, softly sorted; the exact ones where they are asked for.
        middles: ``(n,)``, the weight that stands before each in its list, and half of its own.
        first: ``(S,)`` int32, the first place of a list.
        last: ``(S,)`` int32, the last one; the first one in a list without elements.
        size: ``(S,)`` int32, number of elements.
    """

    exact: jax.Array
    soft: jax.Array
    middles: jax.Array
    first: jax.Array
    last: jax.Array
    size: jax.Array


def _find_places(
    sortable: Sortable, certainty: jax.Array | float, num_segments: int | None
) -> Places:
    """Sort the keys of all lists, those that count for nothing behind all others."""
    count, lists = _enter_lists(sortable, num_segments)
    n = len(sortable.keys)
    if lists is None:
        size, keys = jnp.full(1, n, jnp.int32), sortable.keys
    else:
        size = jax.ops.segment_sum(jnp.ones_like(lists), lists, count)
        keys = jnp.where(lists == count, jnp.zeros_like(sortable.keys), sortable.keys)
    weights = sortable.weights
    order, decays = arrange(
        Sortable(keys, lists, None, sortable.hard), wide := widen_keys(keys), certainty
    )
    exact = order.arrange(wide)
    ones = jnp.ones_like(exact)
    shares = ones if weights is None else order.arrange(weights.astype(exact.dtype))
    soft = exact
    if not sortable.hard:
        # One pass over both sums. Padding may weigh nothing at all.
        sums = smooth(decays, jnp.stack(spread_alike(shares * exact, shares), axis=1))
        soft = sums[:, 0] / jnp.where(sums[:, 1] == 0, 1, sums[:, 1])
    if weights is None:
        middles = find_bounds(order.starts).rank.astype(exact.dtype) + 0.5
    else:
        middles = decaying_sums(find_within(order.starts, exact.dtype), shares) - shares / 2
    first = jnp.minimum(jnp.cumsum(size, dtype=jnp.int32) - size, n - 1)
    return Places(exact, soft, middles, first, first + jnp.maximum(size - 1, 0), size)


def _enter_lists(sortable: Sortable, num_segments: Any) -> tuple[int, jax.Array | None]:
    """Return how many lists there are, and the list of each element: one more is padding."""
    ids, weights = sortable.segment_ids, sortable.weights
    if ids is None:
        require(
            num_segments is None,
            f"num_segments={num_segments!r} without segment_ids",
            "both or none of them",
            "pass segment_ids too",
        )
        return 1, None if weights is None else (weights == 0).astype(jnp.int32)
    number = require_given(
        num_segments,
        "segment_ids without num_segments",
        "the static number of lists, as the shape of the result depends on it",
        "pass num_segments too",
    )
    count = check_count("num_segments", number, 1, INT32_CELLS - 2)
    clipped, inside = clip_inside(ids[:, None], (count,))
    if weights is not None:
        inside = inside & (weights != 0)
    return count, jnp.where(inside, clipped[:, 0], count)


def _read(places: Places, values: jax.Array, level: jax.Array) -> jax.Array:
    """Read values ``(n,)`` at levels ``(1, m)`` of every list, ``(S, m)``."""
    first, last = places.first[:, None], places.last[:, None]
    low, high = _take(places.middles, first), _take(places.middles, last)
    wanted = low + level * (high - low)
    below = _search(places, wanted)
    above = jnp.minimum(below + 1, last)
    start, end = _take(places.middles, below), _take(places.middles, above)
    alone = end == start
    part = jnp.where(alone, 0, (wanted - start) / jnp.where(alone, 1, end - start))
    read = _take(values, below) * (1 - part) + _take(values, above) * part
    return jnp.where(places.size[:, None] == 0, 0, _spoil(places, read))


def _spoil(places: Places, read: jax.Array) -> jax.Array:
    """Make what is read ``(S, m)`` NaN where the list holds one, which stands at its end."""
    ends = _take(places.exact, places.last[:, None])
    return read * jnp.where(jnp.isnan(ends), jnp.asarray(jnp.nan, read.dtype), 1)


def _search(places: Places, wanted: jax.Array) -> jax.Array:
    """Find the last place of each list whose middle is not beyond what is wanted, ``(S, m)``."""
    middles, wanted = jax.lax.stop_gradient((places.middles, wanted))
    middles, wanted, first, last = spread_alike(
        middles, wanted, places.first[:, None], places.last[:, None]
    )

    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low + high + 1) // 2
        reached = _take(middles, middle) <= wanted
        return jnp.where(reached, middle, low), jnp.where(reached, high, middle - 1)

    nothing = jnp.zeros_like(wanted, jnp.int32)
    ends = first + nothing, last + nothing
    return jax.lax.fori_loop(0, len(middles).bit_length(), halve, ends)[0]


def _take(values: jax.Array, at: jax.Array) -> jax.Array:
    """Read numbers of sorted places."""
    values, at = spread_alike(values, at)
    return values.at[at].get(mode="promise_in_bounds")


def _choose(exact: jax.Array, soft: jax.Array, hard: bool, straight_through: bool) -> jax.Array:
    """Return what was asked for."""
    return with_value(exact, soft) if straight_through and not hard else exact if hard else soft


def _enter_quantiles(q: Any) -> jax.Array:
    """Return quantiles as an array of floats, and look at those that are known.

    Raises:
        ValueError: no real numbers, or one that is not from 0 to 1.
    """
    levels = as_array("q", q)
    if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(q)):
        known = np.asarray(q)
        inside = bool(np.all((known >= 0) & (known <= 1)))
        require(inside, f"q={q!r:.80}", "numbers from 0 to 1", "divide percentages by 100")
    return levels
