"""The dynamic programme against the enumeration of all chains."""

import pytest

from sparse_hyper_jax.remat.chains import best_chain, fits, least_budget, table_of
from sparse_hyper_jax.remat.families import family_of
from sparse_hyper_jax.remat.graph import Graph
from tests.remat.oracle import Formulas, as_sets, chain_graph, random_graph

GRAPHS = 1500


def staircase(judged):
    """The least overhead under every budget at which it changes, and just below it."""
    best, steps = None, []
    for peak, overhead in sorted(judged):
        if best is None or overhead < best:
            steps.append((peak, overhead, best))
            best = overhead
    return steps


def steps_tried(seed):
    """Compare one graph at every budget at which the answer changes; count the comparisons."""
    graph = random_graph(seed)
    formulas = Formulas(graph)
    judged = {(peak, overhead) for peak, overhead, _ in formulas.of_all_chains()}
    table = table_of(graph, family_of(graph, "all"))
    steps = staircase(judged)
    assert least_budget(table) == steps[0][0]
    for budget, overhead, before in steps:
        found = best_chain(table, budget)
        peak, again = formulas.judge(as_sets(found))
        assert (again, peak <= budget) == (overhead, True), (seed, budget)
        below = best_chain(table, budget - 1)
        assert (below is None) == (before is None) == (not fits(table, budget - 1))
        if below is not None:
            assert formulas.judge(as_sets(below))[1] == before
    return 2 * len(steps)


@pytest.mark.parametrize("block", range(6))
def test_least_overhead_equals_enumeration(block):
    seeds = range(block * GRAPHS // 6, (block + 1) * GRAPHS // 6)
    assert sum(map(steps_tried, seeds)) > 700


@pytest.mark.parametrize("block", range(3))
def test_coarsest_chain_at_the_least_budget_equals_enumeration(block):
    for seed in range(block * GRAPHS // 6, (block + 1) * GRAPHS // 6):
        graph = random_graph(seed)
        formulas = Formulas(graph)
        judged = {(peak, again) for peak, _, again in formulas.of_all_chains()}
        least = min(peak for peak, _ in judged)
        table = table_of(graph, family_of(graph, "all"), last_again=True)
        assert least_budget(table) == least
        found = best_chain(table, least, "memory")
        expected = max(overhead for peak, overhead in judged if peak == least)
        assert formulas.judge(as_sets(found), last_again=True) == (least, expected), seed


@pytest.mark.parametrize("side", range(2, 11))
def test_chain_of_a_square_number_of_unit_nodes(side):
    graph = chain_graph(side**2)
    family = family_of(graph, "closures")
    assert least_budget(table_of(graph, family)) == 2 * side + 1
    for last_again, expected in ((True, (side - 1) ** 2), (False, (side - 1) ** 2 - 1)):
        table = table_of(graph, family, last_again=last_again)
        chain = best_chain(table, 2 * side + 1)
        assert Formulas(graph).judge(as_sets(chain), last_again) == (2 * side + 1, expected)


def test_overhead_falls_as_the_budget_grows():
    for seed in range(40):
        graph = random_graph(seed)
        table, formulas = table_of(graph, family_of(graph, "closures")), Formulas(graph)
        least, most = least_budget(table), 2 * sum(graph.memory)
        found = [best_chain(table, budget) for budget in range(least, most + 1)]
        overheads = [formulas.judge(as_sets(chain))[1] for chain in found]
        assert overheads == sorted(overheads, reverse=True)
        assert overheads[-1] == 0
        assert best_chain(table, least - 1) is None


def test_large_costs_are_rounded_and_small_nodes_do_not_swamp_large_ones():
    # Of 400 nodes every tenth is a product; views of the model as whole numbers would count 1 each.
    count = 400
    cost = tuple(10**9 if n % 10 == 0 else 1 for n in range(count))
    chain = chain_graph(count)
    graph = Graph(chain.memory, cost, chain.predecessors)
    table = table_of(graph, family_of(graph, "thin"))
    assert table.work.max() <= 1001
    for budget in (60, 120, 400):
        _, again = Formulas(graph).judge(as_sets(best_chain(table, budget)))
        exact = table_of(
            Graph(chain.memory, tuple(c // 10**9 for c in cost), chain.predecessors),
            family_of(graph, "thin"),
        )
        _, expected = Formulas(graph).judge(as_sets(best_chain(exact, budget)))
        assert again <= expected + count + 0.01 * sum(cost)
