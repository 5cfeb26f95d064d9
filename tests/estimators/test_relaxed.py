"""Densities by quadrature, marginals by enumeration, implicit gradients against closed forms."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from sparse_hyper_jax.estimators import (
    relaxed_log_prob,
    reparametrise,
    sample_relaxed,
    sample_subset,
    subset_log_prob,
    subset_marginals,
)
from tests.ops.examples import all_finite, assert_close, assert_names_itself_and_its_cure

KEY = jax.random.key(0)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_density_of_two_classes_has_its_mass_where_the_law_says(temperature):
    logits = np.float32([0.7, -0.4])
    # In the log odds, where the integrand falls off at both ends.
    odds = np.linspace(-60, 60, 20_001)
    rows = np.stack([-np.logaddexp(0, -odds), -np.logaddexp(0, odds)], -1).astype(np.float32)
    log_p = np.float64(
        relaxed_log_prob(rows, np.tile(logits, (20_001, 1)), temperature=temperature)
    )
    weights = np.exp(np.float64(log_p) + rows.sum(axis=-1))  # dx = x (1 - x) d odds
    assert np.trapezoid(weights, odds) == pytest.approx(1, abs=1e-4)
    first = odds > 0
    chance = np.exp(0.7) / (np.exp(0.7) + np.exp(-0.4))
    assert np.trapezoid(weights * first, odds) == pytest.approx(chance, abs=2e-3)


def test_the_density_of_three_classes_is_that_of_a_histogram():
    logits, temperature, count = np.float32([0.5, 0.0, -0.5]), 2.0, 200_000
    rows = np.exp(sample_relaxed(KEY, np.tile(logits, (count, 1)), temperature=temperature))
    assert_close(rows.sum(axis=-1), np.ones(count), rtol=1e-4)
    edges = np.linspace(0, 1, 6)
    counts, _, _ = np.histogram2d(rows[:, 0], rows[:, 1], bins=edges)
    # Every square of a fine grid is two triangles, each inside of the simplex or not.
    corner, masses = np.arange(500), 0
    for third in (1 / 3, 2 / 3):
        x, y = np.meshgrid(*2 * [(corner + third) / 500], indexing="ij")
        inside = x + y < 1
        points = np.stack([x, y, np.where(inside, 1 - x - y, 1)], -1)
        rows = np.log(points).astype(np.float32)
        log_p = relaxed_log_prob(rows, np.broadcast_to(logits, rows.shape), temperature=2.0)
        masses = masses + np.where(inside, np.exp(np.float64(log_p)), 0) / 500**2 / 2
    masses = masses.reshape(5, 100, 5, 100).sum(axis=(1, 3))
    assert masses.sum() == pytest.approx(1, abs=1e-3)
    deviations = np.sqrt(masses * count)
    assert np.all(np.abs(counts - masses * count) <= 5 * deviations)


def test_the_largest_entry_has_the_law_of_the_logits():
    logits = np.float32([0.5, 0.0, -0.5])
    rows = sample_relaxed(KEY, np.tile(logits, (50_000, 1)), temperature=0.1)
    shares = np.bincount(np.argmax(rows, axis=-1), minlength=3) / 50_000
    assert np.all(np.abs(shares - special.softmax(logits)) < 0.01)


def test_a_banned_class_changes_nothing_and_has_no_slope():
    logits = jnp.array([0.3, -jnp.inf, -0.2])
    row = sample_relaxed(KEY, logits, temperature=0.5)
    assert row[1] == -jnp.inf

    def log_p(row, logits):
        return relaxed_log_prob(row, logits, temperature=0.5)

    found, slopes = jax.value_and_grad(log_p, (0, 1))(row, logits)
    assert_close(found, log_p(row[::2], logits[::2]), rtol=1e-5)
    assert all_finite(slopes)
    assert slopes[0][1] == slopes[1][1] == 0


def test_low_temperatures_stay_finite():
    logits = np.float32([3.0, 0.0, -50.0])

    def log_p(logits, temperature):
        row = sample_relaxed(KEY, logits, temperature=temperature)
        return relaxed_log_prob(row, logits, temperature=temperature), row

    (value, row), slopes = jax.value_and_grad(log_p, (0, 1), has_aux=True)(logits, 1e-3)
    assert all_finite((value, row, slopes))


MIXTURE = {"means": np.float32([-1.0, 2.0]), "logits": np.float32([0.3, -0.3])}


def mixture_cdf(parameters, z):
    shares = jax.nn.softmax(parameters["logits"])
    return jax.scipy.stats.norm.cdf(z[:, None] - parameters["means"][None]) @ shares


def test_samples_of_a_mixture_have_the_slope_of_the_expectation():
    """At evenly spread quantiles the mean of the slopes is the slope of the mean."""
    levels = (np.arange(4000) + 0.5) / 4000
    shares = special.softmax(np.float64(MIXTURE["logits"]))
    grid = np.linspace(-8, 9, 400_001)
    z = np.interp(levels, stats.norm.cdf(grid[:, None] - MIXTURE["means"]) @ shares, grid)

    def mean_of_squares(parameters):
        sample = reparametrise(jnp.float32(z), lambda z: mixture_cdf(parameters, z))
        return jnp.mean(sample**2 + sample)

    slopes = jax.jit(jax.grad(mean_of_squares))(MIXTURE)
    # E = sum_i s_i (m_i^2 + 1 + m_i)
    each = MIXTURE["means"] ** 2 + MIXTURE["means"] + 1
    assert_close(slopes["means"], shares * (2 * MIXTURE["means"] + 1), rtol=1e-2, atol=2e-3)
    assert_close(slopes["logits"], shares * (each - shares @ each), rtol=1e-2, atol=5e-3)


def test_gamma_variates_have_the_slope_that_jax_gives_them():
    shapes = np.float32([0.7, 2.0, 5.0])

    def drawn(a):
        return jax.random.gamma(KEY, a)

    def again(a):
        z = jax.lax.stop_gradient(drawn(a))
        return reparametrise(z, lambda z: jax.scipy.special.gammainc(a, z))

    assert_close(again(shapes), drawn(shapes))
    slopes = [jax.grad(lambda a, f=f: jnp.sum(f(a)))(shapes) for f in (again, drawn)]
    assert_close(slopes[0], slopes[1], rtol=1e-3)


def test_where_the_density_vanishes_there_is_no_slope():
    def far(mean):
        return reparametrise(jnp.float32([50.0]), lambda z: jax.scipy.stats.norm.cdf(z - mean))[0]

    assert jax.value_and_grad(far)(0.0) == (50.0, 0.0)


CLASSES = 6
LOGITS = np.float32([0.5, -1.0, 2.0, 0.0, 1.0, -0.3])


def enumerated(logits, k):
    subsets = [
        np.isin(np.arange(len(logits)), s) for s in itertools.combinations(range(len(logits)), k)
    ]
    masks = np.array(subsets, np.float64)
    return masks, special.softmax(masks @ np.float64(logits))


@pytest.mark.parametrize("k", [1, 3, CLASSES])
def test_probabilities_and_marginals_are_those_of_all_subsets(k):
    masks, chances = enumerated(LOGITS, k)
    log_p = jax.vmap(lambda mask: subset_log_prob(mask, LOGITS, k))(np.float32(masks))
    assert_close(jnp.exp(log_p), chances, rtol=1e-4)
    assert_close(subset_marginals(LOGITS, k), chances @ masks, rtol=1e-4)

    def oracle(logits):
        return jax.nn.softmax(np.float32(masks) @ logits) @ np.float32(masks)

    slopes = jax.jacobian(lambda logits: subset_marginals(logits, k))(LOGITS)
    assert_close(slopes, jax.jacobian(oracle)(LOGITS), rtol=1e-3, atol=1e-5)


def test_samples_have_the_law_and_the_slope_of_the_marginals():
    masks, chances = enumerated(LOGITS, 3)
    keys = jax.random.split(KEY, 20_000)
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: sample_subset(key, LOGITS, 3)))(keys))
    assert set(np.unique(drawn)) == {0, 1}
    codes = {tuple(mask): number for number, mask in enumerate(masks.tolist())}
    counts = np.bincount([codes[tuple(row)] for row in drawn.tolist()], minlength=len(masks))
    assert stats.chisquare(counts, chances * len(keys)).pvalue > 1e-3

    weights = np.arange(CLASSES, dtype=np.float32)
    slope = jax.grad(lambda logits: sample_subset(KEY, logits, 3) @ weights)(LOGITS)
    assert_close(slope, jax.grad(lambda logits: subset_marginals(logits, 3) @ weights)(LOGITS))


def test_banned_classes_are_left_out():
    logits = jnp.array([0.5, -jnp.inf, 2.0, 0.0, -jnp.inf])
    alive = np.array([0, 2, 3])
    found = subset_marginals(logits, 2)
    assert_close(found[alive], subset_marginals(logits[alive], 2), rtol=1e-5)
    assert not np.any(np.delete(found, alive))
    mask = sample_subset(KEY, logits, 3)
    assert mask.tolist() == [1, 0, 1, 1, 0]
    assert subset_log_prob(mask, logits, 3) == pytest.approx(0, abs=1e-5)
    assert subset_log_prob(jnp.array([1, 1, 0, 1, 0]), logits, 3) == -jnp.inf
    assert all_finite(jax.grad(lambda x: subset_marginals(x, 2)[0])(logits))


def test_too_few_classes_make_no_law():
    logits = jnp.array([0.5, -jnp.inf, -jnp.inf])
    assert np.all(np.isnan(subset_marginals(logits, 2)))
    assert np.all(np.isnan(sample_subset(KEY, logits, 2)))
    assert np.isnan(subset_log_prob(jnp.array([1, 1, 0]), logits, 2))


@pytest.mark.parametrize("offset", [-1e31, 1e31, -1e7])
def test_what_all_logits_share_changes_nothing(offset):
    @jax.jit
    def of(logits):
        mask = jnp.array([1, 1, 0, 0])
        return (
            subset_marginals(logits, 2),
            subset_log_prob(mask, logits, 2),
            sample_subset(KEY, logits, 2),
            jax.grad(lambda x: subset_log_prob(mask, x, 2))(logits),
        )

    near = np.float32([0, 1, -np.inf, 2]) if abs(offset) < 1e8 else np.float32([0, 0, -np.inf, 0])
    for far, expected in zip(of(near + np.float32(offset)), of(near), strict=True):
        np.testing.assert_allclose(far, expected, rtol=1e-6, atol=1e-6)


def test_peaked_logits_of_many_classes():
    logits = 40 * np.random.default_rng(0).normal(size=500).astype(np.float32)
    marginals = jax.jit(subset_marginals, static_argnums=1)(logits, 50)
    assert float(jnp.sum(marginals)) == pytest.approx(50, rel=1e-3)
    largest = np.argsort(-logits)[:45]
    assert np.all(np.asarray(marginals)[largest] > 0.9)


MISTAKES = {
    "a temperature of 0": (
        lambda: sample_relaxed(KEY, LOGITS, temperature=0.0),
        "temperature=0.0",
        "at least",
        "change temperature",
    ),
    "rows of another length": (
        lambda: relaxed_log_prob(LOGITS[:3], LOGITS, temperature=1.0),
        "log_rows of shape (3,)",
        "the shape of logits",
        "reshape log_rows",
    ),
    "no classes": (
        lambda: sample_relaxed(KEY, np.zeros((2, 0)), temperature=1.0),
        "logits of shape (2, 0)",
        "at least one class",
        "one number per class",
    ),
    "whole numbers": (
        lambda: reparametrise([1, 2], lambda z: z),
        "sample of dtype int32",
        "floats",
        "convert sample",
    ),
    "a function of all samples": (
        lambda: reparametrise([1.0, 2.0], jnp.sum),
        "a distribution function of shape ()",
        "a number for each sample",
        "elementwise",
    ),
    "more than there are": (
        lambda: subset_marginals(LOGITS, 7),
        "k=7",
        "an int from 1 to 6",
        "pass a static int as k",
    ),
    "rows of logits": (
        lambda: sample_subset(KEY, LOGITS[None], 2),
        "logits of shape (1, 6)",
        "(n,): one number per class",
        "reshape logits",
    ),
    "a mask of other classes": (
        lambda: subset_log_prob(np.ones(3), LOGITS, 3),
        "mask of shape (3,)",
        "the shape of logits",
        "reshape mask",
    ),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
