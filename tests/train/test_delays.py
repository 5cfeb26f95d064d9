"""The recipe delays: what its model computes, what it finds, what it reads, what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import ops
from sparse_hyper_jax.train.models.delayed import DelayModel, delayed_sums, spoken_bands
from sparse_hyper_jax.train.recipes.delays import DelaysRecipe, taps_of
from tests.ops.examples import assert_names_itself_and_its_cure

REACH, CHANNELS, UNITS = 5, 3, 4
DELAYS, PLACED = np.array([4, 1, 2]), np.array([True, True, False])
TAPS = ops.Taps(jnp.array(DELAYS)[:, None, None], jnp.array(PLACED)[:, None])


def delayed(x):
    y = np.zeros_like(x)
    for channel in np.flatnonzero(PLACED):
        lag = DELAYS[channel]
        y[:, lag:, channel] = x[:, : x.shape[1] - lag, channel]
    return y


def test_model_is_that_of_numpy():
    """Delays, a product, the largest over time, a product; cross entropy, or squared error."""
    model, generator = DelayModel(REACH), np.random.default_rng(0)
    x = generator.normal(size=(2, 9, CHANNELS)).astype(np.float32)
    labels, wanted = np.array([3, 1]), generator.normal(size=(2, 9, UNITS)).astype(np.float32)

    @jax.jit
    def both(x):
        parameters = model.start(jax.random.key(0), CHANNELS, UNITS, labelled=True)
        parameters["bias"] = jnp.arange(4.0)
        y = model.mixed(parameters, TAPS, x)
        losses = [model.loss(parameters, y, jnp.asarray(one)) for one in (labels, wanted)]
        figures = [
            model.figure(parameters, TAPS, (x, jnp.asarray(one))) for one in (labels, wanted)
        ]
        return parameters, y, losses, figures

    parameters, y, (entropy, error), (accuracy, again) = jax.device_get(both(x))
    by_hand = delayed(x) @ parameters["kernel"][0] + np.arange(4)
    np.testing.assert_allclose(y, by_hand, atol=1e-5)
    most = by_hand.max(axis=1)
    scores = np.maximum(most, 0.1 * most) @ parameters["head"]
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(entropy, -np.log(shares[[0, 1], labels]).mean(), rtol=1e-4)
    np.testing.assert_allclose([error, again], np.mean((by_hand - wanted) ** 2), rtol=1e-5)
    assert accuracy == np.mean(scores.argmax(axis=1) == labels)


def test_a_sum_is_made_of_delayed_channels():
    task = delayed_sums(3, channels=2, reach=7, noise=0.0)
    assert [len(part[0]) for part in task[:3]] == [96, 16, 16]
    assert all(0 <= delay < 7 for delay in task.delays)
    x, y = (np.asarray(one, np.float64) for one in task.train)
    read = [x[:, 6 - delay : 21 - delay, channel] for channel, delay in enumerate(task.delays)]
    rows, wanted = np.stack(read, axis=-1).reshape(-1, 2), y[:, 6:].reshape(-1, 2)
    left = wanted - rows @ np.linalg.lstsq(rows, wanted, rcond=None)[0]
    assert np.abs(left).max() < 1e-5


def test_pursuit_places_a_group_where_it_is_missed():
    """A group that sits at wrong delays finds the true ones; the others stay."""
    task = delayed_sums(0, channels=4, reach=30, noise=0.5)
    model, true = DelayModel(30), np.array(task.delays)
    group = np.array([True, False, True, False])
    start = np.where(group, (true + 9) % 30, true)
    taps = ops.Taps(jnp.array(start)[:, None, None], jnp.array([[True], [True], [True], [False]]))

    @jax.jit
    def placed(part):
        parameters = model.start(jax.random.key(1), 4, 4, labelled=False)
        return model.replaced(parameters, taps, jnp.array(group), part)

    found = placed(task.train)
    assert found.placed[:, 0].tolist() == [True, True, True, False]
    assert found.positions[:3, 0, 0].tolist() == true[:3].tolist()


def test_gaussian_delays_are_rounded_where_they_are_judged():
    recipe = DelaysRecipe(method="gaussian", channels=3, reach=9, batch=2)
    data = recipe.load()
    plan = recipe.settle(data).plan(data)
    means = jnp.array([0.0, jnp.log(3.0), -50.0])  # 4, 6 and 0 of 8 steps
    state = plan.state._replace(parameters=plan.state.parameters | {"means": means})
    taps = taps_of(DelayModel(9), state)
    assert taps.positions.ravel().tolist() == [4, 6, 0]
    assert taps.placed.all()


@pytest.mark.parametrize("validate", [True, False])
def test_bands_are_scaled_by_what_is_trained_on(tmp_path, validate):
    count, generator = 9, np.random.default_rng(0)
    np.savez(
        tmp_path / "three.npz",
        samples=(2000 * generator.normal(size=count * 600)).astype(np.int16),
        offsets=600 * np.arange(count + 1),
        digit=np.arange(count) % 10,
        speaker=np.arange(count) % 3,
        take=np.arange(count),
    )
    task = spoken_bands(tmp_path, 1, 4, validate=validate)
    x, labels = task.train
    assert x.shape == (3 if validate else 6, 40 + 3, 39)
    np.testing.assert_allclose(np.asarray(x[:, :40]).mean(axis=(0, 1)), 0, atol=1e-4)
    np.testing.assert_allclose(np.asarray(x[:, :40]).std(axis=(0, 1)), 1, atol=1e-3)
    assert not x[:, 40:].any()
    assert labels.tolist() == ([0, 3, 6] if validate else [0, 2, 3, 5, 6, 8])
    assert task.test[1].tolist() == [1, 4, 7]
    assert (task.validation is not None) == validate
    assert not task.delays


@pytest.mark.parametrize(
    ("options", "found", "expected", "change"),
    [
        ({"task": "fsdd"}, "--task fsdd without a folder", "folder", "--data-dir"),
        (
            {"task": "fsdd", "data_dir": ".", "method": "known"},
            "--method known --task fsdd",
            "true delays",
            "--method",
        ),
        ({"batch": 97}, "--batch 97 with 96 sequences", "at most", "--batch"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path, options, found, expected, change):
    if "data_dir" in options:
        options = options | {"data_dir": tmp_path}
    recipe = DelaysRecipe(out=tmp_path / "run", reach=4, **options)
    assert_names_itself_and_its_cure(recipe.run, found, expected, change)
    assert not (tmp_path / "run").exists()
