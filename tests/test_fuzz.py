"""A small part of what `python -m tests.fuzz` does, and whether it would notice."""

import json
import re

import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.checks import require
from tests.fuzz import __main__ as command
from tests.fuzz import compare, illegal, legal, wrong
from tests.fuzz.calls import CALLS
from tests.fuzz.compare import Near
from tests.fuzz.findings import Findings
from tests.fuzz.program import Program
from tests.fuzz.rooms import FAMILIES
from tests.fuzz.run import fuzz, shared_out

PLANS = {
    "ops": (8, 11, 14, 16, 24, 26, 28),
    "sort": (2, 10, 14, 16, 18),
    "recurrent": (0, 2, 3, 7),
    "remat": (0,),
    "glimpse": (8,),
    "estimators": (0, 6),
    "backprop": (3,),
    "pruning": (0,),
    "reparam": (2,),
    "continual": (0,),
    "diagnostics": (0,),
    "conv": (0, 4, 7),
    "attention": (0, 2, 3),
    "graph": (0, 4),
    "spiking": (0, 2),
    "explain": (1,),
    "local": (0,),
    "memory": (0, 2),
}
"""One plan of many families; each is a compiled program."""


@pytest.mark.parametrize(("room", "plan"), [(room, n) for room in PLANS for n in PLANS[room]])
def test_right_arguments_agree_with_numpy(room, plan):
    findings = fuzz(cases=(plan + 1) * 40, room=room, plan=plan, per_plan=40)
    assert findings.total("cases") == 40
    assert list(findings.lines()) == []


def test_wrong_arguments_are_told_in_three_parts():
    findings = fuzz(illegal=200)
    assert findings.total("illegal") == 200
    assert list(findings.lines()) == []


def expect_double(case, got):
    return {"y": compare.relative(2 * case["x"]), "d_x": Near(2 * case["weights"])}


def doubling(run):
    def family(rng):
        return Program(
            "double",
            {},
            lambda rng: {"x": rng.normal(size=3).astype(np.float32)},
            lambda x: {"y": run(x)},
            lambda case, got: {
                "y": compare.relative(2 * case["x"]),
                "d_x": Near(2 * case["weights"]),
            },
            slopes=("x",),
        )

    return family


@pytest.mark.parametrize(
    ("run", "kind", "words"),
    [
        (lambda x: x + x, None, ""),
        (lambda x: x * (2 + 1e-5), "mismatches", "expected"),
        (lambda x: jnp.where(x > 0, jnp.nan, 2 * x), "nan", "nan"),
        (lambda x: 2 * x.astype(jnp.bfloat16), "mismatches", "dtype bfloat16"),
        (lambda x: jnp.maximum(2 * x, 2 * x), None, ""),
        (lambda x: 2 * jnp.round(x * 2**20) / 2**20 + 0 * x, "mismatches", "d_x"),
        (lambda x: 1 / 0, "mismatches", "ZeroDivisionError"),
    ],
)
def test_what_is_not_right_is_found(run, kind, words):
    findings = Findings()
    legal.run_plan(doubling(run), "room", 0, seed=0, count=20, findings=findings)
    assert findings.total("cases") == 20
    assert bool(findings.total("mismatches") + findings.total("nan")) == (kind is not None)
    if kind:
        assert findings.total(kind) > 0
        assert any(words in line for line in findings.lines())
        assert any("--room room --seed 0 --plan 0" in line for line in findings.lines())


def told(number):
    require(isinstance(number, int), f"number={number!r}", "an int", "pass one")


def obscure(number):
    return number + 1


@pytest.mark.parametrize(
    ("function", "kinds"),
    [(told, set()), (obscure, {"obscure", "silent"}), (lambda number: None, {"silent"})],
)
def test_what_is_not_told_is_found(function, kinds):
    number = wrong.Kind(1, lambda rng: (None, "text", 2.5)[rng.integers(3)])
    findings = Findings()
    illegal.run_calls(
        [lambda rng: wrong.Call("f", function, {"number": number})], "room", 0, 60, findings
    )
    assert findings.total("illegal") == 60
    assert {kind for kind in ("silent", "obscure") if findings.total(kind)} == kinds


def test_a_call_that_is_wrong_as_it_is_says_so():
    findings = Findings()
    number = wrong.Kind("text", lambda rng: None)
    illegal.run_calls(
        [lambda rng: wrong.Call("f", told, {"number": number})], "room", 0, 1, findings
    )
    assert any("as it is" in line for line in findings.lines())


def test_a_run_is_one_line_of_json(tmp_path, capsys):
    path = tmp_path / "folder" / "fuzz.jsonl"
    arguments = ["--room", "diagnostics", "--cases", "40", "--per-plan", "40", "--json", str(path)]
    assert command.main(arguments) == 0
    assert command.main(arguments) == 0
    first, second = map(json.loads, path.read_text().splitlines())
    assert json.loads(capsys.readouterr().out.splitlines()[0]) == first
    assert first["rooms"] == second["rooms"] == {"diagnostics": {"cases": 40}}
    assert (first["benchmark"], first["cases"], first["mismatches"]) == ("fuzz", 40, 0)
    assert re.fullmatch(r"[0-9a-f]{12}(\+changes)?", first["commit"])
    assert {"date", "device", "jax", "numpy", "python", "seed", "seconds"} <= first.keys()


def test_every_room_has_a_share():
    for table in (FAMILIES, CALLS):
        shares = dict(shared_out(1000, table, None))
        assert sum(shares.values()) == 1000
        assert set(shares) == set(table) <= set(command.ROOMS)
        assert all(shares.values())
    assert list(shared_out(7, CALLS, "nn")) == [("nn", 7)]
