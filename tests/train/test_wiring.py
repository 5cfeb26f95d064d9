"""The recipe wiring: what its systems do, what its model computes, and what pursuit finds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_hyper_jax import graph
from sparse_hyper_jax.train.data.wiring import make_wiring
from sparse_hyper_jax.train.models import wired_nodes as wired
from tests.ops.examples import assert_names_itself_and_its_cure

from .tiny import tiny

NODES, EDGES = 6, 2


@functools.cache
def system(task):
    return make_wiring(task, 3, nodes=NODES, edges=EDGES, samples=100)


@pytest.mark.parametrize("task", ["maps", "springs"])
def test_nodes_follow_their_law_and_nobody_drives_itself(task):
    data = system(task)
    senders = np.asarray(data.senders)
    assert all(len({*row}) == EDGES and node not in row for node, row in enumerate(senders))
    state, after = np.asarray(data.rollout[:2])
    if task == "maps":
        own = 1 - 1.9 * state**2
        # Weights are between a third and three times each other, and of sum 1.
        come = own[senders]
        explained = (after - 0.6 * own) / 0.4
        assert np.all(explained <= come.max(axis=1) + 1e-5)
        assert np.all(explained >= come.min(axis=1) - 1e-5)
    else:
        np.testing.assert_allclose(after[..., 0], state[..., 0] + 0.2 * after[..., 1], atol=1e-5)
    assert np.abs(np.asarray(data.train.now)).max() < 4
    assert data.train.now.shape[1] == 100
    assert not np.array_equal(data.train.now[:, :25], data.validation.now[:, :25])


def by_hand(parameters, senders, now):
    """Next states of nodes, in NumPy."""
    parameters = jax.tree.map(np.asarray, parameters)

    def network(weights, x):
        return (
            np.tanh(x @ weights["in"] + weights["shift"]) @ weights["out"] + x @ weights["linear"]
        )

    sent = network(parameters["message"], now)
    after = network(parameters["own"], now) + parameters["bias"][:, None]
    for node, row in enumerate(senders):
        for slot, sender in enumerate(row):
            after[node] += sent[sender] @ parameters["edges"][node, slot]
    return after


def test_the_model_is_that_of_the_formula_also_dense():
    model, now = wired.WiredModel(NODES, EDGES), system("springs").train.now[:, :7]
    senders = np.asarray(system("springs").senders)
    parameters = wired.init_parameters(jax.random.key(0), model, 2)
    draw = np.random.default_rng(0).normal
    parameters["edges"] = draw(size=(NODES, EDGES, 3, 2)).astype(np.float32)
    dense = parameters | {"edges": draw(size=(NODES, NODES, 3, 2)).astype(np.float32)}
    for node, row in enumerate(senders):
        dense["edges"][node] = 0
        dense["edges"][node, row] = parameters["edges"][node]
        dense["edges"][node, node] = 99  # nobody drives itself
    edges = graph.InEdges(jnp.asarray(senders), jnp.ones((NODES, EDGES), bool))
    predict = jax.jit(wired.predict)
    expected = by_hand(parameters, senders, np.asarray(now))
    np.testing.assert_allclose(predict(parameters, edges, now), expected, rtol=1e-4, atol=1e-4)
    none = graph.empty_edges(NODES, 0)
    np.testing.assert_allclose(predict(dense, none, now), expected, rtol=1e-4, atol=1e-4)
    weigh = jax.jit(wired.importance_of)
    table = weigh(dense, none, system("springs").train)
    assert float(wired.share_found(wired.strongest(table, EDGES), jnp.asarray(senders))) == 1


def test_a_probe_gives_as_many_gains_as_are_asked_for():
    model, data = wired.WiredModel(NODES, 1), system("maps")
    parameters = wired.init_parameters(jax.random.key(0), model, 1)
    edges = graph.InEdges((jnp.arange(NODES)[:, None] + 1) % NODES, jnp.ones((NODES, 1), bool))

    @jax.jit
    def ask():
        one = wired.probe(parameters, edges, data.train, model)
        return one, wired.probe(parameters, edges, data.train, model, count=NODES - 1)

    best, every = jax.device_get(ask())
    np.testing.assert_array_equal(every.senders[:, :1], best.senders)
    np.testing.assert_allclose(every.gains[:, :1], best.gains, rtol=1e-5)
    # Neither a node itself nor the edge that is there; of these two fewer the last place is empty.
    for node, senders in enumerate(every.senders):
        assert {*senders} == {*range(NODES), -1} - {node, (node + 1) % NODES}


def test_edges_that_stay_keep_their_values_and_moments():
    model = wired.WiredModel(NODES, EDGES, probe_samples=100, probe_every=2, probes=3)
    optimizer, data = optax.adam(0.01), system("maps")
    state = wired.start_wired(
        wired.init_parameters(jax.random.key(0), model, 1),
        optimizer,
        graph.empty_edges(NODES, EDGES),
    )
    step = jax.jit(wired.make_step(model, optimizer))
    placed = []
    for number in range(7):
        before = state
        state, _ = step(state, jax.random.key(number), data.train)
        placed.append(int(state.edges.placed.sum()))
        if number == 4:
            # The second probe has filled the second slot, and left the first one alone.
            assert np.array_equal(before.edges.senders[:, 0], state.edges.senders[:, 0])
            moments = state.optimizer[0].mu["edges"]
            assert np.abs(np.asarray(before.optimizer[0].mu["edges"])[:, 0]).min() > 0
            assert np.abs(np.asarray(moments)[:, 0]).min() > 0
    assert placed == [0, 0, 6, 6, 12, 12, 12]


def test_pursuit_finds_the_wiring(tmp_path):
    options = {"samples": 400, "probe_samples": 400, "batch": 50, "width": 8, "swaps": 2}
    recipe = tiny("wiring", out=tmp_path / "a", nodes=12, steps=300, **options)
    found = recipe.run()
    assert found["edges_found"] >= 0.9
    assert found["test_mse"] < 0.25 * found["test_variance"]
    assert len(found["rollout_errors"]) == 10


def test_what_does_not_fit_is_told():
    assert_names_itself_and_its_cure(
        tiny("wiring", edges=8).check, "--edges 8 --nodes 8", "fewer", "lower --edges"
    )
    assert_names_itself_and_its_cure(
        tiny("wiring", samples=60).check, "--samples 60", "at least 100", "raise --samples"
    )
    assert_names_itself_and_its_cure(
        tiny("wiring", method="random", swaps=1, probe_samples=500).check,
        "--swaps 1 with --method random",
        "have an effect",
        "leave",
    )
    assert_names_itself_and_its_cure(
        tiny("wiring", steps=3).check, "--steps 3 with 3 probes", "a step", "raise --steps"
    )
