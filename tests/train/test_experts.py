import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.train.data import load_splits
from sparse_hyper_jax.train.data.epochs import to_arrays
from sparse_hyper_jax.train.recipes.experts import (
    ExpertsRecipe,
    entropy,
    make_measure,
    make_model,
    make_step,
)
from sparse_hyper_jax.train.run_folder import RunFolder
from tests.ops.examples import all_finite

from .toy import compiled_once

SMALL = ExpertsRecipe(
    method="default",
    num_experts=4,
    width=16,
    expert_width=8,
    steps=300,
    evaluate_every=100,
    quiet=True,
)


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(tmp_path_factory):
    with compiled_once(tmp_path_factory.mktemp("compiled")):
        yield


@pytest.fixture(scope="module")
def sets():
    return [to_arrays(part) for part in load_splits("digits", None, seed=0)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    recipe = dataclasses.replace(SMALL, out=tmp_path_factory.mktemp("recipe") / "run")
    return recipe, recipe.run()


def test_run_learns_and_leaves_its_files(finished):
    recipe, result = finished
    assert result["test_accuracy"] > 0.85
    assert result["test_cross_entropy"] < 0.6
    assert len(result["load"]) == 4
    assert sum(result["load"]) == pytest.approx(1)
    assert 0 <= result["load_entropy"] <= np.log(4) + 1e-6
    assert json.loads((recipe.out / "result.json").read_text()) == result
    lines = RunFolder(recipe.out).metrics()
    assert [line["step"] for line in lines] == [0, 100, 200, 300]
    assert lines[0]["eval_accuracy"] < lines[-1]["eval_accuracy"] == result["validation_accuracy"]
    assert lines[-1]["loss"] < lines[1]["loss"]


@pytest.mark.parametrize("router", ["midpoint", "default", "dense"])
def test_every_kind_of_router_learns(router, sets):
    recipe = dataclasses.replace(SMALL, method=router, learning_rate=1e-2)
    apply, state = make_model(recipe, sets[0], 10)
    step = make_step(recipe, apply)

    @jax.jit
    def run(state):
        keys = jax.random.split(jax.random.key(0), 200)
        return jax.lax.scan(lambda state, key: step(state, key, sets[0]), state, keys)

    router_before = np.asarray(state.parameters["mixture"]["router"]["kernel"][...])
    trained, metrics = run(state)
    accuracy, loss, load, _ = make_measure(apply)(trained, sets[1])
    assert accuracy > 0.85
    assert loss < 0.7
    assert load.shape == (4,)
    assert all_finite(metrics)
    after = np.asarray(trained.parameters["mixture"]["router"]["kernel"][...])
    assert np.abs(after - router_before).max() > 0.05
    vectors = jax.tree.leaves(trained.slots)
    assert [float(jnp.abs(one).max()) > 0 for one in vectors] == [True] * (router == "default")


def test_the_balance_loss_spreads_the_load(sets):
    recipe = dataclasses.replace(SMALL, method="top", num_experts=8)
    apply, state = make_model(recipe, sets[0], 10)

    @jax.jit
    def run(state, balance):
        step = make_step(dataclasses.replace(recipe, balance=balance), apply)
        keys = jax.random.split(jax.random.key(0), 300)
        return jax.lax.scan(lambda state, key: step(state, key, sets[0]), state, keys)[0]

    measure = make_measure(apply)
    free, balanced = (entropy(measure(run(state, b), sets[1])[2]) for b in (0.0, 0.3))
    assert balanced > free + 0.1
    assert balanced > 0.8 * np.log(8)


def test_a_bias_spreads_the_load_without_a_loss_and_little_is_dropped(sets):
    recipe = dataclasses.replace(
        SMALL, method="top", num_experts=8, num_chosen=2, capacity_factor=1.5, balance=0.0
    )

    def trained(recipe):
        apply, state = make_model(recipe, sets[0], 10)
        step = make_step(recipe, apply)

        @jax.jit
        def run(state):
            keys = jax.random.split(jax.random.key(0), 300)
            return jax.lax.scan(lambda state, key: step(state, key, sets[0]), state, keys)[0]

        return make_measure(apply)(run(state), sets[1])

    _, _, free, lost = trained(recipe)
    accuracy, _, even, dropped = trained(dataclasses.replace(recipe, bias_rate=0.01))
    assert accuracy > 0.85
    assert entropy(even) > entropy(free) + 0.05
    assert dropped < lost


def test_entropy():
    assert entropy(np.full(4, 0.25)) == pytest.approx(np.log(4))
    assert entropy(np.array([0.0, 1.0, 0.0])) == 0
    assert entropy(np.array([0.5, 0.5, 0.0])) == pytest.approx(np.log(2))
