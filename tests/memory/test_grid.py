"""Reads between the cells of a grid, against interpolation and densities in NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import ContinuousTuples, glimpse, memory
from tests.folding import folded
from tests.ops.examples import assert_names_itself_and_its_cure

RNG = np.random.default_rng(0)
SHAPES = {1: (7,), 2: (4, 5), 3: (3, 1, 4), 4: (2, 3, 2, 2)}
TABLES = {r: RNG.normal(size=(*shape, 2)).astype(np.float32) for r, shape in SHAPES.items()}
PLACES = {
    r: np.concatenate(
        [
            RNG.uniform(-0.2, 1.2, (6, r)) * (np.asarray(shape) - 1),
            np.stack(np.unravel_index(np.arange(np.prod(shape)), shape), -1),
        ]
    ).astype(np.float32)
    for r, shape in SHAPES.items()
}
COTANGENTS = {r: RNG.normal(size=(len(PLACES[r]), 2)).astype(np.float32) for r in SHAPES}
DRAWN = {"num_global": 3, "num_local": 2, "region": (2, 2)}
TUPLES = ContinuousTuples(
    (RNG.uniform(-0.1, 1.1, (9, 2)) * [3, 4]).astype(np.float32),
    RNG.uniform(0.05, 4, (9, 2)).astype(np.float32),
    RNG.normal(size=9).astype(np.float32),
)


def multilinear(table, place):
    """Interpolate in float64, at the edge where the place is outside."""
    shape = table.shape[:-1]
    place = np.clip(np.asarray(place, float), 0, np.asarray(shape) - 1)
    low = np.minimum(np.floor(place), np.maximum(np.asarray(shape) - 2, 0)).astype(int)
    y = np.zeros(table.shape[-1])
    for up in itertools.product((0, 1), repeat=len(shape)):
        cell = np.minimum(low + up, np.asarray(shape) - 1)
        share = np.prod(np.where(np.asarray(up) == 1, place - low, 1 - (place - low)))
        y += share * table[tuple(cell)]
    return y


@folded
def reads():
    def read(table, places, cotangent):
        def total(table):
            return jnp.sum(memory.grid_read(None, table, places) * cotangent)

        return {
            "interpolate": memory.grid_read(None, table, places),
            "round": memory.grid_read(None, table, places, evaluate="round"),
            "slope": jax.grad(total)(table),
        }

    return {(r,): (read, TABLES[r], PLACES[r], COTANGENTS[r]) for r in SHAPES}


@pytest.mark.parametrize("rank", SHAPES)
def test_a_read_on_a_grid_point_is_that_cell(rank):
    cells = TABLES[rank].reshape(-1, 2)
    for evaluate in memory.EVALUATIONS:
        np.testing.assert_array_equal(reads(rank)[evaluate][6:], cells)


@pytest.mark.parametrize("rank", SHAPES)
def test_between_cells_it_interpolates_and_outside_it_reads_the_edge(rank):
    table, places = TABLES[rank], PLACES[rank]
    expected = [multilinear(table, place) for place in places]
    np.testing.assert_allclose(reads(rank)["interpolate"], expected, rtol=1e-5, atol=1e-5)
    nearest = np.clip(np.round(places), 0, np.asarray(SHAPES[rank]) - 1).astype(int)
    np.testing.assert_array_equal(reads(rank)["round"], table[tuple(nearest.T)])


@pytest.mark.parametrize("rank", SHAPES)
def test_the_slope_of_the_table_is_in_the_rows_that_were_read(rank):
    expected = np.zeros(TABLES[rank].shape)
    for place, cotangent in zip(PLACES[rank], COTANGENTS[rank], strict=True):
        ones = np.eye(np.prod(SHAPES[rank])).reshape(*SHAPES[rank], -1)
        shares = multilinear(ones, place).reshape(SHAPES[rank])
        expected += shares[..., None] * cotangent
    np.testing.assert_allclose(reads(rank)["slope"], expected, rtol=1e-5, atol=1e-5)


@jax.jit
def sampled():
    table, key = TABLES[2], jax.random.key(3)
    narrow = TUPLES._replace(variances=jnp.full((9, 2), 1e-9))
    return {
        "bilinear": glimpse.bilinear(table, PLACES[2], padding="border"),
        "read": memory.grid_read(key, table, TUPLES, **DRAWN),
        "shares": memory.grid_shares(key, TUPLES, SHAPES[2], **DRAWN),
        "interpolate": memory.grid_read(None, table, TUPLES, evaluate="interpolate"),
        "round": memory.grid_read(None, table, TUPLES, evaluate="round"),
        "narrow": memory.grid_read(key, table, narrow, **DRAWN),
        "far": memory.grid_read(
            None, table, TUPLES._replace(means=jnp.asarray([[jnp.inf, -1e30]] * 9))
        ),
        "lost": memory.grid_read(None, table, [[jnp.nan, 1.0], [jnp.inf, -jnp.inf]]),
        "lost, rounded": memory.grid_read(None, table, [[jnp.nan, 1.0]], evaluate="round"),
        # Cells are never held, so there may be a thousand million of them.
        "large": memory.grid_shares(key, [[30000.5, 2.0]], (2**15, 2**15)),
        "edge": jax.grad(lambda place: memory.grid_read(None, table, place)[0, 0])(
            jnp.array([[3.0, 4.0]])
        ),
    }


def test_it_agrees_with_bilinear_sampling_of_images():
    np.testing.assert_allclose(sampled()["bilinear"], reads(2)["interpolate"], rtol=1e-5, atol=1e-6)


def test_tuples_share_by_density_among_the_distinct_points_they_draw():
    found = sampled()
    rows, shares = map(np.asarray, found["shares"])
    assert rows.shape == (9, 4 + 3 + 2)
    points = np.stack(np.unravel_index(rows, SHAPES[2]), -1).astype(float)
    squares = ((points - TUPLES.means[:, None]) ** 2 / TUPLES.variances[:, None]).sum(-1)
    for n in range(9):
        first = [list(rows[n]).index(row) == at for at, row in enumerate(rows[n])]
        weights = np.where(first, np.exp(-0.5 * (squares[n] - squares[n].min())), 0)
        expected = TUPLES.values[n] * weights / weights.sum()
        np.testing.assert_allclose(shares[n], expected, rtol=1e-4, atol=1e-6)
        y = (shares[n][:, None] * TABLES[2].reshape(-1, 2)[rows[n]]).sum(0)
        np.testing.assert_allclose(found["read"][n], y, rtol=1e-4, atol=1e-6)
    assert (rows < 20).all()
    assert (rows >= 0).all()


def test_evaluation_multiplies_by_the_values():
    found, values = sampled(), TUPLES.values[:, None]
    between = np.stack([multilinear(TABLES[2], place) for place in TUPLES.means])
    np.testing.assert_allclose(found["interpolate"], values * between, rtol=1e-4, atol=1e-5)
    cells = np.clip(np.round(TUPLES.means), 0, [3, 4]).astype(int)
    expected = values * TABLES[2][tuple(cells.T)]
    np.testing.assert_allclose(found["round"], expected, rtol=1e-6)
    np.testing.assert_allclose(found["narrow"], expected, rtol=1e-5)


def test_far_outside_is_the_edge_and_nan_is_nan():
    found = sampled()
    values = TUPLES.values[:, None]
    np.testing.assert_allclose(found["far"], values * TABLES[2][3, 0], rtol=1e-6)
    assert np.isnan(found["lost"][0]).all()
    np.testing.assert_array_equal(found["lost"][1], TABLES[2][3, 0])
    assert np.isnan(found["lost, rounded"]).all()


def test_the_last_cell_has_the_slope_from_inside():
    table = TABLES[2][..., 0]
    expected = [table[3, 4] - table[2, 4], table[3, 4] - table[3, 3]]
    np.testing.assert_allclose(sampled()["edge"][0], expected, rtol=1e-5)


@pytest.mark.parametrize("size", [2**24 + 1, 2**25, 2**25 + 1])
def test_shares_stay_shares_where_floats_skip_cells(size):
    reads = jax.jit(lambda place: memory.grid_shares(None, place, (size,)))([np.float32(size - 1)])
    assert reads.rows.tolist() == [size - 2, size - 1]
    assert reads.shares.tolist() == [0, 1]


def test_a_grid_of_two_to_the_thirty_cells_costs_its_corners():
    rows, shares = sampled()["large"]
    first = 30000 * 2**15 + 2
    assert rows[0].tolist() == [first, first + 1, first + 2**15, first + 2**15 + 1]
    assert shares[0].tolist() == [0.5, 0, 0.5, 0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_global": 2}, ("num_global=2", "no random points", "ContinuousTuples")),
        ({"evaluate": "floor"}, ("evaluate='floor'", "'interpolate', 'round'", "choose")),
        ({"addresses": [[1.0]]}, ("addresses of shape (1, 1)", "length 2", "axis")),
        ({"table": np.ones((2,) * 6)}, ("5 axes", "1 to 4", "several memories")),
        ({"table": np.ones(3)}, ("table of shape (3,)", "(*cells, d)", "axis of rows")),
        ({"table": np.ones((0, 3, 2))}, ("table of shape (0, 3, 2)", "at least one row", "axis")),
    ],
)
def test_what_is_wrong_is_told(change, words):
    options = {"table": TABLES[2], "addresses": [[1.0, 1.0]]} | change
    call = [options.pop("table"), options.pop("addresses")]
    key = jax.random.key(0)
    assert_names_itself_and_its_cure(
        lambda: jax.eval_shape(lambda: memory.grid_read(key, *call, **options)), *words
    )
