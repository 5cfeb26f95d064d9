import jax
import numpy as np
import pytest

from sparse_hyper_jax import graph

NODES = 12


def test_a_shuffled_chain_is_put_in_order():
    names = np.random.default_rng(0).permutation(NODES).astype(np.int32)
    senders = np.append(names[:-1], -1)  # in one direction, and padding
    receivers = np.append(names[1:], 0)
    found = jax.jit(lambda *lists: graph.order_nodes(*lists, num_nodes=NODES))(senders, receivers)
    assert found.tolist() in (names.tolist(), names[::-1].tolist())


def test_nodes_are_ordered_along_their_longest_axis():
    generator = np.random.default_rng(1)
    place = generator.permutation(NODES).astype(np.float32)
    features = place[:, None] * np.array([[1.0, -3.0]]) + generator.normal(size=(NODES, 2)) / 8
    found = jax.jit(graph.order_by_features)(features.astype(np.float32))
    assert found.tolist() == np.argsort(-place).tolist()


def test_what_does_not_fit_is_told():
    with pytest.raises(ValueError, match="found features of shape"):
        graph.order_by_features([1.0, 2.0])
    with pytest.raises(ValueError, match="found steps=0"):
        graph.order_nodes([0], [1], num_nodes=2, steps=0)
