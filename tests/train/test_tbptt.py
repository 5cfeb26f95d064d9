"""The recipe tbptt: its tasks, one of its epochs written out, what it measures and refuses."""

import functools
import gzip
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.recurrent import tbptt_windows
from sparse_hyper_jax.train.data.copying import copy_sequences
from sparse_hyper_jax.train.data.text import bundled_text, read_text, text_sequences
from sparse_hyper_jax.train.models import lstm as model
from sparse_hyper_jax.train.recipes.tbptt import BURN_IN, Trainer
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

from .tiny import tiny


@pytest.mark.parametrize("delays", [range(4, 5), range(2, 5)])
def test_symbols_are_told_again_after_their_delay(delays):
    length, symbols = 200, 3
    inputs, targets = copy_sequences(
        np.random.default_rng(0), length=length, batch=5, symbols=symbols, delays=delays
    )
    assert inputs.shape == targets.shape == (length, 5)
    asks = inputs == symbols
    # Exactly one of both tells a symbol, half of the time.
    assert np.array_equal(asks, targets != symbols)
    assert 0.4 < asks.mean() < 0.6
    assert set(np.unique(inputs)) == set(range(symbols + 1))
    seen = set()
    for row in range(5):
        edges = np.flatnonzero(np.diff(asks[:, row].astype(int)) == 1) + 1
        for begin in edges:
            run = asks[begin:, row]
            delay = len(run) if run.all() else int(np.argmin(run))
            if begin - delay < 0 or begin + delay >= length:
                continue
            told, read = targets[begin : begin + delay, row], inputs[begin - delay : begin, row]
            assert np.array_equal(told, read)
            seen.add(delay)
    assert seen == set(delays)
    assert len({tuple(asks[:20, row]) for row in range(5)}) > 1  # they begin anywhere


def test_a_text_is_cut_into_rows_of_next_characters():
    text = "abcde" * 80
    parts = text_sequences(text, batch=4, length=None)
    assert parts.tokens == 5
    for part, size in ((parts.train, 360), (parts.validation, 20), (parts.test, 20)):
        assert part.inputs.shape == part.targets.shape == ((size - 1) // 4, 4)
        assert np.array_equal(part.targets, (part.inputs + 1) % 5)
    short = text_sequences(text, batch=4, length=10).train.inputs
    assert np.array_equal(short, parts.train.inputs[:10])


def packed(content: bytes) -> bytes:
    """The content in gzip's form, without the time of day."""
    return gzip.compress(content, mtime=0)


def test_texts_are_read_from_a_folder_or_from_a_package(tmp_path):
    assert len(bundled_text()) > 20_000
    assert read_text(None) == bundled_text()
    (tmp_path / "one.txt").write_text("Wörter", encoding="utf-8")
    assert read_text(tmp_path) == "Wörter"
    (tmp_path / "one.txt").unlink()
    (tmp_path / "one.txt.gz").write_bytes(packed("Wörter".encode()))
    assert read_text(tmp_path) == "Wörter"


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("one.txt", b"\xff\xfe\xfa", "one.txt damaged or no text"),
        ("one.txt.gz", b"no gzip", "one.txt.gz damaged or no text"),
        ("one.txt.gz", packed(bytes(2**26)), "announcing 67108864 bytes"),
        ("one.txt.gz", packed(b"ab" * 9) + packed(b"c"), "more in "),
        ("one.rst", b"text", "0 texts in"),
    ],
)
def test_files_that_are_no_text_are_told(name, content, found, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert_names_itself_and_its_cure(lambda: read_text(tmp_path), found, "", "--data-dir")


def test_two_texts_and_short_ones_are_told(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("text")
    assert_names_itself_and_its_cure(
        lambda: read_text(tmp_path), "2 texts in", "one file", "--data-dir"
    )
    assert_names_itself_and_its_cure(
        lambda: read_text(tmp_path / "nowhere"), "0 texts in", "one file", "--data-dir"
    )
    assert_names_itself_and_its_cure(
        lambda: text_sequences("ab" * 70, batch=4, length=None), "--batch 4 with 140", "", "--batch"
    )


ROWS, WIDTH, TOKENS, LENGTH = 3, 4, 3, 8


@functools.cache
def example():
    generator = np.random.default_rng(0)
    init = jax.jit(functools.partial(model.init_lstm, tokens=TOKENS, width=WIDTH))
    params = init(jax.random.key(0))
    return params, *generator.integers(TOKENS, size=(2, LENGTH, ROWS)).astype(np.int32)


def losses_by_hand(params, inputs, targets, cuts=()):
    h, losses = model.start_of(ROWS, WIDTH), []
    for step, (x, y) in enumerate(zip(inputs, targets, strict=True)):
        h = jax.lax.stop_gradient(h) if step in cuts else h
        h = model.lstm(params, h, x)
        log_shares = jax.nn.log_softmax(h[1] @ params["head"] + params["head_bias"])
        losses.append(-jnp.mean(log_shares[jnp.arange(ROWS), y]))
    return jnp.stack(losses)


def test_one_window_is_a_clipped_step_of_plain_descent():
    params, inputs, targets = example()

    @jax.jit
    def run(params, inputs, targets):
        step = model.make_pass(
            tbptt_windows(LENGTH, LENGTH), lag=LENGTH, learning_rate=0.5, clip=0.01
        )
        loss, gradient = jax.value_and_grad(
            lambda params: jnp.mean(losses_by_hand(params, inputs, targets))
        )(params)
        return step(params, inputs, targets), loss, gradient

    made, loss, gradient = run(params, inputs, targets)
    length = math.sqrt(sum(np.sum(np.square(leaf)) for leaf in gradient.values()))
    assert length > 0.01
    expected = {name: params[name] - 0.5 * 0.01 / length * gradient[name] for name in params}
    assert_close(made.parameters, expected, rtol=1e-4)
    assert float(made.loss) == pytest.approx(float(loss), rel=1e-5)
    assert float(model.cross_entropy_of(params, inputs, targets)) == pytest.approx(float(loss))


def test_a_pass_without_a_rate_sees_every_loss_once():
    params, inputs, targets = example()

    @jax.jit
    def run(params, inputs, targets):
        step = model.make_pass(tbptt_windows(LENGTH, 3), lag=3, learning_rate=0.0, clip=1.0)
        return step(params, inputs, targets).loss, losses_by_hand(params, inputs, targets)

    loss, expected = map(np.asarray, run(params, inputs, targets))
    # Windows of 3, 3 and 2 losses, each with its own mean.
    windows = [expected[:3].mean(), expected[3:6].mean(), expected[6:].mean()]
    assert float(loss) == pytest.approx(np.mean(windows), rel=1e-5)


def test_the_bias_that_is_measured_is_that_of_gradients_cut_by_hand():
    params, inputs, targets = example()
    norms, biases = model.probe(params, inputs, targets, burn_in=2)
    assert norms.phi.shape == norms.cum.shape == biases.shape == (LENGTH - 2,)

    @jax.jit
    def gradient(params):
        return [
            jax.grad(lambda p, c=cuts: losses_by_hand(p, inputs, targets, c)[-1])(params)
            for cuts in ((2,), (2, LENGTH - 3))
        ]

    whole, short = (
        np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(one)]) for one in gradient(params)
    )
    expected = np.linalg.norm(short - whole) / np.linalg.norm(whole)
    assert float(biases[2]) == pytest.approx(expected, rel=1e-4)
    assert float(biases[-1]) == 0


def test_windows_that_are_measured_are_parts_of_the_sequences():
    tokens = np.arange(50)[:, None] * 10 + np.arange(2)
    cut = model.probe_windows(np.random.default_rng(0), tokens, positions=3, steps=7)
    assert cut.shape == (7, 6)
    assert np.all(np.diff(cut, axis=0) == 10)


def test_lags_are_chosen_by_the_bound_or_by_the_measured_bias():
    recipes = {
        method: tiny("tbptt", method=method, delta=delta)
        for method, delta in (("bound", 1e-9), ("measured", 1e-9), ("fixed", 0.5))
    }
    recipes["fixed"] = tiny("tbptt", method="fixed", lag=4, largest_lag=32)
    lags = {}
    for method, recipe in recipes.items():
        trainer = Trainer(recipe, recipe.load())
        found = trainer.measure(trainer.start(), 0)
        lags[method] = found["lag"]
        assert 0 <= found["measured_bias"] < 2
    assert lags == {"bound": 6, "measured": 6, "fixed": 4}
    loose = tiny("tbptt", method="measured", delta=1e3)
    trainer = Trainer(loose, loose.load())
    assert trainer.measure(trainer.start(), 0)["lag"] == loose.least_lag


WRONG = [
    ({"least_lag": 7}, "--least-lag 7 --largest-lag 6", "--least-lag"),
    ({"window": 5}, "--largest-lag 6 --window 5", "--window"),
    (
        {"method": "fixed", "lag": 13, "largest_lag": 32},
        "--lag 13 --window 12",
        "--window",
    ),
    ({"least_delay": 4}, "--least-delay 4 --delay 3", "--least-delay"),
    ({"length": 31}, f"--window 12 with training sequences of {BURN_IN + 11} steps", "--length"),
]


@pytest.mark.parametrize(("options", "found", "change"), WRONG)
def test_options_that_do_not_fit_each_other_are_refused(options, found, change, tmp_path):
    recipe = tiny("tbptt", out=tmp_path / "run", **options)
    assert_names_itself_and_its_cure(recipe.run, found, "", change)
    assert not (tmp_path / "run").exists()


def test_a_text_trains(tmp_path):
    (tmp_path / "abc.txt").write_text("abcdefgh" * 200)
    recipe = tiny(
        "tbptt",
        out=tmp_path / "run",
        task="text",
        data_dir=tmp_path,
        delay=10,
        symbols=6,
        length=None,
        steps=6,
    )
    result = recipe.run()
    assert result["length"] == 359
    assert result["least_delay"] is None
    assert len(result["lags"]) == len(result["measured_biases"]) == 7
    assert result["test_cross_entropy"] < 0.5 * math.log(8)
