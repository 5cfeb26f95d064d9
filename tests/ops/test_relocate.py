import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.ops import (
    ContinuousTuples,
    SparseEntries,
    leaving_gains,
    relax,
    settle,
    sparse_multiply,
)
from sparse_hyper_jax.ops import relocate as eager_relocate
from sparse_hyper_jax.ops import surplus as eager_surplus
from tests.ops.examples import assert_close, make_tuples

SHAPE = (8, 8)
SETTLED, FRESH, LOST = 0.01, 1.8, 5.0

surplus = jax.jit(eager_surplus, static_argnums=1, static_argnames=("settled", "lost"))
relocate = jax.jit(eager_relocate, static_argnums=3, static_argnames=("limit", "shape"))


def tuples_at(cells, variances):
    means = np.asarray(cells, np.float32)
    variances = np.broadcast_to(np.asarray(variances, np.float32)[:, None], means.shape)
    return ContinuousTuples(means, variances, np.ones(len(means), np.float32))


def entries_at(cells):
    return SparseEntries(np.asarray(cells, np.int32), np.zeros(len(cells), np.float32))


@pytest.mark.parametrize(
    ("variances", "expected"),
    [
        ([SETTLED, SETTLED, SETTLED], [0, np.inf, 0]),
        ([FRESH, SETTLED, SETTLED], [0, 0, 0]),
        ([SETTLED, FRESH, SETTLED], [0, 0, 0]),
        ([FRESH, FRESH, FRESH], [0, 0, 0]),
        ([SETTLED, LOST, SETTLED], [0, LOST / 8, 0]),
        ([LOST, SETTLED, LOST], [LOST / 8, 0, LOST / 8]),
    ],
)
def test_two_tuples_on_a_cell_and_one_beside(variances, expected):
    # The first two round to the same cell.
    tuples = tuples_at([(3.2, 4.0), (2.8, 4.3), (3.0, 5.0)], variances)
    assert_close(surplus(tuples, SHAPE), np.array(expected, np.float32))


def test_of_many_duplicates_the_first_stays():
    tuples = tuples_at([(1, 1), (2, 2), (1, 1), (2, 2), (1, 1)], [SETTLED] * 5)
    assert surplus(tuples, SHAPE).tolist() == [0, 0, np.inf, np.inf, np.inf]


def test_nothing_is_surplus_among_settled_tuples_on_cells_of_their_own():
    tuples = tuples_at([(place, 7 - place) for place in range(8)], [SETTLED] * 8)
    assert not np.any(surplus(tuples, SHAPE))


@pytest.mark.parametrize(
    ("variance", "expected"), [((1.0, 1.0), 0.0), ((1.0, 9.0), 0.9), ((3.0, 1.0), 0.75)]
)
def test_lost_is_measured_by_the_longest_share_of_an_axis(variance, expected):
    tuples = ContinuousTuples(jnp.zeros((1, 2)), jnp.array([variance]), jnp.ones(1))
    assert_close(surplus(tuples, (4, 10), lost=0.5), np.array([expected]))


@pytest.mark.parametrize(("settled", "duplicates"), [(0.005, 0), (0.02, 1)])
def test_settled_is_a_bound_on_the_variance(settled, duplicates):
    tuples = tuples_at([(1, 1), (1, 1)], [SETTLED, SETTLED])
    assert np.isinf(surplus(tuples, SHAPE, settled=settled)).sum() == duplicates


def test_a_tuple_is_settled_only_on_all_axes():
    means = jnp.ones((2, 2))
    variances = jnp.array([[SETTLED, SETTLED], [SETTLED, FRESH]])
    tuples = ContinuousTuples(means, variances, jnp.ones(2))
    assert surplus(tuples, SHAPE).tolist() == [0, 0]


def test_most_urgent_tuples_go_to_the_best_cells():
    tuples = tuples_at([(1, 1), (5, 5), (1, 1), (6, 6)], [SETTLED, LOST, SETTLED, 2 * LOST])
    entries = entries_at([(0, 3), (2, 2), (7, 7), (4, 0)])
    moves = relocate(tuples, entries, jnp.array([1.0, 3.0, -1.0, 2.0]), SHAPE, limit=4)
    # Infinite, then the wider lost one, then the other; the fourth has nothing to move.
    assert moves.tuples[:3].tolist() == [2, 3, 1]
    assert moves.cells[:3].tolist() == [[2, 2], [4, 0], [0, 3]]
    assert moves.moved.tolist() == [True, True, True, False]


@pytest.mark.parametrize(("limit", "rows"), [(1, 1), (2, 2), (3, 3), (50, 4)])
def test_no_more_moves_than_the_limit(limit, rows):
    tuples = tuples_at([(1, 1)] * 4, [SETTLED] * 4)
    entries = entries_at([(0, place) for place in range(6)])
    moves = relocate(tuples, entries, jnp.ones(6), SHAPE, limit=limit)
    assert moves.tuples.shape == moves.moved.shape == (rows,)
    assert moves.cells.shape == (rows, 2)
    assert np.sum(moves.moved) == min(limit, 3)


@pytest.mark.parametrize("gains", [[-1.0, -2.0, -0.5], [0.0, 0.0, 0.0], [-np.inf, 0.0, -1.0]])
def test_nothing_moves_without_a_gain(gains):
    tuples = tuples_at([(1, 1)] * 4, [SETTLED] * 4)
    moves = relocate(
        tuples, entries_at([(0, 0), (0, 1), (0, 2)]), np.array(gains, np.float32), SHAPE, limit=3
    )
    assert not np.any(moves.moved)


def test_a_cell_sampled_twice_takes_one_tuple():
    tuples = tuples_at([(1, 1)] * 4, [SETTLED] * 4)
    entries = entries_at([(3, 3), (3, 3), (3, 3), (5, 5)])
    moves = relocate(tuples, entries, jnp.array([2.0, 2.0, 2.0, 1.0]), SHAPE, limit=3)
    assert moves.moved.tolist() == [True, True, False]
    assert moves.cells[:2].tolist() == [[3, 3], [5, 5]]


def draw_case(key):
    tuple_key, sample_key, gain_key = jax.random.split(key, 3)
    means = jax.random.randint(tuple_key, (9, 2), 0, 3).astype(jnp.float32)
    spread = jax.random.bernoulli(tuple_key, 0.2, (9, 1))
    variances = jnp.broadcast_to(jnp.where(spread, LOST, SETTLED), (9, 2))
    tuples = ContinuousTuples(means, variances, jnp.ones(9))
    entries = relax(sample_key, tuples, SHAPE, num_global=3)
    return tuples, entries, jax.random.normal(gain_key, entries.values.shape)


def test_moved_tuples_and_cells_are_distinct_under_jit_and_vmap():
    keys = jax.random.split(jax.random.key(0), 20)
    cases = jax.jit(jax.vmap(draw_case))(keys)

    def move(tuples, entries, gains):
        return relocate(tuples, entries, gains, SHAPE, limit=5), surplus(tuples, SHAPE)

    batch, urgency = jax.device_get(jax.jit(jax.vmap(move))(*cases))
    cases = jax.device_get(cases)
    assert batch.tuples.dtype == batch.cells.dtype == jnp.int32
    for case in range(20):
        moved = np.asarray(batch.moved[case])
        chosen = np.asarray(batch.tuples[case])
        cells = [tuple(cell) for cell in batch.cells[case][moved].tolist()]
        assert len(set(chosen.tolist())) == 5
        assert len(set(cells)) == len(cells)
        assert (urgency[case][chosen[moved]] > 0).all()
        assert set(cells) <= {tuple(cell) for cell in cases[1].indices[case].tolist()}
    assert 0 < batch.moved.sum() < batch.moved.size
    single, _ = move(*jax.tree.map(lambda leaf: leaf[0], cases))
    assert_close(single, jax.tree.map(lambda leaf: leaf[0], batch))


def test_a_move_lowers_a_quadratic_loss():
    # Two settled tuples share a cell of the diagonal; the cell that nobody holds is to be found.
    tuples = tuples_at([(place, place) for place in (0, 1, 2, 3, 4, 5, 6, 3)], [SETTLED] * 8)
    x = np.random.default_rng(1).normal(size=(8, 64)).astype(np.float32)

    @jax.jit
    def loss_of(indices, values):
        return jnp.mean(jnp.square(sparse_multiply(indices, values, x, (8,)) - x))

    cells = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1).reshape(-1, 2)
    cells, settle_now = cells.astype(np.int32), jax.jit(settle, static_argnums=1)
    settled = jax.device_get(settle_now(tuples, SHAPE))
    values = np.zeros(64, np.float32)
    np.add.at(values, settled.indices @ [8, 1], settled.values)
    entries = SparseEntries(cells, values)
    gains = -np.asarray(jax.grad(loss_of, argnums=1)(cells, values))
    moves = relocate(tuples, entries, gains, SHAPE, limit=2)
    assert moves.tuples.tolist()[0] == 7
    assert moves.cells.tolist()[0] == [7, 7]
    assert moves.moved.tolist() == [True, False]
    means = tuples.means.copy()
    means[7] = [7, 7]
    moved = settle_now(tuples._replace(means=means), SHAPE)
    before, after = loss_of(*settled), loss_of(*moved)
    assert before > 0.1
    assert_close(after, 0.0)
    # To first order: a small step in the value at that cell gains what was promised.
    values[63] += 1e-2
    step = loss_of(cells, values) - before
    assert_close(step / 1e-2, -gains[63], rtol=0.02)


def test_all_cells_are_entries_that_need_no_names():
    tuples = tuples_at([(1, 1)] * 5 + [(2, 6)], [SETTLED] * 5 + [LOST])
    gains = np.random.default_rng(0).permutation(64).reshape(SHAPE).astype(np.float32) - 60
    gains[3, 4] = np.nan
    moves = relocate(tuples, None, gains, SHAPE, limit=9)
    named = relocate(tuples, entries_at(list(np.ndindex(SHAPE))), gains.ravel(), SHAPE, limit=9)
    jax.tree.map(np.testing.assert_array_equal, moves, named)
    assert 0 < np.sum(moves.moved) <= 3  # no more cells have a gain
    assert (gains[tuple(np.asarray(moves.cells[moves.moved]).T)] > 0).all()


def test_what_is_gained_by_leaving_is_bounded_by_the_error_of_its_mean():
    rng = np.random.default_rng(0)
    tuples = tuples_at(np.zeros((4, 2)), [0.05, 0.05, 0.2, 0.05])
    tuples = tuples._replace(values=rng.normal(size=4).astype(np.float32))
    gradients = rng.normal(size=(5, 4)).astype(np.float32) + 1
    gained = tuples.values * gradients
    found = jax.jit(leaving_gains)(tuples, gradients, certainty=2.0)
    expected = gained.mean(0) - 2 * gained.std(0, ddof=1) / np.sqrt(5)
    assert_close(found, np.where(np.arange(4) == 2, 0, expected), rtol=1e-5)


def test_errors_of_rounding_are_no_reason_to_leave():
    tuples = tuples_at([(n, n) for n in range(4)], [SETTLED] * 4)
    # Alike on all batches, as errors of rounding are: certain, and nothing.
    gradients = jnp.tile(jnp.array([1e-8, 1e-5, 1.0, -1.0]), (8, 1))
    assert_close(leaving_gains(tuples, gradients), gradients[0])
    found = leaving_gains(tuples, gradients, least=1e-4)
    assert_close(found, [0, 0, 1, -1])


@pytest.mark.parametrize(
    ("leaving", "expected"),
    [
        # Two settled on one cell, one alone, a settled and a fresh one on another, a lost one, and
        # one alone again.
        ([9, 9, -1, 9, 9, 0, -1], [1, 5]),
        ([9, 9, 1, 9, 9, 0, 2], [1, 6, 2, 5]),
        ([9, 9, np.inf, 9, 9, 0, 2], [1, 2, 6, 5]),
        ([9, 9, np.nan, 9, 9, 3, 0], [1, 5]),
    ],
)
def test_tuples_that_gain_by_leaving_go_between_duplicates_and_lost_ones(leaving, expected):
    cells = [(1, 1), (1, 1), (2, 5), (6, 6), (6, 6), (4, 4), (7, 2)]
    tuples = tuples_at(cells, [SETTLED, SETTLED, SETTLED, SETTLED, FRESH, LOST, SETTLED])
    entries = entries_at([(0, place) for place in range(7)])
    gains, leaving = np.arange(7, 0, -1).astype(np.float32), np.array(leaving, np.float32)
    moves = relocate(tuples, entries, gains, SHAPE, limit=7, leaving=leaving)
    assert moves.tuples[moves.moved].tolist() == expected
    assert moves.cells[moves.moved].tolist() == [[0, place] for place in range(len(expected))]


def test_without_gains_by_leaving_nothing_else_moves():
    tuples = tuples_at([(1, 1), (5, 5), (1, 1), (6, 6)], [SETTLED, LOST, SETTLED, 2 * LOST])
    entries, gains = entries_at([(0, 3), (2, 2), (7, 7), (4, 0)]), jnp.array([1.0, 3.0, -1.0, 2.0])
    stays = relocate(tuples, entries, gains, SHAPE, limit=4)
    found = relocate(tuples, entries, gains, SHAPE, limit=4, leaving=jnp.zeros(4))
    jax.tree.map(np.testing.assert_array_equal, stays, found)


def test_a_tuple_alone_on_a_wrong_cell_goes_to_the_missing_one():
    tuples = tuples_at([(n, n) for n in range(6)] + [(6, 1), (7, 7)], [SETTLED] * 8)
    batches = np.random.default_rng(0).normal(size=(12, 8, 16)).astype(np.float32)
    indices = np.asarray(tuples.means, np.int32)

    @jax.jit
    def move(batches):
        def of_batch(x):
            def error(values):
                return sparse_multiply(indices, values, x, (8,)) - x

            pull = jax.grad(lambda values: jnp.mean(jnp.square(error(values))))(tuples.values)
            return pull, -2 * error(tuples.values) @ x.T / x.size

        gradients, gains = jax.vmap(of_batch)(batches)
        leaving = leaving_gains(tuples, gradients)
        options = {"limit": 3, "leaving": leaving}
        return eager_relocate(tuples, None, gains.mean(axis=0), SHAPE, **options), leaving

    moves, leaving = jax.device_get(move(batches))
    # To first order weight on (6, 1) costs 2 / 8 times the mean square of its input.
    assert 0.05 < leaving[6] < 0.25
    assert (np.delete(leaving, 6) <= 0).all()
    assert moves.tuples[moves.moved].tolist() == [6]
    assert moves.cells[moves.moved].tolist() == [[6, 6]]


@pytest.mark.parametrize(
    ("gradients", "options", "match"),
    [
        (np.ones((1, 3)), {}, "two batches or more"),
        (np.ones((4, 2)), {}, "gradients of shape"),
        (np.ones(3), {}, "gradients of shape"),
        (np.ones((4, 3)), {"certainty": -1.0}, "certainty=-1.0"),
        (np.ones((4, 3)), {"frozen": -1.0}, "frozen=-1.0"),
        (np.ones((4, 3)), {"least": -1.0}, "least=-1.0"),
    ],
)
def test_what_says_nothing_of_leaving_is_refused(gradients, options, match):
    with pytest.raises(ValueError, match=match):
        leaving_gains(tuples_at(np.zeros((3, 2)), [SETTLED] * 3), gradients, **options)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"leaving": jnp.ones(3)}, "leaving"),
        ({"limit": 0}, "limit=0"),
        ({"entries": None}, "gains of shape"),
        ({"gains": jnp.ones(3)}, "gains of shape"),
        ({"shape": (8, 8, 8)}, "means of shape"),
    ],
)
def test_wrong_calls_are_refused(options, match):
    case = {
        "tuples": make_tuples(4, SHAPE),
        "entries": entries_at([(0, 0), (1, 1)]),
        "gains": jnp.ones(2),
        "shape": SHAPE,
        "limit": 1,
    }
    with pytest.raises(ValueError, match=match):
        relocate(**(case | options))


def test_no_gradient_flows_through_urgency():
    tuples = tuples_at([(1, 1), (2, 2)], [LOST, LOST])
    gradient = jax.jit(jax.grad(lambda tuples: surplus(tuples, SHAPE).sum()))(tuples)
    assert not any(np.any(leaf) for leaf in gradient)


def test_nan_moves_nothing_and_takes_no_place():
    tuples = tuples_at([[1, 1], [1, 1], [2, 2]], [SETTLED, SETTLED, SETTLED])
    tuples = tuples._replace(means=np.where(np.eye(3, 2, -2), np.nan, tuples.means))
    assert jnp.isnan(surplus(tuples, SHAPE)).tolist() == [False, False, True]
    entries = SparseEntries(np.array([[5, 5], [6, 6], [-1, 9]]), np.ones(3, np.float32))
    found = relocate(tuples, entries, np.array([np.nan, 1.0, 9.0], np.float32), SHAPE, limit=3)
    assert found.moved.tolist() == [True, False, False]
    assert (found.tuples[0], found.cells[0].tolist()) == (1, [6, 6])
