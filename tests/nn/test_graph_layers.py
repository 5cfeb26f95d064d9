"""Layers over edges: the formula of a graph convolution, and edges that a probe places."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sparse_hyper_jax import conv, graph, nn
from tests.ops.examples import assert_names_itself_and_its_cure

NODES, SAMPLES = 7, 60
GENERATOR = np.random.default_rng(0)
H = GENERATOR.normal(size=(SAMPLES, NODES, 2)).astype(np.float32)
HIDDEN = np.array([[1, 2], [4, 0], [3, 6], [0, 5], [2, 1], [6, 3], [5, 4]])
MATRICES = GENERATOR.normal(size=(NODES, 2, 2, 3)).astype(np.float32)
TARGET = np.einsum("bnkc,nkco->bno", H[:, HIDDEN], MATRICES).astype(np.float32)


def test_a_graph_convolution_is_that_of_the_dense_formula():
    matrix = np.eye(NODES)
    for node in range(NODES - 1):
        matrix[node, node + 1] = matrix[node + 1, node] = 1
    receivers, senders = np.nonzero(matrix - np.eye(NODES))
    layer, bare = (
        nn.GraphConv(2, 3, normalize=on, bias_init=nnx.initializers.ones, rngs=nnx.Rngs(0))
        for on in (True, False)
    )
    root = np.diag(matrix.sum(1) ** -0.5)
    kernel = layer.kernel.get_value()
    found = nnx.jit(lambda *layers: [one(H[0], senders, receivers) for one in layers])(layer, bare)
    for one, weights in zip(found, (root @ matrix @ root, matrix), strict=True):
        np.testing.assert_allclose(one, weights @ H[0] @ kernel + 1, rtol=1e-4, atol=1e-5)


def test_place_taps_finds_edges_with_matrices_and_training_fits_them():
    layer = nn.LearnedEdges(NODES, 2, in_features=2, out_features=3, rngs=nnx.Rngs(0))
    transformation = optax.adam(0.1)

    def loss(layer):
        return jnp.mean((layer(H) - TARGET) ** 2)

    def train(layer, state):
        kind, parameters, rest = nnx.split(layer, nnx.Param, ...)

        def step(carried, _):
            parameters, state = carried
            slopes = jax.grad(lambda values: loss(nnx.merge(kind, values, rest)))(parameters)
            updates, state = transformation.update(slopes, state)
            return (optax.apply_updates(parameters, updates), state), None

        (parameters, state), _ = jax.lax.scan(step, (parameters, state), None, length=150)
        nnx.update(layer, parameters)
        return state

    @nnx.jit
    def probe_and_train(layer):
        before = loss(layer)
        state = transformation.init(nnx.state(layer, nnx.Param))
        for _ in range(2):
            fresh = nn.place_taps(layer, loss, min_z=None)
            state = train(layer, conv.clear_moments(transformation, state, fresh))
        return before, loss(layer), layer.taps.get_value()

    before, after, edges = probe_and_train(layer)
    assert edges.placed.all()
    assert np.array_equal(np.sort(edges.senders, axis=1), np.sort(HIDDEN, axis=1))
    assert float(after) < 0.01 * float(before)


def test_means_receive_from_those_that_lower_the_loss():
    layer = nn.LearnedEdges(NODES, 2, mean=True, rngs=nnx.Rngs(0))
    target = H[:, HIDDEN].mean(axis=2)

    @nnx.jit
    def probe(layer):
        for _ in range(2):
            fresh = nn.place_taps(layer, lambda one: jnp.mean((one(H) - target) ** 2), min_z=None)
            assert not jax.tree.leaves(fresh)
        return layer.taps.get_value(), layer(H)

    edges, y = probe(layer)
    assert np.array_equal(np.sort(edges.senders, axis=1), np.sort(HIDDEN, axis=1))
    np.testing.assert_allclose(y, target, rtol=1e-4, atol=1e-5)


def test_without_edges_nothing_comes_in_and_gains_that_do_not_stand_out_place_none():
    layer = nn.LearnedEdges(NODES, 2, rngs=nnx.Rngs(0))
    assert not np.asarray(layer(H)).any()

    def probe(layer):
        nn.place_taps(layer, lambda one: jnp.mean((one(H) - 1) ** 2), min_z=1e6)
        return layer.taps.get_value().placed

    assert not nnx.jit(probe)(layer).any()


def test_what_does_not_fit_is_told():
    layer = nn.LearnedEdges(NODES, 2, in_features=2, out_features=3, rngs=nnx.Rngs(0))
    assert_names_itself_and_its_cure(
        lambda: layer(H[..., :1]), "h of shape (60, 7, 1)", "(..., 7, 2)", "a row for every node"
    )
    assert_names_itself_and_its_cure(
        lambda: nn.LearnedEdges(NODES, 2, in_features=2, rngs=nnx.Rngs(0)),
        "in_features=2 and out_features=None",
        "both or none",
        "change",
    )
    assert_names_itself_and_its_cure(
        lambda: nn.LearnedEdges(2**24 + 1, 0, rngs=nnx.Rngs(0)),
        "num_nodes=16777217",
        "an int from 1 to 16777216",
        "num_nodes",
    )
    with pytest.raises(ValueError, match="found h of shape"):
        nn.GraphConv(2, 3, rngs=nnx.Rngs(0))(H, [0], [1])
    assert graph.edge_list(layer.taps.get_value())[0].shape == (2 * NODES,)
