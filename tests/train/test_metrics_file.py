import json

import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.train.metrics_file import append_metrics, cut_metrics, read_metrics


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


@pytest.mark.parametrize("run", ["", "name"])
def test_metrics_are_appended_and_read_back(path, run):
    assert read_metrics(path, run=run) == []
    append_metrics(path, {"step": 10, "loss": np.float32(0.5), "count": jnp.int32(3)}, run=run)
    append_metrics(path, {"step": 20, "loss": float("nan"), "worst": -np.inf}, run=run)
    assert read_metrics(path, run=run) == [
        {"step": 10, "loss": 0.5, "count": 3},
        {"step": 20, "loss": None, "worst": None},
    ]
    assert path.read_text().count("name") == bool(run)


@pytest.mark.parametrize("half", ["", '{"step": 30, "lo', "\0\0\0", '{"step"', "3", b"\xff\xfe"])
@pytest.mark.parametrize("step", [-1, 0, 10, 15, 20, 1000])
def test_metrics_are_cut_at_the_checkpoint(path, half, step):
    for finished in (0, 10, 20):
        append_metrics(path, {"step": finished, "loss": finished / 3}, run="name")
    with path.open("ab") as file:
        file.write(half if isinstance(half, bytes) else half.encode())
    cut_metrics(path, step, run="name")
    append_metrics(path, {"step": 30, "loss": 1.0}, run="name")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.pop("run", None) for line in lines] == ["name"] + [None] * (len(lines) - 1)
    kept = [{"step": at, "loss": at / 3} for at in (0, 10, 20) if at <= step]
    assert lines == [*kept, {"step": 30, "loss": 1.0}]


def test_cutting_no_file_makes_none(path):
    cut_metrics(path, -1, run="")
    assert not path.exists()


@pytest.mark.parametrize(
    "line",
    [
        *(b'{"step": "x"}', b'{"step": true}', b'{"step": -1}', b'{"step": 1.5}', b'{"loss": 1}'),
        *(b"3", b"", b"null", b"[]", b"no JSON", b"\xff\xfe", b"\0", b"[" * 100_000, b"9" * 5000),
    ],
    ids=range(14),
)
def test_complete_line_that_is_none_of_metrics_is_told_in_three_parts(path, line):
    append_metrics(path, {"step": 10}, run="name")
    with path.open("ab") as file:
        file.write(line + b"\n")
    append_metrics(path, {"step": 20}, run="name")
    before = path.read_bytes()
    for use in (read_metrics, lambda path, run: cut_metrics(path, 5, run=run)):
        with pytest.raises(
            ValueError, match=r"^found .*metrics.jsonl.*; expected .*; restore"
        ) as caught:
            use(path, run="name")
        assert len(str(caught.value)) < 700
    assert path.read_bytes() == before


def test_metrics_of_another_run_are_refused(path):
    append_metrics(path, {"step": 10}, run="one")
    assert read_metrics(path, run="") == [{"step": 10}]
    with pytest.raises(ValueError, match=r"of the run 'one'; expected metrics of the run 'other'"):
        read_metrics(path, run="other")
    path.write_text('{"step": 10}\n')
    with pytest.raises(ValueError, match="of the run ''"):
        read_metrics(path, run="other")
