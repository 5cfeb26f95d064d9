import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import graph
from tests.ops.examples import assert_names_itself_and_its_cure

from .examples import FEATURES, KEPT, NODES, RECEIVERS, SENDERS, VALUES, H, close, dense, slots

MATRICES = np.random.default_rng(1).normal(size=(NODES, 2, FEATURES, 2)).astype(np.float32)
NUMBERS = np.random.default_rng(2).normal(size=(NODES, 2)).astype(np.float32)
HEADS = np.random.default_rng(3).normal(size=(8, FEATURES)).astype(np.float32)


@jax.jit
def computed():
    senders, placed, _ = slots()
    spoilt = jnp.where(placed, NUMBERS, jnp.nan)
    edges = graph.InEdges(senders, placed)
    return {
        "list": graph.aggregate(SENDERS, RECEIVERS, VALUES, H),
        "ones": graph.aggregate(SENDERS, RECEIVERS, None, H),
        "heads": graph.aggregate(SENDERS, RECEIVERS, HEADS, H),
        "more": graph.aggregate([0, 5, 6], [3, 8, 1], None, H, num_nodes=9),
        "slots": graph.aggregate_in_edges(edges, spoilt, H),
        "the same": graph.aggregate(*graph.edge_list(edges), spoilt.reshape(-1), H),
        "matrices": graph.aggregate_in_edges(edges, MATRICES, H),
        "samples": graph.aggregate_in_edges(edges, MATRICES, np.stack([H, 2 * H], 1)),
        "counts": graph.aggregate_in_edges(edges, None, jnp.ones(NODES)),
    }


def test_edges_are_entries_of_a_matrix_and_padding_counts_for_nothing():
    found = computed()
    close(found["list"], dense() @ H)
    close(found["ones"], dense(np.ones(8)) @ H)
    for head in range(FEATURES):
        close(found["heads"][:, head], dense(HEADS[:, head]) @ H[:, head])
    assert np.flatnonzero(np.asarray(found["more"]).any(axis=1)).tolist() == [3, 8]
    close(found["more"][8], H[5])


def test_slots_give_the_sums_of_their_list():
    found = computed()
    close(found["slots"], found["the same"])
    senders, placed, there = slots()
    expected = np.zeros((NODES, 2))
    for node, slot in zip(*np.nonzero(np.asarray(placed)), strict=True):
        expected[node] += H[senders[node, slot]] @ MATRICES[node, slot]
    close(found["matrices"], expected)
    close(found["samples"], np.stack([expected, 2 * expected], 1))
    close(found["counts"], there.sum(axis=1))


def test_numbers_of_nodes_mean_nothing():
    order = np.random.default_rng(4).permutation(NODES)
    names = np.argsort(order).astype(np.int32)  # the new name of each node
    renamed = [
        np.where(KEPT, names[np.where(KEPT, nodes, 0)], -1) for nodes in (SENDERS, RECEIVERS)
    ]
    found = jax.jit(graph.aggregate)(*renamed, VALUES, H[order])
    close(found, (dense() @ H)[order])


def test_what_does_not_fit_is_told():
    assert_names_itself_and_its_cure(
        lambda: graph.aggregate([0, 1], [0], None, H), "receivers of shape (1,)", "(2)", "reshape"
    )
    assert_names_itself_and_its_cure(
        lambda: graph.aggregate([0], [0], [1.0, 2.0], H),
        "values of shape (2,)",
        "first axis",
        "res",
    )
    assert_names_itself_and_its_cure(
        lambda: graph.aggregate_in_edges(graph.empty_edges(NODES, 2), np.ones((NODES, 3)), H),
        "values of shape (6, 3)",
        "(6, 2)",
        "one number or matrix per slot",
    )
    with pytest.raises(ValueError, match="found senders of dtype float32"):
        graph.aggregate([0.5], [0], None, H)
    with pytest.raises(ValueError, match="found edges=3"):
        graph.edge_list(3)
