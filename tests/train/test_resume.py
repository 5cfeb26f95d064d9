import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.train.checkpoint import Checkpoints
from sparse_hyper_jax.train.cli import main
from sparse_hyper_jax.train.loop import train
from sparse_hyper_jax.train.owner import Owner
from sparse_hyper_jax.train.run_folder import RunFolder

from .toy import (
    DISPATCH,
    RECIPES,
    STEPS,
    compiled_once,
    digest,
    norm,
    toy_run,
    toy_state,
    toy_step,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(tmp_path_factory):
    with compiled_once(tmp_path_factory.mktemp("compiled")):
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole")
    return toy_run(path, evaluate=norm), RunFolder(path).metrics()


def without_seconds(lines):
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


class Kill(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("step", [0, 10, 30, 40])
@pytest.mark.parametrize("checkpoint_seconds", [0.0, math.inf])
def test_run_that_dies_and_resumes_ends_bit_for_bit_the_same(
    tmp_path, whole, step, checkpoint_seconds
):
    def die(now, state):
        if now >= step:
            raise Kill
        return norm(now, state)

    with pytest.raises(Kill):
        toy_run(tmp_path, evaluate=die, checkpoint_seconds=checkpoint_seconds)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 50, "los')
    resumed = toy_run(tmp_path, evaluate=norm, resume=True)
    assert digest(resumed.state) == digest(whole[0].state)
    assert without_seconds(RunFolder(tmp_path).metrics()) == without_seconds(whole[1])


@pytest.mark.parametrize("moment", ["before", "after"])
def test_run_that_dies_around_every_save(tmp_path, whole, monkeypatch, moment):
    save = Checkpoints.save

    def die(self, step, state, about):
        if moment == "after":
            save(self, step, state, about)
        raise Kill

    # Every part gets one dispatch further ("after"), or nowhere at all ("before").
    for part in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, "save", die)
            with pytest.raises(Kill):
                toy_run(tmp_path, evaluate=norm, resume=part > 0)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.steps() == ([20, 30] if moment == "after" else [])
    resumed = toy_run(tmp_path, evaluate=norm, resume=True)
    assert digest(resumed.state) == digest(whole[0].state)
    assert without_seconds(RunFolder(tmp_path).metrics()) == without_seconds(whole[1])


FLAGS = ("--steps", "205", "--pause", "0.02")


def start(out, *flags):
    words = [sys.executable, "-m", "tests.train.toy", "toy", "--out", str(out), "--quiet", *flags]
    return subprocess.Popen(
        [*words, *FLAGS], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(out, *flags):
    """Run the same in this process; give the exit status."""
    return main(["toy", "--out", str(out), "--quiet", *flags, *FLAGS], recipes=RECIPES)


def wait_for_a_line(metrics, process):
    # A resumed process cuts the metrics first, so the file changes before anything is appended.
    seen = metrics.stat().st_mtime_ns if metrics.exists() else None
    while process.poll() is None:
        if metrics.exists() and metrics.stat().st_mtime_ns != seen:
            return
        time.sleep(0.002)


@pytest.fixture(scope="module")
def whole_command(tmp_path_factory):
    """A run of the command that nothing stopped."""
    path = tmp_path_factory.mktemp("command") / "whole"
    assert finish(path) == 0
    return path


def test_killed_processes_resume_to_the_same_end(tmp_path, whole_command):
    delays, path = random.Random(8), tmp_path / "parts"
    for flags in ((), ("--resume",)):
        part = start(path, *flags)
        wait_for_a_line(path / "metrics.jsonl", part)
        time.sleep(0.3 * delays.random())
        part.send_signal(signal.SIGKILL)
        part.communicate()
        assert part.returncode == -signal.SIGKILL
    assert finish(path, "--resume") == 0
    results = [json.loads((one / "result.json").read_text()) for one in (whole_command, path)]
    assert results[0] == results[1]
    lines = [RunFolder(one).metrics() for one in (whole_command, path)]
    assert without_seconds(lines[0]) == without_seconds(lines[1])


def test_second_resumption_of_one_run_is_refused_and_the_first_unharmed(
    tmp_path, whole_command, capsys
):
    path = tmp_path / "run"
    shutil.copytree(whole_command, path)
    (path / "result.json").unlink()
    shutil.rmtree(path / "checkpoints" / "205")  # as if stopped before
    before = (path / "metrics.jsonl").read_bytes()
    first = Owner(path)
    assert finish(path, "--resume") == 2
    assert f"found {path} in use by process {os.getpid()} on " in capsys.readouterr().err
    assert (path / "metrics.jsonl").read_bytes() == before
    first.release()
    assert finish(path, "--resume") == 0
    steps = [line["step"] for line in RunFolder(path).metrics()]
    assert steps == [*range(0, 201, 10), 205]


def test_finished_run_trains_nothing(tmp_path, whole):
    first = toy_run(tmp_path)
    lines = RunFolder(tmp_path).metrics()

    def forbidden(*_):
        raise AssertionError

    again = train(
        forbidden,
        toy_state(),
        steps=STEPS,
        seed=3,
        folder=RunFolder(tmp_path),
        evaluate=forbidden,
        evaluate_every=DISPATCH,
        steps_per_dispatch=DISPATCH,
        resume=True,
        quiet=True,
    )
    assert digest(again.state) == digest(first.state) == digest(whole[0].state)
    assert jax.tree.structure(again.state) == jax.tree.structure(first.state)
    assert again.seconds == first.seconds
    assert RunFolder(tmp_path).metrics() == lines


def test_seconds_add_up_over_the_parts(tmp_path):
    def slow(now, state):
        time.sleep(0.1)
        if now == 20:
            raise Kill
        return {}

    with pytest.raises(Kill):
        toy_run(tmp_path, evaluate=slow)
    before = RunFolder(tmp_path).metrics()[-1]["seconds"]
    began = time.monotonic()
    resumed = toy_run(tmp_path, resume=True)
    assert before >= 0.2
    assert before <= resumed.seconds <= before + time.monotonic() - began + 2.0


@pytest.mark.parametrize(
    "changes", [{"steps": 46}, {"seed": 4}, {"steps_per_dispatch": 5, "evaluate_every": 5}]
)
def test_checkpoint_of_another_run_is_refused(tmp_path, changes):
    toy_run(tmp_path)
    name = next(iter(changes))
    with pytest.raises(ValueError, match=rf"found a checkpoint of a run with {name}=.* \(now "):
        toy_run(tmp_path, resume=True, **changes)


def test_new_run_refuses_checkpoints(tmp_path):
    toy_run(tmp_path)
    with pytest.raises(ValueError, match=r"found checkpoints in .*; expected none .*resume=True"):
        toy_run(tmp_path)


def test_new_run_refuses_metrics_without_checkpoints(tmp_path):
    RunFolder(tmp_path).append({"step": 0})
    with pytest.raises(ValueError, match=r"found metrics of another run in .*; expected none"):
        toy_run(tmp_path)
    assert RunFolder(tmp_path).metrics() == [{"step": 0}]


@pytest.mark.parametrize(
    ("lost", "message"),
    [("metrics.jsonl", "metrics up to step 45"), ("result.json", "result.json")],
)
def test_resuming_without_checkpoints_never_loses_what_is_there(tmp_path, lost, message):
    toy_run(tmp_path)
    folder = RunFolder(tmp_path)
    folder.write_result({"a": 1})
    for name in {"metrics.jsonl", "result.json"} - {lost}:
        (tmp_path / name).unlink()
    shutil.rmtree(folder.checkpoints)
    before = (tmp_path / lost).read_bytes()
    with pytest.raises(
        ValueError, match=rf"found {message} in .*, but no checkpoint in .*--out DIR"
    ):
        toy_run(tmp_path, resume=True)
    assert (tmp_path / lost).read_bytes() == before


def test_checkpoints_of_another_run_are_refused(tmp_path):
    options = {"steps": 10, "seed": 0, "steps_per_dispatch": 10, "quiet": True}
    train(toy_step, toy_state(), folder=RunFolder(tmp_path, run="one"), **options)
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.raises(ValueError, match="of the run 'one'; expected one of the run 'other'"):
        train(
            toy_step, toy_state(), folder=RunFolder(tmp_path, run="other"), resume=True, **options
        )


def test_resumed_run_says_where_it_goes_on_from(tmp_path, capsys):
    loud = {"quiet": False, "resume": True, "description": "toy"}
    toy_run(tmp_path, **loud)
    assert "toy: no checkpoint yet, starting from step 0 of 45\n" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "checkpoints" / "45")
    toy_run(tmp_path, **loud)
    assert "toy: going on from step 40 of 45\n" in capsys.readouterr().err
    toy_run(tmp_path, **loud | {"quiet": True})
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_at_the_next_boundary_and_then_does_its_work(tmp_path, whole, number):
    class Ended(BaseException):
        pass

    def end(*_):
        raise Ended

    def signalled(now, state):
        if now == 20:
            signal.raise_signal(number)
            signal.raise_signal(signal.SIGTERM)  # a second one of these changes nothing
        return norm(now, state)

    before = {one: signal.signal(one, end) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(Ended):
            toy_run(tmp_path, evaluate=signalled, checkpoint_seconds=math.inf)
        assert {signal.getsignal(one) for one in before} == {end}
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    assert [line["step"] for line in RunFolder(tmp_path).metrics()] == [0, 10, 20]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["10", "20"]
    resumed = toy_run(tmp_path, evaluate=norm, resume=True)
    assert digest(resumed.state) == digest(whole[0].state)
    assert without_seconds(RunFolder(tmp_path).metrics()) == without_seconds(whole[1])


def test_signal_while_compiling_is_heeded_at_the_first_boundary(tmp_path):
    def step(state, key):
        if not traced:
            traced.append(state)
            signal.raise_signal(signal.SIGINT)
        return state + 1, {}

    traced = []
    options = {"steps": 30, "seed": 0, "steps_per_dispatch": 10, "quiet": True}
    with pytest.raises(KeyboardInterrupt):
        train(step, jnp.zeros(2), folder=RunFolder(tmp_path), **options)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["10"]
    trained = train(step, jnp.zeros(2), folder=RunFolder(tmp_path), resume=True, **options)
    assert trained.state.tolist() == [30, 30]


def test_second_interrupt_waits_for_nothing(tmp_path):
    def signalled(now, state):
        if now == 20:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError
        return {}

    with pytest.raises(KeyboardInterrupt):
        toy_run(tmp_path, evaluate=signalled, checkpoint_seconds=math.inf)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["10"]


def test_placement_on_several_devices_survives(tmp_path):
    mesh = jax.make_mesh(
        (2,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2]
    )
    rows = jax.NamedSharding(mesh, jax.P("rows"))
    state = {"w": jax.device_put(np.zeros((4, 3), np.float32), rows)}

    def step(state, key):
        w = state["w"] + jax.random.uniform(key, (4, 3)) + state["w"].mean(0)
        return {"w": w}, {"mean": w.mean()}

    def die(now, state):
        if now == 20:
            raise Kill
        return {}

    def go(name, **options):
        defaults = {"steps": 30, "seed": 0, "quiet": True, "checkpoint_seconds": 0.0}
        defaults |= {"steps_per_dispatch": 10, "evaluate_every": 10}
        folder = RunFolder(tmp_path / name)
        return train(step, state, folder=folder, **(defaults | options)).state["w"]

    one = go("whole")
    with pytest.raises(Kill):
        go("parts", evaluate=die)
    other = go("parts", resume=True)
    assert one.sharding.is_equivalent_to(rows, 2)
    assert other.sharding.is_equivalent_to(rows, 2)
    np.testing.assert_array_equal(one, other)
    assert np.min(one) > 1
