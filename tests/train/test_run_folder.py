import dataclasses
import enum
import errno
import functools
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.train import owner
from sparse_hyper_jax.train.run_folder import RunFolder, default_path, open_run
from tests.ops.examples import assert_names_itself_and_its_cure


class Kind(enum.Enum):
    FREE = 1


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = 1e-3


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 100
    sizes: tuple[int, ...] = (3, 4)
    kind: Kind = Kind.FREE
    inner: Inner = Inner()
    out: Path | None = None
    resume: bool = False
    quiet: bool = False
    coordinator: str | None = None
    rank: int = 0


def names(path):
    return sorted(entry.name for entry in path.iterdir())


def test_new_run_writes_the_configuration(tmp_path):
    folder = open_run(Config(out=tmp_path), recipe="toy", out=tmp_path / "a" / "b")
    content = json.loads((folder.path / "config.json").read_text())
    assert content["recipe"] == "toy"
    assert content["fields"] == {
        "steps": 100,
        "sizes": [3, 4],
        "kind": "FREE",
        "inner": {"rate": 1e-3},
        "out": str(tmp_path),
        "resume": False,
        "quiet": False,
        "coordinator": None,
        "rank": 0,
    }
    assert {"jax", "flax", "optax", "sparse_hyper_jax"} == content["versions"].keys()
    assert folder.run == content["run"]
    assert len(folder.run) == 16
    assert names(folder.path) == ["config.json", "owner.lock"]
    with folder:
        pass
    assert names(folder.path) == ["config.json"]


def test_default_folder_is_named_after_the_recipe_and_never_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = open_run(Config(), recipe="toy")
    second = open_run(Config(), recipe="toy")
    assert first.path.parent == Path("runs")
    assert first.path.name.startswith("toy-2")
    assert first.path != second.path
    assert not default_path("toy").exists()


@pytest.mark.parametrize("left", ["notes.txt", "best.npz", "metrics.jsonl", "checkpoints", ".x"])
def test_folder_with_anything_in_it_is_refused_and_left_alone(tmp_path, left):
    (tmp_path / left).write_text("mine")
    message = rf"found {left} in .*; expected an empty folder .*; pass another --out DIR"
    with pytest.raises(ValueError, match=message):
        open_run(Config(), recipe="toy", out=tmp_path)
    assert names(tmp_path) == [left]


def test_what_an_interrupted_start_leaves_is_no_content(tmp_path):
    for name in ("owner.lock", "config.json.partial"):
        (tmp_path / name).write_text("{")
    assert open_run(Config(), recipe="toy", out=tmp_path).run


def test_folder_with_a_run_is_refused(tmp_path):
    with open_run(Config(), recipe="toy", out=tmp_path):
        pass
    with pytest.raises(ValueError, match=r"found a run in .*; expected .*--resume .*--out DIR"):
        open_run(Config(), recipe="toy", out=tmp_path)


def fail(out, *, write=None, resume=False):
    with open_run(Config(), recipe="toy", out=out, resume=resume) as folder:
        folder.checkpoints.mkdir(exist_ok=True)
        if write:
            (out / write).write_text("{}")
        raise ZeroDivisionError


@pytest.mark.parametrize("existing", [True, False])
def test_run_that_fails_before_it_wrote_anything_leaves_no_folder(tmp_path, existing):
    out = tmp_path / "run"
    if existing:
        out.mkdir()
    with pytest.raises(ZeroDivisionError):
        fail(out)
    assert out.exists() == existing
    assert open_run(Config(), recipe="toy", out=out).run


@pytest.mark.parametrize("write", ["metrics.jsonl", "checkpoints/10"])
def test_run_that_fails_after_it_wrote_something_stays(tmp_path, write):
    with pytest.raises(ZeroDivisionError):
        fail(tmp_path, write=write)
    left = names(tmp_path)
    assert "config.json" in left
    with pytest.raises(ZeroDivisionError):
        fail(tmp_path, resume=True)
    assert set(left) <= set(names(tmp_path))


@pytest.mark.parametrize("place", ["file", "below a file", "proc", "read-only"])
def test_unwritable_folder_is_refused(tmp_path, place):
    (tmp_path / "file").write_text("")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if place == "proc" and not Path("/proc/self").exists():
        pytest.skip("no /proc on this system")
    if place == "read-only" and os.access(closed, os.W_OK):
        pytest.skip("this user may write everywhere")
    out = {
        "file": tmp_path / "file",
        "below a file": tmp_path / "file" / "run",
        "proc": Path("/proc/run"),
        "read-only": closed / "run",
    }[place]
    with pytest.raises(OSError, match=r"found .* cannot be written to .*; expected .*--out DIR"):
        open_run(Config(), recipe="toy", out=out)


def test_resume_accepts_fields_without_influence(tmp_path):
    with open_run(Config(), recipe="toy", out=tmp_path) as first:
        before = (tmp_path / "config.json").read_text()
    same = Config(out=tmp_path, resume=True, quiet=True, coordinator="127.0.0.1:1234", rank=0)
    with open_run(same, recipe="toy", out=tmp_path, resume=True) as again:
        assert again == first
    assert (tmp_path / "config.json").read_text() == before


@pytest.mark.parametrize("resume", [False, True])
def test_second_owner_is_refused_and_the_first_stays(tmp_path, resume):
    with open_run(Config(), recipe="toy", out=tmp_path) as first:
        if not resume:
            (tmp_path / "config.json").unlink()  # as between the first one's check and its writing
        message = rf"found .* in use by process {os.getpid()} on .*; expected .*; wait .*--out DIR"
        with pytest.raises(ValueError, match=message):
            open_run(Config(), recipe="toy", out=tmp_path, resume=resume)
        assert "owner.lock" in names(tmp_path)
        first.append({"step": 1})


def test_folder_that_cannot_be_locked_is_used_with_a_warning(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(owner.fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="cannot be locked .*no locks"):
        assert open_run(Config(), recipe="toy", out=tmp_path).run


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 200}, "steps was 100 and is now 200"),
        ({"steps": 100.0}, "steps was 100 and is now 100.0"),
        ({"sizes": (3, 4, 5)}, r"sizes was \[3, 4\] and is now \[3, 4, 5\]"),
        ({"inner": Inner(rate=0.1)}, "inner was .*0.001.* and is now .*0.1"),
        ({"steps": 1, "sizes": ()}, "sizes was .*; --steps was"),
    ],
)
def test_resume_names_the_differing_fields(tmp_path, changes, message):
    open_run(Config(), recipe="toy", out=tmp_path)
    with pytest.raises(ValueError, match=message):
        open_run(dataclasses.replace(Config(), **changes), recipe="toy", out=tmp_path, resume=True)


def test_resume_on_other_data_is_refused(tmp_path):
    files = [["a.csv", "01"], ["b.csv", "02"]]
    options = {"recipe": "toy", "out": tmp_path}
    with open_run(Config(), **options, files=files):
        pass
    with open_run(Config(), **options, files=files, resume=True):
        pass
    others = {
        "b.csv": [files[0], ["b.csv", "03"]],
        "in 2 files": [],
        "c.csv": [*files, ["c.csv", ""]],
    }
    for found, other in others.items():
        resume = functools.partial(open_run, Config(), **options, files=other, resume=True)
        assert_names_itself_and_its_cure(resume, found, "same bytes", "--out DIR")
    stored = json.loads((tmp_path / "config.json").read_text())
    for damaged in (None, "a.csv", [1]):
        (tmp_path / "config.json").write_text(json.dumps(stored | {"files": damaged}))
        resume = functools.partial(open_run, Config(), **options, files=files, resume=True)
        assert_names_itself_and_its_cure(resume, "a.csv, b.csv", "same bytes", "--out DIR")
    del stored["files"]  # as versions before did not write them
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with open_run(Config(), **options, files=files, resume=True):
        pass


def test_resume_with_another_recipe_is_refused(tmp_path):
    open_run(Config(), recipe="toy", out=tmp_path)
    with pytest.raises(ValueError, match=r"steps was 100 and is now '\(absent\)'"):
        open_run(Inner(), recipe="toy", out=tmp_path, resume=True)
    with pytest.raises(ValueError, match=r"found a run of the recipe 'toy' in .*") as caught:
        open_run(Inner(), recipe="other", out=tmp_path, resume=True)
    assert "steps" not in str(caught.value)  # fields of another recipe have no counterpart


def test_run_of_an_earlier_version_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"recipe": "toy", "fields": {}, "versions": {}}')
    with pytest.raises(ValueError, match=r"config\.json without the name of its run; .*--out DIR"):
        open_run(Config(), recipe="toy", out=tmp_path, resume=True)
    assert names(tmp_path) == ["config.json"]


def test_resume_under_other_versions_warns(tmp_path):
    open_run(Config(), recipe="toy", out=tmp_path)
    stored = tmp_path / "config.json"
    content = json.loads(stored.read_text())
    content["versions"]["jax"] = "0.0.1"
    stored.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=r"0\.0\.1.*may differ in the last digits"):
        open_run(Config(), recipe="toy", out=tmp_path, resume=True)


def test_resume_needs_a_run(tmp_path):
    with pytest.raises(ValueError, match=r"found --resume without --out; .*pass --out DIR"):
        open_run(Config(), recipe="toy", resume=True)
    with pytest.raises(ValueError, match=r"found no run in .*drop --resume"):
        open_run(Config(), recipe="toy", out=tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "text",
    [
        *("", '{"recipe": "toy", "fie', "[1]", '{"recipe": "toy"}', "\0\0", "9" * 5000),
        *("[" * 200_000, '{"recipe": 1, "fields": {}}', '{"recipe": "toy", "fields": []}'),
        *('{"recipe": "toy", "fields": {}, "run": 3}', " " * 2**21, b"\xff\xfe"),
    ],
    ids=range(12),
)
def test_corrupt_configuration_is_told_in_three_parts(tmp_path, text):
    with open_run(Config(), recipe="toy", out=tmp_path):
        pass
    (tmp_path / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    message = r"^found .*config\.json .*; expected .*; start a new run with another --out DIR"
    with pytest.raises(ValueError, match=message) as caught:
        open_run(Config(), recipe="toy", out=tmp_path, resume=True)
    assert len(str(caught.value)) < 700
    assert names(tmp_path) == ["config.json"]


def test_metrics_carry_the_name_of_their_run(tmp_path):
    with open_run(Config(), recipe="toy", out=tmp_path) as folder:
        folder.append({"step": 10, "loss": np.float32(0.5)})
        folder.append({"step": 20, "loss": np.float32(0.25)})
        folder.cut_metrics(10)
        assert folder.metrics() == [{"step": 10, "loss": 0.5}]
    other = dataclasses.replace(folder, run="other")
    for use in (other.metrics, lambda: other.cut_metrics(5)):
        with pytest.raises(ValueError, match=rf"found .* of the run '{folder.run}'; .*'other'"):
            use()


def test_result_is_plain_json(tmp_path):
    folder = RunFolder(tmp_path)
    result = {
        "accuracy": jnp.float32(0.25),
        "where": tmp_path,
        "curve": np.arange(3),
        "bad": np.inf,
    }
    plain = folder.write_result(result)
    assert plain == {"accuracy": 0.25, "where": str(tmp_path), "curve": [0, 1, 2], "bad": None}
    assert json.loads((tmp_path / "result.json").read_text()) == plain
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_other_processes_leave_the_files_to_the_first(tmp_path):
    folder = RunFolder(tmp_path, writes=False)
    folder.append({"step": 10})
    folder.cut_metrics(-1)
    assert folder.write_result({"accuracy": jnp.float32(0.25)}) == {"accuracy": 0.25}
    assert not list(tmp_path.iterdir())


def test_several_processes_name_their_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match=r"found 2 processes without --out; .*the same --out DIR"):
        open_run(Config(), recipe="toy")
    assert not list(tmp_path.iterdir())


def test_part_has_files_of_its_own_under_the_name_of_the_run(tmp_path):
    whole = RunFolder(tmp_path, run="name")
    part = whole.part("task-1")
    part.append({"step": 1})
    assert (part.run, part.path, whole.metrics()) == ("name", tmp_path / "task-1", [])
    assert not RunFolder(tmp_path, writes=False).part("task-2").path.exists()
