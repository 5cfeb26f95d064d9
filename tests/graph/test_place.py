import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import graph

from .examples import NODES, H, close, slots

COUPLED, STEPS, SLOTS = 24, 300, 2


def test_the_best_edges_go_to_the_first_empty_slots():
    senders, placed, _ = slots()
    gains = graph.EdgeGains(
        jnp.tile(jnp.array([[5, 3, -1]]), (NODES, 1)),
        jnp.array([[2.0, 1.0, 9.0]] * 5 + [[jnp.nan, 1.0, -jnp.inf]]),
        jnp.ones(NODES),
    )
    place = jax.jit(graph.place_edges, static_argnums=2)
    found = place((senders, placed), gains, 1)
    assert found.senders.tolist() == [[1, 2], [0, 3], [5, 0], [4, 5], [2, 5], [3, 0]]
    assert found.placed.all(axis=1).tolist() == [True, True, False, True, True, True]
    two = place(graph.empty_edges(NODES, 2), gains, 2)
    assert two.senders.tolist() == [[5, 3]] * 5 + [[3, 0]]
    few = jax.jit(lambda z: graph.place_edges(graph.empty_edges(NODES, 2), gains, 2, min_z=z))(1.5)
    assert few.placed.tolist() == [[True, False]] * 5 + [[False, False]]


def test_an_edge_that_is_there_is_not_placed_again():
    edges = graph.InEdges(jnp.array([[1, 0], [0, 0]]), jnp.array([[True, False], [False, False]]))
    gains = graph.EdgeGains(jnp.array([[1, 0]] * 2), jnp.array([[3.0, 2.0]] * 2), jnp.ones(2))
    found = jax.jit(graph.place_edges, static_argnums=2)(edges, gains, 1)
    assert found.senders.tolist() == [[1, 0], [1, 0]]
    assert found.placed.tolist() == [[True, True], [True, False]]
    alone = graph.EdgeGains(jnp.array([[1], [-1]]), jnp.ones((2, 1)), jnp.ones(2))
    assert graph.place_edges(edges, alone).placed.tolist() == edges.placed.tolist()


def test_the_least_important_edges_go():
    senders, placed, _ = slots()
    importance = jnp.array([[2.0, 1.0], [jnp.nan, 3.0], [0, 0], [5, 0], [1, 1], [0, jnp.inf]])
    left = jax.jit(graph.drop_edges)((senders, placed), importance)
    expected = np.array([[1, 0], [1, 0], [0, 0], [0, 0], [0, 1], [0, 1]], bool)
    assert np.array_equal(left.placed, expected)
    assert not np.asarray(left.senders)[~expected].any()


def test_what_empty_slots_hold_has_no_importance_and_no_slope():
    edges = graph.InEdges(jnp.array([[1], [0]]), jnp.array([[True], [False]]))
    h = jnp.array([[jnp.nan, 1.0], [3.0, 4.0]])  # nobody reads the first node

    def total(values, h):
        return jnp.sum(graph.edge_importance(edges, values, h))

    numbers = jnp.array([[-2.0], [jnp.nan]])
    matrices = jnp.stack([-2 * jnp.eye(2), jnp.full((2, 2), jnp.nan)])[:, None]
    found = jax.jit(lambda: [jax.value_and_grad(total, (0, 1))(v, h) for v in (numbers, matrices)])
    for size, (slopes, of_nodes) in jax.device_get(found()):
        assert size == 10
        assert np.isfinite(slopes).all()
        assert (slopes[0] != 0).any()
        assert (slopes[1] == 0).all()
        np.testing.assert_allclose(of_nodes, [[0, 0], [1.2, 1.6]], rtol=1e-6)


def test_importance_is_the_size_of_what_an_edge_carries():
    senders, placed, _ = slots()
    values = np.random.default_rng(0).normal(size=(NODES, 2)).astype(np.float32)
    matrices = np.random.default_rng(1).normal(size=(NODES, 2, 3, 2)).astype(np.float32)
    samples = np.random.default_rng(2).normal(size=(NODES, 5, 3)).astype(np.float32)
    measure = jax.jit(graph.edge_importance)
    one, other = (
        measure((senders, placed), values, H),
        measure((senders, placed), matrices, samples),
    )
    for node, slot in np.ndindex(NODES, 2):
        sender, on = int(senders[node, slot]), bool(placed[node, slot])
        close(one[node, slot], on * np.linalg.norm(values[node, slot] * H[sender]))
        carried = samples[sender] @ matrices[node, slot]
        close(other[node, slot], on * np.linalg.norm(carried), 1e-4)


def hidden_wiring():
    """Linear sums over two hidden senders of every node, of noise."""
    generator = np.random.default_rng(3)
    x = generator.normal(size=(COUPLED, STEPS)).astype(np.float32)
    senders = np.stack(
        [generator.choice(np.delete(np.arange(COUPLED), i), SLOTS, False) for i in range(COUPLED)]
    )
    values = generator.uniform(0.5, 1.0, senders.shape) * generator.choice([-1, 1], senders.shape)
    return x, senders, np.einsum("nk,nks->ns", values, x[senders]).astype(np.float32)


@pytest.mark.parametrize("matrices", [False, True])
def test_importance_keeps_its_size(matrices):
    senders, placed, _ = slots()
    shape = (NODES, 2, H.shape[-1], 2) if matrices else (NODES, 2)
    values = np.random.default_rng(9).normal(size=shape).astype(np.float32)
    importance = jax.jit(graph.edge_importance)
    expected = importance((senders, placed), values, H)
    for scale in (1e-25, 1e25):
        found = importance((senders, placed), values, H * np.float32(scale))
        np.testing.assert_allclose(found / scale, expected, rtol=1e-5)
        found = importance((senders, placed), values * np.float32(scale), H)
        np.testing.assert_allclose(found / scale, expected, rtol=1e-5)


def test_an_edge_that_carries_infinity_stays_the_most_important():
    edges = graph.InEdges(jnp.array([[1], [0]]), jnp.ones((2, 1), bool))
    values = np.ones((2, 1, 2, 2), np.float32)
    found = graph.edge_importance(edges, values, jnp.array([[jnp.inf, 1.0], [1, 2]]))
    assert found[0] < 10
    assert jnp.isinf(found[1])
    values[0, 0, 0, 0] = np.inf
    assert jnp.isinf(graph.edge_importance(edges, values, jnp.ones((2, 2)))[0])


def test_pursuit_with_swaps_finds_a_hidden_wiring():
    x, senders, target = hidden_wiring()
    x = jnp.asarray(x)

    def fit(edges):
        """Least squares of every node's placed senders."""
        read = jnp.where(edges.placed[..., None], x[edges.senders], 0)
        gram = jnp.einsum("nks,nls->nkl", read, read)
        gram += jnp.eye(SLOTS)[None] * jnp.where(edges.placed, 0, 1)[..., None] + 1e-4
        right = jnp.einsum("nks,ns->nk", read, target)
        return jnp.linalg.solve(gram, right[..., None])[..., 0]

    def probe(edges):
        error = graph.aggregate_in_edges(edges, fit(edges), x) - target
        lists = dict(zip(("senders", "receivers"), graph.edge_list(edges), strict=True))
        return graph.edge_gains(x, error, weights="any", unit_senders=True, **lists, block=10)

    @jax.jit
    def search():
        # A wrong edge in the first slot of every node, which only a swap can mend.
        wrong = np.array([min(set(range(COUPLED)) - {i, *senders[i]}) for i in range(COUPLED)])
        first = jnp.stack([jnp.asarray(wrong, jnp.int32), jnp.zeros(COUPLED, jnp.int32)], 1)
        edges = graph.InEdges(first, jnp.array([[True, False]] * COUPLED))
        edges = graph.place_edges(edges, probe(edges))
        for _ in range(2):
            importance = graph.edge_importance(edges, fit(edges), x)
            edges = graph.swap_edges(edges, importance, probe)
        return edges

    found = search()
    assert found.placed.all()
    assert np.array_equal(np.sort(found.senders, axis=1), np.sort(senders, axis=1))


def test_what_does_not_fit_is_told():
    with pytest.raises(ValueError, match="found gains=1"):
        graph.place_edges(graph.empty_edges(2, 1), 1)
    with pytest.raises(ValueError, match="found importance of shape"):
        graph.drop_edges(graph.empty_edges(2, 1), [1.0, 2.0])
    with pytest.raises(ValueError, match="found gains=2; expected a function of edges"):
        graph.swap_edges(graph.empty_edges(2, 1), [[1.0], [2.0]], 2)
