import json
import os
import signal
import socket
import subprocess
import sys
import time
from inspect import signature
from pathlib import Path

import numpy as np
import pytest

from sparse_hyper_jax import dist
from sparse_hyper_jax.train.recipes import identity
from sparse_hyper_jax.train.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
SECONDS = 240
STEPS = 40
OPTIONS = {"size": 4, "batch": 8, "steps": STEPS, "relocate_every": 0, "num_local": 0}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start_pair(out, cache, *flags):
    """Start two processes with a device each."""
    environment = {name: text for name, text in os.environ.items() if name != "XLA_FLAGS"}
    environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    environment |= {
        "JAX_NUM_CPU_DEVICES": "1",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_ENABLE_COMPILATION_CACHE": "True",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    words = [sys.executable, "-m", "tests.dist.pair", "identity", "--out", str(out), *flags]
    words += ["--mesh", "tuples=2", "--coordinator", f"127.0.0.1:{free_port()}"]
    words += ["--num-processes", "2"]
    for name, value in OPTIONS.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return [
        subprocess.Popen(
            [*words, "--rank", str(rank)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def outcome(pair):
    """Wait for two processes: exit codes, outputs, errors."""
    try:
        said = [process.communicate(timeout=SECONDS) for process in pair]
    finally:
        for process in pair:
            process.kill()
    outputs, errors = zip(*said, strict=True)
    return [process.returncode for process in pair], outputs, errors


def wait_for_step(out, step, pair):
    metrics, deadline = out / "metrics.jsonl", time.monotonic() + SECONDS
    while time.monotonic() < deadline and all(process.poll() is None for process in pair):
        if metrics.exists() and f'"step": {step},' in metrics.read_text():
            return
        time.sleep(0.002)


def final_tuples(out):
    with np.load(out / "snapshots" / f"{STEPS:08d}.npz") as file:
        return {name: file[name] for name in file.files if name != "run"}


def without_seconds(out):
    lines = RunFolder(out).metrics()
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache):
    out = tmp_path_factory.mktemp("pair") / "run"
    codes, outputs, errors = outcome(start_pair(out, cache))
    assert codes == [0, 0], errors
    return out, outputs, errors


def test_only_the_first_process_reports(whole):
    out, (first, second), (first_bar, second_bar) = whole
    result = json.loads(first.splitlines()[-1])
    assert result == json.loads((out / "result.json").read_text())
    assert "{" not in second
    assert f"run folder: {out}" in first_bar
    assert f"{STEPS}/{STEPS}" in first_bar
    assert "run folder" not in second_bar
    assert f"{STEPS}/{STEPS}" not in second_bar
    assert [line["step"] for line in RunFolder(out).metrics()] == list(range(0, STEPS + 1, 10))
    assert json.loads((out / "config.json").read_text())["fields"]["rank"] == 0


def test_two_processes_train_as_one(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "draw", lambda recipe, folder: None)
    identity.IdentityRecipe(**OPTIONS, out=tmp_path / "run", quiet=True).run()
    alone, together = final_tuples(tmp_path / "run"), final_tuples(whole[0])
    for name, values in alone.items():
        np.testing.assert_allclose(together[name], values, rtol=1e-5, atol=1e-5)


def test_killed_processes_resume_to_the_same_end(whole, cache, tmp_path):
    out = tmp_path / "run"
    pair = start_pair(out, cache, "--quiet")
    wait_for_step(out, 20, pair)
    for process in pair:
        process.send_signal(signal.SIGKILL)
    codes, _, errors = outcome(pair)
    assert codes == [-signal.SIGKILL] * 2, errors
    assert any((out / "checkpoints").iterdir())
    assert not (out / "result.json").exists()
    codes, _, errors = outcome(start_pair(out, cache, "--quiet", "--resume"))
    assert codes == [0, 0], errors
    for name, values in final_tuples(whole[0]).items():
        np.testing.assert_array_equal(final_tuples(out)[name], values)
    assert without_seconds(out) == without_seconds(whole[0])


def test_processes_stop_together_where_one_is_told_to(whole, cache, tmp_path):
    out = tmp_path / "run"
    pair = start_pair(out, cache, "--quiet")
    wait_for_step(out, 10, pair)
    pair[1].send_signal(signal.SIGTERM)
    codes, outputs, errors = outcome(pair)
    assert codes == [143, 143], errors
    assert "{" not in "".join(outputs)
    steps = [line["step"] for line in RunFolder(out).metrics()]
    assert steps[-1] < STEPS
    assert (out / "checkpoints" / str(steps[-1])).exists()
    codes, _, errors = outcome(start_pair(out, cache, "--quiet", "--resume"))
    assert codes == [0, 0], errors
    for name, values in final_tuples(whole[0]).items():
        np.testing.assert_array_equal(final_tuples(out)[name], values)


def test_an_error_in_the_first_process_ends_all(whole, cache):
    codes, outputs, errors = outcome(start_pair(whole[0], cache))
    assert codes == [2, 2], errors
    assert "found a run in" in errors[0]
    assert "found a failure of process 0" in errors[1]
    assert "{" not in "".join(outputs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, 0, 2), "found num_processes=2 without a coordinator; .*127.0.0.1"),
        (("127.0.0.1:1234", 2, 2), "found rank=2 of num_processes=2; expected a rank from 0 to 1"),
        (("127.0.0.1:1234", -1, 2), "found rank=-1"),
        (("127.0.0.1:1234", 0, 0), "found num_processes=0"),
        (("127.0.0.1", 0, 2), "found coordinator='127.0.0.1'; expected host:port"),
        ((":1234", 0, 2), "found coordinator=':1234'"),
        (("localhost:http", 0, 2), "found coordinator='localhost:http'"),
        (("localhost:70000", 0, 2), "found coordinator='localhost:70000'"),
        ((1234, 0, 2), "found coordinator=1234; expected host:port"),
        (("localhost:1234", "0", 2), "found rank='0'; expected an int"),
        (("localhost:1234", 0, 2.0), "found num_processes=2.0; expected an int"),
    ],
)
def test_wrong_processes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        dist.join_processes(*arguments)


def test_messages_name_arguments_that_exist():
    assert {"coordinator", "rank", "num_processes"} < set(signature(dist.join_processes).parameters)
    with pytest.raises(ValueError, match="found timeout=0"):
        dist.join_processes(None, 0, 1, timeout=0)


def test_what_the_first_process_says_is_a_flag_and_does_is_a_function():
    with pytest.raises(ValueError, match="found flag='no'; expected True or False"):
        dist.first_says("no")
    with pytest.raises(ValueError, match="found action=3; expected a function"):
        dist.first_does(3)


def test_one_process_has_nobody_to_join():
    dist.join_processes(None, 0, 1)
    assert dist.is_first()
    assert dist.first_says(True)
    assert not dist.first_says(False)
    done = []
    dist.first_does(lambda: done.append(1))
    assert done == [1]


def test_failure_of_the_first_process_keeps_its_kind():
    def fail():
        raise KeyError("a file")

    with pytest.raises(KeyError, match="a file"):
        dist.first_does(fail)
