"""The graph that is planned: one node for every equation that is more than a view."""

from typing import NamedTuple

from sparse_hyper_jax.remat.costs import bytes_of, cost_of, is_free
from sparse_hyper_jax.remat.program import Program


class Graph(NamedTuple):
    """Nodes in an order in which they can run, without arguments and constants.

    Attributes:
        memory: bytes that each node writes.
        cost: its operations.
        predecessors: numbers of the nodes that it reads.
    """

    memory: tuple[int, ...]
    cost: tuple[int, ...]
    predecessors: tuple[tuple[int, ...], ...]

    @property
    def successors(self) -> list[list[int]]:
        """Numbers of the nodes that read each node."""
        found: list[list[int]] = [[] for _ in self.memory]
        for node, read in enumerate(self.predecessors):
            for other in read:
                found[other].append(node)
        return found


class Nodes(NamedTuple):
    """Which steps of a program are nodes.

    Attributes:
        graph: the nodes.
        step_of: the number of the step of every node.
        writer: for a value, the number of the step that writes it.
    """

    graph: Graph
    step_of: tuple[int, ...]
    writer: dict[int, int]


def nodes_of(program: Program) -> Nodes:
    """Make a graph of a program, in which views belong to whoever reads them."""
    writer: dict[int, int] = {}
    roots: dict[int, frozenset[int]] = {}  # for a value, the nodes that it is made of
    step_of, memory, cost, predecessors = [], [], [], []
    for number, step in enumerate(program.steps):
        read = frozenset().union(*(roots.get(a, ()) for a in step.reads if isinstance(a, int)))
        own = read
        if not is_free(step.equation):
            own = frozenset({len(step_of)})
            step_of.append(number)
            memory.append(sum(bytes_of(program.types[value]) for value in step.writes))
            cost.append(cost_of(step.equation))
            predecessors.append(tuple(sorted(read)))
        for value in step.writes:
            writer[value], roots[value] = number, own
    graph = Graph(tuple(memory), tuple(cost), tuple(predecessors))
    return Nodes(graph, tuple(step_of), writer)
