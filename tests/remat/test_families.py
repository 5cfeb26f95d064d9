"""Lower sets against trying every subset."""

import numpy as np
import pytest

from sparse_hyper_jax.remat.families import (
    BINS,
    after,
    as_matrix,
    boundary_of,
    closures,
    family_of,
)
from sparse_hyper_jax.remat.graph import Graph
from tests.remat.oracle import Formulas, as_sets, chain_graph, lower_sets, random_graph


@pytest.mark.parametrize("seed", range(30))
def test_all_lower_sets_are_found(seed):
    graph = random_graph(seed)
    found = as_sets(family_of(graph, "all"))
    assert set(found) | {frozenset()} == set(lower_sets(graph))
    assert [len(one) for one in found] == sorted(map(len, found))


@pytest.mark.parametrize("seed", range(30))
def test_boundaries_and_what_comes_after(seed):
    graph = random_graph(seed)
    formulas, family = Formulas(graph), family_of(graph, "all")
    members = as_matrix(family, len(graph.memory))
    edges, beyond = boundary_of(graph, members), after(graph, members)
    for number, one in enumerate(as_sets(family)):
        assert set(np.flatnonzero(members[:, number])) == one
        assert set(np.flatnonzero(edges[:, number])) == formulas.boundary(one)
        assert beyond[number] == formulas.after(one)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("family", ["thin", "closures"])
def test_families_hold_lower_sets_and_the_whole(seed, family):
    graph = random_graph(seed, most=40)
    found = as_sets(family_of(graph, family))
    for one in found:
        assert all(set(graph.predecessors[node]) <= one for node in one)
    assert found[-1] == frozenset(range(len(graph.memory)))


def test_a_closure_is_a_node_with_all_that_it_depends_on():
    graph = Graph((1,) * 5, (1,) * 5, ((), (), (0, 1), (1,), (2,)))
    assert as_sets(closures(graph)) == ({0}, {1}, {0, 1, 2}, {1, 3}, {0, 1, 2, 4})


def test_thinned_family_is_small_and_prefers_small_boundaries():
    count = 1000
    memory = tuple(1 if node % 7 == 3 else 100 for node in range(count))
    graph = Graph(memory, (1,) * count, chain_graph(count).predecessors)
    family = family_of(graph, "thin")
    assert BINS <= len(family) <= BINS + 1
    edges = boundary_of(graph, as_matrix(family, count))
    assert (np.array(memory) @ edges <= 1).all()


def test_too_many_lower_sets_are_refused():
    graph = Graph((1,) * 20, (1,) * 20, ((),) * 20)
    with pytest.raises(ValueError, match="found more than 5000 lower sets of 20 nodes; expected"):
        family_of(graph, "all")
