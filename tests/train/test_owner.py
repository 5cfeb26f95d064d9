import subprocess
import sys

import pytest

from sparse_hyper_jax.train import owner
from sparse_hyper_jax.train.owner import Owner


def names(path):
    return [entry.name for entry in path.iterdir()]


def test_owner_that_is_killed_holds_nothing(tmp_path):
    program = (
        "import os, pathlib, signal, sys\nfrom sparse_hyper_jax.train.owner import Owner\n"
        "owner = Owner(pathlib.Path(sys.argv[1]))\nprint('owned', flush=True)\n"
        "sys.stdin.read()"
    )
    words = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"owned\n"
        with pytest.raises(ValueError, match=f"in use by process {process.pid} on"):
            Owner(tmp_path)
        process.kill()
    assert names(tmp_path) == ["owner.lock"]
    Owner(tmp_path).release()
    assert names(tmp_path) == []


def test_owner_waits_for_no_file_that_is_gone(tmp_path, monkeypatch):
    # The first owner leaves between the second one's opening of the file and its lock on it.
    first, flock = Owner(tmp_path), owner.fcntl.flock

    def late(*arguments):
        first.release()
        flock(*arguments)

    monkeypatch.setattr(owner.fcntl, "flock", late)
    second = Owner(tmp_path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="in use by"):
        Owner(tmp_path)
    second.release()


def test_release_twice_does_not_touch_the_next_owner(tmp_path):
    first = Owner(tmp_path)
    first.release()
    second = Owner(tmp_path)
    first.release()
    with pytest.raises(ValueError, match="in use by"):
        Owner(tmp_path)
    second.release()
    assert names(tmp_path) == []


def test_owner_that_is_forgotten_holds_nothing(tmp_path):
    Owner(tmp_path)
    Owner(tmp_path).release()
