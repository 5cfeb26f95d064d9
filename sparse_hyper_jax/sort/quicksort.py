"""Differentiable quicksort: ``ceil(log2 n)`` splits in a row, with targets pulled back through.

Sort by :func:`~sparse_hyper_jax.sort.soft_sort` unless it is one of these that is needed, which
nothing else here can do: stages that are doubly stochastic, each a mixture of whole permutations
whose rows and columns both sum to one; halvings that can be looked at, or compared with targets,
level by level; and, in ``sampled.py``, permutations that are drawn, with their probability.
"""

from typing import Any, NamedTuple

import jax
import jax.export

from sparse_hyper_jax.checks import check_flag
from sparse_hyper_jax.sort.buckets import buckets_at, num_levels
from sparse_hyper_jax.sort.entrance import enter_keys, enter_options, enter_payload
from sparse_hyper_jax.sort.split import (
    HalfPermutation,
    certain_split,
    mix,
    soft_split,
    turned,
    widen_keys,
)


class Sorted(NamedTuple):
    """What a sort of ``n`` elements in ``L = ceil(log2 n)`` levels returns.

    Attributes:
        payload: pytree of ``(n, ...)``, the sorted payload; the same as ``stages[L]``.
        keys: ``(n,)``, the sorted keys, mixed by the same weights.
        stages: tuple of ``L + 1`` payloads; ``stages[d]`` after ``d`` splits, so ``stages[0]`` is
            the input. After ``d`` splits every element should be in its bucket of level ``d``.
        targets: tuple of ``L + 1`` trees like the target; ``targets[L]`` is the target itself and
            ``targets[d]`` the target pulled back through the splits ``L - 1`` down to ``d``, so
            that it can be compared with ``stages[d]``. ``None`` if no target was given.

    Example:
        >>> from sparse_hyper_jax.sort import quicksort
        >>> keys = jnp.array([2.0, 3.0, 0.0, 1.0])
        >>> [stage.tolist() for stage in quicksort(None, keys, keys, hard=True).stages]
        [[2.0, 3.0, 0.0, 1.0], [0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0]]
    """

    payload: Any
    keys: jax.Array
    stages: tuple[Any, ...]
    targets: tuple[Any, ...] | None


jax.export.register_namedtuple_serialization(Sorted, serialized_name="sparse_hyper_jax.sort.Sorted")


def quicksort(
    key: jax.Array | None,
    keys: jax.Array,
    payload: Any,
    *,
    num_candidates: int = 16,
    num_near: int = 0,
    certainty: jax.Array | float = 10.0,
    hard: bool = False,
    target: Any = None,
) -> Sorted:
    """Sort a payload by its keys in ascending order, with gradients for the keys.

    ``payload[d + 1] = M_d payload[d]`` for ``d = 0 .. L - 1``, where ``M_d`` mixes permutations
    that halve every bucket of level ``d`` (see :func:`~sparse_hyper_jax.sort.half_split`), and
    ``target[d] = M_d^T target[d + 1]``. No ``M_d`` is ever a matrix: the cost is
    ``O(n * num_candidates * L)``.

    The scale of the keys decides how sharp the sort is: standardise them first
    (:func:`~sparse_hyper_jax.sort.standardise`), so that ``certainty`` has one meaning throughout
    training.

    Args:
        key: typed random key for the proposals; may be ``None`` if ``hard``.
        keys: ``(n,)`` keys, any ``n >= 1``. Soft keys beyond 1e30, infinities among them, count as
            1e30; a NaN spoils a soft sort.
        payload: pytree of arrays ``(n, ...)``; floating, unless ``hard``. A list of numbers is an
            array.
        num_candidates: proposals per bucket, the certain one included.
        num_near: how many of them are drawn near the current order instead of uniformly.
        certainty: scalar above 0, may be traced and learned; how sharply keys decide.
        hard: exact, deterministic, stable sort: equal to indexing by
            ``jnp.argsort(keys, stable=True)``, ties included, NaN last.
        target: pytree of arrays ``(n, ...)``, what the sorted payload should be; optional.

    Returns:
        The sorted payload and keys, all stages, and the target pulled back to each of them.

    Raises:
        ValueError: wrong shapes, dtypes or counts, or no random key.

    Reference: Bloem 2018, arXiv 1810.09184.

    Example:
        >>> from sparse_hyper_jax.sort import quicksort
        >>> done = quicksort(jax.random.key(0), jnp.array([0.3, -1.2, 0.9, 0.0]), jnp.eye(4))
        >>> len(done.stages)  # the input, and after each of two splits
        3
        >>> print(done.payload.sum(0).round(3), done.payload.sum(1).round(3))
        [1. 1. 1. 1.] [1. 1. 1. 1.]
    """
    hard = check_flag("hard", hard)
    options = enter_options(
        key, num_candidates=num_candidates, num_near=num_near, certainty=certainty, hard=hard
    )
    keys = enter_keys(keys, floating=not hard)
    n = len(keys)
    mixed = not hard and options["num_candidates"] > 1
    payload = enter_payload("payload", payload, n, mixed=mixed)
    target = enter_payload("target", target, n, mixed=mixed)
    stages, splits = [payload], []
    # Soft keys stay wide between the levels: rounding mixed keys to 16 bits would create ties.
    current = keys if hard else widen_keys(keys, payload, target)
    levels = num_levels(n)
    # One split for all levels: deriving each level's key apart would compile the generator L times.
    level_keys = [None] * levels if key is None else jax.random.split(key, max(levels, 1))
    for level in range(levels):
        buckets = buckets_at(n, level)
        current, payload, split = (
            certain_split(current, payload, buckets)
            if hard
            else soft_split(level_keys[level], current, payload, buckets, options)
        )
        stages.append(payload)
        splits.append(split)
    targets = None if target is None else _pull_back(splits, target)
    return Sorted(payload, current.astype(keys.dtype), tuple(stages), targets)


def _pull_back(splits: list[HalfPermutation], target: Any) -> tuple[Any, ...]:
    """Return the target at every stage, first to last."""
    targets = [target]
    for split in reversed(splits):
        targets.append(mix(targets[-1], turned(split)))
    return tuple(reversed(targets))
