import dataclasses
import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.estimators import ESTIMATORS, RLOO, Enumeration
from sparse_hyper_jax.train.epoch_state import start_state
from sparse_hyper_jax.train.models.autoencoder import (
    binarise,
    divergence_from_uniform,
    expected_reconstruction,
    make_coder,
    make_step,
    reconstruction_loss,
)
from sparse_hyper_jax.train.models.estimators import make_estimator
from sparse_hyper_jax.train.recipes.vae import (
    VAERecipe,
    make_encoder_variance,
    make_measure,
    make_model,
    negative_elbo,
)
from tests.ops.examples import all_finite, assert_close, assert_names_itself_and_its_cure

from .toy import compiled_once

SMALL = VAERecipe(variables=3, classes=4, hidden=(32,), steps=300, evaluate_every=100, quiet=True)
COMPARING = dataclasses.replace(SMALL, compare=True)


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(tmp_path_factory):
    with compiled_once(tmp_path_factory.mktemp("compiled")):
        yield


@pytest.fixture(scope="module")
def sets():
    return SMALL.load()[:3]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    recipe = dataclasses.replace(COMPARING, out=tmp_path_factory.mktemp("recipe") / "run")
    return recipe, recipe.run()


def test_recipe_learns_and_reports(finished):
    recipe, result = finished
    metrics = [json.loads(line) for line in (recipe.out / "metrics.jsonl").read_text().splitlines()]
    curve = [line["eval_negative_elbo"] for line in metrics if "eval_negative_elbo" in line]
    assert len(curve) == 4
    # 64 pixels at chance cost 44 nats.
    assert curve[0] > 40
    assert result["validation_negative_elbo"] == pytest.approx(curve[-1])
    assert result["test_negative_elbo"] < 30
    assert result["evaluations"] == 4
    assert set(result["encoder_variance"]) == {
        "arsm",
        "rloo_2",
        "rloo_7",
        "rebar",
        "gumbel_straight_through",
    }
    assert result["encoder_variance"]["arsm"]["evaluations"] == 7
    assert all(one["variance"] > 0 for one in result["encoder_variance"].values())
    for name in ("reconstructions.png", "curve.png"):
        assert (recipe.out / name).stat().st_size > 1000


@pytest.mark.parametrize("name", ["arsm", "gumbel_straight_through", "rebar"])
def test_other_estimators_learn_too(name, sets):
    recipe = dataclasses.replace(SMALL, method=name)
    coder, state = make_model(recipe, sets[0])
    loss = negative_elbo(coder, make_estimator(name))
    step = make_step(loss, recipe.optimizer, batch=recipe.batch)

    @jax.jit
    def run(state):
        keys = jax.random.split(jax.random.key(0), 300)
        return jax.lax.scan(lambda state, key: step(state, key, sets[0]), state, keys)

    trained, metrics = run(state)
    assert all_finite(metrics)
    before = np.asarray(state.parameters["encoder"][0]["kernel"][...])
    assert np.abs(trained.parameters["encoder"][0]["kernel"][...] - before).max() > 0.01
    assert make_measure(coder)(trained.parameters, sets[1]) < 31


@functools.cache
def small_network():
    """Two variables of three classes: network and initial parameters."""
    return make_coder(64, (8,), (2, 3), seed=0)


def test_elbo_of_a_known_network(sets):
    coder, parameters = small_network()
    codes = np.array(list(itertools.product(range(3), repeat=2)))

    @jax.jit
    def run(parameters, images):
        images, keys = binarise(images), jax.random.split(jax.random.key(2), 4)
        logits = coder.encode(parameters, images)
        expected = expected_reconstruction(coder, Enumeration(), parameters)
        losses, divergence = (
            jax.vmap(expected)(keys, images, logits),
            divergence_from_uniform(logits),
        )
        decoded = coder.decode(parameters, jax.nn.one_hot(codes, 3))
        return images, logits, losses, divergence, decoded

    images, logits, expected, divergence, decoded = jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float64), run(parameters, sets[0][0][:4])
    )
    assert set(images.ravel()) == {0, 1}
    assert logits.shape == (4, 2, 3)
    # By hand: all nine codes, each weighed by its probability.
    q = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    total = np.zeros(4)
    for (a, b), logit in zip(codes, decoded, strict=True):
        log_p = -np.log1p(np.exp(-np.where(images == 1, logit, -logit))).sum(1)
        total -= q[:, 0, a] * q[:, 1, b] * log_p
    assert_close(expected, total, rtol=1e-5)
    assert_close(divergence, (q * (np.log(q) - np.log(1 / 3))).sum((1, 2)), rtol=1e-4)


def test_divergence_is_zero_at_uniform_and_log_c_at_certainty():
    assert float(divergence_from_uniform(jnp.zeros((2, 5)))) == pytest.approx(0, abs=1e-6)
    certain = jnp.eye(5)[:2] * 1e4
    assert float(divergence_from_uniform(certain)) == pytest.approx(2 * np.log(5), rel=1e-5)


def test_gradients_are_those_of_the_exact_loss_on_average(sets):
    coder, parameters = small_network()
    images = sets[0][0][:4]
    exact = jax.jit(jax.grad(negative_elbo(coder, Enumeration())))(
        parameters, jax.random.key(0), images
    )
    loss = negative_elbo(coder, RLOO(4))
    keys = jax.random.split(jax.random.key(1), 3000)
    draws = jax.jit(jax.vmap(lambda key: jax.grad(loss)(parameters, key, images)))(keys)
    for part in ("encoder", "decoder"):
        for layer in exact[part]:
            wanted = exact[part][layer]["bias"][...]
            drawn = np.asarray(draws[part][layer]["bias"][...])
            error = drawn.std(0) / len(keys) ** 0.5
            assert (np.abs(drawn.mean(0) - wanted) < 5 * error + 1e-4).all()


def test_more_samples_lower_the_encoders_variance(sets):
    coder, parameters = small_network()
    few, many = (
        make_encoder_variance(coder, RLOO(count))(parameters, sets[0][0][:20]) for count in (2, 12)
    )
    assert many < few / 3


def test_reconstruction_is_finite_for_great_logits():
    assert reconstruction_loss(jnp.array([1e4, -1e4]), jnp.array([1.0, 0.0])) == 0
    assert reconstruction_loss(jnp.array([1e4, -1e4]), jnp.array([0.0, 1.0])) == 2e4


def test_estimators_by_name():
    assert make_estimator("rloo", num_samples=7) == RLOO(7)
    assert all(make_estimator(name) == one for name, one in ESTIMATORS.items())


def test_state_starts_unshuffled(sets):
    _, parameters = small_network()
    state = start_state(parameters, SMALL.optimizer, 10)
    assert state.order.tolist() == list(range(10))
    assert state.count == 0


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"method": "rloo", "num_samples": 1}, "num_samples=1"),
        (
            {"method": "without_replacement", "num_samples": 9, "variables": 1, "classes": 4},
            "9 distinct choices",
        ),
    ],
)
def test_samples_that_the_estimator_cannot_draw_are_refused(options, found, tmp_path):
    recipe = dataclasses.replace(SMALL, out=tmp_path / "run", **options)
    assert_names_itself_and_its_cure(recipe.run, found, "", "")
    assert not (tmp_path / "run").exists()
