import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import conv
from tests.conv.examples import naive_lag_conv, normal
from tests.ops.examples import assert_names_itself_and_its_cure

STEPS, CHANNELS, OUT, REACH = 12, 3, 2, 9
X = normal(2, STEPS, CHANNELS)
WEIGHTS = normal(2, CHANNELS, OUT, seed=1)
MEANS = np.array([2.25, 5.5], np.float32)


@jax.jit
def of_means(means, weights):
    return conv.soft_lag_conv(X, weights, conv.linear_shares(means))


def test_linear_shares_are_linear_interpolation():
    @jax.jit
    def all_of_it(means):
        return of_means(means, WEIGHTS), jax.jacfwd(of_means)(means, WEIGHTS)

    y, slope = all_of_it(MEANS)
    rows = [[naive_lag_conv(X, WEIGHTS[[n]], [low + add]) for add in (0, 1)] for n, low in
            enumerate([2, 5])]  # fmt: skip
    expected = 0.75 * rows[0][0] + 0.25 * rows[0][1] + 0.5 * rows[1][0] + 0.5 * rows[1][1]
    np.testing.assert_allclose(y, expected, atol=1e-5)
    for n, (low, high) in enumerate(rows):
        np.testing.assert_allclose(slope[..., n], high - low, atol=1e-5)


def test_channels_may_have_their_own_means():
    means = np.float32([[0.0, 1.5, 4.25]])
    y = of_means(means, WEIGHTS[:1, :, 0])
    low = naive_lag_conv(X, WEIGHTS[:1, :, 0] * [1, 0.5, 0.75], [[0, 1, 4]])
    high = naive_lag_conv(X, WEIGHTS[:1, :, 0] * [0, 0.5, 0.25], [[1, 2, 5]])
    np.testing.assert_allclose(y, low + high, atol=1e-5)


def test_gaussian_shares_of_all_lags_are_the_dense_relaxation():
    """With every lag drawn, nothing is left to chance: the dense kernel of each tap is known."""
    variances = np.float32([0.5, 4.0])

    # 100 draws of 9 lags: that one is missing has probability 1e-4.
    @jax.jit
    def run(key):
        shares = conv.gaussian_shares(key, MEANS, variances, REACH, num_global=100, num_local=0)
        return shares, conv.soft_lag_conv(X, WEIGHTS, shares, reach=REACH)

    shares, y = run(jax.random.key(0))
    squares = (np.arange(REACH)[:, None] - MEANS) ** 2
    density = np.exp(-squares / (2 * variances))
    expected = (density / density.sum(0)).T
    dense = np.zeros((2, REACH))
    for tap in range(2):
        np.add.at(dense[tap], np.asarray(shares.lags)[:, tap], np.asarray(shares.shares)[:, tap])
    np.testing.assert_allclose(dense, expected, atol=1e-5)
    kernel = np.einsum("ku,kco->uco", expected, WEIGHTS)
    np.testing.assert_allclose(y, naive_lag_conv(X, kernel, np.arange(REACH)), atol=1e-4)


@jax.jit
def sharp(variances):
    means = np.float32([3.0, REACH - 1])
    shares = conv.gaussian_shares(jax.random.key(1), means, variances, REACH)
    return conv.soft_lag_conv(X, WEIGHTS, shares, reach=REACH)


@pytest.mark.parametrize("variance", [1e-12, 1e-3])
def test_sharp_taps_on_lags_are_hard(variance):
    y = sharp(np.full(2, variance))
    np.testing.assert_allclose(y, naive_lag_conv(X, WEIGHTS, [3, REACH - 1]), atol=1e-5)


def test_slopes_are_finite_at_the_ends_of_the_reach():
    ends = jnp.array([0.0, REACH - 1.0])

    def loss(means, variances):
        shares = conv.gaussian_shares(jax.random.key(2), means, variances, REACH)
        return jnp.sum(conv.soft_lag_conv(X, WEIGHTS, shares, reach=REACH) ** 2)

    slopes = jax.jit(jax.vmap(jax.grad(loss, (0, 1)), (None, 0)))
    for slope in slopes(ends, jnp.array([[1e-12, 1e-12], [1.0, 1.0], [1e12, 1e12]])):
        assert np.isfinite(slope).all()


def test_empty_slots_and_lags_outside_count_for_nothing():
    x = X.copy()
    x[:, -1] = np.nan

    @jax.jit
    def run(nan, cut):
        one = conv.soft_lag_conv(x, WEIGHTS, conv.linear_shares(nan), placed=[True, False])
        return one, conv.soft_lag_conv(X, WEIGHTS, conv.linear_shares(cut), reach=9, strict=True)

    # Half of a tap lies beyond the reach, half of one on the excluded present.
    nan = np.float32([2.5, np.nan])
    one, found = run(nan, np.float32([8.5, 0.5]))
    np.testing.assert_array_equal(np.isnan(one), False)
    assert np.isnan(of_means(nan, WEIGHTS)).all()
    np.testing.assert_array_equal(of_means(np.float32([-3.0, 1e30]), WEIGHTS), 0)
    np.testing.assert_allclose(found, naive_lag_conv(X, WEIGHTS / 2, [8, 1]), atol=1e-5)


S = conv.linear_shares(MEANS)
# The call, then a fragment of each part: what was found, what was expected, what to change.
MISTAKES = {
    "means": (lambda: conv.linear_shares(1.0), "means of shape ()", "(k,)", "reshape means"),
    "gaussian": (
        lambda: conv.gaussian_shares(None, np.ones((2, 1)), np.ones(2), 4),
        "means of shape (2, 1)",
        "one per tap",
        "reshape means",
    ),
    "variances": (
        lambda: conv.gaussian_shares(None, MEANS, np.ones(3), 9),
        "variances of shape (3,)",
        "one per mean",
        "reshape variances",
    ),
    "key": (lambda: conv.gaussian_shares(None, MEANS, MEANS, 9), "key=None", "key", "jax.random"),
    "shares": (lambda: conv.soft_lag_conv(X, WEIGHTS, MEANS), "shares of", "lags", "linear_sh"),
    "rank": (lambda: conv.soft_lag_conv(X, WEIGHTS, ([1], [1])), "(1,)", "(q, k)", "pass"),
    "alike": (
        lambda: conv.soft_lag_conv(X, WEIGHTS, (S.lags, S.shares[:1])),
        "(1, 2)",
        "one share",
        "reshape",
    ),
    "placed": (
        lambda: conv.soft_lag_conv(X, WEIGHTS, S, [True]),
        "placed of shape (1,)",
        "one flag",
        "reshape placed",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_name_themselves_and_their_cure(mistake):
    assert_names_itself_and_its_cure(*MISTAKES[mistake])


def test_gradients_of_means_find_a_lag_nearby_and_only_there():
    """What the page says of fine-tuning: from one lag away, and not from six."""
    x, truth = normal(4, 200, 1, seed=5), np.array([7])
    target = naive_lag_conv(x, np.ones((1, 1, 1)), truth).astype(np.float32)

    @jax.jit
    def trained(mean):
        def loss(mean):
            y = conv.soft_lag_conv(x, np.ones((1, 1, 1)), conv.linear_shares(mean))
            return jnp.mean((y - target) ** 2)

        return jax.lax.fori_loop(0, 60, lambda _, mean: mean - 0.1 * jax.grad(loss)(mean), mean)

    near, far = trained(jnp.array([6.3])), trained(jnp.array([1.4]))
    assert abs(near[0] - 7) < 0.2
    assert abs(far[0] - 7) > 3
