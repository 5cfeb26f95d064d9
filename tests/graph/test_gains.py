import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import graph
from tests.ops.examples import assert_names_itself_and_its_cure

from .examples import COTANGENT, FEATURES, NODES, H, close, slots

SAMPLES = np.random.default_rng(6).normal(size=(NODES, 4, 2)).astype(np.float32)
OUT = np.random.default_rng(7).normal(size=(NODES, 4, 3)).astype(np.float32)
TARGET = np.random.default_rng(8).normal(size=(NODES, FEATURES)).astype(np.float32)


@jax.jit
def computed():
    senders, placed, _ = slots()
    there = dict(zip(("senders", "receivers"), graph.edge_list((senders, placed)), strict=True))
    three = {"count": 3, **there}
    matrices = {"weights": "matrix", **three}
    return {
        "positive": graph.edge_gains(H, COTANGENT, **three),
        "blocks": graph.edge_gains(H, COTANGENT, **three, block=4),
        "any": graph.edge_gains(H, COTANGENT, weights="any", unit_senders=True, **three, block=2),
        "matrix": graph.edge_gains(SAMPLES, OUT, **matrices, block=4),
        "message": graph.edge_gains(
            SAMPLES[..., 0], OUT, **matrices, block=4, message=lambda h: jnp.stack([h, h**2], -1)
        ),
        "squares": graph.edge_gains(
            np.stack([SAMPLES[..., 0], SAMPLES[..., 0] ** 2], -1), OUT, **matrices
        ),
        "loops": graph.edge_gains(H, COTANGENT, 9, self_loops=True, allowed=np.arange(NODES) < 4),
        "share": graph.edge_gains(H, COTANGENT, 3, output=TARGET),
        "of what is NaN": graph.edge_gains(
            np.where(np.arange(6) == 2, np.nan, H.T).T, COTANGENT, 6
        ),
    }


def best_of(gains, closed, count):
    """Senders and gains of the best open cells ``(n, count)``, and the noise of all open ones."""
    gains = np.where(closed, -np.inf, gains)
    order = np.argsort(-gains, axis=1, kind="stable")[:, :count]
    best = np.take_along_axis(gains, order, axis=1)
    noise = np.sqrt((np.where(closed, 0, gains) ** 2).sum(1) / np.maximum((~closed).sum(1), 1))
    return np.where(best > -np.inf, order, -1), best, noise


def closed():
    return slots()[2] | np.eye(NODES, dtype=bool)


SIZES = np.linalg.norm(H, axis=1)
SLOPES = COTANGENT @ H.T
CASES = {
    "positive": (-SLOPES, closed(), 3),
    "blocks": (-SLOPES, closed(), 3),
    "any": (np.abs(SLOPES) / SIZES, closed(), 3),
    "matrix": (
        np.linalg.norm(np.einsum("nso,msc->nmoc", OUT, SAMPLES), axis=(2, 3)),
        closed(),
        3,
    ),
    "loops": (-SLOPES, np.broadcast_to(np.arange(NODES) >= 4, (NODES, NODES)), NODES),
    "share": (
        -SLOPES + np.sum(COTANGENT * TARGET, axis=1, keepdims=True),
        np.eye(NODES, dtype=bool),
        3,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_gains_are_those_of_the_whole_table(case):
    for found, expected in zip(computed()[case], best_of(*CASES[case]), strict=True):
        close(found, expected)


def test_messages_are_computed_block_by_block():
    for found, expected in zip(computed()["message"], computed()["squares"], strict=True):
        close(found, expected)


def test_a_gain_of_nan_is_never_among_the_best():
    found = computed()["of what is NaN"]
    assert 2 not in np.asarray(found.senders)
    assert (np.asarray(found.senders)[:, -1] == -1).all()
    assert np.isnan(np.delete(np.asarray(found.noise), 2)).all()


def test_gains_are_slopes_of_the_loss():
    """By central differences in double precision, of each absent edge; also as it takes a share."""

    def loss(matrix):
        return np.sum((matrix @ H.astype(float) - TARGET) ** 2)

    matrix = np.random.default_rng(9).normal(size=(NODES, NODES)) * slots()[2]
    delta = 2 * (matrix @ H - TARGET)
    found = graph.edge_gains(H, delta.astype(np.float32), NODES, self_loops=True)
    step = 1e-4
    for node in (0, 3, 5):
        for sender, gain in zip(found.senders[node], found.gains[node], strict=True):
            change = np.zeros((NODES, NODES))
            change[node, int(sender)] = step
            slope = (loss(matrix + change) - loss(matrix - change)) / (2 * step)
            assert float(gain) == pytest.approx(-slope, rel=1e-3, abs=1e-4)
    weights = slots()[2] / np.maximum(slots()[2].sum(axis=1, keepdims=True), 1)
    output = weights @ H
    delta = 2 * (output - TARGET)
    found = graph.edge_gains(
        H, delta.astype(np.float32), NODES, output=output.astype(np.float32), self_loops=True
    )
    for sender, gain in zip(found.senders[0], found.gains[0], strict=True):
        mixed = [(output[0] + m * H[int(sender)]) / (1 + m) - TARGET[0] for m in (step, -step)]
        slope = (np.sum(mixed[0] ** 2) - np.sum(mixed[1] ** 2)) / (2 * step)
        assert float(gain) == pytest.approx(-slope, rel=1e-3, abs=1e-4)


def test_the_square_of_a_unit_gain_is_twice_what_least_squares_take_off():
    error = np.random.default_rng(11).normal(size=H.shape).astype(np.float32)
    found = graph.edge_gains(H, error, NODES, weights="any", unit_senders=True, self_loops=True)
    for node, sender in np.ndindex(NODES, NODES):
        sent = H[found.senders[node, sender]]
        left = error[node] - sent * (sent @ error[node]) / (sent @ sent)
        less = (np.sum(error[node] ** 2) - np.sum(left**2)) / 2
        assert float(found.gains[node, sender]) ** 2 / 2 == pytest.approx(less, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("weights", graph.NEW_WEIGHTS)
def test_gains_and_noise_keep_their_size_and_gains_of_unit_senders_do_not_depend_on_it(weights):
    h, cotangent = (SAMPLES, OUT) if weights == "matrix" else (H, COTANGENT)
    gains = jax.jit(
        lambda h, unit: graph.edge_gains(
            h, cotangent, 3, weights=weights, unit_senders=unit, block=4
        ),
        static_argnums=1,
    )
    expected, unit = gains(h, False), gains(h, True)
    for scale in (1e-24, 1e24):
        for found, other, by in (
            (gains(h * np.float32(scale), False), expected, scale),
            (gains(h * np.float32(scale), True), unit, 1),
        ):
            np.testing.assert_array_equal(found.senders, other.senders)
            np.testing.assert_allclose(found.gains / by, other.gains, rtol=1e-4)
            np.testing.assert_allclose(found.noise / by, other.noise, rtol=1e-4)


def test_numbers_of_nodes_mean_nothing():
    order = np.random.default_rng(10).permutation(NODES)
    names = np.argsort(order)
    gains = jax.jit(lambda *arrays: graph.edge_gains(*arrays, 3))
    found, renamed = gains(H, COTANGENT), gains(H[order], COTANGENT[order])
    assert np.array_equal(renamed.senders, names[np.asarray(found.senders)][order])
    close(renamed.gains, np.asarray(found.gains)[order])
    close(renamed.noise, np.asarray(found.noise)[order])


def test_no_array_is_as_large_as_the_table():
    nodes, features = 3000, 2
    like = jax.ShapeDtypeStruct((nodes, features), jnp.float32)
    probe = jax.jit(lambda h, delta: graph.edge_gains(h, delta, 4, block=100))
    planned = probe.lower(like, like).compile().memory_analysis().temp_size_in_bytes
    assert planned < nodes * nodes * 4 / 4


def test_products_are_exact_on_every_device():
    edges, values = graph.empty_edges(NODES, 2), jnp.ones((NODES, 2, 2, 3))
    calls = [
        lambda: graph.edge_gains(H, COTANGENT),
        lambda: graph.edge_gains(SAMPLES, OUT, weights="matrix"),
        lambda: graph.aggregate_in_edges(edges, values, SAMPLES),
        lambda: graph.edge_importance(edges, values, SAMPLES),
    ]
    for call in calls:
        lines = jax.jit(call).lower().as_text().splitlines()
        products = [line for line in lines if "dot_general" in line]
        assert products
        assert all("HIGHEST" in line for line in products)


@pytest.mark.parametrize(("samples", "before", "after"), [(0, 2, 2), (3, 0, 2), (3, 2, 0)])
def test_of_nothing_all_gains_are_0(samples, before, after):
    h, cotangent = np.zeros((3, samples, before)), np.zeros((3, samples, after))
    found = graph.edge_gains(h, cotangent, weights="matrix")
    assert found.gains.tolist() == [[0], [0], [0]]
    edges = graph.place_edges(graph.empty_edges(3, 1), found)
    sizes = graph.edge_importance(edges, np.zeros((3, 1, before, after)), h)
    assert sizes.tolist() == [[0], [0], [0]]


def test_what_does_not_fit_is_told():
    assert_names_itself_and_its_cure(
        lambda: graph.edge_gains(H, COTANGENT[:, :2]),
        "cotangent of shape (6, 2) where nodes send (6, 3)",
        "the same shape",
        "pass the gradient",
    )
    assert_names_itself_and_its_cure(
        lambda: graph.edge_gains(H, COTANGENT, senders=[0]), "senders without", "both", "pass both"
    )
    assert_names_itself_and_its_cure(
        lambda: graph.edge_gains(H, COTANGENT, output=TARGET, unit_senders=True),
        "unit_senders=True with output",
        "one of them",
        "leave",
    )
    with pytest.raises(ValueError, match="found weights='free'; expected one of 'positive'"):
        graph.edge_gains(H, COTANGENT, weights="free")
    with pytest.raises(ValueError, match="found output of shape"):
        graph.edge_gains(SAMPLES, OUT, weights="matrix", output=OUT)
    for message, found, expected in [
        (lambda rows: None, "message(rows)=None", "an array of real numbers"),
        (lambda rows: rows[:1], "message(rows) of shape (1, 3) for 4 rows", "each of these nodes"),
    ]:
        assert_names_itself_and_its_cure(
            lambda message=message: graph.edge_gains(H, COTANGENT, message=message, block=4),
            found,
            expected,
            "",
        )
