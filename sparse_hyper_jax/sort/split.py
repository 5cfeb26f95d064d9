"""One level of the differentiable quicksort: mix a few permutations that halve every bucket."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparse_hyper_jax.checks import check_count, check_shape, require, require_given
from sparse_hyper_jax.precision import at_least_float32
from sparse_hyper_jax.sort.buckets import Buckets, buckets_at, from_rows, to_rows
from sparse_hyper_jax.sort.candidates import (
    KEY_LIMIT,
    candidate_weights,
    invert,
    propose,
    upper_by_key,
)


class HalfPermutation(NamedTuple):
    """A convex mixture of ``C`` permutations of ``n`` positions, each moving within its buckets.

    Never a matrix: as one it would have ``M[p, sources[c, p]] += weights[c, p]``. Weights differ
    from bucket to bucket, and a permutation stays inside the buckets, so a position and its source
    have the same weight.

    Attributes:
        sources: ``(C, n)`` int32, the position that each output position is filled from.
        destinations: ``(C, n)`` int32, the position that each input position moves to; the inverse
            permutations of ``sources``.
        weights: ``(C, n)`` float, constant over a bucket, summing to one over ``C``.
    """

    sources: jax.Array
    destinations: jax.Array
    weights: jax.Array


def partition(upper: jax.Array, buckets: Buckets) -> tuple[jax.Array, jax.Array]:
    """Turn assignments into stable partitions: within each half the order is kept.

    Args:
        upper: ``(C, B, m)`` bool, balanced, true for padding.
        buckets: layout of the level.

    Returns:
        sources and destinations, ``(C, n)`` int32 each, inverse to each other.
    """
    down = jnp.cumsum(~upper, axis=-1) - 1
    up = jnp.cumsum(upper, axis=-1) - 1 + buckets.lower[:, None]
    starts = buckets.slots[:, :1]
    moves = jnp.where(upper, up, down)
    destinations, sources = starts + moves, starts + invert(moves)
    # Padding is the last slot of its row and goes up last, so it maps to itself and drops out.
    both = from_rows(jnp.stack([sources, destinations]), buckets).astype(jnp.int32)
    return both[0], both[1]


def half_split(
    key: jax.Array | None,
    keys: jax.Array,
    payload: Any,
    *,
    level: int = 0,
    num_candidates: int = 16,
    num_near: int = 0,
    certainty: jax.Array | float = 10.0,
    hard: bool = False,
) -> tuple[jax.Array, Any, HalfPermutation]:
    """Halve every bucket of one level: elements with large keys move to its upper half.

    Every candidate assignment is a stable partition inside the buckets; keys and payload are mixed
    over the candidates with weights that depend on the keys, which is how a gradient reaches them:

        ``w_c = softmax_c( certainty * sum_{i up in c} keys[i] )`` for every bucket
        ``out[p] = sum_c w_c * payload[sources[c, p]]``

    Candidates are the certain one (the upper half by key), ``num_near`` near it, and uniformly
    random ones. Where a bucket has at most ``num_candidates`` halvings (2, 6, 20, 70 for 2, 4, 6, 8
    elements) all of them are used and nothing is random.

    Args:
        key: typed random key for the proposals; may be ``None`` if ``hard``.
        keys: ``(n,)`` current keys, any ``n >= 1``. Soft keys beyond 1e30, infinities among them,
            count as 1e30; if ``hard``, infinities are exact and NaN goes last.
        payload: pytree of arrays ``(n, ...)``, what is carried along; floating, unless ``hard``.
        level: number of splits made before; says which positions form a bucket.
        num_candidates: proposals per bucket, the certain one included.
        num_near: how many of them are drawn near the current order instead of uniformly.
        certainty: scalar, may be traced; how sharply keys decide.
        hard: use the certain assignment only; ties are broken by position.

    Returns:
        The moved keys ``(n,)``, the moved payload, and the mixture that moved them; its ``C`` is
        one if ``hard``. Sums are taken in float32 for 16-bit inputs.

    Raises:
        ValueError: wrong shapes, dtypes or counts, or no random key.

    Reference: Bloem 2018, arXiv 1810.09184.
    """
    check_shape("keys", keys, (None,), "(n,): one key per element; use jax.vmap for batches")
    buckets = buckets_at(len(keys), level)
    if hard:
        split = _certain_split(keys, buckets)
        return *apply_split(split, (keys, payload)), split
    options = {"num_candidates": num_candidates, "num_near": num_near, "certainty": certainty}
    check_options(key, keys, **options)
    check_payload(payload, len(keys), mixed=num_candidates > 1)
    wide = jnp.clip(at_least_float32(keys), -KEY_LIMIT, KEY_LIMIT)
    rows = to_rows(wide, buckets)
    upper, kept = propose(key, rows, buckets, **options)
    shares = candidate_weights(rows, upper, kept, buckets, certainty)
    weights = from_rows(jnp.broadcast_to(shares[..., None], upper.shape), buckets)
    split = HalfPermutation(*partition(upper, buckets), weights)
    moved_keys, moved = apply_split(split, (wide, payload))
    return moved_keys.astype(keys.dtype), moved, split


def apply_split(split: HalfPermutation, payload: Any) -> Any:
    """Send a payload forwards: ``out[p] = sum_c weights[c, p] * payload[sources[c, p]]``.

    Args:
        split: mixture over ``n`` positions.
        payload: pytree of arrays ``(n, ...)``; floating, unless there is a single candidate.

    Returns:
        The same tree of shapes and dtypes; 16-bit leaves are mixed in float32.

    Raises:
        ValueError: a leaf has another leading axis, or is of integers that would be mixed.
    """
    candidates, n = split.sources.shape
    check_payload(payload, n, mixed=candidates > 1)
    return jax.tree.map(lambda leaf: _mix(leaf, split), payload)


def reverse_split(split: HalfPermutation, payload: Any) -> Any:
    """Pull a payload backwards: ``out[i] = sum_c weights[c, i] * payload[destinations[c, i]]``.

    The transpose of :func:`apply_split`; its inverse if there is a single candidate.

    Args:
        split: mixture over ``n`` positions.
        payload: pytree of arrays ``(n, ...)``.

    Returns:
        The same tree of shapes and dtypes.

    Raises:
        ValueError: as in :func:`apply_split`.
    """
    turned = split._replace(sources=split.destinations, destinations=split.sources)
    return apply_split(turned, payload)


def check_payload(payload: Any, n: int, *, mixed: bool) -> None:
    """Raise unless every leaf of ``payload`` has leading axis ``n`` and, if mixed, is of floats.

    Raises:
        ValueError: a leaf is a scalar, has another length, or is of integers that would be mixed.
    """
    for leaf in jax.tree.leaves(payload):
        require(
            jnp.ndim(leaf) >= 1 and jnp.shape(leaf)[0] == n,
            f"payload leaf of shape {jnp.shape(leaf)}",
            f"leading axis {n}, one entry per key",
            "move the sorted axis to the front; use jax.vmap for batches",
        )
        dtype = jnp.result_type(leaf)
        require(
            not mixed or jnp.issubdtype(dtype, jnp.inexact),
            f"payload leaf of dtype {dtype}",
            "floating-point payload, because permutations are mixed",
            "convert the leaf, or sort with hard=True",
        )


def _certain_split(keys: jax.Array, buckets: Buckets) -> HalfPermutation:
    """Return the single stable partition by key, of weight one."""
    upper = upper_by_key(to_rows(keys, buckets), buckets)[None]
    sources, destinations = partition(upper, buckets)
    return HalfPermutation(sources, destinations, jnp.ones(sources.shape, jnp.float32))


def _mix(leaf: jax.Array, split: HalfPermutation) -> jax.Array:
    """Mix the permuted copies of one leaf without holding all of them."""
    leaf = jnp.asarray(leaf)
    if len(split.sources) == 1:
        return permute(leaf, split.sources[0], split.destinations[0])
    wide = at_least_float32(leaf)
    trailing = (1,) * (leaf.ndim - 1)

    # The permuted copy is recomputed in the backward pass: cheaper than keeping C of them.
    @jax.checkpoint
    def add(total: jax.Array, candidate: HalfPermutation) -> tuple[jax.Array, None]:
        sources, destinations, weights = candidate
        moved = permute(wide, sources, destinations)
        return total + weights.reshape(-1, *trailing).astype(wide.dtype) * moved, None

    # A loop, not one sum: compilers fuse a sum of gathers into the gathers of the next level, and
    # then recompute the first level once for every combination of candidates.
    total, _ = jax.lax.scan(add, jnp.zeros_like(wide), split)
    return total.astype(leaf.dtype)


def permute(leaf: jax.Array, sources: jax.Array, destinations: jax.Array) -> jax.Array:
    """Return ``leaf[sources]`` whose transpose is ``leaf[destinations]``: a gather both ways.

    The transpose of a plain gather is a scatter, several times slower here. A permutation solves
    ``x[destinations] = leaf`` for ``x``; told so, JAX takes the given solution for the forward
    pass, the given transposed one for the backward pass, and still supports forward mode.
    """
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return leaf[sources]

    def take(index: jax.Array):
        return lambda array: array.at[index].get(mode="promise_in_bounds", unique_indices=True)

    return jax.lax.custom_linear_solve(
        take(destinations),
        leaf,
        solve=lambda _, array: take(sources)(array),
        transpose_solve=lambda _, array: take(destinations)(array),
    )


def check_options(
    key: jax.Array | None,
    keys: jax.Array,
    *,
    num_candidates: int,
    num_near: int,
    certainty: jax.Array | float,
) -> jax.Array:
    """Return the key after checking that a soft split can be made with these options.

    Raises:
        ValueError: no random key, keys of integers, or options out of range.
    """
    require(
        jnp.issubdtype(keys.dtype, jnp.floating),
        f"keys of dtype {keys.dtype}",
        "floating-point keys, which carry a gradient",
        "convert the keys, or sort with hard=True",
    )
    check_count("num_candidates", num_candidates, 1)
    check_count("num_near", num_near)
    require(
        num_near < num_candidates,
        f"num_near={num_near} of num_candidates={num_candidates}",
        "fewer near candidates than candidates, as one is the certain one",
        "raise num_candidates or lower num_near",
    )
    check_shape("certainty", certainty, (), "(): one number for all elements")
    return require_given(
        key,
        "key=None",
        "a random key for the proposals",
        "pass jax.random.key(seed), or sort with hard=True",
    )
