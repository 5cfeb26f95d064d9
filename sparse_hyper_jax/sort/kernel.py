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
import numpy as np

from sparse_hyper_jax.sort.permutations import invert, permute
from sparse_hyper_jax.sort.recurrence import decaying_sums, decaying_sums_ahead


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


def find_order(
    *criteria: jax.Array, segment_ids: jax.Array | None, absent: jax.Array | None = None
) -> Order:
    """Sort elements by list, then by the criteria, the first one deciding first.

    Stable: elements equal in all of them keep their order; NaN goes last.

    Args:
        criteria: ``(n,)`` numbers each.
        segment_ids: ``(n,)`` integers that say which list an element belongs to; ``None`` for one.
        absent: ``(n,)`` bool, elements that count for nothing: they stand behind the others of
            their list, as a list of their own. ``None`` if there are none.
    """
    parts = [part for part in (absent, segment_ids) if part is not None]
    order = jnp.lexsort((*reversed(criteria), *parts)).astype(jnp.int32)
    places = invert(order)
    starts = jnp.arange(len(order)) == 0
    for part in parts:
        starts = starts | find_changes(permute(part, order, places))
    return Order(order, places, starts)


def find_changes(ordered: jax.Array) -> jax.Array:
    """Mark the first of all, and those that differ from the one before, ``(n,)`` bool."""
    return jnp.concatenate([jnp.ones_like(ordered[:1], bool), ordered[1:] != ordered[:-1]])


def find_bounds(starts: jax.Array) -> Bounds:
    """Locate every sorted element in its list, given where lists start."""
    n = len(starts)
    places = jnp.arange(n, dtype=jnp.int32)
    first = jax.lax.cummax(jnp.where(starts, places, 0))
    ends = jnp.concatenate([starts[1:], jnp.ones_like(starts[:1])])
    last = jax.lax.cummin(jnp.where(ends, places, n), reverse=True)
    return Bounds(places - first, last - first + 1)


def find_decays(
    sorted_keys: jax.Array, starts: jax.Array, certainty: jax.Array | float
) -> jax.Array:
    """Return ``exp(-certainty * gap)`` to the key before, ``(n,)``; zero where a list starts."""
    gaps = jnp.diff(sorted_keys, prepend=sorted_keys[:1])
    certainty = jnp.asarray(certainty, gaps.dtype)
    # Double where: a gap to another list may be of any size and sign.
    return jnp.where(starts, 0, jnp.exp(-certainty * jnp.where(starts, 0, gaps)))


def find_within(starts: jax.Array, dtype: np.dtype) -> jax.Array:
    """Return decays ``(n,)`` that add up all of a list and nothing else: 1, and 0 at its start."""
    return jnp.where(starts, 0, jnp.ones((), dtype))


def smooth(decays: jax.Array, rows: jax.Array) -> jax.Array:
    """Return ``K x`` for ``x`` of ``(n, ...)`` in sorted order; ``K`` is symmetric."""
    return decaying_sums(decays, rows) + (decaying_sums_ahead(decays, rows) - rows)
