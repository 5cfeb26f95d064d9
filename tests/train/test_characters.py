"""The recipe characters: its network, its schedules, its windows, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.train.models import transformer as model
from sparse_hyper_jax.train.plots import read_curve
from sparse_hyper_jax.train.run_folder import RunFolder
from tests.ops.examples import assert_names_itself_and_its_cure

from .tiny import tiny

STEPS, CHANGED = 12, 7


@pytest.mark.parametrize("kind", ["pointers", "lags", "window", "dense"])
def test_a_token_changes_nothing_before_it(kind):
    sizes = model.Sizes(5, STEPS, 2, 8, 2, kind, 2, 3, (1, 1))
    build, parameters = model.make_transformer(0, sizes)
    # Pointers that depend on what is read: to begin with they do not.
    drawn = np.random.default_rng(0)
    parameters = jax.tree.map(
        lambda leaf: leaf + jnp.asarray(drawn.normal(size=leaf.shape), leaf.dtype), parameters
    )
    tokens = drawn.integers(0, 5, (2, STEPS))
    other = tokens.copy()
    other[:, CHANGED] = (other[:, CHANGED] + 1) % 5

    @jax.jit
    def both(parameters, tokens):
        network, key = build(parameters), jax.random.key(1)
        return jnp.stack([network(tokens), network(tokens, key=key, spread=2.0)])

    one, two = np.asarray(both(parameters, tokens)), np.asarray(both(parameters, other))
    assert one.shape == (2, 2, STEPS, 5)
    assert np.isfinite(one).all()
    assert np.array_equal(one[:, :, :CHANGED], two[:, :, :CHANGED])
    assert (one[:, :, CHANGED] != two[:, :, CHANGED]).any(axis=(1, 2)).all()
    # Only pointers draw.
    assert np.allclose(one[0], one[1]) == (kind != "pointers")


@pytest.mark.parametrize(("warmup", "steps"), [(5, 20), (1, 8), (0, 8)])
def test_the_learning_rate_rises_in_a_line_and_falls_as_half_a_cosine(warmup, steps):
    numbers = np.arange(steps + 1)
    falling = np.cos(np.pi * np.maximum(numbers - warmup, 0) / (steps - warmup))
    rising = (numbers + 1) / max(warmup, 1)
    expected = 0.02 * np.where(numbers < warmup, rising, 0.1 + 0.9 * (1 + falling) / 2)
    rates = jax.vmap(model.make_rate(0.02, warmup=warmup, steps=steps))(jnp.asarray(numbers))
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_the_first_update_is_as_large_as_the_schedule_says():
    recipe = tiny("characters", attention="window", learning_rate=0.25, warmup=5)
    plan = recipe.plan(recipe.load())
    after, _ = jax.jit(plan.step)(plan.state, jax.random.key(0), *plan.constants)
    moved = jax.tree.map(lambda one, two: abs(one - two).max(), after.parameters, plan.state[0])
    # Adam's first update is the rate, wherever there is a slope.
    np.testing.assert_allclose(max(jax.tree.leaves(moved)), 0.25 / 5, rtol=1e-3)


def test_pointers_begin_apart_and_stay_inside():
    rngs = model.nnx.Rngs(0)
    source = model.Back(3, 2, 2, rngs=rngs)
    means, variances = source(jnp.zeros((1, 100, 3)))
    assert means.shape == variances.shape == (1, 100, 2, 2)
    back = np.arange(100)[:, None, None] - np.asarray(means[0])
    expected = np.arange(1, 101.0)[:, None, None] ** (np.array([[1, 3], [5, 7]]) / 8) - 1
    np.testing.assert_allclose(back, expected, atol=1e-3)
    assert (means >= 0).all()


def test_lags_stand_at_equal_ratios_beyond_the_nearest():
    assert model.spaced_lags(512, 2, 4).tolist() == [4, 16, 64, 256]
    assert model.spaced_lags(5, 5, 2).tolist() == [4, 4]


def test_windows_lie_side_by_side_and_tell_the_next_characters():
    inputs, targets = model.windows_of(np.arange(11), 3)
    assert inputs.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert np.array_equal(targets, inputs + 1)


def test_the_width_of_pointers_falls_by_the_same_factor_in_every_step():
    widths = model.spread_at(16.0, np.arange(11), 10)
    np.testing.assert_allclose(widths[[0, 10]], [16, model.NARROWEST])
    np.testing.assert_allclose(widths[1:] / widths[:-1], (model.NARROWEST / 16) ** 0.1)


def test_a_small_text_is_learned_and_the_best_parameters_are_judged(tmp_path):
    (tmp_path / "text.txt").write_text("to be or not. " * 60)
    options = {"data_dir": tmp_path, "out": tmp_path / "run", "learning_rate": 0.02}
    result = tiny("characters", **options, length=16, width=16, steps=90, evaluate_every=30).run()
    steps, bits = read_curve(RunFolder(tmp_path / "run"), "eval_bits")
    assert bits[0] > 2
    assert 1 > result["validation_bits"] == min(bits)
    assert result["best_step"] == steps[np.argmin(bits)]
    assert result["test_bits"] < 1
    read_text = 8 * (2 * 16 + 1)  # tokens, logits
    layers = 4 * (16 * 16 + 16) + 2 * (16 + 1) + 2 * 4 * 16 * 16 + 5 * 16 + 3 * 2 * 16
    assert result["parameters"] == read_text + 16 * 16 + layers


@pytest.mark.parametrize(
    ("changed", "found", "cure"),
    [
        ({"heads": 3}, "--heads 3 --width 8", "change one"),
        ({"warmup": 20}, "--warmup 20 --steps 20", "lower"),
        ({"near": 13}, "--near 13 --length 12", "lower"),
        ({"spread": 0.1}, "--spread 0.1", "raise"),
        ({"attention": "lags", "spread": 8.0}, "--spread 8.0 with --attention lags", "leave"),
    ],
)
def test_what_does_not_fit_is_told(changed, found, cure):
    assert_names_itself_and_its_cure(tiny("characters", **changed).check, found, "", cure)


def test_a_window_longer_than_what_is_tested_on_is_told(tmp_path):
    (tmp_path / "text.txt").write_text("ab" * 100)
    recipe = tiny("characters", data_dir=tmp_path, length=10)
    assert_names_itself_and_its_cure(
        recipe.load, "--length 10 with 10 characters", "shorter", "lower --length"
    )
