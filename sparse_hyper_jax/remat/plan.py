"""Plans from no recomputation to the least memory, by the model alone: nothing is compiled."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from sparse_hyper_jax.checks import check_choice, check_count
from sparse_hyper_jax.remat.chains import Table, best_chain, least_budget, table_of
from sparse_hyper_jax.remat.families import (
    FAMILIES,
    Family,
    after,
    as_matrix,
    boundary_of,
    family_of,
)
from sparse_hyper_jax.remat.graph import Graph
from sparse_hyper_jax.remat.traced import traced

BUDGETS = 24
"""Budgets that are tried, from the least to that of the whole function at once."""


class Plan(NamedTuple):
    """A way to cut a function into segments.

    Attributes:
        chain: growing sets of nodes as bits of ints: node ``n`` is in one of them if its bit ``n``
            is 1. Nodes are the equations of the function that are no views, in their order; each
            segment is what a set adds to the one before.
        peak: bytes by the model, an upper bound that counts every value twice. Compare plans by
            it, but do not take it for what a compiled program needs.
        overhead: operations that are done again, as a share of one forward pass.

    Example:
        >>> from sparse_hyper_jax import remat
        >>> plain, *_ = remat.plan(lambda x: jnp.sin(jnp.sin(x)), jnp.ones(256))
        >>> plain.chain, plain.peak, plain.overhead  # two nodes in one segment
        ((3,), 4096, 0.0)
    """

    chain: tuple[int, ...]
    peak: int
    overhead: float


def plan(
    fn: Callable[..., Any], *args: Any, family: Family = "thin", points: int = 6
) -> tuple[Plan, ...]:
    r"""Plan which values of a function to keep for its gradient and which to compute again.

    Between plain backpropagation and the least memory: for a chain of lower sets :math:`L_i` with
    segments :math:`V_i` and kept boundaries :math:`U_i`, the least overhead
    :math:`\sum_{i<k} T(V_i \setminus \partial L_i)` at which :math:`\max_i M(U_{i-1}) + 2 M(V_i) +
    \ldots` is within a budget. The best of the family, up to a thousandth of the work per segment.

    Args:
        fn: any function of pytrees that JAX can trace, without effects.
        *args: its arguments, or their shapes and dtypes; nothing is computed.
        family: ``"thin"``, some fifty sets, takes a second for thousands of nodes;
            ``"closures"`` tries every node with what it depends on, for hundreds; ``"all"`` tries
            every lower set, for tens.
        points: largest number of plans, at least 2.

    Returns:
        plans by growing overhead: the first is plain, the last has coarse segments at the least
        budget.

    Raises:
        ValueError: an unknown option, effects, or too many lower sets for ``"all"``.

    Reference: Kusumoto, Inoue, Watanabe, Akiba and Koyama 2019, arXiv 1905.11722.

    Example:
        >>> from sparse_hyper_jax import remat
        >>> def layers(x):
        ...     for _ in range(16):
        ...         x = jnp.sin(x)
        ...     return x
        >>> for one in remat.plan(layers, jnp.ones(256), points=4):
        ...     print(len(one.chain), one.peak, round(one.overhead, 2))
        1 32768 0.0
        16 17408 0.0
        8 9216 0.5
        6 9216 0.56
    """
    check_choice("family", family, FAMILIES)
    points = check_count("points", points, least=2)
    return frontier(traced(fn, args, {}).nodes.graph, family, points)


@lru_cache(maxsize=64)
def frontier(graph: Graph, family: Family, points: int) -> tuple[Plan, ...]:
    """Plan a graph; see :func:`plan`."""
    plain = plan_of(graph, ((1 << len(graph.memory)) - 1,))
    if len(graph.memory) < 2:
        return (plain,)
    sets = family_of(graph, family)
    table = table_of(graph, sets)
    least = least_budget(table)
    coarse = best_chain(table_of(graph, sets, last_again=True), least, "memory")
    found = {plan_of(graph, chain) for chain in _chains(table, least, plain.peak)} - {plain}
    last = [plan_of(graph, coarse)] if coarse else []
    between = _spread(sorted(found - set(last), key=lambda one: (one.overhead, one.peak)), points)
    return (plain, *between[: points - 2], *(one for one in last if one != plain))


def _chains(table: Table, least: int, most: int) -> set[tuple[int, ...]]:
    """Find the chain with the least overhead for budgets from the least to the most."""
    budgets = np.unique(np.rint(np.geomspace(max(least, 1), max(most, 1), BUDGETS)))
    chains = (best_chain(table, max(float(budget), least)) for budget in budgets)
    return {chain for chain in chains if chain}


def _spread(plans: list[Plan], points: int) -> list[Plan]:
    """Choose plans of about equally spaced overheads, and of equal overheads the leanest."""
    leanest: dict[float, Plan] = {}
    for one in plans:
        leanest.setdefault(round(one.overhead, 3), one)
    kept = [
        one
        for one in leanest.values()
        if not any(other.overhead <= one.overhead and other.peak < one.peak for other in plans)
    ]
    if len(kept) <= points - 2 or points <= 2:
        return kept
    overheads = np.array([one.overhead for one in kept])
    first, last = float(overheads[0]), float(overheads[-1])
    targets = np.linspace(first, last, points - 2) if points > 3 else [(first + last) / 2]
    chosen = {int(np.argmin(np.abs(overheads - target))) for target in targets}
    return [kept[number] for number in sorted(chosen)]


def plan_of(graph: Graph, chain: tuple[int, ...]) -> Plan:
    """Judge a chain by the model, exactly."""
    members = as_matrix((0, *chain), len(graph.memory))
    edge = boundary_of(graph, members)
    segments = members[:, 1:] & ~members[:, :-1]
    memory, cost = np.array(graph.memory, np.float64), np.array(graph.cost, np.float64)
    # A value of a boundary stays kept for as long as anything outside of a set reads it.
    kept = np.cumsum(memory @ (edge[:, 1:] & segments))
    peaks = np.concatenate([[0], kept[:-1]]) + 2 * memory @ segments
    peaks += after(graph, members[:, 1:])
    again = float(np.sum((cost @ (segments & ~edge[:, 1:]))[:-1]))
    return Plan(chain, int(peaks.max(initial=0)), again / max(sum(graph.cost), 1))
