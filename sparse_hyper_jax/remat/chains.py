"""The best chain of lower sets under a budget, by a dynamic programme (Kusumoto et al. 2019).

A chain ``{} = L_0 < L_1 < ... < L_k = V`` cuts the nodes into segments ``V_i = L_i - L_{i-1}``.
Only boundaries, what is read outside of ``L_i``, are kept; the rest is computed again:

    overhead = sum_{i<k} T(V_i - bd(L_i))
    peak     = max_i M(U_{i-1}) + 2 M(V_i) + M(readers of L_i) + M(what else these read)

with ``U_i`` all boundaries up to ``i``. The paper counts the last segment among the overhead too;
here it is run once, because its gradient comes first. Sums are whole numbers below 2**53, so floats
hold them exactly.
"""

from typing import NamedTuple

import numpy as np

from sparse_hyper_jax.remat.families import after, as_matrix, boundary_of
from sparse_hyper_jax.remat.graph import Graph

LEVELS = 1000
"""Overheads are counted in this many parts of the whole cost, and exactly if that is less."""


class Table(NamedTuple):
    """What a step from one set to the next costs; the first set is the empty one.

    Attributes:
        sets: bit masks, smaller ones first.
        wider: ``(f, f)``, whether the second set holds the first, and more.
        kept: bytes of the boundary that the step adds.
        need: bytes that the segment takes beside what is kept.
        work: operations that are done again, in units.
        unit: operations per unit.
    """

    sets: tuple[int, ...]
    wider: np.ndarray
    kept: np.ndarray
    need: np.ndarray
    work: np.ndarray
    unit: float


def table_of(graph: Graph, family: list[int], *, last_again: bool = False) -> Table:
    """Prepare all steps between sets of a family.

    Args:
        graph: the nodes.
        family: lower sets, smaller ones first; the last one holds all nodes.
        last_again: count the last segment among the overhead, as the paper does.

    Returns:
        the table.
    """
    sets = (0, *family)
    members = as_matrix(sets, len(graph.memory))
    memory, cost = np.array(graph.memory, np.float64), np.array(graph.cost, np.float64)
    edge, floats = boundary_of(graph, members), members.astype(np.float64)
    sizes = members.sum(axis=0)
    held = floats.T @ floats == sizes[:, None]
    bytes_, operations = memory @ members, cost @ members

    def added(weights: np.ndarray) -> np.ndarray:
        """Weigh the members of the new boundary that were not in the set before."""
        return weights @ edge - floats.T @ (weights[:, None] * edge)

    again = operations - operations[:, None] - added(cost)
    if not last_again:
        again[:, -1] = 0
    unit = max(1.0, operations[-1] / LEVELS)
    return Table(
        sets=sets,
        wider=held & (sizes > sizes[:, None]),
        kept=added(memory),
        need=2 * (bytes_ - bytes_[:, None]) + after(graph, members),
        work=np.rint(again / unit).astype(np.int64),
        unit=unit,
    )


def fits(table: Table, budget: float) -> bool:
    """Say whether any chain keeps to the budget."""
    least = np.full(len(table.sets), np.inf)
    least[0] = 0
    for number, kept in enumerate(least):
        if np.isfinite(kept):
            allowed = table.wider[number] & (kept + table.need[number] <= budget)
            reached = np.where(allowed, kept + table.kept[number], np.inf)
            np.minimum(least, reached, out=least)
    return bool(np.isfinite(least[-1]))


def least_budget(table: Table) -> int:
    """Find the least budget that a chain keeps to, by bisection."""
    low, high = -1, int(table.need[0, -1])
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(table, middle) else (middle, high)
    return high


def best_chain(table: Table, budget: float, objective: str = "time") -> tuple[int, ...] | None:
    """Find the chain with the least overhead under a budget, or with the largest.

    Args:
        table: steps between sets.
        budget: bytes.
        objective: ``"time"`` or ``"memory"``. Of chains under the least budget, that with the
            largest overhead has coarse segments, and keeps least when freed values are counted.

    Returns:
        the sets of the chain, without the empty one; None if no chain keeps to the budget.
    """
    count = len(table.sets)
    # Rounding adds up to half a unit to every step.
    width = int(table.work.max(initial=0)) + LEVELS + count + 1
    ends = _Ends(np.full((count, width), np.inf), np.full((count, width), -1, np.int32))
    ends.kept[0, 0] = 0
    for number in range(count):
        reached = np.flatnonzero(np.isfinite(ends.kept[number]))
        if len(reached):
            levels = slice(reached[0], reached[-1] + 1)
            for other in np.flatnonzero(table.wider[number]):
                ends.extend(table, budget, (number, int(other)), levels)
    reached = np.flatnonzero(np.isfinite(ends.kept[-1]))
    if len(reached) == 0:
        return None
    return ends.walk_back(table, int(reached[0 if objective == "time" else -1]))


class _Ends(NamedTuple):
    """The best chains that end in each set with each overhead.

    Attributes:
        kept: ``(f, levels)``, the fewest bytes of boundaries; infinite where there is no chain.
        before: ``(f, levels)``, the set before the last one.
    """

    kept: np.ndarray
    before: np.ndarray

    def extend(self, table: Table, budget: float, pair: tuple[int, int], levels: slice) -> None:
        """Add one segment to all chains that end in a set, where that keeps less than is known."""
        number, other = pair
        row, work = self.kept[number, levels], table.work[pair]
        reached = slice(levels.start + work, levels.stop + work)
        target = self.kept[other, reached]
        kept = row + table.kept[pair]
        better = (row + table.need[pair] <= budget) & (kept < target)
        target[better] = kept[better]
        self.before[other, reached][better] = number

    def walk_back(self, table: Table, level: int) -> tuple[int, ...]:
        """Follow a chain from its last set to the first."""
        chain, number = [], len(table.sets) - 1
        while number:
            chain.append(table.sets[number])
            previous = self.before[number, level]
            level, number = level - table.work[previous, number], previous
        return tuple(reversed(chain))
