"""Chains of lower sets by enumeration, with Python sets and the formulas of the paper."""

import random
from functools import cache

from sparse_hyper_jax.remat.graph import Graph


def random_graph(seed, most=7):
    """Up to ``most`` nodes; bytes and costs may be 0."""
    draw = random.Random(seed)
    count, share = draw.randint(1, most), draw.choice([0.3, 0.5, 0.8])
    predecessors = tuple(
        tuple(other for other in range(node) if draw.random() < share) for node in range(count)
    )
    memory = tuple(draw.randint(0, 9) for _ in range(count))
    cost = tuple(draw.randint(0, 9) for _ in range(count))
    return Graph(memory, cost, predecessors)


def chain_graph(count):
    """Unit nodes, each reading the one before."""
    return Graph((1,) * count, (1,) * count, tuple((n - 1,) if n else () for n in range(count)))


def lower_sets(graph):
    """All of them, by trying every subset."""
    nodes = range(len(graph.memory))
    subsets = (frozenset(n for n in nodes if bits >> n & 1) for bits in range(1 << len(nodes)))
    return [one for one in subsets if all(set(graph.predecessors[n]) <= one for n in one)]


class Formulas:
    """Boundaries, peaks and overheads of one graph, by definition."""

    def __init__(self, graph):
        self.graph = graph
        self.successors = [
            {v for v, read in enumerate(graph.predecessors) if node in read}
            for node in range(len(graph.memory))
        ]
        self.all = frozenset(range(len(graph.memory)))
        self.boundary = cache(self.boundary)
        self.after = cache(self.after)

    def memory(self, nodes):
        return sum(self.graph.memory[n] for n in nodes)

    def cost(self, nodes):
        return sum(self.graph.cost[n] for n in nodes)

    def boundary(self, lower):
        return frozenset(n for n in lower if self.successors[n] - lower)

    def after(self, lower):
        readers = set().union(*(self.successors[n] for n in lower))
        beside = set().union(*(self.graph.predecessors[n] for n in readers))
        return self.memory(readers - lower) + self.memory(beside - lower)

    def of_all_chains(self):
        """Peak, overhead, and overhead if the last segment runs again, of every chain there is.

        As ``judge`` has it, but chains that begin alike share what they begin with.
        """
        sets = sorted(lower_sets(self.graph), key=len)

        @cache
        def segment_of(before, lower):
            segment = lower - before
            again = self.cost(segment - self.boundary(lower))
            return 2 * self.memory(segment) + self.after(lower), again

        def grow(before, kept, peak, overhead):
            held = self.memory(kept)
            for lower in sets:
                if before < lower:
                    needed, again = segment_of(before, lower)
                    peaks = max(peak, held + needed)
                    if lower == self.all:
                        yield peaks, overhead, overhead + again
                    else:
                        yield from grow(lower, kept | self.boundary(lower), peaks, overhead + again)

        return set(grow(frozenset(), frozenset(), 0, 0))

    def judge(self, chain, last_again=False):
        """Peak and overhead of a chain that ends in all nodes."""
        before, kept, peak, overhead = frozenset(), set(), 0, 0
        for lower in chain:
            segment = lower - before
            peak = max(peak, self.memory(kept) + 2 * self.memory(segment) + self.after(lower))
            if lower != self.all or last_again:
                overhead += self.cost(segment - self.boundary(lower))
            kept |= self.boundary(lower)
            before = lower
        return peak, overhead


def as_sets(chain):
    """Bit masks as sets of numbers."""
    return tuple(frozenset(n for n in range(one.bit_length()) if one >> n & 1) for one in chain)
