"""How many tokens every expert gets: the limit, and the report.

An expert with room for ``capacity`` tokens drops those that come after. What it computes then has a
static shape, ``(E, capacity, ...)``, however the tokens are spread. What spreads them evenly is in
``balance.py``.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.estimators.routing import chosen_expert
from sparse_hyper_jax.placement import gathered
from sparse_hyper_jax.precision import at_least_float32


class Placed(NamedTuple):
    """Tokens that found a place with an expert, and how many did not.

    Example:
        >>> from sparse_hyper_jax.estimators import within_capacity
        >>> placed = within_capacity([1, 1, 1, 0], num_experts=2, capacity=2)
        >>> placed.expert.tolist(), placed.place.tolist(), int(placed.dropped)
        ([1, 1, -1, 0], [0, 1, -1, 0], 1)
    """

    expert: jax.Array
    """int32, of the shape of the index: the expert, or -1 where there is no place."""

    place: jax.Array
    """int32, likewise: a number below the capacity, or -1; no two tokens share one of an expert."""

    dropped: jax.Array
    """int32 scalar: how many were dropped; padding is not."""


class LoadReport(NamedTuple):
    """How a router spreads its tokens.

    Example:
        >>> from sparse_hyper_jax.estimators import load_report
        >>> report = load_report([0, 0, 0, 1, -1], num_experts=2)
        >>> report.load.tolist(), report.share.tolist(), float(report.violation)
        ([3, 1], [0.75, 0.25], 0.5)
    """

    load: jax.Array
    """int32 ``(E,)``, tokens of every expert."""

    share: jax.Array
    """``(E,)``, the same as shares, which sum to 1; 0 without tokens."""

    violation: jax.Array
    """Scalar: by what share the fullest expert has more than the mean, 0 if all have as many."""

    experts_used: jax.Array
    """Scalar: the exponential of the entropy of the shares, E if all have as many."""

    outside: jax.Array
    """int32 scalar: entries of no expert, which were dropped or are padding."""


def within_capacity(
    index: jax.Array, *, num_experts: int, capacity: int, priority: jax.Array | None = None
) -> Placed:
    """Give each expert the first ``capacity`` tokens that ask for it, and drop the others.

    All first choices come before all second ones; among choices of one rank, tokens come in their
    order, or in that of a priority, the largest first. One sort: ``O(n k log(n k))``, and nothing
    of size ``n E``.

    Args:
        index: int ``(n,)`` or ``(n, k)``: the experts of every token, in the order of its choices.
            A number outside of ``[0, E)`` marks padding, which takes no place.
        num_experts: E.
        capacity: places of an expert; usually ``ceil(factor n k / E)`` with a factor of 1 to 2.
        priority: of the shape of ``index``, for instance the gates; compared before the rank of
            a choice. NaN comes last.

    Returns:
        the experts and places that are left, and how many tokens were dropped.

    Raises:
        ValueError: an index of another rank, a count below 1, or a priority of another shape.

    Reference: Lepikhin et al. 2020, "GShard", arXiv 2006.16668; Riquelme et al. 2021, "Scaling
    Vision with Sparse Mixture of Experts", arXiv 2106.05974, for the priority.

    Example:
        >>> from sparse_hyper_jax.estimators import within_capacity
        >>> index, gates = [[0, 1], [0, 1], [0, 1]], jnp.array([[0.5, 0.5], [0.6, 0.4], [0.9, 0.1]])
        >>> within_capacity(index, num_experts=2, capacity=2).expert.tolist()
        [[0, 1], [0, 1], [-1, -1]]
        >>> within_capacity(index, num_experts=2, capacity=2, priority=gates).expert.tolist()
        [[-1, 1], [0, 1], [0, -1]]
    """
    num_experts = checks.check_count("num_experts", num_experts, least=1)
    capacity = checks.check_count("capacity", capacity, least=1)
    index = as_array("index", index, "integers")
    checks.require(
        index.ndim in (1, 2),
        f"index of shape {index.shape}",
        "(n,) or (n, k): the experts of every token",
        "reshape index, tokens first",
    )
    owner = _owners(index, num_experts)
    keys = [owner]
    if priority is not None:
        priority = as_array("priority", priority)
        checks.check_shape("priority", priority, index.shape, "the shape of index")
        keys.append(-at_least_float32(jax.lax.stop_gradient(gathered(priority).T.reshape(-1))))
    ranks = _ranks(keys)
    kept = (owner < num_experts) & (ranks < capacity)
    dropped = jnp.sum((owner < num_experts) & ~kept, dtype=jnp.int32)

    def as_index(numbers: jax.Array) -> jax.Array:
        return jnp.where(kept, numbers, -1).reshape(index.shape[::-1]).T

    return Placed(as_index(owner), as_index(ranks), dropped)


def load_report(index: jax.Array, num_experts: int) -> LoadReport:
    """Count the tokens of every expert.

    ``violation = max_i load_i / mean_i load_i - 1``.

    Args:
        index: int of any shape, the experts of tokens, see :class:`Route` and :class:`Placed`.
        num_experts: E; numbers outside of ``[0, E)`` are counted apart.

    Returns:
        the loads and what sums them up.

    Raises:
        ValueError: no integers, or a count below 1.

    Reference: Wang et al. 2024, arXiv 2408.15664, for the violation.

    Example:
        >>> from sparse_hyper_jax.estimators import load_report, top_route
        >>> route = top_route(jnp.array([[2.0, 1.0, 0.0], [2.0, 0.0, 1.0]]), k=2)
        >>> report = load_report(route.expert, 3)
        >>> report.load.tolist(), float(report.violation), round(float(report.experts_used), 3)
        ([2, 1, 1], 0.5, 2.828)
    """
    num_experts = checks.check_count("num_experts", num_experts, least=1)
    index = as_array("index", index, "integers")
    chosen = chosen_expert(index, num_experts)
    load = jnp.sum(chosen, axis=tuple(range(index.ndim)), dtype=jnp.int32)
    total = jnp.sum(load)
    whole = jnp.maximum(total, 1).astype(jnp.float32)
    share = load.astype(jnp.float32) / whole
    most = num_experts * jnp.max(load).astype(jnp.float32)
    violation = jnp.where(total > 0, most / whole - 1, 0)
    logs = jnp.log(jnp.where(load > 0, share, 1))
    outside = index.size - total
    return LoadReport(load, share, violation, jnp.exp(-jnp.sum(share * logs)), outside)


def _owners(index: jax.Array, num_experts: int) -> jax.Array:
    """Give the experts, choice after choice, and E for padding."""
    index = gathered(index)
    index = (index if index.dtype.itemsize >= 4 else index.astype(jnp.int32)).T.reshape(-1)
    inside = (index >= 0) & (index < num_experts)
    return jnp.where(inside, index, num_experts).astype(jnp.int32)


def _ranks(keys: list[jax.Array]) -> jax.Array:
    """Give each entry its number among those of equal first key, in the order of the others."""
    numbers = jnp.arange(len(keys[0]), dtype=jnp.int32)
    owner, *_, order = jax.lax.sort((*keys, numbers), num_keys=len(keys), is_stable=True)
    first = jnp.concatenate([jnp.ones(1, bool), owner[1:] != owner[:-1]])[: len(owner)]
    ranks = numbers - jax.lax.cummax(jnp.where(first, numbers, 0))
    return jnp.zeros_like(ranks).at[order].set(ranks, unique_indices=True, mode="promise_in_bounds")
