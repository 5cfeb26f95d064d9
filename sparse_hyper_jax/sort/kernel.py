"""The Laplace kernel between sorted keys, applied in ``O(n)`` and never built.

With ``s`` the sorted keys, ``K[p, q] = exp(-certainty * |s[p] - s[q]|)``. Along sorted keys the
exponentials multiply up: with ``a[p] = exp(-certainty * (s[p] - s[p - 1]))``,

    ``K[p, q] = a[q + 1] * .. * a[p]``   for ``q <= p``,   ``K = F + F^T - I``,

with ``F`` the recurrence of ``recurrence.py``. Several lists are sorted one after the other, with
``a = 0`` where a list begins: ``K`` is then block diagonal.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparse_hyper_jax.checks import check_shape, require
from sparse_hyper_jax.precision import at_least_float32
from sparse_hyper_jax.sort.candidates import KEY_LIMIT, invert
from sparse_hyper_jax.sort.recurrence import decaying_sums, decaying_sums_ahead
from sparse_hyper_jax.sort.split import permute


class Order(NamedTuple):
    """Where every element stands once sorted: by list first, by key within its list.

    Attributes:
        order: ``(n,)`` int32, the element at each sorted place.
        places: ``(n,)`` int32, the sorted place of each element; the inverse of ``order``.
        starts: ``(n,)`` bool, true at the sorted places where a list begins.
    """

    order: jax.Array
    places: jax.Array
    starts: jax.Array

    def arrange(self, elements: jax.Array) -> jax.Array:
        """Bring ``(n, ...)`` from the order of the elements into sorted order."""
        return permute(elements, self.order, self.places)

    def restore(self, places: jax.Array) -> jax.Array:
        """Bring ``(n, ...)`` from sorted order back into the order of the elements."""
        return permute(places, self.places, self.order)


class Bounds(NamedTuple):
    """The place of every sorted element in its own list.

    Attributes:
        rank: ``(n,)`` int32, from 0.
        size: ``(n,)`` int32, the length of its list.
    """

    rank: jax.Array
    size: jax.Array


def find_order(*criteria: jax.Array, segment_ids: jax.Array | None) -> Order:
    """Sort elements by list, then by the criteria, the first one deciding first.

    Stable: elements equal in all of them keep their order; NaN goes last.

    Args:
        criteria: ``(n,)`` numbers each.
        segment_ids: ``(n,)`` integers that say which list an element belongs to; ``None`` for one.
    """
    lists = () if segment_ids is None else (segment_ids,)
    order = jnp.lexsort((*reversed(criteria), *lists)).astype(jnp.int32)
    starts = jnp.arange(len(order)) == 0
    if segment_ids is not None:
        ids = jnp.asarray(segment_ids)[order]
        starts = starts.at[1:].set(ids[1:] != ids[:-1])
    return Order(order, invert(order), starts)


def find_bounds(starts: jax.Array) -> Bounds:
    """Locate every sorted element in its list, given where lists start."""
    n = len(starts)
    places = jnp.arange(n, dtype=jnp.int32)
    first = jax.lax.cummax(jnp.where(starts, places, 0))
    ends = jnp.append(starts[1:], True)
    last = jax.lax.cummin(jnp.where(ends, places, n), reverse=True)
    return Bounds(places - first, last - first + 1)


def find_decays(
    sorted_keys: jax.Array, starts: jax.Array, certainty: jax.Array | float
) -> jax.Array:
    """Return ``exp(-certainty * gap)`` to the key before, ``(n,)``; zero where a list starts."""
    gaps = jnp.diff(sorted_keys, prepend=sorted_keys[:1])
    # Double where: a gap to another list may be of any size and sign.
    return jnp.where(starts, 0, jnp.exp(-certainty * jnp.where(starts, 0, gaps)))


def smooth(decays: jax.Array, rows: jax.Array) -> jax.Array:
    """Return ``K x`` for ``x`` of ``(n, ...)`` in sorted order; ``K`` is symmetric."""
    return decaying_sums(decays, rows) + (decaying_sums_ahead(decays, rows) - rows)


def soft_keys(keys: jax.Array) -> jax.Array:
    """Widen keys to at least float32 and bound them, so that differences stay finite."""
    return jnp.clip(at_least_float32(keys), -KEY_LIMIT, KEY_LIMIT)


def check_keys(
    keys: jax.Array, certainty: jax.Array | float, segment_ids: jax.Array | None, *, hard: bool
) -> None:
    """Raise unless these keys can be sorted.

    Raises:
        ValueError: wrong shapes, no element, or integers where a gradient is needed.
    """
    check_shape("keys", keys, (None,), "(n,): one key per element; use jax.vmap for batches")
    require(len(keys) > 0, "no element", "one or more", "leave the sort out")
    check_shape("certainty", certainty, (), "(): one number for all elements")
    if isinstance(certainty, int | float):
        require(certainty > 0, f"certainty={certainty}", "more than 0", "raise it, or negate keys")
    require(
        hard or jnp.issubdtype(jnp.result_type(keys), jnp.floating),
        f"keys of dtype {jnp.result_type(keys)}",
        "floating-point keys, which carry a gradient",
        "convert the keys, or sort with hard=True",
    )
    if segment_ids is not None:
        check_shape("segment_ids", segment_ids, keys.shape, "(n,): the list of each element")
        require(
            jnp.issubdtype(jnp.result_type(segment_ids), jnp.integer),
            f"segment_ids of dtype {jnp.result_type(segment_ids)}",
            "integers, one per element",
            "number the lists",
        )
