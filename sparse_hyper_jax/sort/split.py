"""One level of the differentiable quicksort: mix a few permutations that halve every bucket."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp

from sparse_hyper_jax.checks import check_flag, check_shape
from sparse_hyper_jax.entrance import as_array, check_instance, check_same_shape
from sparse_hyper_jax.precision import at_least_float32, wide_dtype
from sparse_hyper_jax.sort.buckets import Buckets, buckets_at, check_level, from_rows, to_rows
from sparse_hyper_jax.sort.candidates import KEY_LIMIT, candidate_weights, propose, upper_by_key
from sparse_hyper_jax.sort.entrance import (
    SplitOptions,
    enter_keys,
    enter_options,
    enter_payload,
)
from sparse_hyper_jax.sort.permutations import invert, permute


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

    Example:
        >>> from sparse_hyper_jax.sort import half_split
        >>> split = half_split(jax.random.key(0), jnp.array([2.0, 1.0]), None, certainty=1.0)[2]
        >>> print(np.asarray(split.weights[:, 0]).round(2))  # of both halvings of two elements
        [0.27 0.73]
    """

    sources: jax.Array
    destinations: jax.Array
    weights: jax.Array


jax.export.register_namedtuple_serialization(
    HalfPermutation, serialized_name="sparse_hyper_jax.sort.HalfPermutation"
)


def partition(upper: jax.Array, buckets: Buckets) -> tuple[jax.Array, jax.Array]:
    """Turn assignments into stable partitions: within each half the order is kept.

    Args:
        upper: ``(C, B, m)`` bool, balanced, true for padding.
        buckets: layout of the level.

    Returns:
        sources and destinations, ``(C, n)`` int32 each, inverse to each other.
    """
    down = jnp.cumsum(~upper, axis=-1, dtype=jnp.int32) - 1
    up = jnp.cumsum(upper, axis=-1, dtype=jnp.int32) - 1 + buckets.lower[None, :, None]
    starts = buckets.slots[None, :, :1]
    moves = jnp.where(upper, up, down)
    destinations, sources = starts + moves, starts + invert(moves)
    # Padding is the last slot of its row and goes up last, so it maps to itself and drops out.
    both = from_rows(jnp.stack([sources, destinations]), buckets)
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
            count as 1e30, and a NaN spoils its bucket; if ``hard``, infinities are exact and NaN
            goes last.
        payload: pytree of arrays ``(n, ...)``, what is carried along; floating, unless ``hard``.
            A list of numbers is an array.
        level: number of splits made before; says which positions form a bucket.
        num_candidates: proposals per bucket, the certain one included.
        num_near: how many of them are drawn near the current order instead of uniformly.
        certainty: scalar above 0, may be traced; how sharply keys decide.
        hard: use the certain assignment only; ties are broken by position.

    Returns:
        The moved keys ``(n,)``, the moved payload, and the mixture that moved them; its ``C`` is
        one if ``hard``. Sums are taken in float32 for 16-bit inputs.

    Raises:
        ValueError: wrong shapes, dtypes or counts, or no random key.

    Reference: Bloem 2018, arXiv 1810.09184.

    Example:
        >>> from sparse_hyper_jax.sort import half_split
        >>> keys, payload = jnp.array([0.3, -1.2, 0.9, 0.0]), jnp.array([3, 1, 4, 2])
        >>> half_split(None, keys, payload, hard=True)[1].tolist()  # 1 and 2 go down, 3 and 4 up
        [1, 2, 3, 4]
    """
    hard = check_flag("hard", hard)
    options = enter_options(
        key, num_candidates=num_candidates, num_near=num_near, certainty=certainty, hard=hard
    )
    keys = enter_keys(keys, floating=not hard)
    n = len(keys)
    buckets = buckets_at(n, check_level(level, n))
    mixed = not hard and options["num_candidates"] > 1
    payload = enter_payload("payload", payload, n, mixed=mixed)
    if hard:
        return certain_split(keys, payload, buckets)
    moved_keys, moved, split = soft_split(key, widen_keys(keys, payload), payload, buckets, options)
    return moved_keys.astype(keys.dtype), moved, split


def widen_keys(keys: jax.Array, *others: Any) -> jax.Array:
    """Bound keys so that differences stay finite, as wide as what is mixed by them needs."""
    dtype = wide_dtype(keys, *jax.tree.leaves(others))
    return jnp.clip(keys.astype(dtype), -KEY_LIMIT, KEY_LIMIT)


def certain_split(
    keys: jax.Array, payload: Any, buckets: Buckets
) -> tuple[jax.Array, Any, HalfPermutation]:
    """Make a :func:`half_split` by the single stable partition by key, of weight one."""
    upper = upper_by_key(to_rows(keys, buckets), buckets)[None]
    sources, destinations = partition(upper, buckets)
    split = HalfPermutation(sources, destinations, jnp.ones(sources.shape, jnp.float32))
    return *mix((keys, payload), split), split


def soft_split(
    key: jax.Array | None, keys: jax.Array, payload: Any, buckets: Buckets, options: SplitOptions
) -> tuple[jax.Array, Any, HalfPermutation]:
    """Make a :func:`half_split` by keys from :func:`widen_keys`."""
    rows = to_rows(keys, buckets)
    upper, kept = propose(key, rows, buckets, **options)
    shares = candidate_weights(rows, upper, kept, buckets, options["certainty"])
    weights = from_rows(jnp.broadcast_to(shares[..., None], upper.shape), buckets)
    split = HalfPermutation(*partition(upper, buckets), weights)
    return *mix((keys, payload), split), split


def apply_split(split: HalfPermutation, payload: Any) -> Any:
    """Send a payload forwards: ``out[p] = sum_c weights[c, p] * payload[sources[c, p]]``.

    Args:
        split: mixture over ``n`` positions, from :func:`half_split`; that its rows are permutations
            is not looked at.
        payload: pytree of arrays ``(n, ...)``; floating, unless there is a single candidate.

    Returns:
        The same tree of shapes and dtypes; 16-bit leaves are mixed in float32.

    Raises:
        ValueError: a leaf has another leading axis, or is of integers that would be mixed.

    Example:
        >>> from sparse_hyper_jax.sort import apply_split, half_split
        >>> split = half_split(None, jnp.array([3.0, 1.0, 4.0, 2.0]), None, hard=True)[2]
        >>> apply_split(split, jnp.array([30, 10, 40, 20])).tolist()
        [10, 20, 30, 40]
    """
    split = _enter_split(split)
    candidates, n = split.sources.shape
    return mix(enter_payload("payload", payload, n, mixed=candidates > 1), split)


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

    Example:
        >>> from sparse_hyper_jax.sort import half_split, reverse_split
        >>> split = half_split(None, jnp.array([3.0, 1.0, 4.0, 2.0]), None, hard=True)[2]
        >>> reverse_split(split, jnp.array([10, 20, 30, 40])).tolist()
        [30, 10, 40, 20]
    """
    return apply_split(turned(_enter_split(split)), payload)


def turned(split: HalfPermutation) -> HalfPermutation:
    """Return the transpose."""
    return split._replace(sources=split.destinations, destinations=split.sources)


def _enter_split(split: HalfPermutation) -> HalfPermutation:
    check_instance("split", split, HalfPermutation)
    sources = as_array("split.sources", split.sources, "integers")
    check_shape("split.sources", sources, (None, None), "(C, n): a permutation per candidate")
    destinations = as_array("split.destinations", split.destinations, "integers")
    weights = as_array("split.weights", split.weights, "floats")
    check_same_shape(sources=sources, destinations=destinations, weights=weights)
    return HalfPermutation(sources, destinations, weights)


def mix(payload: Any, split: HalfPermutation) -> Any:
    """Do what :func:`apply_split` says, without checks."""
    return jax.tree.map(lambda leaf: _mix(leaf, split), payload)


# Compiled once: the loop inside is made anew by every call.
@partial(jax.jit, inline=True)
def _mix(leaf: jax.Array, split: HalfPermutation) -> jax.Array:
    """Mix the permuted copies of one leaf without holding all of them."""
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
