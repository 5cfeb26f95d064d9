"""What people read: numbers in a table, and bars that follow the memory."""

import jax.numpy as jnp
import pytest

from sparse_hyper_jax import remat
from sparse_hyper_jax.remat.report import BARS, bars
from tests.remat.examples import dots
from tests.remat.test_checkpoint import DEEP, bytes_by_plan, lean_of


@pytest.mark.parametrize(
    ("curve", "top", "drawn"),
    [
        ([0, 1, 4, 8], 8, " ▁▄█"),
        ([8] * 200, 8, "█" * 64),
        ([0] * 100, 0, " " * 64),
        (list(range(128)), 127, bars(list(range(1, 128, 2)), 127)),
    ],
)
def test_bars_are_the_largest_of_their_parts(curve, top, drawn):
    assert bars(curve, top) == drawn
    assert BARS[0] == " "


def test_a_measured_report(monkeypatch, capsys):
    bytes_by_plan(monkeypatch, 1000, 900, 480)
    remat.budgeted_checkpoint(dots, 0.5).report(*DEEP)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "budget 500 bytes of temporaries, compiled; taken: plan 2 of 3 tried"
    assert lines[1].split()[:5] == ["plan", "segments", "again", "model", "temporaries"]
    rows = [line.split() for line in lines[2:5]]
    assert [(row[0], row[4]) for row in rows] == [("0", "1,000"), ("1", "900"), ("2*", "480")]
    assert len({len(line) for line in lines[1:5]}) == 1
    # Six kernels and a batch of 4,096 floats each.
    assert lines[5].startswith("on top: 114,688 bytes of arguments")
    assert lines[-2].startswith("   plain ")
    assert lines[-1].startswith("  plan 2 ")


def test_an_estimated_report(capsys):
    lean = lean_of(dots)
    lean.report(*DEEP)
    text = capsys.readouterr().out
    assert "estimated" in text
    assert "GFLOP" not in text
    plain, taken = text.splitlines()[-2:]
    assert plain.count("█") >= 1
    assert taken.count("█") == 0


def test_report_of_what_computes_nothing(capsys):
    lean_of(lambda x: x).report(jnp.ones(3))
    assert "plan 0 of 1 tried" in capsys.readouterr().out
