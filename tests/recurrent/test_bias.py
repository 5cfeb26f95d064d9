import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import recurrent
from tests.ops.examples import assert_names_itself_and_its_cure

from .examples import linear, numbers

WIDTH = 30


def powers(a=0.8, size=1.5):
    phi = size * a ** np.arange(WIDTH)
    return phi, phi.cumsum()


@pytest.mark.parametrize("a", [0.3, 0.8, 0.95])
@pytest.mark.parametrize("tau", [0, 1, 7, WIDTH - 1])
def test_the_tail_of_a_linear_recurrence_is_exact_for_all_lags(a, tau):
    phi, cum = powers(a)
    for method in ("lsq", "max", "quantile"):
        beta = recurrent.fit_decay(phi, method=method)
        assert abs(beta - a) < 1e-6
        found = recurrent.bias_bound(phi, cum, tau=tau, beta=beta)
        # What K steps neglect, of all infinitely many lags.
        expected = phi[0] * a ** np.arange(1, WIDTH + 1) / (1 - a)
        np.testing.assert_allclose(found.tail, expected, rtol=1e-9)
        np.testing.assert_allclose(found.delta_hat, expected / np.max(cum - expected), rtol=1e-9)


def test_the_decay_is_seen_in_single_precision():
    @jax.jit
    def sizes(h, xs):
        gradients = recurrent.lag_gradients(linear, lambda a, h: h.sum(), 0.8, h, xs)
        return recurrent.lag_norms(gradients, rows=1).phi

    phi = sizes(np.zeros((1, 1), np.float32), np.ones((WIDTH, 1, 1), np.float32))
    assert abs(recurrent.fit_decay(phi) - 0.8) < 1e-6


@pytest.mark.parametrize("tau", [0, 3, 12])
def test_both_branches_are_the_formulas_and_meet_at_tau(tau):
    phi, beta = np.abs(numbers(WIDTH)).astype(np.float64), 0.9
    found = recurrent.bias_bound(phi, np.ones(WIDTH), tau=tau, beta=beta).tail
    for kept in range(1, WIDTH + 1):
        if kept <= tau:
            expected = phi[kept:tau].sum() + phi[tau] / (1 - beta)
        else:
            expected = phi[tau] * beta ** (kept - tau) / (1 - beta)
        assert found[kept - 1] == pytest.approx(expected, rel=1e-12)
    assert np.all(np.diff(found) < 0)


def test_the_largest_slope_bounds_all_sizes():
    phi = np.exp(numbers(WIDTH).astype(np.float64) - 0.5 * np.arange(WIDTH))
    beta = recurrent.fit_decay(phi, start=4, method="max")
    bound = phi[4] * beta ** np.arange(WIDTH - 4)
    assert np.all(phi[4:] <= bound * (1 + 1e-12))
    assert np.isclose(phi[4:], bound).sum() == 2  # the first and the one that decides
    slopes = [
        (np.log(phi[j]) - np.log(phi[i])) / (j - i)
        for i in range(4, WIDTH)
        for j in range(i + 1, WIDTH)
    ]
    quantile = recurrent.fit_decay(phi, start=4, method="quantile")
    assert quantile == pytest.approx(np.exp(np.quantile(slopes, 0.95)))


def test_lags_below_the_floor_do_not_count():
    phi, _ = powers(0.5)
    assert recurrent.fit_decay(np.append(phi, [0.0, 1e-30])) == pytest.approx(0.5)
    assert recurrent.fit_decay([1.0, 0.0, 0.0]) == 1
    assert recurrent.fit_decay(phi, start=WIDTH - 1) == 1
    assert recurrent.fit_decay([1.0, 0.5, 1e-3], floor=-1.0) == pytest.approx(0.5)


@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
def test_what_is_not_finite_bounds_nothing(spoilt):
    phi, cum = powers()
    phi[3] = spoilt
    beta = recurrent.fit_decay(phi)
    assert np.isnan(beta)
    bounds = recurrent.bias_bound(phi, cum, tau=10, beta=beta)
    assert np.all(np.isnan(bounds.delta_hat))
    assert recurrent.choose_lag(bounds.delta_hat, 0.5, k_min=2, k_max=9) == 9


@pytest.mark.parametrize("beta", [1.0, 1.3])
def test_without_decay_nothing_is_bounded(beta):
    phi, cum = powers()
    bounds = recurrent.bias_bound(phi, cum, tau=5, beta=beta)
    assert np.all(np.isinf(bounds.tail))
    assert np.all(np.isinf(bounds.delta_hat))
    assert recurrent.choose_lag(bounds.delta_hat, 0.9, k_min=2, k_max=20) == 20


def test_sums_that_do_not_exceed_what_they_lack_bound_nothing():
    phi, _ = powers()
    bounds = recurrent.bias_bound(phi, np.full(WIDTH, 1e-9), tau=5, beta=0.8)
    assert np.all(np.isfinite(bounds.tail))
    assert np.all(np.isinf(bounds.delta_hat))


def test_bounds_fall_with_lags_and_lags_with_what_is_tolerated():
    phi, cum = powers(0.9)
    delta_hat = recurrent.bias_bound(phi, cum, tau=6, beta=0.9).delta_hat
    assert np.all(np.diff(delta_hat) < 0)
    deltas = np.linspace(0.01, 2.0, 60)
    for buckets in (None, recurrent.LAG_BUCKETS):
        options = {"k_min": 2, "k_max": 25, "buckets": buckets}
        chosen = [recurrent.choose_lag(delta_hat, delta, **options) for delta in deltas]
        assert np.all(np.diff(chosen) <= 0)
        assert chosen[0] == 25
        assert all(isinstance(lag, int) for lag in chosen)
    # The smallest that is below, not one less and not one more.
    lag = recurrent.choose_lag(delta_hat, 0.5, k_min=1, k_max=WIDTH)
    assert delta_hat[lag - 1] < 0.5 <= delta_hat[lag - 2]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"k_min": 1, "k_max": 8}, 3),
        ({"k_min": 4, "k_max": 8}, 4),
        ({"k_min": 1, "k_max": 2}, 2),
        ({"k_min": 1, "k_max": 8, "buckets": (2, 5, 9)}, 5),
        ({"k_min": 1, "k_max": 4, "buckets": (2, 5, 9)}, 4),
        ({"k_min": 1, "k_max": 8, "buckets": (2,)}, 3),
    ],
)
def test_lags_stay_between_limits_and_go_up_to_buckets(options, expected):
    assert recurrent.choose_lag([2.0, 0.8, 0.4, 0.1], np.float32(0.5), **options) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"k_min": 1, "k_max": 5}, 1),
        ({"k_min": 2, "k_max": 4}, 4),
        ({"k_min": 2, "k_max": 3}, 3),
        ({"k_min": 2, "k_max": 9}, 4),
        ({"k_min": 1, "k_max": 5, "buckets": (3, 6)}, 5),
        ({"k_min": 1, "k_max": 9, "buckets": (6, 2, 4)}, 4),
        ({"k_min": 7, "k_max": 9}, 9),
    ],
)
def test_a_lag_is_not_rounded_up_to_where_the_bias_has_risen_again(options, expected):
    assert recurrent.choose_lag([0.1, 0.9, 0.9, 0.2, 0.6], 0.5, **options) == expected


def test_a_factor_below_all_doubles_is_not_zero():
    assert recurrent.fit_decay([1e308, 5e-324], floor=-1000) > 0


def test_nan_is_passed_on_also_where_it_would_not_be_read():
    one, two = [1.0, 0.0], [1.0, 0.5, np.nan]
    for found in (
        recurrent.bias_bound(one, np.ones(2), tau=1, beta=np.nan),
        recurrent.bias_bound(two, np.ones(3), tau=1, beta=0.5),
    ):
        assert np.isnan(found.delta_hat).all()
        assert np.isnan(found.tail).all()


def test_what_is_too_large_for_doubles_bounds_nothing():
    assert recurrent.fit_decay([1e-20, 1e300]) == np.inf
    assert np.isnan(recurrent.bias_bound(PHI, [1.0, 1.5, np.inf], tau=1, beta=0.5).delta_hat).all()


def test_buckets_may_be_an_array():
    buckets = np.array([2, 5])
    assert recurrent.choose_lag([2.0, 0.8, 0.4], 0.5, k_min=1, k_max=8, buckets=buckets) == 5


PHI = [1.0, 0.5, 0.25]
WRONG = [
    (lambda: recurrent.choose_lag(PHI, 0.5, k_min=1, k_max=3, buckets=5), "buckets=5"),
    (lambda: recurrent.choose_lag(PHI, 0.5, k_min=1, k_max=3, buckets="58"), "buckets='58'"),
    (
        lambda: jax.eval_shape(lambda d: recurrent.choose_lag(PHI, d, k_min=1, k_max=3), 0.5),
        "a traced delta",
    ),
    (lambda: jax.eval_shape(lambda f: recurrent.fit_decay(PHI, floor=f), -9.0), "a traced floor"),
    (lambda: recurrent.fit_decay([[1.0]]), "phi="),
    (lambda: recurrent.fit_decay([]), "phi="),
    (lambda: recurrent.fit_decay(None), "phi=None"),
    (lambda: recurrent.fit_decay(["1"]), "phi="),
    (lambda: recurrent.fit_decay([1.0, -1.0]), "phi with -1"),
    (lambda: recurrent.fit_decay(PHI, start=3), "start=3"),
    (lambda: recurrent.fit_decay(PHI, method="mean"), "method='mean'"),
    (lambda: recurrent.fit_decay(PHI, floor=np.nan), "floor=nan"),
    (lambda: jax.eval_shape(recurrent.fit_decay, jnp.ones(3)), "phi="),
    (lambda: recurrent.bias_bound(PHI, PHI[:2], tau=1, beta=0.5), "3 phi and 2 cum"),
    (lambda: recurrent.bias_bound(PHI, PHI, tau=3, beta=0.5), "tau=3"),
    (lambda: recurrent.bias_bound(PHI, PHI, tau=1, beta=-0.5), "beta=-0.5"),
    (lambda: recurrent.bias_bound(PHI, PHI, tau=1, beta="0.5"), "beta='0.5'"),
    (lambda: recurrent.choose_lag(PHI, 0.0, k_min=1, k_max=3), "delta=0"),
    (lambda: recurrent.choose_lag(PHI, np.nan, k_min=1, k_max=3), "delta=nan"),
    (lambda: recurrent.choose_lag(PHI, 0.5, k_min=0, k_max=3), "k_min=0"),
    (lambda: recurrent.choose_lag(PHI, 0.5, k_min=4, k_max=3), "k_max=3"),
    (lambda: recurrent.choose_lag(PHI, 0.5, k_min=1, k_max=3, buckets=(0,)), "buckets=0"),
]


@pytest.mark.parametrize(("call", "found"), WRONG)
def test_mistakes_are_told_in_three_parts(call, found):
    assert_names_itself_and_its_cure(call, found, "", "")
