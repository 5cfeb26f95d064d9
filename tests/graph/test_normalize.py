import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import graph

from .examples import KEPT, NODES, RECEIVERS, SENDERS, VALUES, H, close, dense

BOTH = np.array([[0, 1], [1, 0], [1, 2], [2, 1], [0, 3], [3, 0]], np.int32)


@jax.jit
def computed(values, logits):
    directed = graph.gcn_normalize(SENDERS, RECEIVERS, values, num_nodes=NODES)
    bare = graph.gcn_normalize(SENDERS, RECEIVERS, values, num_nodes=NODES, self_loops=False)
    both = graph.gcn_normalize(*BOTH.T, num_nodes=NODES)
    return {
        "directed": graph.aggregate(*directed, H),
        "bare": graph.aggregate(*bare, H),
        "both": graph.aggregate(*both, H),
        "lists": directed,
        "softmax": graph.edge_softmax(logits, SENDERS, RECEIVERS, num_nodes=NODES),
        "loops": graph.edge_softmax(
            logits, SENDERS, RECEIVERS, num_nodes=NODES, self_loops=True, mask=VALUES != 2
        ),
    }


LOGITS = np.array([1.0, 2, 500, -500, 9, np.nan, np.nan, 4], np.float32)


def scaled(matrix):
    """``D_in^(-1/2) A D_out^(-1/2)``, 0 where a degree is 0."""
    with np.errstate(divide="ignore"):
        into, out = (matrix.sum(axis) ** -0.5 for axis in (1, 0))
    into[np.isinf(into)], out[np.isinf(out)] = 0, 0
    return into[:, None] * matrix * out


def test_a_graph_convolution_is_that_of_the_formula():
    found = computed(VALUES, LOGITS)
    close(found["directed"], scaled(dense() + np.eye(NODES)) @ H)
    close(found["bare"], scaled(dense()) @ H)
    matrix = np.eye(NODES)
    matrix[BOTH[:, 1], BOTH[:, 0]] = 1
    root = np.diag(matrix.sum(1) ** -0.5)
    close(found["both"], root @ matrix @ root @ H)


def test_degrees_are_those_of_the_edges_as_they_are():
    """Padding has none, and is told as padding again."""
    senders, receivers, values = computed(VALUES, LOGITS)["lists"]
    assert np.array_equal(np.asarray(senders)[:8] == -1, ~KEPT)
    assert np.array_equal(np.asarray(receivers)[:8] == -1, ~KEPT)
    assert not np.asarray(values)[:8][~KEPT].any()
    slopes = jax.jit(jax.grad(lambda values: computed(values, LOGITS)["bare"].sum()))(VALUES)
    assert np.isfinite(slopes).all()
    assert not np.asarray(slopes)[~KEPT].any()


def test_rows_of_the_softmax_sum_to_one_without_a_diagonal():
    found = computed(VALUES, LOGITS)
    weights = dense(np.asarray(found["softmax"]))
    assert not np.diag(weights).any()
    close(weights.sum(axis=1), [1, 1, 0, 1, 0, 0])  # nothing comes in: 0, not NaN
    close(weights[3, 4], 1)  # before the softmax, not after it
    masked = dense(np.asarray(found["loops"]))
    close(masked.sum(axis=1), [1, 1, 0, 1, 0, 0])
    close(masked[1], np.eye(NODES)[3])
    close(masked[3, 3], 1 / (1 + np.exp(4.0 - 9)))


def test_all_edges_are_dense_attention():
    query, key = np.random.default_rng(5).normal(size=(2, NODES, 4)).astype(np.float32)
    receivers, senders = np.divmod(np.arange(NODES**2, dtype=np.int32), NODES)

    @jax.jit
    def attend(h):
        logits = jnp.sum(query[receivers] * key[senders], axis=1)
        weights = graph.edge_softmax(logits, senders, receivers, num_nodes=NODES)
        return graph.aggregate(senders, receivers, weights, h)

    logits = query @ key.T
    np.fill_diagonal(logits, -np.inf)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    close(attend(H), powers / powers.sum(axis=1, keepdims=True) @ H)


def test_what_does_not_fit_is_told():
    with pytest.raises(ValueError, match="found num_nodes=0; expected an int"):
        graph.gcn_normalize([0], [0], num_nodes=0)
    with pytest.raises(ValueError, match=r"logits of shape \(3,\) for 2 edges"):
        graph.edge_softmax(jnp.ones(3), [0, 1], [1, 0], num_nodes=2)
    with pytest.raises(ValueError, match="found mask of shape"):
        graph.edge_softmax([1.0], [0], [1], num_nodes=2, mask=[True, False])
