import dataclasses
import json
import shutil

import numpy as np
import pytest

from sparse_hyper_jax.train.checkpoint import Checkpoints
from sparse_hyper_jax.train.models import perceptron
from sparse_hyper_jax.train.recipes import packnet as module
from sparse_hyper_jax.train.recipes.packnet import SPARSITIES, PacknetRecipe
from tests.ops.examples import assert_names_itself_and_its_cure

from .toy import compiled_once

SMALL = PacknetRecipe(tasks=3, hidden=(60,), steps=300, quiet=True)


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(tmp_path_factory):
    with compiled_once(tmp_path_factory.mktemp("compiled")):
        yield


@pytest.fixture(scope="module")
def traced():
    """Shapes of logits, one for every time that a training step is traced."""
    return []


@pytest.fixture(scope="module")
def finished(tmp_path_factory, traced):
    recipe = dataclasses.replace(SMALL, out=tmp_path_factory.mktemp("recipe") / "run")
    original = perceptron.cross_entropy

    def counted(logits, labels):
        traced.append(logits.shape)
        return original(logits, labels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perceptron, "cross_entropy", counted)
        return recipe, recipe.run()


def test_old_tasks_stay_to_the_bit(finished):
    recipe, result = finished
    assert result["unchanged_tasks"] == 3
    assert result["test_accuracy"] == result["test_accuracy_when_learned"] > 0.6
    assert result["share_used"] == sorted(result["share_used"])
    assert 0 < result["share_used"][0] < 1
    assert json.loads((recipe.out / "result.json").read_text()) == result
    names = {entry.name for entry in recipe.out.iterdir()}
    assert {"config.json", "result.json", "tasks.png", "tasks", "tasks-0-0", "tasks-2-0"} <= names


def test_the_checkpoint_tells_what_was_searched(finished):
    recipe, _ = finished
    with Checkpoints(recipe.out / "tasks") as checkpoints:
        assert checkpoints.steps() == [2, 3]
    for line in lines_of(recipe):
        curve = dict(line["curve"])
        assert set(curve) <= {0.0, *SPARSITIES}
        assert curve[line["sparsity"]] >= recipe.target * curve[0.0]
        assert line["share_of_task"] == pytest.approx(1 - line["sparsity"], abs=1e-3)
        assert line["validation_accuracies"][-1] == pytest.approx(curve[line["sparsity"]])


def lines_of(recipe):
    learner = []
    original = module.Learner.start

    def start(self, checkpoints):
        network, lines = original(self, checkpoints)
        learner.extend(lines)
        return network, lines

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.Learner, "start", start)
        dataclasses.replace(recipe, resume=True).run()
    return learner


def test_a_damaged_checkpoint_of_the_last_task_costs_that_task(finished, tmp_path):
    recipe, result = finished
    again = dataclasses.replace(recipe, out=tmp_path / "run", resume=True)
    shutil.copytree(recipe.out, again.out)
    shutil.rmtree(again.out / "tasks" / "3" / "about")
    shutil.rmtree(again.out / "tasks-2-0")
    with pytest.warns(UserWarning, match="damaged checkpoint"):
        resumed = again.run()
    assert resumed["test_accuracy_of_tasks"] == result["test_accuracy_of_tasks"]
    assert resumed["share_used"] == result["share_used"]


def test_tasks_of_another_run_are_not_taken_over(finished, tmp_path):
    recipe, _ = finished
    other = dataclasses.replace(SMALL, alpha=1.0, out=tmp_path / "run")
    shutil.copytree(recipe.out / "tasks", other.out / "tasks")
    assert_names_itself_and_its_cure(other.run, "tasks", "", "--out DIR")
    assert {entry.name for entry in other.out.iterdir()} == {"tasks"}


def test_tasks_of_another_run_do_not_replace_learned_ones(finished, tmp_path):
    recipe, _ = finished
    again = dataclasses.replace(recipe, out=tmp_path / "run", resume=True)
    shutil.copytree(recipe.out, again.out)
    config = json.loads((again.out / "config.json").read_text())
    (again.out / "config.json").write_text(json.dumps(config | {"run": "0" * 16}))
    assert_names_itself_and_its_cure(again.run, "tasks", "", "")


def test_seeds_of_all_tasks_are_seeds():
    dataclasses.replace(SMALL, seed=4_294_966).check()
    wrong = dataclasses.replace(SMALL, seed=4_294_968)
    assert_names_itself_and_its_cure(wrong.check, "--seed 4294968", "up to 4294966", "--seed")


def test_packnet_keeps_tasks_and_takes_a_share_of_what_is_free(tmp_path):
    recipe = dataclasses.replace(
        SMALL, method="packnet", keep=0.5, retrain_steps=100, out=tmp_path / "run"
    )
    result = recipe.run()
    assert result["unchanged_tasks"] == 3
    np.testing.assert_allclose(result["share_used"], [0.5, 0.75, 0.875], atol=1e-3)
    assert (recipe.out / "tasks-1-1").is_dir()


def test_without_protection_tasks_are_forgotten(tmp_path):
    recipe = dataclasses.replace(
        SMALL, method="sequential", alpha=1.0, weight_decay=0.0, out=tmp_path / "run"
    )
    result = recipe.run()
    assert result["unchanged_tasks"] == 1
    assert result["share_used"] == [0, 0, 0]
    assert result["test_accuracy"] < result["test_accuracy_when_learned"] - 0.1


@pytest.mark.usefixtures("finished")
def test_tasks_share_what_is_compiled(traced):
    assert 1 <= len(traced) <= 3
