"""The recipe lags: what its model computes, what it finds, what it says of it, what it refuses."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_hyper_jax import ops
from sparse_hyper_jax.train.data.time_parts import SeriesPart
from sparse_hyper_jax.train.lag_plots import plot_lags
from sparse_hyper_jax.train.models import lag_perceptron as model
from sparse_hyper_jax.train.models.lag_report import (
    LagReport,
    make_measure,
    make_report,
    shares_found,
    strongest,
    table_of,
)
from tests.ops.examples import assert_names_itself_and_its_cure

from .tiny import tiny

REACH, ROWS, CHANNELS = 6, 29, 3
LAGS = np.array([4, 1, 0])
PLACED = np.array([True, True, False])


@functools.cache
def example():
    """A model with one empty slot, and a part of a series, in NumPy."""
    sizes = {"slots": 3, "channels": CHANNELS, "hidden": (5, 4), "outputs": 2}
    parameters = jax.jit(functools.partial(model.init_parameters, **sizes))(jax.random.key(0))
    parameters["lags"] *= 50
    generator = np.random.default_rng(0)
    shapes = (ROWS, CHANNELS), (ROWS, 2)
    part = SeriesPart(*(generator.normal(size=shape).astype(np.float32) for shape in shapes))
    taps = ops.Taps(jnp.array(LAGS)[:, None], jnp.array(PLACED))
    return parameters, taps, part


def losses_by_hand(parameters, part):
    """Squared errors ``(ROWS - REACH,)`` of the rows that count."""
    losses = []
    for row in range(REACH, ROWS):
        hidden = np.asarray(parameters["bias"]).copy()
        for lag, placed, weights in zip(LAGS, PLACED, parameters["lags"], strict=True):
            hidden += placed * part.inputs[row - lag] @ np.asarray(weights)
        for matrix, bias in parameters["layers"]:
            hidden = np.maximum(hidden, 0.1 * hidden) @ np.asarray(matrix) + np.asarray(bias)
        losses.append(np.mean((hidden - part.targets[row]) ** 2))
    return np.array(losses)


@pytest.mark.parametrize("length", [23, 10, 4])
def test_every_row_that_counts_is_judged_once(length):
    parameters, taps, part = example()
    measure = jax.jit(make_measure(model.LagModel(REACH, binary=False), length))
    expected = losses_by_hand(parameters, part)
    found = measure(parameters, taps, jax.tree.map(jnp.asarray, part))
    assert len(found) == -(-len(expected) // length)
    assert float(found.mean()) == pytest.approx(expected.mean(), rel=1e-5)


def test_windows_are_parts_of_the_series_with_their_past():
    part = SeriesPart(jnp.arange(ROWS)[:, None], jnp.arange(ROWS)[:, None])
    lag_model = model.LagModel(REACH, binary=False)
    draw = jax.jit(lambda key, part: lag_model.draw_windows(key, part, 200, 5))
    windows = draw(jax.random.key(0), part)
    assert windows.inputs.shape == (200, REACH + 5, 1)
    assert np.all(np.diff(windows.inputs[..., 0]) == 1)
    assert set(np.asarray(windows.inputs)[:, REACH, 0]) == set(range(REACH, ROWS - 4))
    assert np.array_equal(windows.counted[0], np.arange(REACH + 5) >= REACH)


def test_importance_is_what_the_loss_loses_and_an_empty_slot_is_not_told():
    parameters, taps, part = example()
    lag_model = model.LagModel(REACH, binary=False)
    fit = model.LagFit(parameters, taps, ())
    arrays = jax.tree.map(jnp.asarray, part)
    report = make_report(lag_model, 23, ahead=2)(parameters, fit, arrays, arrays)
    whole = losses_by_hand(parameters, part).mean()

    def without(slot, channel=slice(None)):
        lags = parameters["lags"].at[slot, channel].set(0)
        return losses_by_hand(parameters | {"lags": lags}, part).mean() - whole

    expected = np.array([without(0), without(1)])
    order = np.argsort(-expected)
    assert report.lags.tolist() == (LAGS[:2][order] + 2).tolist()
    np.testing.assert_allclose(report.importance, expected[order], rtol=1e-3)
    channels = [[without(slot, channel) for channel in range(CHANNELS)] for slot in order]
    np.testing.assert_allclose(report.by_channel, channels, rtol=1e-2, atol=1e-5)
    assert np.isnan(report.left[[1, 4]]).all()
    assert np.isfinite(report.first).all()
    lines = table_of(report, [1.0, 0.5], "abc")
    assert [line.split()[0] for line in lines[1:]] == [str(lag) for lag in report.lags]


def test_what_is_not_placed_does_not_move_and_what_gains_is_placed():
    parameters, _, part = example()
    inputs = jnp.asarray(np.random.default_rng(1).normal(size=(400, CHANNELS)), jnp.float32)
    part = SeriesPart(inputs, jnp.roll(inputs[:, :2], 3, axis=0))  # the lag is 3
    optimizer = optax.adamw(1e-2, weight_decay=1.0)
    fit = model.LagFit(parameters, ops.empty_taps(3), optimizer.init(parameters))
    probing = model.Probing(first=2, every=3, probes=2, per_probe=1, min_gain=1.0, apart=0)
    step = jax.jit(
        model.make_fit_step(
            model.LagModel(REACH, binary=False), optimizer, probing, batch=2, length=40
        )
    )
    placed = []
    for count in range(7):
        fit, _ = step(fit, jax.random.key(count), jnp.int32(count), part)
        placed.append(int(fit.taps.placed.sum()))
        kept = np.asarray(fit.taps.placed)
        assert np.array_equal(fit.parameters["lags"][~kept], parameters["lags"][~kept])
    assert placed == [0, 0, 1, 1, 1, 1, 1]
    assert int(fit.taps.positions[0, 0]) == 3
    assert not np.array_equal(fit.parameters["lags"][0], parameters["lags"][0])


def test_chance_is_what_is_gained_by_inputs_of_other_times():
    parameters, taps, part = example()
    lag_model = model.LagModel(REACH, binary=False)
    arrays = jax.tree.map(jnp.asarray, part)

    @jax.jit
    def both(parameters, arrays):
        windows = lag_model.probed_windows(jax.random.key(0), arrays, 11)
        before = model.pre_activations(parameters, taps, windows.inputs)
        slope = jax.grad(lambda x: lag_model.loss(model.head(parameters, x), windows))(before)
        white = ops.whiten_cotangent(slope[:, REACH:])
        gains = lag_model.gains(parameters, taps, windows)
        return windows.inputs, white, gains, lag_model.ratios(gains, taps, jnp.eye(REACH)[0])

    inputs, white, gains, ratios = jax.tree.map(np.asarray, both(parameters, arrays))
    assert inputs.shape == (2, REACH + 11, CHANNELS)
    assert np.array_equal(inputs[0, -REACH:], inputs[1, :REACH])  # one after the other
    flat = inputs.reshape(-1, CHANNELS) - inputs.mean(axis=(0, 1))
    covariance = flat.T @ flat / len(flat)
    covariance += 1e-3 * np.trace(covariance) / CHANNELS * np.eye(CHANNELS)
    inverse = np.linalg.inv(np.linalg.cholesky(covariance))
    turns = [0, *np.linspace(5, 17, model.CHANCES, dtype=int)]
    assert len(gains) == len(turns)
    for turn, found in zip(turns, gains, strict=True):
        turned = np.roll(white.reshape(22, -1), turn, axis=0).reshape(2, 11, -1)
        for lag in range(REACH):
            read = inputs[:, REACH - lag : REACH - lag + 11]
            expected = inverse @ np.einsum("btc,btm->cm", read, turned)
            np.testing.assert_allclose(found[lag], expected, rtol=1e-3, atol=1e-3)
    open_lags = [0, 2, 3, 5]
    scores = (gains**2).sum(axis=(2, 3))[:, open_lags]
    np.testing.assert_allclose(ratios[open_lags], scores[0] / scores[1:].max(), rtol=1e-3)
    assert np.isneginf(ratios[[1, 4]]).all()


def test_probes_come_when_they_are_due():
    due = model.Probing(first=3, every=4, probes=3, per_probe=1, min_gain=None, apart=0).due
    assert [count for count in range(40) if due(count)] == [3, 7, 11]


def test_shares_and_strongest_inputs():
    assert shares_found([3, 10, 20], [[3, 11], [2, 20], [4, 30]]) == [1.0, 1 / 3, 1 / 3]
    rises = np.array([0.1, -0.5, 2.0, 0.3, 0.2])
    assert strongest(rises, "abcde") == {"c": 2.0, "d": 0.3, "e": 0.2}
    assert strongest(np.array([0.001, 1.0]), "ab") == {"b": 1.0}
    assert strongest(np.array([-1.0, 0.0]), "ab") == {}


def test_the_picture_has_its_legend_above_and_axes_with_units():
    curve = np.linspace(0, 9, 20)
    report = LagReport(
        np.array([3, 7]), np.array([0.5, -0.1]), np.full(2, 0.1), np.ones((2, 1)), curve, curve
    )
    figure = plot_lags(report, least=1, found_in=[1.0, 0.5], known=(3, 9), min_gain=1.0)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()][:2] == ["found", "true"]
    top = max(ax.get_window_extent().y1 for ax in figure.axes)
    assert legend.get_window_extent().y0 > top
    assert figure.axes[-1].get_xlabel() == "lag (rows from input to target)"
    assert all(ax.get_ylabel() for ax in figure.axes)


def write_plant(path, rows=1500):
    """Two inputs with delays of 3 and 9 rows, and a column of texts that is not to be read."""
    generator = np.random.default_rng(0)
    feed, heat = generator.normal(size=(2, rows))
    level = 5 + np.tanh(np.roll(feed, 3)) + 0.8 * np.maximum(np.roll(heat, 9), 0)
    level += 0.05 * generator.normal(size=rows)
    columns = zip(feed, heat, level, strict=True)
    lines = [f"8:{row};{20 + 3 * a:.4f};{b:.4f};{c:.4f}" for row, (a, b, c) in enumerate(columns)]
    path.write_text("\n".join(["time;feed;heat;level", *lines]))


def csv(path, **options):
    """A recipe that reads that file."""
    fields = {"channels": 32, "length": None, "reach": None, "window": None, "min_gain": 1.0}
    fields |= {"task": "csv", "data_file": path, "targets": ("level",)}
    fields |= {"inputs": ("feed", "heat", "level"), "hidden": (8, 6), "learning_rate": 0.02}
    return tiny("lags", **fields | options)


def test_delays_of_a_file_are_found_with_their_columns(tmp_path):
    write_plant(tmp_path / "plant.csv")
    recipe = csv(tmp_path / "plant.csv", out=tmp_path / "run", steps=120, evaluate_every=40)
    result = recipe.run()
    assert sorted(result["lags"][:2]) == [3, 9]
    names = result["lags"], result["strongest"]
    tops = {lag: next(iter(one)) for lag, one in zip(*names, strict=True)}
    assert (tops[3], tops[9]) == ("feed", "heat")
    assert result["found_in"][:2] == [1.0, 1.0]
    assert result["reach"] == 75
    assert result["test_mse"] < 0.3 * result["test_mse_of_mean"]
    assert result["test_mse_of_last"] > 1
    assert len(result["restart_mse"]) == 2
    # One more row, and others are tested on.
    with recipe.data_file.open("a") as file:
        file.write("\n8:9999;20;1;1")
    again = dataclasses.replace(recipe, resume=True)
    assert_names_itself_and_its_cure(again.run, "plant.csv", "same bytes", "--out DIR")


def test_other_methods_read_what_they_say(tmp_path):
    lags = {}
    for method, options in (
        ("known", {}),
        ("recent", {"taps": 3}),
        ("given", {"given": (70, 1)}),
        ("random", {}),
    ):
        fields = {"most_taps": 16, "min_gain": 1.0, "method": method} | options
        recipe = tiny("lags", **fields)
        data = recipe.load()
        settled = recipe.settle(data)
        plan = settled.plan(data)
        taps = jax.tree.map(np.asarray, plan.state.fits.taps)
        assert taps.placed.all()
        assert settled.taps == taps.placed.shape[1]
        lags[method] = (taps.positions[..., 0] + 1).tolist()
        known = data.task.known
    assert lags["known"] == [list(known)] * 2
    assert lags["recent"] == [[1, 2, 3]] * 2
    assert lags["given"] == [[70, 1]] * 2
    assert len({tuple(one) for one in lags["random"]}) == 2
    assert all(len(set(one)) == 8 for one in lags["random"])


def test_the_width_of_canvases_is_known_and_trains(tmp_path):
    fields = {"channels": 32, "correlation": 0.9, "task": "canvas", "length": 4000}
    result = tiny("lags", out=tmp_path / "run", **fields).run()
    assert 30 <= result["known_lags"][0] <= 60
    assert result["test_cross_entropy"] > 0
    assert 0.1 < result["test_cross_entropy_of_mean"] < 0.5
    assert "floor" not in result


WRONG = [
    ({"data_file": None}, "--task csv without a file", "--data-file"),
    ({"targets": ()}, "--task csv without a column", "--targets"),
    ({"targets": ("levle",)}, "no column 'levle'", "change"),
    ({"targets": ("level", "level")}, "--targets with 'level' twice", "leave one out"),
    ({"inputs": ("feed", "feed")}, "--inputs with 'feed' twice", "leave one out"),
    ({"inputs": ()}, "column 'time'", "--inputs"),
    ({"inputs": (), "targets": ("levle",)}, "no column 'levle'", "change"),
    ({"inputs": ("feed", "constant")}, "column 'constant' with the same value", "leave it out"),
    ({"targets": ("constant",)}, "column 'constant' with the same value", "leave it out"),
    ({"ahead": 0}, "--ahead 0", "raise --ahead"),
    ({"ahead": 0, "inputs": ()}, "--ahead 0", "raise --ahead"),
    ({"ahead": 2000}, "1500 rows, to look 75 back and 2000 ahead", "--ahead"),
    ({"reach": 2000}, "1500 rows, to look 2000 back", "lower --reach"),
    ({"window": 5000}, "--window 5000 with 764 rows", "lower --window"),
    ({"taps": 80, "most_taps": 16}, "--taps 80 --reach 75", "lower --taps"),
    ({"method": "known", "most_taps": 16}, "--method known --task csv", "--method given"),
    ({"method": "given", "most_taps": 16}, "--method given without lags", "--given"),
    ({"method": "given", "most_taps": 16, "given": (2, 2)}, "--given 2 2", "twice"),
    ({"method": "given", "most_taps": 16, "given": (0,)}, "lags 0 with --ahead 1", "--given"),
    ({"method": "given", "most_taps": 16, "given": (76,)}, "lags 76 with", "--reach"),
]


@pytest.mark.parametrize(("options", "found", "change"), WRONG)
def test_options_and_files_that_do_not_fit_are_refused(options, found, change, tmp_path):
    path = tmp_path / "plant.csv"
    write_plant(path)
    first, *lines = path.read_text().splitlines()
    path.write_text("\n".join([f"{first};constant", *(f"{line};7" for line in lines)]))
    recipe = csv(path, out=tmp_path / "run", **options)
    assert_names_itself_and_its_cure(recipe.run, found, "", change)
    assert not (tmp_path / "run").exists()


def test_a_value_beyond_all_others_is_told(tmp_path):
    write_plant(tmp_path / "plant.csv")
    with (tmp_path / "plant.csv").open("a") as file:
        file.write("\n9:00;1e60;0;5")
    recipe = csv(tmp_path / "plant.csv", out=tmp_path / "run")
    assert_names_itself_and_its_cure(
        recipe.run, "column 'feed' with a value 3", "at most 1e+06", "correct that value"
    )


def test_three_rows_are_too_few(tmp_path):
    (tmp_path / "short.csv").write_text("a,level\n1,2\n2,3\n3,5\n")
    recipe = csv(tmp_path / "short.csv", inputs=("a", "level"), out=tmp_path / "run")
    assert_names_itself_and_its_cure(recipe.run, "3 rows, to look 1 back", "at least 54", "--reach")


def test_known_lags_have_to_be_candidates():
    recipe = dataclasses.replace(
        tiny("lags", most_taps=16, min_gain=1.0, method="known"), ahead=60, length=900
    )
    assert_names_itself_and_its_cure(
        recipe.run, "with --ahead 60 --reach 70", "lags from 60 to 129", "change --ahead"
    )
