from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from sparse_hyper_jax import ops
from sparse_hyper_jax.glimpse.points import draw_points
from sparse_hyper_jax.types import ContinuousTuples
from tests.folding import folded
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure, scatter

# A fair test fails by chance once in 10,000 runs; with fixed keys it never does so twice.
TAIL, COUNT = 1e-4, 4000

STANDARD = {
    "gaussian": stats.norm(),
    "laplace": stats.laplace(scale=0.5**0.5),
    "student_t": stats.cauchy(),
}
# Mean, variance, length: in the middle, at an edge, wide, wider than all, outside.
CASES = [
    (name, *case)
    for name in STANDARD
    for case in ((5.3, 4.0, 12), (0.0, 9.0, 12), (10.6, 400.0, 12), (3.0, 1e12, 7), (-5.0, 2.0, 9))
]


def drawn(name, mean, variance, size, *, wrap=False):
    options = {"global_from": "density", "density": name, "num_global": COUNT, "wrap": wrap}
    points = partial(ops.sample_tuples, shape=(size,), **options)
    return (
        lambda key, mean, variance: points(key, mean, variances=variance)[0, 2:, 0],
        jax.random.key(5),
        np.float32([[mean]]),
        np.float32([[variance]]),
    )


@folded
def points_of():
    return {case: drawn(*case) for case in CASES}


@folded
def round_of():
    return {(name,): drawn(name, 0.3, 6.0, 9, wrap=True) for name in STANDARD}


def assert_drawn_by(points, expected):
    counts, expected = np.bincount(points, minlength=len(expected)), COUNT * np.asarray(expected)
    seldom = expected < 5
    groups = [np.append(part[~seldom], part[seldom].sum()) for part in (counts, expected)]
    statistic = ((groups[0] - groups[1]) ** 2 / np.maximum(groups[1], 1e-9))[groups[1] > 0].sum()
    assert counts.sum() == COUNT
    assert statistic < stats.chi2.isf(TAIL, max(1, (~seldom).sum() - 1)), (counts, expected)


@pytest.mark.parametrize(("name", "mean", "variance", "size"), CASES)
def test_points_are_drawn_by_the_density_cut_off_at_the_ends(name, mean, variance, size):
    # A mean outside counts as the nearest cell.
    centre = min(max(mean, 0), size - 1)
    ends = (np.arange(size + 1) - 0.5 - centre) / np.sqrt(variance)
    shares = np.diff(STANDARD[name].cdf(ends))
    assert_drawn_by(np.asarray(points_of(name, mean, variance, size)), shares / shares.sum())


@pytest.mark.parametrize("name", STANDARD)
def test_on_a_circle_they_go_round_it(name):
    edges = (np.arange(-9000, 9001) - 0.5 - 0.3) / np.sqrt(6)
    shares = np.diff(STANDARD[name].cdf(edges)).reshape(-1, 9).sum(0)
    assert_drawn_by(np.asarray(round_of(name)), shares / shares.sum())


def test_a_settled_tuple_is_drawn_where_it_is_and_strange_ones_somewhere_inside():
    means = np.float32([[3.0, 8.4], [np.nan, np.inf], [-np.inf, 2.0], [1e30, -1e30]])
    variances = np.float32([[1e-12, 0.0], [1, np.inf], [1e12, np.nan], [1e-30, 1e30]])

    @jax.jit
    def draw(key, means, variances):
        own = {"num_global": 50, "global_from": "density", "variances": variances}
        return [
            ops.sample_tuples(key, means, (9, 9), **own, density=name, wrap=wrap)[:, 4:]
            for name in STANDARD
            for wrap in (False, True)
        ]

    for points in draw(jax.random.key(0), means, variances):
        assert (points[0] == np.array([[3, 8]])).all()
        assert ((points >= 0) & (points < 9)).all()


def test_shares_are_those_among_the_points_that_were_drawn():
    shape = (30, 20)
    means, variances = np.float32([[12.3, 4.5], [0.2, 18.0]]), np.float32([[4, 9], [1, 2]])
    tuples = ContinuousTuples(means, variances, np.float32([2.0, -1.5]))
    options = {"num_global": 6, "num_local": 2, "region": (3, 3), "global_from": "density"}

    @jax.jit
    def run(key, tuples):
        own = options | {"variances": tuples.variances}
        return ops.relax(key, tuples, shape, **options), ops.sample_tuples(
            key, tuples.means, shape, **own
        )

    entries, points = run(jax.random.key(3), tuples)
    cells = np.asarray(points).reshape(-1, 2)
    assert_close(entries.indices, cells, rtol=0, atol=0)
    distinct = np.unique(cells, axis=0)
    expected = np.zeros(shape)
    for mean, variance, value in zip(means, variances, tuples.values, strict=True):
        density = np.exp(-0.5 * ((distinct - mean) ** 2 / variance).sum(-1))
        expected[tuple(distinct.T)] += value * density / density.sum()
    assert_close(scatter(entries, shape), expected, rtol=1e-4, atol=1e-6)


def test_a_narrow_tuple_in_a_large_space_is_shared_better_by_its_own_points():
    size, count = 2000, 16
    tuples = ContinuousTuples(np.float32([[900.4]]), np.float32([[16.0]]), np.ones(1, np.float32))
    exact = np.exp(-0.5 * (np.arange(size) - 900.4) ** 2 / 16)
    exact /= exact.sum()

    @jax.jit
    def draw(keys):
        def dense(key, global_from):
            entries = ops.relax(key, tuples, (size,), num_global=count, global_from=global_from)
            return ops.to_dense(entries, (size,))

        return [jax.vmap(partial(dense, global_from=name))(keys) for name in ("uniform", "density")]

    uniform, density = draw(jax.random.split(jax.random.key(0), 64))
    missed = [np.abs(np.asarray(one) - exact).sum(1).mean() / 2 for one in (uniform, density)]
    # Two neighbours have a fifth of the mass, and so they do with uniform points.
    assert missed[0] > 0.75
    assert missed[1] < 0.35
    # Both are biased: what was missed goes to the others, most of it to the middle.
    assert np.asarray(density).mean(0)[900] > 1.1 * exact[900]


WRONG = {
    "no variances": (
        lambda: ops.sample_tuples(None, [[1.0]], (6,), global_from="density"),
        "global_from='density' without variances",
        "the variances of the tuples",
        "pass variances",
    ),
    "variances of another shape": (
        lambda: ops.sample_tuples(None, [[1.0]], (6,), global_from="density", variances=[1.0]),
        "variances of shape (1,)",
        "(1, 1)",
        "reshape variances",
    ),
    "an unknown name": (
        lambda: ops.sample_tuples(None, [[1.0]], (6,), global_from="tuple"),
        "global_from='tuple'",
        "'uniform', 'density'",
        "choose global_from",
    ),
    "distinct": (
        lambda: ops.sample_tuples(
            jax.random.key(0),
            [[1.0]],
            (6,),
            num_global=1,
            distinct=True,
            global_from="density",
            variances=[[1.0]],
        ),
        "distinct=True with global_from='density'",
        "all alike",
        "leave one",
    ),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_drawn_is_refused(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)


def test_every_pixel_of_a_window_has_points_by_its_own_density():
    places = np.float32([[2.0, 50.0], [30.0, 7.0]])  # rows, columns
    variances = np.float32([[1.0, 25.0], [4.0, 1e-12]])
    options = {"num_global": 3, "num_local": 0, "region": (4, 4), "global_from": "density"}

    def draw(key, draws):
        points = draw_points(
            key, [*places], (60, 40), draws=draws, variances=[*variances], **options
        )[4:]
        cells = jnp.stack([jnp.stack(cells) for cells, _ in points])
        return cells, jnp.stack([kept for _, kept in points])

    @jax.jit
    def both(keys):
        return [jax.vmap(partial(draw, draws=draws))(keys) for draws in ("pixel", "glimpse")]

    for cells, kept in both(jax.random.split(jax.random.key(1), 200)):
        # (keys, points, axes, pixels)
        steps = (np.asarray(cells) - places) / np.sqrt(variances + 1 / 12)
        assert np.abs(steps.mean((0, 1))[1]).max() < 0.3
        assert 0.8 < steps[:, :, 0, 1].std() < 1.2
        assert (np.abs(steps) < 6).all()
        # The row is settled, and the column a neighbour or not.
        assert (np.asarray(cells)[:, :, 1, 1] == 7).all()
        assert kept.shape == (200, 3, 2)
