from dataclasses import replace

import jax
import numpy as np
import pytest

from sparse_hyper_jax.nn.glimpse_models import MODELS
from sparse_hyper_jax.train.data.canvases import PART
from sparse_hyper_jax.train.recipes.glimpse import GlimpseRecipe, deviations, make_model, make_step
from tests.ops.examples import assert_names_itself_and_its_cure

SMALL = GlimpseRecipe(steps=20, batch=4, canvas=28, width=16, head="mlp", quiet=True)


def test_rotated_digits():
    canvases = replace(SMALL, rotated=True, warp=0.0).load()
    images, labels = canvases.draw(jax.random.key(0), canvases.parts["train"], 2)
    assert images.shape == (2, 28, 28)
    assert labels.shape == (2,)


@pytest.mark.parametrize("options", [{}, {"rotated": True}, {"warped": "digit"}])
def test_coloured_images_have_three_channels_that_are_warped_alike(options):
    canvases = replace(SMALL, coloured=True, distractors=0, warp=1.0, **options).load()
    images, _ = canvases.draw(jax.random.key(0), canvases.parts["train"], 3)
    assert images.shape == (3, 28, 28, 3)
    assert canvases.channels == 3
    # One digit of one colour: all pixels are multiples of it, the largest channel of which is 1.
    for image in np.asarray(images):
        colour = image.sum(axis=(0, 1)) / image.sum(axis=(0, 1)).max()
        np.testing.assert_allclose(image, image.max(axis=-1, keepdims=True) * colour, atol=1e-5)
        assert colour.min() < 0.99


def test_a_place_that_is_given_is_that_of_the_digit():
    rows = np.arange(0, 200, 40, dtype=np.int32)
    for window, margin, coloured in ((16, 0, False), (20, 2, False), (16, 0, True)):
        recipe = replace(SMALL, method="given", canvas=30, window=window, distractors=0)
        recipe = replace(recipe, coloured=coloured)
        canvases = recipe.load()
        source = canvases.parts["test"]
        images, labels = canvases.make(jax.random.key(0), source, rows)
        if coloured:
            assert images.shape == (5, window, window, 3)
            images = images.max(axis=-1)
        assert images.shape == (5, window, window)
        assert (recipe.settle(canvases).canvas, canvases.window) == (30, window)
        expected = np.asarray(source.images)[rows]
        # At an edge of the canvas a larger window moves inwards, with the digit still whole.
        np.testing.assert_allclose(images.sum(axis=(1, 2)), expected.sum(axis=(1, 2)), rtol=1e-5)
        if not (margin or coloured):
            np.testing.assert_array_equal(images, expected)
        assert labels.shape == (5,)


@pytest.mark.parametrize(("size", "scored"), [(1, 1), (99, 99), (199, 198), (250, 249), (300, 300)])
def test_nearly_all_images_are_scored(size, scored):
    only = replace(SMALL.load(), make=lambda key, source, rows: (rows, rows))
    rows = np.asarray(only.over(np.zeros(size), lambda images, labels: images)).ravel()
    assert rows.size == scored
    np.testing.assert_array_equal(rows, np.arange(scored) * size // scored)


def test_windows_miss_by_what_is_asked_for():
    options = {"method": "given", "canvas": 200, "window": 28, "distractors": 0, "missed": 2.0}
    canvases = replace(SMALL, **options).load()
    source, rows = canvases.parts["train"], np.arange(0, 1000, 4, dtype=np.int32)
    make = jax.jit(canvases.make)
    images, again = (np.asarray(make(jax.random.key(0), source, rows)[0]) for _ in range(2))
    np.testing.assert_array_equal(images, again)
    tried = np.stack(np.meshgrid(*(np.arange(13),) * 2, indexing="ij"), -1).reshape(-1, 2)
    seen = np.stack([images[:, row : row + 16, column : column + 16] for row, column in tried], 1)
    found = (seen == np.asarray(source.images)[rows][:, None]).all(axis=(2, 3))
    assert (found.sum(axis=1) <= 1).all()
    assert found.any(axis=1).mean() > 0.95  # of others the window has lost a part
    lost = 6 - tried[found.argmax(axis=1)[found.any(axis=1)]]
    assert (np.abs(lost.mean(axis=0)) < 0.5).all()
    assert ((lost.std(axis=0) > 1.6) & (lost.std(axis=0) < 2.4)).all()
    drawn = np.asarray(jax.jit(canvases.draw, static_argnums=2)(jax.random.key(0), source, 8)[0])
    assert drawn.shape == (8, 28, 28)


def test_warps_of_digits_leave_the_pieces_of_others_as_they_are():
    few = {"canvas": 40, "distractors": 1}
    plain, digit, image = (
        replace(SMALL, **few, **warps).load()
        for warps in ({"warp": 0.0}, {"warp": 1.0, "warped": "digit"}, {"warp": 1.0})
    )
    drawn = [
        np.asarray(one.draw(jax.random.key(0), one.parts["train"], 8)[0])
        for one in (plain, digit, image)
    ]
    lit = [(one > 0).any(axis=(1, 2)) for one in drawn]
    assert all(one.all() for one in lit)
    # Pixels of the pieces are those of the source; a warp of the image moves them too.
    kept = [np.mean((drawn[0] > 0) & (drawn[0] == other)) for other in drawn[1:]]
    changed = [np.mean(drawn[0] != other) for other in drawn[1:]]
    assert 0 < changed[0] < 16 * 16 / 40**2
    assert changed[1] > changed[0]
    assert kept[0] > kept[1]


@pytest.mark.parametrize("model", [*MODELS, "given"])
def test_the_loss_reaches_every_parameter(model):
    few = {"num_global": 1, "num_local": 1} if model in ("affine", "quad") else {}
    several = {"head": "conv"} if model == "conv" else {"glimpses": 2}
    coloured = model in ("quad", "stn", "given")
    recipe = replace(SMALL, method=model, coloured=coloured, **few, **several)
    canvases = recipe.load()
    apply, state = make_model(recipe, canvases)
    step = jax.jit(make_step(recipe, canvases, apply))
    # The schedule starts at zero and the last layers too: it takes some steps to reach the first.
    after = state
    for number in range(4):
        after, metrics = step(after, jax.random.key(number), canvases.parts["train"])
        assert np.isfinite(metrics["loss"])
    moved = jax.tree.map(
        lambda a, b: np.abs(np.asarray(a) - b).max(), state.parameters, after.parameters
    )
    assert all(0 < leaf < 1 for leaf in jax.tree.leaves(moved))


def test_evaluation_shows_fixed_images_of_one_part_only():
    canvases = SMALL.load()
    shown = {}
    for part, size in (("train", 13 * 99), ("validation", 200), ("test", 300)):
        labels = canvases.over(canvases.parts[part], lambda images, labels: labels)
        assert labels.size == size
        assert labels.shape[1] <= PART
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
    canvases = replace(SMALL, warp=0.0).load()
    draws = [canvases.draw(jax.random.key(n), canvases.parts["train"], 8) for n in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0][0], draws[1][0])
    assert not np.array_equal(draws[0][0], draws[2][0])
    assert draws[0][0].shape == (8, 28, 28)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"canvas": 7}, "--canvas 7 for digits of 16 pixels"),
        ({"canvas": 300}, "--canvas 300"),
        ({"method": "reinforce", "batch": 1}, "--batch 1 --method reinforce"),
        ({"method": "affine", "reader": "upright"}, "--reader upright --method affine"),
        ({"distractor_size": 50}, "distractor_size=50"),
        ({"method": "given", "width": 128, "rotated": True}, "--method given --rotated"),
        ({"missed": 1.0}, "--missed 1.0"),
        ({"method": "given", "width": 128, "window": 29}, "--window 29 cut out of --canvas 28"),
    ],
)
def test_wrong_options(wrong, found, tmp_path):
    recipe = replace(SMALL, **wrong, out=tmp_path / "run")
    assert_names_itself_and_its_cure(recipe.run, found, "", "")
    assert not (tmp_path / "run").exists()


def test_deviations_lie_on_the_canvas_and_are_of_hyperlayers_only():
    canvases = SMALL.load()
    _, state = make_model(SMALL, canvases)
    assert 0 < deviations(SMALL, canvases, state.parameters)["deviation"] < 28
    assert deviations(replace(SMALL, method="stn"), canvases, state.parameters) == {}
