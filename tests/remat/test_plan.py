"""Plans of functions, by the model alone."""

import time

import jax
import jax.numpy as jnp
import pytest

from sparse_hyper_jax import remat
from sparse_hyper_jax.remat.chains import best_chain, table_of
from sparse_hyper_jax.remat.families import family_of
from sparse_hyper_jax.remat.graph import Graph
from sparse_hyper_jax.remat.plan import frontier, plan_of
from sparse_hyper_jax.remat.traced import traced
from tests.remat.examples import EXAMPLES, X, dots, elementwise
from tests.remat.oracle import Formulas, as_sets, random_graph


@pytest.mark.parametrize("seed", range(30))
def test_peak_and_overhead_are_those_of_the_formulas(seed):
    graph = random_graph(seed)
    formulas, total = Formulas(graph), max(sum(graph.cost), 1)
    table = table_of(graph, family_of(graph, "all"))
    for budget in range(0, 2 * sum(graph.memory) + 1, 7):
        chain = best_chain(table, budget)
        if chain is not None:
            peak, overhead = formulas.judge(as_sets(chain))
            found = plan_of(graph, chain)
            assert (found.peak, found.overhead) == (peak, pytest.approx(overhead / total))


@pytest.mark.parametrize("family", ["thin", "closures"])
@pytest.mark.parametrize("seed", range(20))
def test_plans_lead_from_plain_to_less_memory(seed, family):
    graph = random_graph(seed, most=30)
    plans = frontier(graph, family, 6)
    assert len(plans) <= 6
    assert plans[0] == plan_of(graph, ((1 << len(graph.memory)) - 1,))
    assert plans[0].overhead == 0
    assert len(set(plans)) == len(plans)
    between = plans[1:-1]
    assert [one.overhead for one in between] == sorted(one.overhead for one in between)
    assert [one.peak for one in between] == sorted((one.peak for one in between), reverse=True)
    assert plans[-1].peak == min(one.peak for one in plans)
    for one in plans:
        for lower in as_sets(one.chain):
            assert all(set(graph.predecessors[node]) <= lower for node in lower)
        assert all(a < b and a & b == a for a, b in zip(one.chain, one.chain[1:], strict=False))


def test_a_larger_family_is_at_least_as_good():
    for seed in range(30):
        graph = random_graph(seed)
        everything, closed = (frontier(graph, family, 2)[-1] for family in ("all", "closures"))
        assert everything.peak <= closed.peak


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_has_plans(name):
    fn, args = EXAMPLES[name]
    plans = remat.plan(fn, *args, points=3)
    assert 1 <= len(plans) <= 3
    count = len(traced(fn, args, {}).nodes.step_of)
    assert all(one.chain[-1] == (1 << count) - 1 for one in plans)


def test_parameters_and_views_are_no_nodes():
    def fn(weights, x):
        return jnp.sum((x.T @ weights).reshape(-1)) * 2.0

    graph = traced(fn, (X, X), {}).nodes.graph
    assert graph == Graph((64, 4, 4), (128, 16, 1), ((), (0,), (1,)))


def test_shapes_are_enough():
    assert remat.plan(elementwise, jax.ShapeDtypeStruct((4, 4), jnp.float32)) == remat.plan(
        elementwise, X
    )


def test_a_function_without_nodes_has_the_plain_plan():
    assert remat.plan(lambda x: x, X) == (remat.Plan((0,), 0, 0.0),)


@pytest.mark.parametrize(
    ("options", "found"), [({"family": "best"}, "family='best'"), ({"points": 1}, "points=1")]
)
def test_wrong_options_are_refused(options, found):
    with pytest.raises(ValueError, match=f"found {found}; expected .*; "):
        remat.plan(elementwise, X, **options)


def test_thousands_of_nodes_take_seconds():
    def deep(x):
        for _ in range(500):
            x = x + jnp.tanh(x @ x) * 0.5
        return jnp.sum(x)

    graph = traced(deep, (jax.ShapeDtypeStruct((64, 64), jnp.float32),), {}).nodes.graph
    assert len(graph.memory) == 2001
    start = time.process_time()
    plans = frontier(graph, "thin", 6)
    assert time.process_time() - start < 20  # two on a machine that has nothing else to do
    assert plans[-1].peak < 0.1 * plans[0].peak


def test_dots_are_planned_at_the_ends_of_layers():
    chain = remat.plan(dots, [jnp.ones((64, 64))] * 16, jnp.ones((64, 64)))[-1].chain
    # Three nodes a layer: product, tanh, sum. What is kept between segments is the sum alone.
    assert all(one.bit_count() % 3 == 0 for one in chain[:-1])
