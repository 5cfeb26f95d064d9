from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sparse_hyper_jax.train.recipes.canvases import PART, load_canvases

from sparse_hyper_jax.nn.glimpse_classifiers import MODELS
from sparse_hyper_jax.train.recipes import glimpse
from sparse_hyper_jax.train.recipes.glimpse import GlimpseRecipe, make_model, make_step
from tests.train.killing import assert_ends_the_same

SMALL = GlimpseRecipe(steps=20, batch=4, canvas=28, features=16, head="mlp", quiet=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    recipe = replace(SMALL, steps=1100, batch=2, out=tmp_path_factory.mktemp("run") / "run")
    return recipe, recipe.run()


def test_a_run_reports_all_errors_and_draws(finished):
    recipe, result = finished
    for part in ("train", "validation", "test"):
        assert 0 <= result[f"{part}_error"] <= 1
    assert result["canvas"] == 28
    assert 0 < result["deviation"] < 28
    assert (recipe.out / "glimpses.png").exists()


def test_killed_and_resumed_run_ends_the_same(finished, tmp_path, monkeypatch):
    assert_ends_the_same(glimpse, finished, tmp_path, monkeypatch, step=1000)


def test_rotated_digits():
    canvases = load_canvases(replace(SMALL, rotated=True, warp=0.0))
    images, labels = canvases.draw(jax.random.key(0), canvases.parts["train"], 2)
    assert images.shape == (2, 28, 28)
    assert labels.shape == (2,)


@pytest.mark.parametrize("model", MODELS)
def test_the_loss_reaches_every_parameter(model):
    few = {"num_global": 1, "num_local": 1} if model in ("affine", "quad") else {}
    several = {"head": "conv"} if model == "conv" else {"glimpses": 2}
    recipe = replace(SMALL, model=model, **few, **several)
    canvases = load_canvases(recipe)
    apply, state = make_model(recipe, canvases)
    step = jax.jit(make_step(recipe, canvases, apply))
    # The schedule starts at zero and the last layers too: it takes some steps to reach the first.
    after = state
    for number in range(4):
        after, metrics = step(after, jax.random.key(number), canvases.parts["train"])
        assert np.isfinite(metrics["loss"])
    moved = jax.tree.map(
        lambda a, b: float(jnp.abs(a - b).max()), state.parameters, after.parameters
    )
    assert all(0 < leaf < 1 for leaf in jax.tree.leaves(moved))


def test_evaluation_shows_fixed_images_of_one_part_only():
    canvases = load_canvases(SMALL)
    shown = {}
    for part, size in (("train", 1200), ("validation", 200), ("test", 300)):
        labels = canvases.over(canvases.parts[part], lambda images, labels: labels)
        assert labels.shape == (size // PART, PART)
        # Every source image once at most: the classes are those of the part.
        counts = np.bincount(np.asarray(labels).ravel(), minlength=10)
        expected = np.asarray(canvases.parts[part].counts)
        np.testing.assert_allclose(counts, expected * size / expected.sum(), atol=1)
        first, second = (
            canvases.over(canvases.parts[part], lambda images, labels: images) for _ in range(2)
        )
        np.testing.assert_array_equal(first, second)
        shown[part] = np.asarray(canvases.parts[part].images)
    train = np.asarray(canvases.parts["train"].images)
    known = {image.tobytes() for image in train}
    assert len(train) == 1297
    # A handful of bundled digits are equal to the bit; nothing else is shared.
    assert sum(image.tobytes() in known for image in shown["test"]) <= 3


def test_training_images_differ_from_step_to_step():
    canvases = load_canvases(replace(SMALL, warp=0.0))
    draws = [canvases.draw(jax.random.key(n), canvases.parts["train"], 8) for n in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0][0], draws[1][0])
    assert not np.array_equal(draws[0][0], draws[2][0])
    assert draws[0][0].shape == (8, 28, 28)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"data": "mnist"}, "data='mnist' without a folder"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"variance_rate": -1.0}, "variance_rate=-1.0"),
        ({"glimpses": 0}, "glimpses=0"),
        ({"warp": -1.0}, "warp=-1.0"),
        ({"canvas": 7}, "canvas=7 for digits of 16 pixels"),
        ({"canvas": 300}, "canvas=300"),
        ({"window": 0}, "window=0"),
        ({"model": "reinforce", "batch": 1}, "batch=1 with model='reinforce'"),
        ({"model": "affine", "reader": "upright"}, "reader='upright' with grid='affine'"),
        ({"model": "conv"}, "head='mlp' with model='conv'"),
        ({"model": "stn", "num_local": 1}, "num_local=1 with model='stn'"),
        ({"draws": "pixel"}, "draws='pixel' with reader='upright'"),
        ({"rotated": True, "distractor_size": 4}, "distractor_size=4 with rotated=True"),
        ({"distractor_size": 50}, "distractor_size=50"),
        ({"distractors": -1}, "distractors=-1"),
    ],
)
def test_wrong_options(wrong, found, tmp_path):
    with pytest.raises(ValueError, match="found " + found):
        replace(SMALL, **wrong, out=tmp_path / "run").run()
    assert not (tmp_path / "run").exists()
