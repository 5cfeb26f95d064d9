import dataclasses
import functools
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.ops import ContinuousTuples, invert_means, round_means
from sparse_hyper_jax.train.models.sampled_matrix import LOSSES, relaxed_loss
from sparse_hyper_jax.train.recipes.identity import (
    IdentityRecipe,
    IdentityState,
    initial_state,
    make_step,
    measure,
    move_surplus,
    optimizer_of,
)
from sparse_hyper_jax.train.run_folder import RunFolder
from tests.ops.examples import all_finite, assert_close, assert_names_itself_and_its_cure

from .toy import compiled_once


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(tmp_path_factory):
    with compiled_once(tmp_path_factory.mktemp("compiled")):
        yield


MOVING = IdentityRecipe(size=4, num_global=60)
WRONG_TOO = dataclasses.replace(MOVING, move_wrong=True, relocation_batches=8, moved_spread=-4.0)
move_jit = jax.jit(functools.partial(move_surplus, MOVING))
move_wrong_jit = jax.jit(functools.partial(move_surplus, WRONG_TOO))


def settled_state(recipe, cells):
    """Tuples that have settled on given cells, with moments that push them about."""
    state = initial_state(recipe)
    shape = (recipe.size, recipe.size)
    parameters = {
        "means": invert_means(jnp.asarray(cells, jnp.float32), shape),
        "spreads": jnp.full(recipe.size, -12.0),
    }
    moments = jax.tree.map(lambda leaf: leaf + 1 if leaf.ndim else leaf, state.optimizer)
    return IdentityState(parameters, moments, state.count)


def cells_of(recipe, state):
    tuples = recipe.tuples(state.parameters)
    return [tuple(cell) for cell in round_means(tuples.means, (recipe.size,) * 2).tolist()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("identity") / "run"
    result = IdentityRecipe(size=8, steps=2000, out=path, quiet=True).run()
    return path, result


def test_run_finds_every_cell(finished):
    _, result = finished
    assert result["test_cells_found"] == 8
    assert result["test_mse"] < 1e-6


def test_run_leaves_its_files(finished):
    path, _ = finished
    names = {entry.name for entry in path.iterdir()}
    assert {
        "config.json",
        "metrics.jsonl",
        "result.json",
        "tuples.png",
        "snapshots",
        "checkpoints",
    } <= names
    assert (path / "tuples.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((path / "config.json").read_text())["fields"]["size"] == 8
    assert any((path / "checkpoints").iterdir())


def test_run_records_its_way(finished):
    path, result = finished
    lines = RunFolder(path).metrics()
    assert [line["step"] for line in lines] == list(range(0, 2001, 100))
    curve = [line["eval_mse"] for line in lines]
    # Eight ones on random cells give about 2, an empty matrix 1.
    assert curve[0] > 0.5
    assert curve[-1] == result["test_mse"]
    assert [line["eval_cells_found"] for line in lines][-1] == 8
    assert lines[-1]["loss"] < 0.01 * lines[1]["loss"]


def test_snapshots_are_the_tuples_at_every_evaluation(finished):
    path, result = finished
    files = sorted((path / "snapshots").iterdir())
    assert [file.name for file in files] == [f"{step:08d}.npz" for step in range(0, 2001, 100)]
    with np.load(files[0]) as first, np.load(files[-1]) as last:
        recipe = IdentityRecipe(size=8)
        drawn = recipe.tuples(initial_state(recipe).parameters)._asdict()
        assert_close({name: first[name] for name in drawn}, drawn)
        tuples = ContinuousTuples(*(jnp.asarray(last[name]) for name in ContinuousTuples._fields))
    figures = measure(tuples)
    assert figures == {"mse": result["test_mse"], "cells_found": 8}
    assert tuples.variances.max() < 0.1


@pytest.mark.parametrize("method", ["hyperlayer", "reinforce"])
def test_steps_are_pure_and_change_all_parameters(method):
    recipe = IdentityRecipe(size=4, method=method, relocate_every=0, batch=8)
    state = initial_state(recipe)
    run = jax.jit(lambda state, keys: jax.lax.scan(make_step(recipe), state, keys))
    keys = jax.random.split(jax.random.key(1), 5)
    (after, metrics), (again, _) = run(state, keys), run(state, keys)
    assert_close(after, again, rtol=0, atol=0)
    assert int(after.count) == 5
    assert metrics["loss"].shape == (5,)
    assert all_finite((after, metrics))
    for name in ("means", "spreads"):
        assert (after.parameters[name] != state.parameters[name]).all()


def test_steps_are_traced_once():
    recipe = IdentityRecipe(size=4, batch=8)
    step = jax.jit(chex.assert_max_traces(make_step(recipe), 1))
    state = initial_state(recipe)
    for number in range(5):
        state, _ = step(state, jax.random.key(number))
    assert int(state.count) == 5


@pytest.mark.parametrize(("size", "rate"), [(8, 0.005), (128, 0.005), (256, 0.0025)])
def test_means_of_many_tuples_learn_more_slowly(size, rate):
    optimizer = optimizer_of(IdentityRecipe(size=size))
    gradient = {"means": jnp.array([1.0, -2.0, 3.0]), "spreads": jnp.array([1.0, 5.0])}
    updates, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
    assert_close(updates["means"], [-rate, rate, -rate], rtol=1e-3)
    assert_close(updates["spreads"], [-0.005, -0.005], rtol=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_settled_tuples_are_the_error_of_their_matrix(name):
    recipe = IdentityRecipe(size=4, method=name)
    parameters = settled_state(recipe, [(0, 0), (1, 1), (2, 2), (2, 2)]).parameters
    keys = jax.random.split(jax.random.key(0), 20)
    values = jax.jit(jax.vmap(lambda key: LOSSES[name](recipe, key, parameters)))(keys)
    # The missing cell costs 1/4 and so does the doubled one; of 20 * 64 squared normal numbers in
    # each the standard error is 4 per cent.
    assert abs(values.mean() - 0.5) < 0.08


def test_groups_with_samples_of_their_own_have_the_same_expectation():
    keys = jax.random.split(jax.random.key(0), 400)
    outcomes = []
    for groups in (1, 4):
        recipe = IdentityRecipe(size=4, batch=8, sample_groups=groups)
        parameters = initial_state(recipe).parameters
        loss = jax.jit(jax.vmap(lambda key, r=recipe, p=parameters: relaxed_loss(r, key, p)))
        outcomes.append(np.asarray(loss(keys)))
    one, four = outcomes
    assert not np.allclose(one, four)
    error = np.hypot(one.std(), four.std()) / np.sqrt(400)
    assert abs(one.mean() - four.mean()) < 4 * error
    assert error < 0.05 * one.mean()


def test_a_surplus_tuple_moves_to_the_missing_cell_and_starts_afresh():
    state = settled_state(MOVING, [(0, 0), (1, 1), (1, 1), (3, 3)])
    moved = move_jit(jax.random.key(0), state)
    assert cells_of(MOVING, moved) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert moved.parameters["spreads"].tolist() == [-12.0, -12.0, 0.0, -12.0]
    for before, after in zip(
        jax.tree.leaves(state.optimizer), jax.tree.leaves(moved.optimizer), strict=True
    ):
        if before.ndim:
            assert (after[2] == 0).all()
            np.testing.assert_array_equal(np.delete(after, 2, 0), np.delete(before, 2, 0))
        else:
            assert before == after


def test_a_tuple_on_a_wrong_cell_moves_where_that_is_asked_for():
    state = settled_state(MOVING, [(0, 0), (1, 1), (2, 3), (3, 3)])
    assert_close(move_jit(jax.random.key(0), state), state, rtol=0, atol=0)
    moved = move_wrong_jit(jax.random.key(0), state)
    assert cells_of(MOVING, moved) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert moved.parameters["spreads"].tolist() == [-12.0, -12.0, -4.0, -12.0]


@pytest.mark.parametrize("move", [move_jit, move_wrong_jit])
def test_nothing_moves_from_the_solution(move):
    state = settled_state(MOVING, [(place, place) for place in range(4)])
    moved = move(jax.random.key(0), state)
    assert_close(moved, state, rtol=0, atol=0)


@pytest.mark.parametrize(("every", "moves"), [(0, [False] * 4), (3, [False, False, True, True])])
def test_tuples_move_when_due(every, moves):
    recipe = dataclasses.replace(MOVING, relocate_every=every, learning_rate=1e-6)
    state = settled_state(recipe, [(0, 0), (1, 1), (1, 1), (3, 3)])
    step, found = jax.jit(make_step(recipe)), []
    for key in jax.random.split(jax.random.key(1), 4):
        state, _ = step(state, key)
        found.append((2, 2) in cells_of(recipe, state))
    assert found == moves


@pytest.mark.parametrize(
    ("cells", "found", "mse"),
    [
        ([(0, 0), (1, 1), (2, 2), (3, 3)], 4, 0.0),
        ([(0, 0), (1, 1), (2, 2), (2, 2)], 3, 0.5),
        ([(0, 1), (1, 1), (2, 2), (3, 3)], 3, 0.5),
        ([(0, 1), (1, 2), (2, 3), (3, 0)], 0, 2.0),
    ],
)
def test_measure_counts_cells_and_errors(cells, found, mse):
    tuples = ContinuousTuples(jnp.asarray(cells, jnp.float32), jnp.full((4, 2), 0.1), jnp.ones(4))
    figures = measure(tuples)
    assert figures["cells_found"] == found
    # A mean over 10,000 squared normal numbers per row: 4 standard errors are below 4 per cent.
    assert_close(figures["mse"], mse, rtol=0.04)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"sample_groups": 3}, "--batch 64 --sample-groups 3"),
        ({"chunk_size": 5}, "--chunk-size 5 --size 32"),
        ({"move_wrong": True}, "--move-wrong --relocation-batches 1"),
        ({"method": "arm"}, "--method arm --num-global 4 --num-local 4"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_folder_is_made(options, found, tmp_path):
    recipe = IdentityRecipe(**options, out=tmp_path / "run", quiet=True)
    assert_names_itself_and_its_cure(recipe.run, found, "", "")
    assert not (tmp_path / "run").exists()


def test_recipes_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        IdentityRecipe().size = 4
