"""Scores are the loss that a tap takes away: held against least squares on dense matrices."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import ops
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure


def circular(cells, seed=0):
    """All circular shifts of a coloured field as columns, and its autocorrelation by difference."""
    generator = np.random.default_rng(seed)
    field = generator.normal(size=cells)
    for axis in range(len(cells)):
        field += 0.8 * np.roll(field, 1, axis) + 0.5 * np.roll(field, 2, axis)
    shifts = list(np.ndindex(*cells))
    axes = tuple(range(len(cells)))
    columns = np.stack([np.roll(field, shift, axes).ravel() for shift in shifts], axis=1)
    spans = [range(1 - n, n) for n in cells]
    correlation = np.array(
        [(np.roll(field, shift, axes) * field).sum() for shift in itertools.product(*spans)]
    ).reshape([2 * n - 1 for n in cells])
    return columns, correlation, generator


def squares_left(columns, target):
    """The squared error of the best weights, by dense projection."""
    if columns.shape[1] == 0:
        return (target**2).sum()
    return ((target - columns @ np.linalg.lstsq(columns, target, rcond=None)[0]) ** 2).sum()


@jax.jit
def scores_of(gains, taps, correlation):
    return ops.residual_scores(gains, taps, autocorrelation=correlation, ridge=1e-7, floor=1e-7)


@pytest.mark.parametrize(
    ("cells", "taps"), [((16,), []), ((16,), [[3], [4], [11]]), ((4, 5), [[1, 2], [2, 2], [3, 0]])]
)
@pytest.mark.parametrize("whole", [False, True])
def test_a_score_is_the_decrease_of_the_squared_error(cells, taps, whole):
    columns, correlation, generator = circular(cells)
    target = generator.normal(size=(len(columns), 2))  # two outputs
    flat = [np.ravel_multi_index(tap, cells) for tap in taps]
    # Weights of the placed taps that are not the best ones: what they would still gain is not
    # the merit of another tap.
    error = target - columns[:, flat] @ generator.normal(size=(len(taps), 2))
    size = (columns[:, 0] ** 2).sum()
    gains = (columns.T @ error / np.sqrt(size)).reshape(*cells, 2)
    slots = np.array([*taps, [0] * len(cells)])
    placed = np.array([True] * len(taps) + [False])
    if len(cells) == 1 and not whole:
        correlation = correlation[cells[0] - 1 :]
    with jax.enable_x64(True):
        found = scores_of(gains, ops.Taps(slots, placed), correlation)
    before = squares_left(columns[:, flat], error)
    for cell, score in enumerate(np.ravel(found)):
        if cell in flat:
            assert score == -np.inf
        else:
            after = squares_left(columns[:, [*flat, cell]], error)
            assert_close(score, before - after, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", list(jax.sharding.AxisType)[:2], ids=str)
def test_samples_that_are_spread_are_whitened_together(kind):
    cotangent = np.random.default_rng(0).normal(size=(8, 5, 3)).astype(np.float32)
    whiten = jax.jit(lambda cotangent: ops.whiten_cotangent(cotangent, count=2))
    expected = np.asarray(whiten(cotangent))
    mesh = jax.make_mesh((len(jax.devices()),), ("b",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        spread = jax.device_put(cotangent, jax.NamedSharding(mesh, jax.P("b")))
        np.testing.assert_allclose(whiten(spread), expected, rtol=1e-4, atol=1e-5)


def test_whitened_channels_score_the_decrease_of_the_squared_error():
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(40, 3)) @ generator.normal(size=(3, 3))
    target = generator.normal(size=(40, 2))

    @jax.jit
    def run(gains, covariance):
        white = ops.decorrelated_gains(gains, covariance, ridge=1e-6)
        return ops.residual_scores(white, ops.empty_taps(1))

    score = run((inputs.T @ target)[None], inputs.T @ inputs)
    assert_close(score[0], (target**2).sum() - squares_left(inputs, target), rtol=1e-3)


def test_gains_are_decorrelated_by_the_cholesky_factor():
    generator = np.random.default_rng(1)
    inputs = generator.normal(size=(20, 3)) * [10, 1, 0.1]
    covariance, gains = inputs.T @ inputs / 20, generator.normal(size=(2, 4, 3, 5))
    factor = np.linalg.cholesky(covariance + 0.1 * np.trace(covariance) / 3 * np.eye(3))
    found = jax.jit(lambda *parts: ops.decorrelated_gains(*parts, ridge=0.1))(gains, covariance)
    assert_close(found, np.linalg.inv(factor) @ gains, rtol=1e-4)


def test_channels_that_never_vary_give_numbers():
    @jax.jit
    def run():
        gains = ops.decorrelated_gains(jnp.zeros((2, 3, 1)), jnp.zeros((3, 3)))
        taps = ops.Taps([[0]], [True])
        return gains, ops.residual_scores(np.float32([1, 2]), taps, autocorrelation=jnp.zeros(2))

    found, still = run()
    assert np.isfinite(found).all()
    assert still.tolist() == [-np.inf, 4.0]


def test_a_cotangent_is_centred_and_white_in_its_leading_directions():
    generator = np.random.default_rng(2)
    cotangent = generator.normal(size=(4, 50, 5)) @ generator.normal(size=(5, 5)) + 3
    found = jax.jit(lambda cotangent: ops.whiten_cotangent(cotangent, count=3, ridge=0.1))(
        cotangent
    )
    assert found.shape == (4, 50, 3)
    white = np.asarray(found).reshape(-1, 3)
    samples = cotangent.reshape(-1, 5)
    values, vectors = np.linalg.eigh(np.cov(samples.T, bias=True))
    assert_close(white.mean(0), np.zeros(3), atol=1e-5)
    left = values[::-1][:3] / (values[::-1][:3] + 0.1 * values.mean())
    assert_close(np.cov(white.T, bias=True), np.diag(left), atol=1e-5)
    expected = (samples - samples.mean(0)) @ vectors[:, ::-1][:, :3]
    for column, other in zip(white.T, expected.T, strict=True):
        assert abs(np.corrcoef(column, other)[0, 1]) > 0.9999


@pytest.mark.parametrize("cotangent", [np.zeros((4, 3)), np.ones((4, 3)), np.ones((1, 2))])
def test_a_cotangent_that_never_varies_is_0(cotangent):
    def total(cotangent):
        white = ops.whiten_cotangent(cotangent, count=8)
        return white.sum(), white

    slopes, white = jax.jit(jax.grad(total, has_aux=True))(cotangent)
    assert white.shape == cotangent.shape
    assert_close(white, np.zeros_like(cotangent))
    assert np.isfinite(slopes).all()


@pytest.mark.parametrize("size", [1, 2, 7, 8])
def test_z_is_by_median_and_median_deviation(size):
    generator = np.random.default_rng(size)
    scores = generator.normal(size=(20, size)).astype(np.float32)
    scores[generator.random(scores.shape) < 0.1] = np.nan
    scores[generator.random(scores.shape) < 0.1] = -np.inf
    allowed = generator.random(scores.shape) < 0.9
    run = jax.jit(jax.vmap(lambda scores, allowed: ops.z_scores(scores, allowed=allowed)))
    for one, mask, found in zip(scores, allowed, run(scores, allowed), strict=True):
        counted = one[mask & np.isfinite(one)]
        if len(counted) == 0:
            assert np.isnan(found[np.isfinite(one)]).all()
            continue
        median = np.median(counted)
        deviation = 1.4826 * np.median(abs(counted - median))
        with np.errstate(divide="ignore", invalid="ignore"):
            expected = (one - median) / deviation
        expected[one == median] = 0
        assert_close(found, np.where(np.isfinite(one), expected, one), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("number", [10**30, np.int64(2**40), np.float64(3e38)])
def test_options_that_32_bits_do_not_hold_are_not_cut(number):
    """They are floats before they are arguments of a program."""
    generator = np.random.default_rng(0)
    cotangent = generator.normal(size=(8, 2)).astype(np.float32)
    gains, taps = np.abs(generator.normal(size=5)).astype(np.float32), ops.Taps([[1]], [True])
    correlation = 0.5 ** np.arange(5, dtype=np.float32)
    calls = (
        lambda number: ops.whiten_cotangent(cotangent, ridge=number),
        lambda number: ops.decorrelated_gains(np.ones((3, 2, 1)), np.eye(2), ridge=number),
        lambda number: ops.residual_scores(
            gains, taps, autocorrelation=correlation, ridge=number, floor=number
        ),
    )
    for call in calls:
        assert_close(call(number), jax.jit(call)(jnp.float32(number)))


EMPTY = ops.empty_taps(2)


@pytest.mark.parametrize(
    ("call", "found", "expected", "change"),
    [
        (lambda: ops.whiten_cotangent(1.0), "shape ()", "(..., O)", "pass the gradient"),
        (lambda: ops.whiten_cotangent(np.ones((0, 2))), "(0, 2)", "at least one", "pass"),
        (lambda: ops.whiten_cotangent(np.ones(2), count=0), "count=0", "at least 1", "static"),
        (lambda: ops.whiten_cotangent(np.ones(2), ridge=0), "ridge=0", "above 0", "change ridge"),
        (lambda: ops.decorrelated_gains(np.ones(2), np.ones((2, 2))), "(2,)", "C, m", "an axis"),
        (
            lambda: ops.decorrelated_gains(np.ones((4, 2, 3)), np.ones((3, 3))),
            "covariance of shape (3, 3)",
            "(2, 2)",
            "reshape covariance",
        ),
        (lambda: ops.residual_scores(1.0, EMPTY), "shape ()", "at least 1 axes", "reshape gains"),
        (
            lambda: ops.residual_scores(np.ones(4), EMPTY, autocorrelation=np.ones(5)),
            "autocorrelation of shape (5,)",
            "length n of the cells, or 2n - 1",
            "by absolute difference",
        ),
        (lambda: ops.residual_scores(np.ones(4), EMPTY, floor=-1), "floor=-1", "above", "change"),
        (lambda: ops.residual_scores(np.ones(4), EMPTY, ridge=0), "ridge=0", "above", "change"),
        (lambda: ops.z_scores(np.ones(0)), "shape (0,)", "at least one", "pass some"),
        (lambda: ops.z_scores(np.ones(2), allowed=[True]), "(1,)", "(2)", "reshape allowed"),
    ],
)
def test_wrong_calls_are_refused(call, found, expected, change):
    assert_names_itself_and_its_cure(lambda: jax.eval_shape(call), found, expected, change)
