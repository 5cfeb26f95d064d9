"""Lower sets of a graph: sets of nodes that hold what their members read. Bits of Python ints."""

from collections.abc import Iterable
from typing import Literal, get_args

import numpy as np

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.remat.graph import Graph

BINS = 48
"""Number of sets in the thinned family."""

MOST = 5000
"""Lower sets that are enumerated at the most."""

Family = Literal["thin", "closures", "all"]
FAMILIES = get_args(Family)


def family_of(graph: Graph, family: str) -> list[int]:
    """Give lower sets from which chains are made, smaller ones first, without the empty one.

    Args:
        graph: at least one node.
        family: ``"all"``, for which chains are best of all; ``"closures"``, each node with
            everything that it depends on (Kusumoto et al. 2019); ``"thin"``, of the closures and
            the beginnings of the program those with the smallest boundary, one for every part of
            the cost.

    Raises:
        ValueError: there are more than ``MOST`` lower sets.
    """
    full = (1 << len(graph.memory)) - 1
    if family == "all":
        found = _all(graph)
    else:
        found = set(closures(graph))
        if family == "thin":
            found |= {(1 << count) - 1 for count in range(1, len(graph.memory))}
            found = _thinned(graph, found)
    return sorted(found | {full}, key=lambda one: (one.bit_count(), one))


def closures(graph: Graph) -> list[int]:
    """Give every node with all that it depends on."""
    found: list[int] = []
    for node, read in enumerate(graph.predecessors):
        one = 1 << node
        for other in read:
            one |= found[other]
        found.append(one)
    return found


def is_lower(graph: Graph, nodes: int) -> bool:
    """Say whether a set holds what its members read."""
    return all(
        nodes >> other & 1
        for node, read in enumerate(graph.predecessors)
        if nodes >> node & 1
        for other in read
    )


def _all(graph: Graph) -> set[int]:
    """Grow lower sets by one node at a time."""
    needed = [sum(1 << other for other in read) for read in graph.predecessors]
    found, edge = set(), {0}
    while edge:
        edge = {
            one | 1 << node
            for one in edge
            for node, need in enumerate(needed)
            if not one >> node & 1 and need & one == need
        }
        found |= edge
        require(
            len(found) <= MOST,
            f"more than {MOST} lower sets of {len(needed)} nodes",
            "few enough to enumerate",
            "choose family='closures' or 'thin'",
        )
    return found


def _thinned(graph: Graph, pool: Iterable[int]) -> set[int]:
    """Keep the set with the smallest boundary in each of ``BINS`` equal parts of the cost."""
    sets = sorted(pool, key=lambda one: (one.bit_count(), one))
    members = as_matrix(sets, len(graph.memory))
    boundary = np.array(graph.memory, np.float64) @ boundary_of(graph, members)
    cost = np.array(graph.cost, np.float64) @ members
    part = np.minimum(BINS * cost / max(sum(graph.cost), 1), BINS - 1).astype(int)
    best: dict[int, int] = {}
    for number, (bin_number, size) in enumerate(zip(part, boundary, strict=True)):
        if bin_number not in best or size <= boundary[best[bin_number]]:
            best[bin_number] = number
    return {sets[number] for number in best.values()}


def as_matrix(sets: Iterable[int], count: int) -> np.ndarray:
    """Write sets as the columns of a bool matrix, a row for every node."""
    width = count // 8 + 1
    packed = b"".join(one.to_bytes(width, "little") for one in sets)
    rows = np.frombuffer(packed, np.uint8).reshape(-1, width)
    return np.unpackbits(rows, axis=1, count=count, bitorder="little").T.astype(bool, order="C")


def boundary_of(graph: Graph, members: np.ndarray) -> np.ndarray:
    """Say for every set which members are read outside of it."""
    outside = np.zeros_like(members)
    for node, read in enumerate(graph.predecessors):
        for other in read:
            outside[other] |= members[other] & ~members[node]
    return outside


def after(graph: Graph, members: np.ndarray) -> np.ndarray:
    """Bytes of what reads each set from outside, and of what else that reads."""
    readers, beside = np.zeros_like(members), np.zeros_like(members)
    for node, read in enumerate(graph.predecessors):
        for other in read:
            readers[node] |= members[other]
        readers[node] &= ~members[node]
    for node, read in enumerate(graph.predecessors):
        for other in read:
            beside[other] |= readers[node] & ~members[other]
    memory = np.array(graph.memory, np.float64)
    return memory @ readers + memory @ beside
