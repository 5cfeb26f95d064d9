import logging
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.train.checkpoint import Checkpoints
from sparse_hyper_jax.train.loop import Trained, boundaries, train
from sparse_hyper_jax.train.run_folder import RunFolder

from .toy import DISPATCH, STEPS, compiled_once, digest, norm, toy_run, toy_state, toy_step


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(tmp_path_factory):
    with compiled_once(tmp_path_factory.mktemp("compiled")):
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole")
    return toy_run(path, evaluate=norm), RunFolder(path).metrics()


def test_loop_equals_single_steps(whole):
    state, losses = toy_state(), []
    for index in range(STEPS):
        key = jax.random.fold_in(jax.random.key(3), index)
        state, metrics = jax.jit(toy_step)(state, key)
        losses.append(metrics["loss"])
    trained, lines = whole
    assert isinstance(trained, Trained)
    assert trained.steps == trained.state.count == STEPS
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6),
        trained.state,
        state,
    )
    means = [np.mean(losses[start:stop]) for start, stop in boundaries(0, STEPS, DISPATCH)]
    np.testing.assert_allclose([line["loss"] for line in lines[1:]], means, rtol=1e-5)


def test_metrics_file_holds_a_line_per_dispatch(whole):
    trained, lines = whole
    assert [line["step"] for line in lines] == [0, 10, 20, 30, 40, 45]
    assert lines[0].keys() == {"step", "seconds", "eval_norm"}
    assert all(
        line.keys() == {"step", "seconds", "loss", "noise", "eval_norm"} for line in lines[1:]
    )
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds)
    assert seconds[-1] <= trained.seconds


@pytest.mark.parametrize(("every", "expected"), [(20, [0, 20, 40, 45]), (1000, [0, 45])])
def test_evaluation_at_multiples_and_at_the_end(tmp_path, whole, every, expected):
    seen = []
    trained = toy_run(
        tmp_path, evaluate=lambda step, _: seen.append(step) or {}, evaluate_every=every
    )
    assert seen == expected
    assert digest(trained.state) == digest(whole[0].state)


def test_checkpoints_wait_for_their_time(tmp_path, monkeypatch):
    saved, save = [], Checkpoints.save
    monkeypatch.setattr(
        Checkpoints, "save", lambda self, step, *rest: saved.append(step) or save(self, step, *rest)
    )
    toy_run(tmp_path / "never", checkpoint_seconds=math.inf)
    assert saved == [DISPATCH, STEPS]
    toy_run(tmp_path / "always", checkpoint_seconds=0.0)
    assert saved[2:] == [10, 20, 30, 40, 45]


def test_each_length_is_compiled_once(tmp_path, caplog):
    state = {"w": 0.0, "n": np.int32(1), "f": jnp.asarray(2.0)}  # weakly typed and not of JAX

    def step(state, key):
        return {**state, "w": state["w"] + jax.random.normal(key) * state["f"]}, {}

    options = {"steps": STEPS, "seed": 0, "steps_per_dispatch": DISPATCH, "quiet": True}
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        train(step, state, folder=RunFolder(tmp_path), **options)
    compiled = [r for r in caplog.records if "Compiling jit(dispatch)" in r.getMessage()]
    assert len(compiled) == 2


def test_initial_state_stays_and_the_running_one_is_donated(tmp_path):
    initial, seen = toy_state(), []
    before = digest(initial)
    train(
        toy_step,
        initial,
        steps=20,
        seed=0,
        folder=RunFolder(tmp_path),
        evaluate=lambda step, state: seen.append(state) or {},
        evaluate_every=10,
        steps_per_dispatch=10,
        quiet=True,
    )
    assert digest(initial) == before
    assert seen[1].params["w"].is_deleted()
    assert not seen[2].params["w"].is_deleted()


def test_state_may_hold_the_same_array_twice(tmp_path):
    def step(state, key):
        new = state["new"] + 1
        return {"new": new, "old": new}, {"loss": new.sum()}

    one = jnp.zeros(3)
    trained = train(
        step, {"new": one, "old": one}, steps=5, seed=0, folder=RunFolder(tmp_path), quiet=True,
        steps_per_dispatch=2,
    )  # fmt: skip
    assert trained.state["old"].tolist() == [5, 5, 5]


def poisoned(when, value, *, where="metric"):
    def step(state, key):
        now = state["n"]
        bad = jnp.where(now == when, value, 1.0)
        state = {"n": now + 1, "w": state["w"] * (bad if where == "state" else 1.0)}
        return state, {"loss": bad if where == "metric" else 1.0, "fine": 0.5}

    return step, {"n": jnp.int32(0), "w": jnp.ones(2)}


@pytest.mark.parametrize(("value", "when"), [(np.nan, 0), (np.inf, 7), (np.nan, 20), (-np.inf, 29)])
def test_metric_that_is_not_finite_stops_the_run(tmp_path, value, when):
    step, state = poisoned(when, value)
    options = {"steps": 30, "seed": 0, "steps_per_dispatch": 10, "checkpoint_seconds": 0.0}
    stays = "checkpoint after 20 steps stays" if when >= 20 else "no checkpoint was written"
    message = rf"found loss=-?(nan|inf) in step {when} .*; expected .*lower .*{stays}"
    with pytest.raises(FloatingPointError, match=message):
        train(step, state, folder=RunFolder(tmp_path), quiet=True, **options)
    assert [line["step"] for line in RunFolder(tmp_path).metrics()] == ([10, 20] * (when >= 20))


def test_undefined_state_is_never_saved(tmp_path):
    step, state = poisoned(19, jnp.nan, where="state")
    options = {"steps": 30, "seed": 0, "steps_per_dispatch": 10, "checkpoint_seconds": 0.0}
    with pytest.raises(FloatingPointError, match=r"nan in state\['w'\] after step 19 .* 10 steps"):
        train(step, state, folder=RunFolder(tmp_path), quiet=True, **options)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.steps() == [10]


def test_infinite_state_is_allowed(tmp_path):
    step, state = poisoned(3, jnp.inf, where="state")
    trained = train(step, state, steps=5, seed=0, folder=RunFolder(tmp_path), quiet=True)
    assert np.isinf(trained.state["w"]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "found steps=0; expected an int of at least 1"),
        ({"steps": 10.0}, "found steps=10.0"),
        ({"seed": -1}, "found seed=-1; expected 0 to 2.*; pass another seed"),
        ({"seed": 2**32}, "found seed=4294967296"),
        ({"seed": 10**20 - 1}, "found seed=99999999999999999999"),
        ({"steps_per_dispatch": 0}, "found steps_per_dispatch=0"),
        (
            {"evaluate": norm, "evaluate_every": 25},
            "evaluate_every=25 with steps_per_dispatch=10; .* pass evaluate_every=30",
        ),
        ({"evaluate": norm, "evaluate_every": 0}, "found evaluate_every=0"),
    ],
)
def test_wrong_options_are_named(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        toy_run(tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_evaluate_every_is_free_without_evaluation(tmp_path):
    toy_run(tmp_path, evaluate_every=7)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (1.0, "found metrics .*; expected a dict of scalars"),
        ({"loss": jnp.ones(2)}, r"found metrics {'loss': \(2,\)}"),
        ({"step": 1.0}, "with names other than run, seconds, step"),
    ],
)
def test_metrics_must_be_named_scalars(tmp_path, metrics, message):
    with pytest.raises(ValueError, match=message):
        train(
            lambda state, key: (state, metrics),
            jnp.zeros(2),
            steps=2,
            seed=0,
            folder=RunFolder(tmp_path),
            quiet=True,
        )


def test_progress_bar_shows_metrics_on_standard_error(tmp_path, capsys):
    toy_run(tmp_path / "loud", quiet=False, evaluate=norm, description="toy")
    output, errors = capsys.readouterr()
    assert output == ""
    for word in ("toy", "45/45", "loss=", "eval_norm="):
        assert word in errors
    assert "compiling" in errors.split("loss=")[0]
    assert "compiling" not in errors.splitlines()[-1]
    toy_run(tmp_path / "quiet", evaluate=norm)
    assert capsys.readouterr() == ("", "")
