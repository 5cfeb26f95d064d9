import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.diagnostics import gradient_cosine, gradient_report, norm_ratio
from tests.backprop.examples import random_array
from tests.ops.examples import assert_names_itself_and_its_cure

ONE = {"a": random_array(3, 4), "b": (random_array(5, seed=1),)}
TWO = {"a": random_array(3, 4, seed=2), "b": (random_array(5, seed=3),)}
KEYS = jax.random.split(jax.random.key(7), 20_050)


def report_of(estimate, exact=ONE, **options):
    """The report as a function of the keys, compiled."""
    return jax.jit(lambda keys: gradient_report(exact, estimate, keys, **options))


def noisy(key, *, spread=0.5, shift=0.0):
    """Give ONE with independent noise of a known spread, moved along TWO."""
    noise = spread * jax.random.normal(key, (17,))
    return {
        "a": ONE["a"] + shift * TWO["a"] + noise[:12].reshape(3, 4),
        "b": (ONE["b"][0] + shift * TWO["b"][0] + noise[12:],),
    }


def flat(tree):
    return np.concatenate([tree["a"].ravel(), tree["b"][0]]).astype(np.float64)


def scaled(tree, factor):
    return {"a": tree["a"] * np.float32(factor), "b": (tree["b"][0] * np.float32(factor),)}


def test_cosine_and_ratio_agree_with_numpy():
    one, two = flat(ONE), flat(TWO)
    lengths = np.linalg.norm(one), np.linalg.norm(two)
    assert gradient_cosine(ONE, TWO) == pytest.approx(one @ two / np.prod(lengths), abs=1e-6)
    assert norm_ratio(ONE, TWO) == pytest.approx(lengths[0] / lengths[1], rel=1e-5)


@pytest.mark.parametrize("factor", [1e-30, -2.0, 1e30])
def test_only_the_direction_counts_for_the_cosine(factor):
    assert gradient_cosine(ONE, scaled(ONE, factor)) == pytest.approx(np.sign(factor), abs=1e-6)
    assert norm_ratio(scaled(ONE, factor), ONE) == pytest.approx(abs(factor), rel=1e-5)


def test_lengths_neither_overflow_nor_vanish():
    huge, tiny = np.float32([1e36, 3e36]), np.float32([1e-30, 3e-30])
    large = np.float32([1e38, 1e38])
    assert gradient_cosine(large, np.ones(2, np.float32)) == pytest.approx(1)
    slopes = jax.jit(jax.grad(norm_ratio, (0, 1)))
    for one in (huge, tiny):
        assert norm_ratio(one, one) == pytest.approx(1)
        # |u| / |v| = 1 has the slopes u / |u|^2 and -u / |u|^2.
        expected = one / np.sum(np.float64(one) ** 2)
        np.testing.assert_allclose(slopes(one, one), [expected, -expected], rtol=1e-5)


def test_slopes_are_finite_where_a_gradient_is_zero():
    zero, ones = np.zeros(2, np.float32), np.ones(2, np.float32)
    assert np.all(np.array(jax.jit(jax.grad(gradient_cosine, (0, 1)))(zero, ones)) == 0)
    assert np.all(np.array(jax.jit(jax.grad(norm_ratio, (0, 1)))(zero, ones)) == 0)


def test_half_precision_and_lists_and_numbers_of_numpy():
    report = report_of(lambda key: [jnp.bfloat16(1), 2.0], [1.0, 2], batch_size=np.int64(2))
    assert report(KEYS[:4]).bias == 0


def test_zeros_have_no_direction():
    assert gradient_cosine(scaled(ONE, 0), ONE) == 0
    assert gradient_cosine(ONE, scaled(ONE, 0)) == 0
    assert norm_ratio(scaled(ONE, 0), ONE) == 0
    assert norm_ratio(ONE, scaled(ONE, 0)) == np.inf


@pytest.mark.parametrize("measure", [gradient_cosine, norm_ratio])
def test_what_is_not_a_number_is_not_hidden(measure):
    broken = {"a": ONE["a"] * np.float32(np.nan), "b": ONE["b"]}
    assert np.isnan(measure(broken, ONE))
    assert np.isnan(measure(ONE, broken))


def test_half_precision_is_measured_in_single():
    half = {"a": jnp.full(70000, 1e-4, jnp.float16)}
    assert gradient_cosine(half, half) == pytest.approx(1, abs=1e-5)
    assert norm_ratio(half, half).dtype == jnp.float32


def test_report_of_known_noise():
    length = np.linalg.norm(flat(ONE))
    report = report_of(noisy)(KEYS)
    assert report.norm == pytest.approx(length, rel=1e-5)
    assert report.variance == pytest.approx(17 * 0.25 / length**2, rel=0.02)
    assert report.noise == pytest.approx((17 * 0.25 / len(KEYS)) ** 0.5 / length, rel=0.02)
    assert report.bias < 2 * report.noise
    assert report.largest_z < 4
    assert 0 < report.cosine < 1


def test_report_of_known_bias():
    report = report_of(lambda key: noisy(key, shift=0.1))(KEYS)
    expected = 0.1 * np.linalg.norm(flat(TWO)) / np.linalg.norm(flat(ONE))
    assert report.bias == pytest.approx(expected, rel=0.03)
    assert report.largest_z > 10


def test_noise_alone_is_not_taken_for_bias():
    reports = jax.jit(jax.vmap(report_of(noisy)))(KEYS[:2000].reshape(20, 100))
    # Without the correction the first mean would be that of the squared noise.
    squares = np.mean(np.square(reports.bias))
    assert squares < 0.5 * np.mean(np.square(reports.noise))


def test_cosine_is_that_of_single_estimates():
    report = report_of(noisy)(KEYS[:50])
    cosines = jax.jit(jax.vmap(lambda key: gradient_cosine(noisy(key), ONE)))(KEYS[:50])
    assert report.cosine == pytest.approx(np.asarray(cosines).mean(), rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 7, 50, 1000])
def test_batches_change_nothing(batch_size):
    estimates = jax.tree.map(np.asarray, jax.jit(jax.vmap(noisy))(KEYS[:50]))
    parts = estimates["a"].reshape(50, -1), estimates["b"][0]
    values = np.concatenate(parts, axis=1).astype(np.float64)
    report = report_of(noisy, batch_size=batch_size)(KEYS[:50])
    variance = np.var(values, axis=0, ddof=1)
    squared = np.sum(flat(ONE) ** 2)
    assert report.variance == pytest.approx(variance.sum() / squared, rel=1e-4)
    error = values.mean(0) - flat(ONE)
    z = np.max(np.abs(error) / np.sqrt(variance / 50))
    assert report.largest_z == pytest.approx(z, rel=1e-3)


def test_a_large_mean_hides_no_variance():
    exact = np.full(4, 1e4, np.float32)
    report = report_of(lambda key: exact + jax.random.normal(key, (4,)), exact)(KEYS)
    assert report.variance * report.norm**2 == pytest.approx(4, rel=0.05)


def test_what_is_exact_and_certain_has_neither_bias_nor_variance():
    report = report_of(lambda key: ONE)(KEYS[:10])
    assert report.bias == report.variance == report.largest_z == 0
    assert report.cosine == pytest.approx(1, abs=1e-6)
    wrong = report_of(lambda key: scaled(ONE, 2))(KEYS[:10])
    assert wrong.bias == pytest.approx(1, rel=1e-5)
    assert wrong.variance < 1e-10


MISTAKES = {
    "other trees": (lambda: gradient_cosine(ONE, {"a": 1}), "shapes", "the same", "layout"),
    "no tree": (lambda: norm_ratio(ONE, ONE["a"]), "shapes", "the same", "same parameters"),
    "another layout": (
        lambda: gradient_cosine({"w": jnp.ones((2, 3))}, {"w": jnp.ones((3, 2))}),
        "(2, 3)} and {'w': (3, 2)",
        "the same arrays",
        "the same layout",
    ),
    "one key": (
        lambda: gradient_report(ONE, noisy, jax.random.split(jax.random.key(0), 1)),
        "1 keys",
        "at least two",
        "split the key",
    ),
    "a key alone": (
        lambda: gradient_report(ONE, noisy, jax.random.key(0)),
        "keys of shape ()",
        "one typed key per estimate",
        "jax.random.split",
    ),
    "a seed": (
        lambda: gradient_report(ONE, noisy, 0),
        "keys=0",
        "one typed key per estimate",
        "jax.random.split",
    ),
    "an estimate alone": (
        lambda: gradient_report(ONE, ONE, KEYS),
        "estimate={'a'",
        "a function of a key",
        "pass a function as estimate",
    ),
    "nothing": (lambda: gradient_cosine({}, {}), "gradient={}", "a tree of arrays", "change"),
    "text": (lambda: norm_ratio({"a": "b"}, {"a": "b"}), "gradient='b'", "an array", "convert"),
    "complex numbers": (
        lambda: gradient_cosine({"a": np.ones(2)}, {"a": np.ones(2) * 1j}),
        "an array of reference of dtype complex",
        "real numbers",
        "convert",
    ),
    "estimates of other shapes": (
        lambda: gradient_report({"a": 1.0}, noisy, KEYS),
        "gradients of shapes",
        "the same arrays",
        "same parameters",
    ),
    "no batch": (
        lambda: gradient_report(ONE, noisy, KEYS, batch_size=0),
        "batch_size=0",
        "an int of at least 1",
        "batch_size",
    ),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
