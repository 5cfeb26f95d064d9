from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from sparse_hyper_jax import ops
from sparse_hyper_jax.ops import DENSITIES
from tests.ops.examples import all_finite, assert_close, make_tuples

CELLS = np.indices((6, 5)).reshape(2, -1).T.astype(np.int32)
ALL = np.ones(30, bool)
STATIC = ("density", "period")
log_densities = jax.jit(ops.log_densities, static_argnames=STATIC)
proportions = jax.jit(ops.proportions, static_argnames=STATIC)
SCALES = np.logspace(-12, 12, 9)


@pytest.mark.parametrize("density", DENSITIES)
def test_log_densities_follow_the_formula(density):
    means, variances, _ = make_tuples(3, (6, 5))
    z = (np.asarray(CELLS)[:, None] - means) ** 2 / variances
    expected = {
        "gaussian": -0.5 * z.sum(-1),
        "laplace": -np.sqrt(2 * z).sum(-1),
        "student_t": -1.5 * np.log1p(z.sum(-1)),
    }[density]
    assert_close(log_densities(CELLS, means, variances, density=density), expected)


@pytest.mark.parametrize(
    ("density", "frozen"),
    [
        ("gaussian", stats.norm(2.3, np.sqrt(1.7))),
        ("laplace", stats.laplace(2.3, np.sqrt(1.7 / 2))),
        ("student_t", stats.cauchy(2.3, np.sqrt(1.7))),
    ],
)
def test_densities_in_one_dimension_are_the_known_ones(density, frozen):
    points = jnp.arange(9)[:, None]
    ours = log_densities(points, jnp.array([[2.3]]), jnp.array([[1.7]]), density=density)
    ours = np.asarray(ours)[:, 0]
    known = frozen.logpdf(np.arange(9))
    assert_close(ours - ours[0], known - known[0], rtol=1e-4)


@pytest.mark.parametrize("density", DENSITIES)
def test_on_a_circle_distances_go_the_shorter_way(density):
    points, mean = np.array([[0], [7], [1], [4]]), np.array([[7.9]], np.float32)
    options, variance = {"density": density, "period": (8,)}, np.ones((1, 1), np.float32)
    one, two, three, far = np.ravel(log_densities(points, mean, variance, **options))
    direct = np.ravel(log_densities(points, mean - 8, variance, density=density))
    assert_close(np.array([one, three]), direct[[0, 2]], rtol=1e-4)
    assert one > two > three > far


@partial(jax.jit, static_argnums=0)
def shares_and_slopes(density, means, variances):
    mask = jnp.asarray(ALL).at[3].set(False)
    weights = jnp.cos(jnp.arange(120.0)).reshape(30, 4)

    def loss(means, variances):
        shares = proportions(CELLS, mask, means, variances, density=density)
        return (weights * shares).sum(), shares

    grads, shares = jax.grad(loss, argnums=(0, 1), has_aux=True)(means, variances)
    return shares, grads


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("variance", SCALES)
def test_shares_sum_to_one_and_have_finite_gradients(density, variance):
    means, variances, _ = make_tuples(4, (6, 5), variance=variance)
    means = np.array(means)
    means[:3] = [[2.0], [0.5], [0.0]]
    shares, grads = jax.device_get(shares_and_slopes(density, means, variances))
    assert (shares >= 0).all()
    assert (shares[3] == 0).all()
    assert_close(shares.sum(axis=0), np.ones(4))
    assert all_finite(grads)


def test_halfway_between_cells_nothing_underflows():
    # exp(-1/2 * 2 * 0.25 / 1e-4) = exp(-2500) is 0 in float32: dividing densities gives 0/0.
    points = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    means, variances = np.full((1, 2), 0.5, np.float32), np.full((1, 2), 1e-4, np.float32)
    assert np.exp(log_densities(points, means, variances)).sum() == 0
    assert_close(proportions(points, ALL[:4], means, variances), np.full((4, 1), 0.25))


@pytest.mark.parametrize("density", ["gaussian", "laplace"])
def test_small_variance_gives_all_to_the_nearest_kept_point(density):
    means, _, _ = make_tuples(4, (6, 5), seed=3)
    nearest = np.argmin(((np.asarray(CELLS)[:, None] - means) ** 2).sum(-1), axis=0)
    shares = proportions(CELLS, ALL, means, np.full((4, 2), 1e-12, np.float32), density=density)
    assert_close(shares, np.eye(30)[nearest].T)


def test_the_heaviest_tail_gives_all_to_a_cell_only_if_the_mean_is_on_it():
    variances, options = np.full((2, 2), 1e-12, np.float32), {"density": "student_t"}
    means = jnp.array([[2.0, 2.0], [2.3, 2.0]])
    on_cell, beside = np.asarray(proportions(CELLS, ALL, means, variances, **options))[12]
    assert_close(on_cell, 1.0)
    # Without a scale of its own the share goes by the powers of the distances alone.
    distances = ((np.asarray(CELLS) - [2.3, 2.0]) ** 2).sum(-1)
    assert_close(beside, distances[12] ** -1.5 / (distances**-1.5).sum(), rtol=1e-4)


@pytest.mark.parametrize("density", DENSITIES)
def test_large_variance_gives_the_same_to_every_kept_point(density):
    means, _, _ = make_tuples(2, (6, 5))
    mask = np.arange(30) >= 10
    shares = proportions(CELLS, mask, means, np.full((2, 2), 1e12, np.float32), density=density)
    assert_close(shares, np.where(mask, 1 / 20, 0)[:, None] * np.ones((1, 2)), rtol=1e-4)


def test_ties_share_equally():
    shares = proportions(CELLS, ALL, jnp.array([[2.0, 1.5]]), np.full((1, 2), 1e-9, np.float32))
    assert_close(np.asarray(shares)[[11, 12], 0], [0.5, 0.5])


@pytest.mark.parametrize("variance", [0.0, 1e-30, 1e-13])
def test_tinier_variances_count_as_the_least(variance):
    means, _, _ = make_tuples(2, (6, 5))
    least = proportions(CELLS, ALL, means, np.full((2, 2), 1e-12, np.float32))
    assert_close(proportions(CELLS, ALL, means, np.full((2, 2), variance, np.float32)), least)


@pytest.mark.parametrize(
    ("density", "feels"), [("gaussian", False), ("laplace", True), ("student_t", True)]
)
def test_heavy_tails_keep_a_gradient_at_a_distance(density, feels):
    points = jnp.array([[0], [40]])

    def far_share(means):
        return proportions(points, ALL[:2], means, jnp.ones((1, 1)), density=density)[1, 0]

    grad = jax.jit(jax.grad(far_share))(jnp.array([[5.0]]))
    assert (np.asarray(grad)[0, 0] > 1e-20) == feels


def exact_shares(density, means, variances, points):
    means, variances, points = (np.asarray(part, np.float64) for part in (means, variances, points))
    z = (points[:, None] - means) ** 2 / np.maximum(variances, 1e-12)
    logs = {
        "gaussian": -0.5 * z.sum(-1),
        "laplace": -np.sqrt(2 * z).sum(-1),
        "student_t": -(means.shape[1] + 1) / 2 * np.log1p(z.sum(-1)),
    }[density]
    powers = np.exp(logs - logs.max(0))
    return powers / powers.sum(0)


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("far", [0.0, 1e6])
def test_narrow_and_wide_axes_do_not_round_each_other_away(density, far):
    means = np.array([[far + 2.5, 0.3], [far + 1.25, 2.0], [far + 3.0, 1.5]], np.float32)
    variances = np.array([[1e-12, 1.0], [1e-6, 1e-12], [1e12, 1e-3]], np.float32)
    points = np.indices((6, 4)).reshape(2, -1).T.astype(np.int32) + np.array([int(far), 0])
    ours = proportions(points, np.ones(24, bool), means, variances, density=density)
    np.testing.assert_allclose(
        ours, exact_shares(density, means, variances, points), atol=3e-6, rtol=3e-6
    )


def test_laplace_has_the_slopes_of_its_distances():
    # On a cell, beside it, between two, and outside of all points: means where |u - mu| bends.
    means = np.array([[2.0], [2.25], [2.5], [7.0]])
    points, weights = np.arange(5)[:, None], np.cos(np.arange(20.0)).reshape(5, 4)

    def loss(means):
        shares = proportions(points, np.ones(5, bool), means, 0.5 + 0 * means, density="laplace")
        return (weights * shares).sum()

    def numbers(means):
        shares = exact_shares("laplace", means, np.full((4, 1), 0.5), points)
        return (weights * shares).sum(0)

    slopes = jax.grad(loss)(jnp.asarray(means, jnp.float32))
    step = 1e-6
    expected = (numbers(means + step) - numbers(means - step)) / (2 * step)
    assert_close(slopes[:, 0], expected, rtol=1e-4)


def test_on_the_longest_circle_that_float32_can_count():
    size = 2**24
    logs = log_densities(np.arange(4)[:, None], [[size - 1.0]], [[1.0]], period=(size,))
    assert_close(logs[:, 0], [-0.5, -2.0, -4.5, -8.0])
    near = log_densities(np.array([[size - 1], [0], [1]]), [[0.3]], [[1.0]], period=(size,))
    assert_close(near[:, 0], -0.5 * np.array([1.3, 0.3, 0.7]) ** 2)


@pytest.mark.parametrize("density", DENSITIES)
def test_means_far_away_have_finite_slopes(density):
    @partial(jax.jit, static_argnums=0)
    def slopes(forward, means, variances):
        def loss(means, variances):
            return (proportions(CELLS, ALL, means, variances, density=density) * CELLS[:, :1]).sum()

        if forward:
            return jax.jvp(loss, (means, variances), (means / means, means / means))
        return jax.grad(loss, argnums=(0, 1))(means, variances)

    means = jnp.full((3, 2), 1e20) * jnp.array([[1.0], [-1.0], [1e18]])
    for variance in (1e-12, 1.0, 1e12):
        for forward in (False, True):
            assert all_finite(slopes(forward, means, jnp.full((3, 2), variance)))


def test_nan_comes_out_of_every_density():
    for density in DENSITIES:
        logs = log_densities([[1]], [[np.nan]], [[1.0]], density=density)
        assert jnp.isnan(logs).all()


def test_lists_are_arrays():
    arrays = (np.array([[0], [2]]), np.array([True, True]), np.ones((1, 1)), np.ones((1, 1)))
    lists = [array.tolist() for array in arrays]
    assert_close(proportions(*lists), proportions(*arrays))
    assert_close(ops.mix_values(*lists, [2.0]), 2 * proportions(*arrays)[:, 0])
