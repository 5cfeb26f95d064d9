import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from sparse_hyper_jax import ops
from sparse_hyper_jax.ops import hyperlayer
from sparse_hyper_jax.types import ContinuousTuples
from tests.ops.examples import (
    all_finite,
    assert_close,
    assert_names_itself_and_its_cure,
    make_tuples,
)

# A fair test fails by chance once in 10,000 runs; with fixed keys it never does so twice.
TAIL = 1e-4

SAMPLING = ("num_global", "num_local", "region", "wrap", "distinct")
sample_tuples = jax.jit(ops.sample_tuples, static_argnums=2, static_argnames=SAMPLING)
round_means = jax.jit(ops.round_means, static_argnums=1, static_argnames="wrap")


def assert_uniform(samples, cells):
    counts = np.asarray([(samples == cell).sum() for cell in cells])
    assert counts.sum() == samples.size, "a sample outside the expected cells"
    expected = samples.size / len(cells)
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert len(cells) == 1 or statistic < stats.chi2.isf(TAIL, len(cells) - 1)


def local_points(mean, size, region, *, count=2000, wrap=False):
    key, means = jax.random.key(7), np.array([[mean]], np.float32)
    points = sample_tuples(key, means, (size,), num_local=count, region=(region,), wrap=wrap)
    return np.asarray(points)[0, 2:, 0]


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_neighbours_are_all_corners(rank):
    mean = np.array([1.25, 4.5, 2.75])[:rank]
    points = sample_tuples(None, jnp.asarray(mean[None], jnp.float32), (6,) * rank)
    corners = itertools.product(*[(int(low), int(low) + 1) for low in np.floor(mean)])
    assert points.shape == (1, 2**rank, rank)
    assert [tuple(point) for point in points.tolist()[0]] == list(corners)


@pytest.mark.parametrize("place", [(0.0, 0.0), (5.0, 5.0), (5.0, 2.5), (2.0, 0.5), (4.5, 4.9)])
def test_neighbours_enclose_the_mean_and_stay_inside(place):
    points = np.asarray(sample_tuples(None, np.array([place], np.float32), (6, 6)))[0]
    assert ((points >= 0) & (points < 6)).all()
    assert (np.abs(points - place) <= 1).all()
    assert tuple(np.floor(place).astype(int)) in {tuple(point) for point in points.tolist()}


@pytest.mark.parametrize("on_edge", [0, 1, 2, 3])
def test_a_mean_on_the_last_cell_halves_the_distinct_neighbours(on_edge):
    mean = np.array([2.5, 2.5, 2.5])
    mean[:on_edge] = 5.0
    points = np.asarray(sample_tuples(None, np.asarray(mean[None], np.float32), (6, 6, 6)))[0]
    assert len(np.unique(points, axis=0)) == 8 // 2**on_edge


@pytest.mark.parametrize("size", [1, 2, 7, 1000, 10**6])
def test_global_points_are_uniform(size):
    points = sample_tuples(jax.random.key(3), jnp.zeros((4, 1)), (size,), num_global=5000)
    points = np.asarray(points)[:, 2:]
    assert points.min() >= 0
    assert points.max() < size
    cells = min(size, 20)
    assert_uniform(points * cells // size, range(cells))


def test_global_points_do_not_depend_on_the_mean():
    draws = [
        np.asarray(sample_tuples(jax.random.key(1), means, (9, 9), num_global=5))[:, 4:]
        for means in (np.full((2, 2), mean, np.float32) for mean in (0.0, 7.5))
    ]
    assert_close(*draws)


@pytest.mark.parametrize(
    ("mean", "region", "cells"),
    [
        (0.0, 4, range(4)),
        (0.0, 5, range(5)),
        (8.0, 5, range(6, 11)),
        (8.4, 5, range(6, 11)),
        (8.5, 4, range(7, 11)),
        (15.0, 4, range(12, 16)),
        (15.0, 5, range(11, 16)),
        (14.6, 3, range(13, 16)),
        (8.0, 1, range(8, 9)),
        (8.0, 16, range(16)),
        (3.0, 99, range(16)),
    ],
)
def test_local_points_fill_a_window_evenly(mean, region, cells):
    assert_uniform(local_points(mean, 16, region), cells)


@pytest.mark.parametrize("mean", [7.0, 8.0])
def test_an_even_window_around_an_integer_is_off_by_half_a_cell(mean):
    cells = np.unique(local_points(mean, 16, 4))
    assert len(cells) == 4
    assert abs(cells.mean() - mean) == 0.5


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("mean", [0.0, 1.0])
def test_a_window_longer_than_the_axis_is_the_whole_axis(size, mean):
    assert_uniform(local_points(min(mean, size - 1), size, 8), range(size))


@pytest.mark.parametrize(("mean", "cells"), [(0.0, {14, 15, 0, 1, 2}), (15.4, {13, 14, 15, 0, 1})])
def test_on_a_circle_the_window_goes_round(mean, cells):
    assert set(local_points(mean, 16, 5, wrap=True).tolist()) == cells


def test_on_a_circle_the_neighbours_go_round():
    points = sample_tuples(None, np.array([[15.5, 2.5]], np.float32), (16, 16), wrap=True)
    assert points.tolist()[0] == [[15, 2], [15, 3], [0, 2], [0, 3]]


@pytest.mark.parametrize(("num_global", "num_local"), [(0, 0), (3, 0), (0, 2), (3, 2)])
@pytest.mark.parametrize("shape", [(9,), (4, 1, 6)])
def test_any_count_may_be_zero(num_global, num_local, shape):
    options = {"num_global": num_global, "num_local": num_local}
    options |= {"region": (3,) * len(shape)} if num_local else {}
    key = jax.random.key(0) if num_global or num_local else None

    def loss(tuples):
        y = hyperlayer(key, tuples, jnp.ones(shape[1:]), shape[:1], **options)
        return (y**2).sum(), sample_tuples(key, tuples.means, shape, **options)

    (value, points), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(make_tuples(3, shape))
    assert points.shape == (3, 2 ** len(shape) + num_global + num_local, len(shape))
    assert points.dtype == jnp.int32
    points = np.asarray(points)
    assert ((points >= 0) & (points < np.asarray(shape))).all()
    assert value > 0
    assert all_finite(grads)


def test_kinds_come_in_order():
    means = np.array([[4.5, 4.5]], np.float32)
    points = sample_tuples(
        jax.random.key(0), means, (100, 100), num_global=50, num_local=50, region=(2, 2)
    )
    near = (np.abs(np.asarray(points)[0] - means) <= 1).all(axis=1)
    assert near[:4].all()
    assert not near[4:54].all()
    assert near[54:].all()


def test_leading_axes_come_by_vmap():
    keys = jax.random.split(jax.random.key(0), 3)
    means = np.random.default_rng(1).uniform(0, 7, (3, 2, 2)).astype(np.float32)

    def draw(key, means):
        return sample_tuples(key, means, (8, 8), num_global=3, num_local=3, region=(3, 3))

    batch = jax.jit(jax.vmap(draw))(keys, means)
    assert batch.shape == (3, 2, 10, 2)
    assert_close(batch, np.stack([draw(keys[i], means[i]) for i in range(3)]))


@pytest.mark.parametrize(
    ("mean", "cell"),
    [(0.5, 0), (1.5, 2), (2.5, 2), (2.51, 3), (7.0, 7), (7.4, 7), (-3.0, 0), (1e30, 7)],
)
def test_rounding_goes_to_the_nearest_cell_inside(mean, cell):
    assert round_means(np.array([mean], np.float32), (8,)).tolist() == [cell]


@pytest.mark.parametrize(("mean", "cell"), [(7.4, 7), (7.6, 0), (-0.4, 0), (-1.0, 7), (3.0, 3)])
def test_rounding_on_a_circle_goes_round(mean, cell):
    assert round_means(np.array([mean], np.float32), (8,), wrap=True).tolist() == [cell]


@pytest.mark.parametrize("wild", [-1e30, 1e30, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("wrap", [False, True])
def test_means_far_outside_still_give_cells_inside(wild, wrap):
    means = np.full((1, 2), wild, np.float32)
    options = {"num_global": 2, "num_local": 2, "region": (2, 2), "wrap": wrap}
    points = np.asarray(sample_tuples(jax.random.key(0), means, (5, 1), **options))
    assert ((points >= 0) & (points < np.array([5, 1]))).all()
    assert (np.asarray(round_means(means, (5, 1), wrap=wrap)) < np.array([5, 1])).all()


def test_points_of_the_largest_axis_stay_inside():
    size = 2**31 - 1
    options = {"num_global": 9, "num_local": 9, "region": (4,)}
    points = sample_tuples(jax.random.key(0), np.array([[2.0**31]], np.float32), (size,), **options)
    points = np.asarray(points)
    assert (points >= 0).all()
    assert (points < size).all()


def test_no_gradient_flows_through_points():
    def loss(means):
        tuples = ContinuousTuples(means, jnp.full((1, 1), 1e12), jnp.ones(1))
        return hyperlayer(None, tuples, jnp.float32(1), (4,))[0]

    assert_close(jax.jit(jax.grad(loss))(np.array([[0.5]], np.float32)), [[0.0]])


@pytest.mark.parametrize("wrap", [False, True])
def test_distinct_points_are_each_cell_at_most_once_and_no_neighbour(wrap):
    means = np.float32([[1.3, 2.6], [0.0, 3.0], [3.9, 0.2], [np.nan, 9.0]])
    options = {"num_global": 7, "distinct": True, "wrap": wrap}
    points = np.asarray(sample_tuples(jax.random.key(0), means, (4, 4), **options))
    assert points.shape == (4, 11, 2)
    for row in points:
        near, drawn = ({tuple(cell) for cell in part.tolist()} for part in (row[:4], row[4:]))
        assert len(drawn) == 7
        assert not near & drawn
        assert drawn <= set(np.ndindex(4, 4))
    every = sample_tuples(jax.random.key(1), means[:1], (4, 4), **options | {"num_global": 12})
    assert {tuple(cell) for cell in np.asarray(every)[0].tolist()} == set(np.ndindex(4, 4))


def test_distinct_points_are_uniform_over_the_other_cells():
    means = np.full((4000, 1), 2.5, np.float32)
    options = {"num_global": 3, "distinct": True}
    points = np.asarray(sample_tuples(jax.random.key(2), means, (9,), **options))[:, 2:, 0]
    others = [0, 1, 4, 5, 6, 7, 8]
    for place in range(3):
        assert_uniform(points[:, place], others)
    pairs = 9 * points[:, 0] + points[:, 1]
    assert_uniform(pairs, [9 * one + two for one in others for two in others if one != two])


DISTINCT = {"num_global": 5, "distinct": True}
WRONG = {
    "more than there are": (
        lambda: ops.sample_tuples(jax.random.key(0), [[1.0]], (6,), **DISTINCT),
        "num_global=5 distinct points of 6 cells beside 2 neighbours",
        "at most 4",
        "draw fewer",
    ),
    "local ones": (
        lambda: ops.sample_tuples(
            jax.random.key(0), [[1.0]], (9,), num_local=1, region=(3,), **DISTINCT
        ),
        "distinct=True with num_local=1",
        "global points alone",
        "set num_local to 0",
    ),
    "a large space": (
        lambda: ops.sample_tuples(jax.random.key(0), [[1.0] * 3], (2**12,) * 3, **DISTINCT),
        "68719476736 cells",
        "fewer than 2**31",
        "make it smaller",
    ),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_distinct_is_refused(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
