import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.backprop import CandidateTopK, Memory, TopK, UnifiedTopK
from sparse_hyper_jax.train.data import load_splits
from sparse_hyper_jax.train.data.epochs import to_arrays
from sparse_hyper_jax.train.models.perceptron import make_measure
from sparse_hyper_jax.train.models.sparse_perceptron import make_diagnose
from sparse_hyper_jax.train.recipe import Images
from sparse_hyper_jax.train.recipes.sparse_backprop import (
    SPARSIFIERS,
    SparseBackpropRecipe,
    make_model,
    make_step,
)
from sparse_hyper_jax.train.run_folder import RunFolder
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

from .toy import compiled_once, digest

SMALL = SparseBackpropRecipe(hidden=(32, 32), ratio=0.1, learning_rate=5e-3, quiet=True)


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(tmp_path_factory):
    with compiled_once(tmp_path_factory.mktemp("compiled")):
        yield


@pytest.fixture(scope="module")
def train_set():
    return to_arrays(load_splits("digits", None, seed=0).train)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "run"
    recipe = dataclasses.replace(SMALL, steps=300, out=path)
    return recipe, recipe.run()


def train(recipe, train_set, steps):
    apply, state = make_model(recipe, train_set, classes=10)

    @jax.jit
    def scan(state, keys, train_set):
        step = make_step(recipe, apply)
        return jax.lax.scan(lambda state, key: step(state, key, train_set), state, keys)

    keys = jax.random.split(jax.random.key(0), steps)
    return apply, *scan(state, keys, train_set)


def memories(state):
    return jax.tree.leaves(state.slots, is_leaf=lambda node: isinstance(node, Memory))


def test_run_learns_and_reports_its_figures(finished):
    recipe, result = finished
    assert result["test_accuracy"] > 0.7
    assert result["validation_accuracy"] > 0.7
    assert 0 < result["best_step"] <= result["steps"] == 300
    assert 0 < result["cosine"] < 1
    assert 0 < result["units_used"] <= 1
    assert {"method", "ratio", "memory", "hidden", "optimizer", "data", "seed"} <= set(result)
    assert json.loads((recipe.out / "result.json").read_text()) == result


def test_run_leaves_its_files(finished):
    recipe, result = finished
    names = {entry.name for entry in recipe.out.iterdir()}
    assert {"config.json", "metrics.jsonl", "result.json", "training.png", "best.npz"} <= names
    lines = RunFolder(recipe.out).metrics()
    assert [line["step"] for line in lines] == list(range(0, 301, 25))
    accuracy = {line["step"]: line["eval_accuracy"] for line in lines}
    assert max(accuracy.values()) == accuracy[result["best_step"]] == result["validation_accuracy"]
    assert lines[0]["eval_accuracy"] < result["validation_accuracy"]


def test_it_compares_with_the_dense_gradient_as_often_as_asked(tmp_path):
    recipe = dataclasses.replace(SMALL, steps=30, evaluate_every=10, out=tmp_path / "run")
    recipe.run()
    lines = RunFolder(recipe.out).metrics()
    assert [line["step"] for line in lines] == [0, 10, 20, 30]
    for line in lines:
        assert 0 < line["eval_cosine"] < 1
        assert line["eval_norm_ratio"] > 0
    used = [line["eval_units_used"] for line in lines]
    assert used[0] == 0
    assert used == sorted(used)


def hidden_kernels(state):
    return [np.asarray(layer["kernel"][...]) for layer in state.parameters["hidden"].values()]


@pytest.mark.parametrize("method", [*SPARSIFIERS, "dense", "error-feedback"])
def test_every_selection_trains_the_hidden_layers(method, train_set):
    memory = 0.0 if method in ("random-rescaled", "importance") else 0.8
    recipe = dataclasses.replace(SMALL, method=method, memory=memory, ratio=0.25)
    apply, start = make_model(recipe, train_set, classes=10)
    _, state, log = train(recipe, train_set, 60)
    assert np.mean(log["loss"][-10:]) < 0.8 * np.mean(log["loss"][:5])
    for before, after in zip(hidden_kernels(start), hidden_kernels(state), strict=True):
        assert np.mean(before != after) > 0.1
        assert np.abs(after - before).max() > 0.01
    if method in SPARSIFIERS:
        assert (
            make_diagnose(apply, recipe.batch)(state.parameters, state.slots, train_set)["cosine"]
            > 0.1
        )
    assert len(memories(state)) == (2 if method in SPARSIFIERS else 0)
    for memory in memories(state):
        assert memory.uses == 1
        assert (memory.peak is not None) == method.startswith("adaptive")


def test_error_feedback_changes_few_weights_of_hidden_layers(train_set):
    recipe = dataclasses.replace(SMALL, method="error-feedback", optimizer="sgd", ratio=0.1)
    apply, state = make_model(recipe, train_set, classes=10)
    following, _ = jax.jit(make_step(recipe, apply))(state, jax.random.key(0), train_set)
    for before, after in zip(hidden_kernels(state), hidden_kernels(following), strict=True):
        assert 0 < np.mean(before != after) <= 0.1 + 1e-3
    last, moved = (np.asarray(one.parameters["last"]["kernel"][...]) for one in (state, following))
    assert np.mean(last != moved) > 0.5


def test_sgd_follows_the_gradient(train_set):
    recipe = dataclasses.replace(SMALL, method="dense", optimizer="sgd", learning_rate=0.5)
    apply, state = make_model(recipe, train_set, classes=10)
    following, log = jax.jit(make_step(recipe, apply))(state, jax.random.key(0), train_set)
    chosen = np.asarray(following.order)[: recipe.batch]
    images, labels = (np.asarray(array)[chosen] for array in train_set)

    def loss_of(parameters):
        scores = jax.nn.log_softmax(apply(parameters, state.slots, images, None))
        return -jnp.mean(scores[jnp.arange(recipe.batch), labels])

    loss, gradient = jax.jit(jax.value_and_grad(loss_of))(state.parameters)
    assert_close(log["loss"], loss)
    expected = jax.tree.map(
        lambda one, two: np.asarray(one) - 0.5 * np.asarray(two), state.parameters, gradient
    )
    assert_close(following.parameters, expected, atol=1e-5)


def test_an_epoch_shows_every_image_at_most_once(train_set):
    recipe = dataclasses.replace(SMALL, method="dense")
    apply, state = make_model(recipe, train_set, classes=10)
    step = jax.jit(make_step(recipe, apply))
    orders = []
    for number in range(26):
        state, _ = step(state, jax.random.key(number), train_set)
        orders.append(np.asarray(state.order))
    assert all(np.array_equal(orders[0], order) for order in orders[:25])
    assert not np.array_equal(orders[0], orders[25])
    for order in (orders[0], orders[25]):
        assert np.array_equal(np.sort(order), np.arange(len(train_set[0])))


def test_no_memory_is_no_residue(train_set):
    recipe = dataclasses.replace(SMALL, memory=0.0)
    _, state = make_model(recipe, train_set, classes=10)
    assert [memory.residue for memory in memories(state)] == [None, None]
    _, state = make_model(SMALL, train_set, classes=10)
    assert [memory.residue.shape for memory in memories(state)] == [(50, 32)] * 2


def test_full_budget_is_the_dense_network(train_set):
    full = dataclasses.replace(SMALL, ratio=1.0)
    apply, state, log = train(full, train_set, 30)
    dense = train(dataclasses.replace(SMALL, method="dense"), train_set, 30)
    assert_close(log["loss"], dense[2]["loss"], rtol=1e-3, atol=1e-3)
    figures = make_diagnose(apply, full.batch)(state.parameters, state.slots, train_set)
    assert_close(figures, {"cosine": 1.0, "norm_ratio": 1.0, "units_used": 1.0}, rtol=1e-4)


def test_diagnosis_leaves_the_state_alone_and_sees_what_is_missing(train_set):
    apply, state, _ = train(SMALL, train_set, 30)
    before = digest(state)
    figures = make_diagnose(apply, SMALL.batch)(state.parameters, state.slots, train_set)
    assert digest(state) == before
    assert 0 < figures["cosine"] < 0.99
    assert figures["units_used"] < 1


def test_measure_is_the_share_of_right_answers(train_set):
    apply, state = make_model(SMALL, train_set, classes=10)
    images, labels = train_set
    right = np.argmax(apply(state.parameters, state.slots, images, None), axis=1) == labels
    measure = make_measure(lambda parameters, images: apply(parameters, state.slots, images, None))
    assert measure(state.parameters, train_set) == pytest.approx(right.mean())


@pytest.mark.parametrize(
    ("options", "sparsifier"),
    [
        ({"method": "row"}, TopK(0.1)),
        ({"method": "unified"}, UnifiedTopK(0.1)),
        ({"method": "candidates"}, CandidateTopK(0.1)),
        ({"method": "unified", "ratio": 1}, UnifiedTopK(1.0)),
        ({"method": "dense"}, None),
    ],
)
def test_selection_names_a_sparsifier(options, sparsifier):
    assert dataclasses.replace(SMALL, **options).sparsifier == sparsifier


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hidden": ()}, ("--hidden without a layer", "at least one", "--hidden")),
        ({"method": "importance"}, ("--method importance", "grow without bound", "--memory 0")),
    ],
)
def test_nonsense_is_refused(tmp_path, options, words):
    recipe = dataclasses.replace(SMALL, out=tmp_path / "run", **options)
    assert_names_itself_and_its_cure(recipe.run, *words)
    assert not (tmp_path / "run").exists()


def test_by_default_it_trains_for_twenty_epochs_and_validates_after_each(train_set):
    images = Images(train_set, train_set, train_set, 10)
    settled = SparseBackpropRecipe(batch=100).settle(images)
    assert (settled.steps, settled.evaluate_every, settled.learning_rate) == (240, 12, 1e-3)
