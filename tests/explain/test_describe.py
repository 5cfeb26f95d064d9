import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import ContinuousTuples, explain, graph, ops
from tests.ops.examples import assert_names_itself_and_its_cure


def test_planted_tuples_are_ranked_by_what_they_carry():
    generator = np.random.default_rng(0)
    cells = generator.permutation(20)[:6]
    cells = np.stack([cells // 5, cells % 5], -1)
    cells[5] = cells[2]
    means = cells + generator.uniform(-0.4, 0.4, cells.shape)
    variances = np.full((6, 2), 0.01)
    variances[3, 1] = 1.0
    values, sizes = generator.normal(size=6), generator.uniform(0.1, 2.0, 5)
    values[4] = 0.0
    tuples = ContinuousTuples(*map(jnp.asarray, (means, variances, values)))
    found = jax.jit(lambda *of: explain.describe_tuples(of[0], (4, 5), input_sizes=of[1]))(
        tuples, sizes
    )
    np.testing.assert_array_equal(found.positions, cells)
    worth = np.abs(values) * sizes[cells[:, 1]]
    np.testing.assert_allclose(found.importance, worth, rtol=1e-6)
    np.testing.assert_array_equal(found.order, np.argsort(-worth, kind="stable"))
    np.testing.assert_array_equal(found.settled, [True, True, True, False, True, True])
    np.testing.assert_array_equal(found.duplicate, [False] * 5 + [True])
    np.testing.assert_allclose(found.deviations, np.sqrt(variances), rtol=1e-6)


def test_the_order_of_taps_changes_nothing_but_their_numbers():
    generator = np.random.default_rng(1)
    positions, placed = generator.permutation(30)[:5, None], np.array([1, 0, 1, 1, 1], bool)
    weights, sizes = generator.normal(size=(5, 3, 2)), np.array([0.5, 1.0, 3.0])
    turned = generator.permutation(5)

    def described(positions, placed, weights):
        return explain.describe_taps(ops.Taps(positions, placed), weights, input_sizes=sizes)

    one, two = jax.jit(
        lambda *of: (described(*of), described(*(part[jnp.asarray(turned)] for part in of)))
    )(positions, placed, weights)
    np.testing.assert_array_equal(one.positions[one.order[:4]], two.positions[two.order[:4]])
    worth = np.sqrt(np.sum((weights * sizes[:, None]) ** 2, (1, 2))) * placed
    np.testing.assert_allclose(one.importance, worth, rtol=1e-6)
    np.testing.assert_allclose(two.importance, worth[turned], rtol=1e-6)
    np.testing.assert_allclose(one.values, np.sqrt(np.sum(weights**2, (1, 2))) * placed, rtol=1e-6)


def test_an_empty_slot_and_nan_show():
    taps = ops.Taps(jnp.array([[0], [0], [7]]), jnp.array([False, True, True]))
    weights = jnp.array([jnp.nan, 1.0, jnp.nan])
    found, slope = jax.jit(
        lambda w: (
            explain.describe_taps(taps, w),
            jax.grad(lambda w: explain.describe_taps(taps, w).importance[:2].sum())(w),
        )
    )(weights)
    np.testing.assert_array_equal(found.importance, [0.0, 1.0, np.nan])
    np.testing.assert_array_equal(found.order, [1, 0, 2])
    np.testing.assert_array_equal(slope[:2], [0.0, 1.0])
    np.testing.assert_array_equal(found.duplicate, [False, False, False])
    nowhere = ContinuousTuples(jnp.array([[jnp.nan], [0.2]]), jnp.ones((2, 1)) / 8, jnp.ones(2))
    found = explain.describe_tuples(nowhere, (4,))
    np.testing.assert_array_equal(found.settled, [False, True])
    np.testing.assert_array_equal(found.duplicate, [False, False])
    np.testing.assert_array_equal(found.order, [1, 0])


def test_edges_are_described_by_receiver_and_sender():
    edges = graph.InEdges(
        jnp.array([[2, 2], [0, 1], [1, 0]]), jnp.array([[True, True], [True, False], [True, True]])
    )
    generator = np.random.default_rng(2)
    h, values = generator.normal(size=(3, 4)), generator.normal(size=(3, 2))
    values[1, 1] = np.nan
    found = jax.jit(explain.describe_edges)(edges, values, h)
    expected = [[0, 2], [0, 2], [1, 0], [1, 0], [2, 1], [2, 0]]
    np.testing.assert_array_equal(found.positions, expected)
    values[1, 1] = 0
    np.testing.assert_allclose(found.values, values.ravel(), rtol=1e-6)
    worth = np.abs(values).ravel() * np.linalg.norm(h, axis=1)[np.array(expected)[:, 1]]
    np.testing.assert_allclose(found.importance, worth, rtol=1e-5)
    np.testing.assert_array_equal(found.order, np.argsort(-worth, kind="stable"))
    np.testing.assert_array_equal(found.settled, edges.placed.ravel())
    np.testing.assert_array_equal(found.duplicate, np.arange(6) == 1)
    matrices = generator.normal(size=(3, 2, 4, 2))
    found = jax.jit(explain.describe_edges)(edges, matrices, h)
    lengths = np.linalg.norm(matrices.reshape(6, -1), axis=1) * np.asarray(edges.placed).ravel()
    np.testing.assert_allclose(found.values, lengths, rtol=1e-5)
    none = explain.describe_edges(graph.empty_edges(3, 0), np.zeros((3, 0)), h)
    assert [len(part) for part in none] == [0] * len(none)


def test_no_slot_and_no_channel_give_no_importance():
    found = explain.describe_taps(ops.empty_taps(0), np.zeros((0, 2)))
    assert [len(part) for part in found] == [0] * len(found)
    found = explain.describe_taps(ops.empty_taps(2), np.zeros((2, 0)), input_sizes=np.zeros(0))
    assert found.importance.tolist() == [0, 0]


@pytest.mark.parametrize("held", [np.nan, np.inf])
def test_an_empty_slot_has_no_slope_for_the_sizes_of_channels(held):
    weights = jnp.array([[3.0, 4.0], [held, held]])
    taps = ops.Taps(jnp.zeros((2, 1), jnp.int32), jnp.array([True, False]))

    def total(sizes):
        return explain.describe_taps(taps, weights, input_sizes=sizes).importance.sum()

    np.testing.assert_allclose(jax.grad(total)(jnp.ones(2)), [1.8, 3.2], rtol=1e-6)


def test_a_table_says_what_to_doubt_and_what_is_left_out():
    tuples = ContinuousTuples(
        jnp.array([[3.0], [1.0], [3.1], [0.0]]),
        jnp.array([[0.01], [4.0], [0.01], [0.01]]),
        jnp.array([1.0, -2.0, 0.5, 0.25]),
    )
    found = explain.describe_tuples(tuples, (8,))
    assert explain.write_description(found, axes=["lag"], most=3).splitlines() == [
        "| lag | deviation | value | importance | |",
        "|---|---|---|---|---|",
        "| 1 | 2 | -2 | 2 | not settled |",
        "| 3 | 0.1 | 1 | 1 |  |",
        "| 3 | 0.1 | 0.5 | 0.5 | on the cell of another |",
        "",
        "1 more, of importance at most 0.25",
    ]
    assert "axis 0" in explain.write_description(found)


TAPS = ops.Taps(jnp.zeros((2, 1), jnp.int32), jnp.ones(2, bool))
TUPLES = ContinuousTuples(jnp.zeros((2, 2)), jnp.ones((2, 2)), jnp.ones(2))
WRONG = {
    "sizes of the wrong axis": (
        lambda: explain.describe_tuples(TUPLES, (4, 5), input_sizes=np.ones(4)),
        ("input_sizes of shape (4,)", "last axes", "one number per input"),
    ),
    "sizes of other channels": (
        lambda: explain.describe_taps(TAPS, np.ones((2, 3)), input_sizes=np.ones(2)),
        ("input_sizes of shape (2,)", "input channel", "(C,)"),
    ),
    "weights of other slots": (
        lambda: explain.describe_taps(TAPS, np.ones(3)),
        ("weights of shape (3,)", "every slot", "same layer"),
    ),
    "no taps": (
        lambda: explain.describe_taps([1], np.ones(1)),
        ("taps=[1]", "Taps(positions, placed)", "pass Taps"),
    ),
    "too many names": (
        lambda: explain.write_description(explain.describe_taps(TAPS, np.ones(2)), axes="xy"),
        ("axes='xy'", "name for every axis", "as many names"),
    ),
    "names by number": (
        lambda: explain.write_description(explain.describe_taps(TAPS, np.ones(2)), axes=(3,)),
        ("axes=(3,)", "name for every axis", "as many names"),
    ),
    "positions of one axis": (
        lambda: explain.write_description(
            explain.describe_taps(TAPS, np.ones(2))._replace(positions=jnp.ones(2))
        ),
        ("a description of shapes [(2,), (2, 1)", "(k, r)", "describe_taps"),
    ),
    "no order": (
        lambda: explain.write_description(
            explain.describe_taps(TAPS, np.ones(2))._replace(order=None)
        ),
        ("order=None", "array", ""),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_told(case):
    call, words = WRONG[case]
    assert_names_itself_and_its_cure(call, *words)
