"""The soft permutation of SoftSort as an object: found once, applied to any payload, both ways.

Over elements ``q`` with weights ``w``, and ``s`` the sorted keys,

    ``P[p, q] = w[q] K[p, q] / sum_q w[q] K[p, q]``,
    ``K[p, q] = exp(-certainty * |s[p] - keys[q]|)``.

``K`` is the kernel of ``kernel.py``, so that ``P x`` and ``P^T y`` are one product with it each:
``O(n)`` once the keys are sorted. (Only where a matrix is smaller than the payload anyway, ``n <=
128`` and a wider payload, is it made.)
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax.checks import check_flag, check_shape
from sparse_hyper_jax.entrance import check_instance, check_same_shape
from sparse_hyper_jax.precision import wide_dtype
from sparse_hyper_jax.sort.entrance import (
    check_certainty,
    enter_keys,
    enter_lists,
    enter_payload,
    enter_weights,
)
from sparse_hyper_jax.sort.kernel import Order, find_decays, find_order, smooth
from sparse_hyper_jax.sort.permutations import permute
from sparse_hyper_jax.sort.split import widen_keys

Payload = TypeVar("Payload")

SHORT = 128
"""Up to so many elements a payload that is wider than that is mixed by a small matrix.

A product costs ``n`` multiplications for each number of the payload, the recurrences some passes
over it; on two processor cores the product took 0.6 of their time at ``n = 128``, width 784.
"""


class SoftPermutation(NamedTuple):
    """A soft permutation of ``n`` elements, never a matrix.

    Attributes:
        order: ``(n,)`` int32, the element whose key decides each sorted place: the exact argsort.
        places: ``(n,)`` int32, the sorted place of each element; the inverse of ``order``.
        starts: ``(n,)`` bool, true at the sorted places where a list begins; ``None`` for one list.
        decays: ``(n,)``, ``exp(-certainty * gap)`` to the sorted key before, 0 where a list begins;
            ``None`` for the exact permutation.
        weights: ``(n,)``, how much each element counts; ``None`` if all count alike.

    Example:
        >>> from sparse_hyper_jax.sort import soft_argsort
        >>> soft_argsort(jnp.array([0.3, -1.2, 0.9])).places.tolist()
        [1, 0, 2]
    """

    order: jax.Array
    places: jax.Array
    starts: jax.Array | None
    decays: jax.Array | None
    weights: jax.Array | None


jax.export.register_namedtuple_serialization(
    SoftPermutation, serialized_name="sparse_hyper_jax.sort.SoftPermutation"
)


def soft_argsort(
    keys: jax.Array,
    *,
    certainty: jax.Array | float = 10.0,
    segment_ids: jax.Array | None = None,
    weights: jax.Array | None = None,
    descending: bool = False,
    hard: bool = False,
) -> SoftPermutation:
    """Find the soft permutation that sorts the keys, for :func:`apply_permutation`.

    ``P[p, q] = w[q] K[p, q] / sum_q w[q] K[p, q]`` as in :func:`soft_sort`, which finds and applies
    it in one call. What is found stays differentiable in keys, certainty and weights.

    Args:
        keys: ``(n,)`` keys, as in :func:`soft_sort`.
        certainty: scalar above 0, as there.
        segment_ids: ``(n,)`` integers, which list an element belongs to, as there.
        weights: ``(n,)`` numbers, how much an element counts, as there.
        descending: sort from the largest key to the smallest.
        hard: the exact, stable permutation.

    Returns:
        :class:`SoftPermutation`, ``O(n)``; its ``order`` is the exact ``argsort``.

    Raises:
        ValueError: wrong shapes or dtypes.

    Reference: Prillo and Eisenschlos 2020, arXiv 2006.16038.

    Example:
        >>> from sparse_hyper_jax.sort import apply_permutation, soft_argsort
        >>> permutation = soft_argsort(jnp.array([0.3, -1.2, 0.9]), certainty=20.0)
        >>> permutation.order
        Array([1, 0, 2], dtype=int32)
        >>> payload = jnp.array([30.0, 10.0, 90.0])
        >>> print(np.asarray(apply_permutation(permutation, payload)).round(2))
        [10. 30. 90.]
    """
    sortable = enter_sort(keys, certainty, segment_ids, weights, descending=descending, hard=hard)
    return find_permutation(sortable, certainty)


def apply_permutation(
    permutation: SoftPermutation,
    payload: Payload,
    *,
    transpose: bool = False,
    straight_through: bool = False,
) -> Payload:
    """Send any payload through a soft permutation, forwards or back, without building it.

    ``out[p] = sum_q P[p, q] payload[q]``, from elements to sorted places; or, with ``transpose``,
    ``out[q] = sum_p P[p, q] payload[p]``, from sorted places back to elements. That is the inverse
    only of an exact permutation; rows of ``P`` sum to one, its columns need not.

    Args:
        permutation: what :func:`soft_argsort` returned for one instance; that it is one is not
            looked at.
        payload: pytree of arrays ``(n, ...)``; floating, unless the permutation is exact.
        transpose: apply ``P^T``.
        straight_through: return what the exact permutation gives, with the gradient of this one.

    Returns:
        The same tree of shapes and dtypes; 16-bit leaves are mixed in float32.

    Raises:
        ValueError: wrong shapes or dtypes.

    Example:
        >>> from sparse_hyper_jax.sort import apply_permutation, soft_argsort
        >>> permutation = soft_argsort(jnp.array([0.3, -1.2, 0.9]), certainty=20.0)
        >>> places = jnp.array([1.0, 2.0, 3.0])  # first, second, third
        >>> print(np.asarray(apply_permutation(permutation, places, transpose=True)).round(2))
        [2. 1. 3.]
    """
    permutation = _enter_permutation(permutation)
    transpose = check_flag("transpose", transpose)
    straight_through = check_flag("straight_through", straight_through)
    mixed = permutation.decays is not None
    payload = enter_payload("payload", payload, len(permutation.order), mixed=mixed)
    return apply(permutation, payload, transpose, straight_through)


class Sortable(NamedTuple):
    """Checked keys, and all that decides their order.

    Attributes:
        keys: ``(n,)``, ascending ones come first: turned round where they should come last.
        segment_ids: ``(n,)`` or None.
        weights: ``(n,)`` or None, 0 for elements that count for nothing; their keys are 0.
        hard: whether exact sorting is asked for.
    """

    keys: jax.Array
    segment_ids: jax.Array | None
    weights: jax.Array | None
    hard: bool

    def find_order(self, keys: jax.Array) -> Order:
        """Sort by these keys, which stand for its own."""
        absent = None if self.weights is None else self.weights == 0
        keys = jax.lax.stop_gradient(keys)
        return find_order(keys, segment_ids=self.segment_ids, absent=absent)


def enter_sort(
    keys: Any,
    certainty: Any,
    segment_ids: Any,
    weights: Any,
    *,
    descending: Any = False,
    hard: Any,
) -> Sortable:
    """Return the checked keys, lists and weights, and whether exact sorting is asked for."""
    hard = check_flag("hard", hard)
    descending = check_flag("descending", descending)
    check_certainty(certainty)
    keys = enter_keys(keys, floating=not hard)
    lists, weights = enter_lists(segment_ids, len(keys)), enter_weights(weights, len(keys))
    if weights is not None:
        keys = jnp.where(weights == 0, jnp.zeros_like(keys), keys)
    if descending:
        # For integers one less than minus, which no number is too small for.
        keys = -keys if jnp.issubdtype(keys.dtype, jnp.floating) else ~keys
    return Sortable(keys, lists, weights, hard)


def arrange(
    sortable: Sortable, wide: jax.Array, certainty: jax.Array | float
) -> tuple[Order, jax.Array]:
    """Return the order of the widened keys and the decays between sorted ones."""
    order = sortable.find_order(wide)
    return order, find_decays(order.arrange(wide), order.starts, certainty)


def find_permutation(
    sortable: Sortable, certainty: jax.Array | float, *payload: Any
) -> SoftPermutation:
    """Find the permutation of what was entered, in numbers as wide as the payload's, if known."""
    if sortable.hard:
        return as_permutation(sortable, sortable.find_order(sortable.keys), None)
    keys = widen_keys(sortable.keys, *payload)
    return as_permutation(sortable, *arrange(sortable, keys, certainty))


def as_permutation(sortable: Sortable, order: Order, decays: jax.Array | None) -> SoftPermutation:
    """Put together what was found."""
    single = sortable.segment_ids is None and sortable.weights is None
    starts = None if single else order.starts
    return SoftPermutation(order.order, order.places, starts, decays, sortable.weights)


def apply(
    permutation: SoftPermutation, payload: Payload, transpose: bool, straight_through: bool
) -> Payload:
    """Do what :func:`apply_permutation` says, without checks."""
    if permutation.decays is None:
        return jax.tree.map(lambda leaf: _move(permutation, leaf, transpose), payload)
    dtype = wide_dtype(permutation.decays, *jax.tree.leaves(payload))
    mix = _make_mix(permutation, dtype)

    def one(leaf: jax.Array) -> jax.Array:
        soft = mix(leaf.astype(dtype).reshape(len(leaf), -1), transpose).reshape(leaf.shape)
        soft = soft.astype(leaf.dtype)
        return with_value(_move(permutation, leaf, transpose), soft) if straight_through else soft

    return jax.tree.map(one, payload)


@jax.custom_jvp
def with_value(exact: jax.Array, soft: jax.Array) -> jax.Array:
    """Return the exact numbers, with the derivatives of the soft ones."""
    del soft
    return exact


@with_value.defjvp
def _with_value_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    return with_value(*primals), tangents[1]


def weigh(weights: jax.Array | None, rows: jax.Array) -> jax.Array:
    """Return ``weights * rows``, where nothing times anything is nothing."""
    if weights is None:
        return rows
    weights = weights.astype(rows.dtype).reshape(-1, *(1,) * (rows.ndim - 1))
    return jnp.where(weights == 0, 0, weights * jnp.where(weights == 0, 0, rows))


def _make_mix(
    permutation: SoftPermutation, dtype: np.dtype
) -> Callable[[jax.Array, bool], jax.Array]:
    """Return the product of ``P``, or its transpose, with rows ``(n, width)`` of a dtype."""
    order, places, starts, decays, weights = permutation
    decays = jnp.asarray(decays, dtype)
    n = len(order)

    def arrange_rows(rows: jax.Array) -> jax.Array:
        return permute(rows, order, places)

    # In the payload's precision: weights that are rounded before would not sum to one.
    totals = smooth(decays, arrange_rows(weigh(weights, jnp.ones(n, dtype))))
    if weights is not None:
        totals = jnp.where(totals == 0, 1, totals)  # where nothing counts, nothing arrives

    def mix(rows: jax.Array, transpose: bool) -> jax.Array:
        matrix = None
        if starts is None and n <= min(SHORT, rows.shape[1] - 1):
            # Smaller than the payload: one product takes fewer passes over the payload's memory.
            matrix = smooth(decays, arrange_rows(jnp.eye(n, dtype=dtype)))
        if transpose:
            if weights is not None:
                # Places of padding count for nothing, NaN among them: not even for the certainty.
                rows = jnp.where(arrange_rows(weights)[:, None] == 0, 0, rows)
            shares = rows / totals[:, None]
            if matrix is not None:
                return _product(matrix.T, shares)
            return weigh(weights, permute(smooth(decays, shares), places, order))
        if matrix is not None:
            return _product(matrix, rows) / totals[:, None]
        return smooth(decays, arrange_rows(weigh(weights, rows))) / totals[:, None]

    return mix


def _product(matrix: jax.Array, rows: jax.Array) -> jax.Array:
    return jnp.matmul(matrix, rows, precision=jax.lax.Precision.HIGHEST)


def _move(permutation: SoftPermutation, leaf: jax.Array, transpose: bool) -> jax.Array:
    """Permute exactly; what counts for nothing neither arrives nor receives anything."""
    order, places, _, _, weights = permutation
    moved = permute(leaf, places, order) if transpose else leaf
    if weights is not None:
        present = (weights != 0).reshape(-1, *(1,) * (leaf.ndim - 1))
        moved = jnp.where(present, moved, jnp.zeros_like(moved))
    return moved if transpose else permute(moved, order, places)


def _enter_permutation(permutation: Any) -> SoftPermutation:
    check_instance("permutation", permutation, SoftPermutation)
    order = permutation.order
    check_shape("permutation.order", order, (None,), "(n,): one instance; use jax.vmap for batches")
    named = {name: part for name, part in permutation._asdict().items() if part is not None}
    check_same_shape(**named)
    return permutation
