import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.parameter_paths import is_kernel, selected_leaves
from sparse_hyper_jax.pruning import apply_masks
from sparse_hyper_jax.reparam import powerprop
from sparse_hyper_jax.train.data import load_splits
from sparse_hyper_jax.train.data.epochs import to_arrays
from sparse_hyper_jax.train.models.perceptron import l1_penalty
from sparse_hyper_jax.train.recipes.powerprop import (
    DENSITIES,
    PowerpropRecipe,
    describe_weights,
    make_model,
    make_step,
    one_shot_masks,
    weights_in_use,
)
from sparse_hyper_jax.train.run_folder import RunFolder
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

from .toy import compiled_once

SMALL = PowerpropRecipe(hidden=(40, 20), steps=300, evaluate_every=100, quiet=True)


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


def weights_of(recipe, train_set):
    _, state = make_model(recipe, train_set, classes=10)
    return powerprop(recipe.alpha).to_weights(state.parameters)


def train_seeds(recipe, train_set, seeds, steps):
    """Train copies of a network side by side; give their weights."""
    apply, _ = make_model(recipe, train_set, classes=10)
    states = [
        make_model(dataclasses.replace(recipe, seed=seed), train_set, classes=10)[1]
        for seed in range(seeds)
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    step = make_step(recipe, apply, powerprop(recipe.alpha))

    @jax.jit
    @jax.vmap
    def run(state, key):
        keys = jax.random.split(key, steps)
        state, _ = jax.lax.scan(lambda state, key: step(state, key, train_set), state, keys)
        return weights_in_use(powerprop(recipe.alpha), state)

    trained = run(stacked, jax.random.split(jax.random.key(0), seeds))
    return apply, [jax.tree.map(lambda leaf, s=seed: leaf[s], trained) for seed in range(seeds)]


def test_run_learns_prunes_and_leaves_its_files(finished):
    recipe, result = finished
    assert result["test_accuracy"] > 0.8
    assert result["densities"] == list(DENSITIES)
    pruned = result["pruned_test_accuracy"]
    assert len(pruned) == 20
    assert pruned[-1] == result["test_accuracy"] > pruned[0]
    assert result["sign_flips"] == 0
    assert json.loads((recipe.out / "result.json").read_text()) == result
    names = {entry.name for entry in recipe.out.iterdir()}
    assert {"config.json", "metrics.jsonl", "result.json", "pruning.png"} <= names
    lines = RunFolder(recipe.out).metrics()
    assert [line["step"] for line in lines] == [0, 100, 200, 300]
    assert lines[0]["eval_accuracy"] < lines[-1]["eval_accuracy"] == result["validation_accuracy"]


METHODS = {"static": 1.0, "magnitude": 2.0, "set": 1.0, "rigl": 2.0, "top-kast": 2.0}
"""Each with an alpha; ``--full`` also runs it with the other one."""


@pytest.mark.parametrize(
    ("method", "alpha"),
    [
        *METHODS.items(),
        *(
            pytest.param(name, 3 - alpha, marks=pytest.mark.minutes)
            for name, alpha in METHODS.items()
        ),
    ],
)
def test_sparse_methods_learn_at_the_density_asked_for(method, alpha, tmp_path):
    recipe = dataclasses.replace(
        SMALL, method=method, alpha=alpha, density=0.25, learning_rate=0.3, out=tmp_path / "run"
    )
    result = recipe.run()
    assert result["test_accuracy"] > 0.5
    total = 64 * 40 + 40 * 20 + 20 * 10
    assert result["final_density"] == pytest.approx(0.25, abs=3 / total)
    assert (
        result["density_of_layers"]["head/kernel"] > result["density_of_layers"]["hidden/0/kernel"]
    )
    assert "pruned_test_accuracy" not in result


def test_networks_of_all_alphas_begin_the_same(sets):
    plain = weights_of(dataclasses.replace(SMALL, alpha=1.0), sets[0])
    for alpha in (1.5, 2.0, 5.0):
        assert_close(weights_of(dataclasses.replace(SMALL, alpha=alpha), sets[0]), plain, 1e-5)


def test_one_shot_masks_keep_twice_the_share_in_the_head(sets):
    weights = weights_of(SMALL, sets[0])
    for density, head in ((0.03, 0.06), (0.3, 0.6), (0.7, 1.0)):
        masks = one_shot_masks(weights, density)
        sizes = [int(mask.sum()) for mask in jax.tree.leaves(masks)]
        assert sorted(sizes) == sorted(
            [int(density * 64 * 40 + 1e-9), int(density * 800 + 1e-9), int(head * 200 + 1e-9)]
        )


def test_description_of_weights(sets):
    weights = weights_of(SMALL, sets[0])
    kernels = np.concatenate(
        [np.asarray(leaf).ravel() for leaf in selected_leaves(is_kernel, weights)]
    )
    flipped = jax.tree.map(lambda leaf: -leaf, weights)
    told = describe_weights(flipped, weights)
    assert told["sign_flips"] == pytest.approx(np.mean(kernels != 0))
    assert told["below_0.01"] == pytest.approx(np.mean(np.abs(kernels) < 0.01))
    assert told["typical"] == pytest.approx(np.median(np.abs(kernels)))
    assert l1_penalty(weights, 0.5) == pytest.approx(0.5 * np.abs(kernels).sum(), rel=1e-5)
    assert l1_penalty(weights, 0.0) == 0


def test_adam_learns_in_both_modes_but_differently(sets):
    recipe = dataclasses.replace(SMALL, optimizer="adam", learning_rate=3e-3)
    images, labels = sets[1]
    trained = []
    for adapt_to in ("theta", "weights"):
        apply, (weights,) = train_seeds(
            dataclasses.replace(recipe, adapt_to=adapt_to), sets[0], 1, 200
        )
        assert np.mean(np.argmax(apply(weights, images), axis=1) == labels) > 0.6
        trained.append(weights)
    differences = jax.tree.map(lambda a, b: np.abs(np.asarray(a) - b).max(), *trained)
    assert max(jax.tree.leaves(differences)) > 0.01


def test_powers_make_networks_easier_to_prune_and_so_does_a_penalty(sets):
    """Five seeds each on the bundled digits; standard errors tell the settings apart."""
    images, labels = sets[1]
    means, errors, near_zero = {}, {}, {}
    for name, options in {
        "plain": {"alpha": 1.0},
        "power": {"alpha": 3.0},
        "plain, L1": {"alpha": 1.0, "l1": 2e-3},
    }.items():
        recipe = dataclasses.replace(SMALL, hidden=(100,), learning_rate=0.2, **options)
        apply, seeds = train_seeds(recipe, sets[0], 5, 1000)
        scores = []
        for weights in seeds:
            pruned = apply_masks(weights, one_shot_masks(weights, 0.05))
            scores.append(np.mean(np.argmax(apply(pruned, images), axis=1) == labels))
        means[name], errors[name] = np.mean(scores), np.std(scores, ddof=1) / 5**0.5
        near_zero[name] = [share_near_zero(weights) for weights in seeds]

    def ahead(better, worse):
        return means[better] - means[worse] > 2 * np.hypot(errors[better], errors[worse])

    assert ahead("power", "plain")
    assert ahead("plain, L1", "plain")
    assert min(near_zero["power"]) > 1.5 * max(near_zero["plain"])
    assert min(near_zero["plain, L1"]) > 1.5 * max(near_zero["plain"])


def share_near_zero(weights):
    """Share of the weights below a tenth of their root mean square."""
    leaves = [np.ravel(leaf) for leaf in selected_leaves(is_kernel, weights)]
    size = np.abs(np.concatenate(leaves))
    return np.mean(size < 0.1 * np.sqrt(np.mean(size**2)))


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (
            {"adapt_to": "weights", "weight_decay": 0.1},
            "--weight-decay 0.1 --adapt-to weights",
        ),
        ({"method": "rigl", "grown_size": 5.0}, "--grown-size 5.0"),
        ({"method": "set", "grown_size": 0.0, "alpha": 2.0}, "grown_size=0.0"),
    ],
)
def test_wrong_options(options, found, tmp_path):
    recipe = dataclasses.replace(SMALL, out=tmp_path / "run", **options)
    assert_names_itself_and_its_cure(recipe.run, found, "", "")
    assert not (tmp_path / "run").exists()


def test_defaults_depend_on_the_data_and_the_optimizer():
    for options, steps, rate in (
        ({}, 4_000, 0.1),
        ({"data": "mnist", "optimizer": "adam"}, 50_000, 1e-3),
        ({"steps": 7, "learning_rate": 0.3}, 7, 0.3),
    ):
        settled = PowerpropRecipe(**options).settle(None)
        assert (settled.steps, settled.learning_rate) == (steps, rate)


@pytest.mark.parametrize("method", ["two-of-four", "iterative-two-of-four", "proximal-two-of-four"])
def test_two_of_four_are_left_at_the_end(method, tmp_path):
    recipe = dataclasses.replace(
        SMALL, method=method, alpha=1.0, steps=60, evaluate_every=60, out=tmp_path / "run"
    )
    result = recipe.run()
    assert result["final_density"] == pytest.approx(0.5)
    assert set(result["density_of_layers"].values()) == {0.5}
    assert result["test_accuracy"] > 0.2


def test_proximal_steps_are_those_of_plain_weights():
    recipe = dataclasses.replace(SMALL, method="proximal-two-of-four")
    assert_names_itself_and_its_cure(
        recipe.check, "--method proximal-two-of-four", "the weights themselves", "--alpha 1"
    )
