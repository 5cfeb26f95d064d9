"""Generated series: what they are made of, written out in NumPy; what their lags are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.train.data import (
    LagSystem,
    draw_system,
    load_digits,
    make_canvas,
    make_series,
    run_system,
)
from tests.ops.examples import assert_names_itself_and_its_cure


@functools.cache
def example():
    """One long series without noise, and one with, of the same key."""

    @jax.jit
    def draw(key, noise, correlation):
        system_key, series_key = jax.random.split(key)
        system = draw_system(system_key, channels=3, reach=60, additive=2, products=1, apart=5)
        run = functools.partial(run_system, series_key, system, length=4000)
        return system, run(noise=noise, correlation=correlation)

    return [
        jax.tree.map(np.asarray, draw(jax.random.key(1), noise, 0.9)) for noise in (0.0, 0.5)
    ], np.asarray(draw(jax.random.key(1), 0.0, 0.0)[1][0])


def test_targets_are_those_of_the_formula():
    (system, (inputs, targets)), _ = example()[0]
    lags = np.concatenate([system.added, system.values, system.gates])

    def read(number):
        moved = np.zeros_like(inputs)
        moved[lags[number] :] = inputs[: len(inputs) - lags[number]]
        return moved @ system.weights[number]

    expected = 0.5 * np.tanh(2 * read(0)) + 0.5 * np.tanh(2 * read(1))
    expected += 0.4 * read(2) * (1 + np.tanh(1.5 * read(3)))
    np.testing.assert_allclose(targets[:, 0], expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(system.weights, axis=1), 1, rtol=1e-6)


def test_inputs_and_noise_have_the_correlation_and_the_spread_that_were_asked_for():
    ((_, (inputs, quiet)), (_, (same, noisy))), white = example()
    assert np.array_equal(inputs, same)
    assert np.std(noisy - quiet) == pytest.approx(0.5, rel=0.05)
    for drawn, correlation in ((inputs, 0.9), (white, 0.0)):
        assert np.var(drawn) == pytest.approx(1, rel=0.15)
        assert np.mean(drawn[1:] * drawn[:-1]) == pytest.approx(correlation, abs=0.1)


def test_gates_have_no_linear_effect_and_values_have():
    ((system, _), _), white = example()
    run = jax.jit(functools.partial(run_system, length=4000, correlation=0.0, noise=0.0))
    _, targets = run(jax.random.split(jax.random.key(1))[1], LagSystem(*map(jnp.asarray, system)))
    effects = [
        np.mean(np.asarray(targets)[lag:, 0] * (white[: len(white) - lag] @ weight))
        for lag, weight in zip(np.concatenate(system[:3]), system.weights, strict=True)
    ]
    assert effects[2] == pytest.approx(0.4, abs=0.05)
    assert effects[3] == pytest.approx(0, abs=0.05)
    assert min(effects[:2]) > 0.25


def test_lags_are_apart_within_the_reach_and_anywhere_in_it():
    keys = jax.random.split(jax.random.key(0), 2000)
    draw = jax.vmap(lambda key: draw_system(key, channels=1, reach=60, apart=3, products=1).lags)
    lags = np.asarray(jax.jit(draw)(keys))
    assert lags.shape == (2000, 6)
    assert lags.min() == 1
    assert lags.max() == 59
    assert np.diff(np.sort(lags, axis=1), axis=1).min() == 3
    assert (np.bincount(lags[:, 0], minlength=60)[1:] > 10).all()  # every role is anywhere


def test_a_series_says_its_lags_and_its_floor():
    make = functools.partial(make_series, length=80, channels=2, reach=70, noise=0.3)
    series = jax.jit(make)(jax.random.key(3))
    assert series.inputs.shape == (80, 2)
    assert series.targets.shape == (80, 1)
    assert len(set(series.lags.tolist())) == 8
    assert float(series.floor) == pytest.approx(0.09)


def test_canvases_hold_their_images_row_by_row():
    images = np.ones((1, 2, 3), np.float32)

    @jax.jit
    def draw(keys, width):
        return jax.vmap(lambda key: make_canvas(key, images, width, length=36, digits=1))(keys)

    for width in (3, 5, 7, 18):
        pixels = np.asarray(draw(jax.random.split(jax.random.key(0), 200), width))[..., 0]
        assert (pixels.sum(axis=1) == 6).all()
        starts = pixels.argmax(axis=1)
        for offset in (0, 1, 2, width, width + 1, width + 2):
            assert pixels[np.arange(200), starts + offset].all()
        assert (starts % width <= width - 3).all()
        assert set(starts // width) == set(range(36 // width - 1))


def test_canvases_are_nan_where_their_images_are():
    images = np.ones((1, 2, 3), np.float32)
    images[0, 1, 0] = np.nan
    draw = jax.jit(functools.partial(make_canvas, width=3, length=12, digits=2))
    pixels = np.asarray(draw(jax.random.key(0), images)).reshape(4, 3)
    assert np.isnan(pixels[:, 0]).any()
    assert np.isfinite(pixels[:, 1:]).all()


def test_a_lag_of_0_reads_now_and_traced_lags_are_taken():
    system = LagSystem(jnp.array([0]), *[jnp.zeros(0, jnp.int32)] * 2, jnp.array([[1.0]]))
    run = jax.jit(functools.partial(run_system, length=9, noise=0.0))
    inputs, targets = run(jax.random.key(0), system)
    np.testing.assert_allclose(targets, 0.5 * np.tanh(2 * inputs), atol=1e-6)


def parts(**changes):
    """A system of two terms and two products, changed."""
    good = {"added": [1, 2], "values": [3, 4], "gates": [5, 6], "weights": np.ones((6, 1))}
    return LagSystem(*({name: np.array(x) for name, x in good.items()} | changes).values())


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"added": np.array([-3, 2])}, "a lag of -3 in system.added"),
        ({"gates": jnp.array([-1, 2])}, "a lag of -1 in system.gates"),
        ({"values": np.array([1.5, 2.0])}, "system.values of dtype float32"),
        ({"gates": np.array([5])}, "system.gates of shape (1,)"),
        ({"gates": np.array([5]), "weights": np.ones((5, 1))}, "system.gates of shape (1,)"),
        ({"weights": np.ones((1, 1))}, "system.weights of shape (1, 1)"),
        ({"weights": np.ones(6)}, "system.weights of shape (6,)"),
        ({"added": np.array(1), "weights": np.ones((5, 1))}, "system.added of shape ()"),
    ],
)
def test_systems_whose_parts_do_not_fit_are_told(changes, found):
    run = functools.partial(run_system, system=parts(**changes), length=9)
    assert_names_itself_and_its_cure(
        lambda: jax.eval_shape(run, jax.random.key(0)), found, "", "system."
    )


@pytest.mark.parametrize(
    ("make", "found", "change"),
    [
        (lambda key: draw_system(key, reach=50, apart=8), "8 lags that are 8 apart", "raise reach"),
        (lambda key: draw_system(key, additive=0, products=0), "additive=0", "raise"),
        (lambda key: draw_system(key, channels=0), "channels=0", "channels"),
        (lambda key: make_series(key, correlation=1.0), "correlation=1.0", "correlation"),
        (lambda key: make_series(key, noise=-1), "noise=-1", "noise"),
        (lambda key: make_series(key, noise=np.inf), "noise=inf", "noise"),
        (lambda key: make_series(key, noise=1e30), "noise=1e+30", "noise"),
        (lambda key: run_system(key, None), "system=None", "change system"),
        (lambda key: make_series(None), "key=None", "jax.random.key"),
        (lambda key: make_canvas(key, np.zeros((8, 8)), 9), "images of shape (8, 8)", "images"),
        (lambda key: make_canvas(key, np.ones((1, 8, 8), np.uint8), 9), "dtype uint8", "images"),
        (lambda key: make_canvas(key, np.ones((0, 8, 8)), 9), "images of shape (0, 8, 8)", "some"),
        (lambda key: make_canvas(key, np.ones((2, 0, 8)), 9), "images of shape (2, 0, 8)", "some"),
        (lambda key: make_canvas(key, np.ones((2, 8, 0)), 9), "images of shape (2, 8, 0)", "some"),
        (lambda key: make_canvas(key, load_digits().images, 7), "width=7", "width"),
        (lambda key: make_canvas(key, load_digits().images, 20.7), "width=20.7", "int"),
        (lambda key: make_canvas(key, load_digits().images, 80, length=400), "width=80", "width"),
    ],
)
def test_what_does_not_fit_is_refused(make, found, change):
    assert_names_itself_and_its_cure(
        lambda: jax.eval_shape(lambda: make(jax.random.key(0))), found, "", change
    )
