"""Tables on the pages are those that the benchmarks make from their lines; how lines are made."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from benchmarks import NAMES, PAGES, __main__, glimpse_headline, lines, recipes, runner, tables
from benchmarks.lines import ROOT, Lines

WITHOUT_TABLE = ("sparse_backprop_speed", "gpu")
UNFINISHED = ("gpu", "shard")
"""Benchmarks of which not all settings were measured."""

MEASURED_BY_A_PROGRAM = {
    ("kind", "gradient"),
    ("kind", "speed"),
    ("part", "time"),
    ("bias", True),
}
TRAINED = [name for name in NAMES if hasattr(runner.module_of(name), "train")]


def page(path):
    return (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize(("path", "name"), [(path, name) for path in PAGES for name in PAGES[path]])
def test_table_on_the_page_is_that_of_the_lines(path, name):
    table, found = runner.load(name).table, Lines.of(name)
    assert (table is None) == (name in WITHOUT_TABLE)
    written = table(found) if table else ""
    if name == "sparse_backprop_accuracy":
        # The page has names of its own for the settings.
        rows = [row.partition(" | ")[2] for row in written.splitlines()]
        assert len(rows) == 14
        assert all(row in page(path) for row in rows)
    elif table:
        assert written.count("\n") >= 3
        assert written in page(path)


def test_rows_among_the_results_are_those_of_the_guide():
    row = r"^\| (alpha \d[^|]*(?:\| \d[^|]*){6})\|$"
    rows = re.findall(row, page("docs/results.md"), flags=re.MULTILINE)
    assert len(rows) >= 5
    assert all(f"| SGD, {row}|" in page("docs/powerprop.md") for row in rows)


def test_what_the_original_work_reports_stands_beside_what_was_measured():
    written = glimpse_headline.against_reported(Lines.of("glimpse_headline"))
    assert written in page("docs/results.md")


@pytest.mark.parametrize("name", [name for name in NAMES if runner.load(name).draw])
def test_the_figure_shows_lines(name):
    benchmark, figure = runner.load(name), Figure()
    benchmark.draw(figure, Lines.of(name))
    assert any(len(ax.lines) >= 2 for ax in figure.axes)
    assert (ROOT / "docs" / f"{benchmark.figure}.png").exists()


def test_tables_need_no_jax():
    code = f"""
import sys
from benchmarks import runner
from benchmarks.lines import Lines
for name in {sorted(set(NAMES) - set(WITHOUT_TABLE))}:
    runner.load(name).table(Lines.of(name))
assert "jax" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


@pytest.mark.parametrize("name", NAMES)
def test_lines_say_which_commit_they_are_of(name):
    for line in Lines.of(name):
        assert line["benchmark"] == name
        assert re.fullmatch(r"[0-9a-f]{12}(\+changes)?", line.get("commit") or line["recorded_in"])


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(UNFINISHED)))
@pytest.mark.parametrize("mnist", [None, Path("mnist")])
def test_every_setting_has_its_line(name, mnist):
    benchmark, found = runner.load(name), Lines.of(name)
    if name == "experts" and mnist:
        pytest.skip("was not trained with MNIST")
    asked = runner.Asked(mnist=mnist, seeds=benchmark.seeds)
    assert all(found.where(**facts) for facts in benchmark.settings(asked, found))


@pytest.mark.parametrize("name", TRAINED)
def test_every_setting_is_one_that_its_recipe_takes(name, monkeypatch):
    taken = []

    def train(recipe, asked, *, curves=(), seconds=False, **options):
        recipes.recipe_of(recipe, asked, **options).check()
        taken.append(recipe)
        return {"curve": {name: [0, 1] for name in ("steps", *curves)}}

    monkeypatch.setattr(f"benchmarks.{name}.train", train)
    benchmark = runner.load(name)
    for folder in (None, Path("folder")):
        asked = runner.Asked(
            **dict.fromkeys(("mnist", "cluttered", "text", "fsdd", "nmnist"), folder), seeds=[0]
        )
        for facts in benchmark.settings(asked, Lines.of(name)):
            if not MEASURED_BY_A_PROGRAM & facts.items():
                benchmark.measure(facts, asked)
    assert taken


def toy(measured, *, tiny=()):
    """Two seeds of two settings; the second setting depends on the lines of the first."""

    def settings(asked, found):
        yield from runner.grid(setting=["first"], seed=asked.seeds)
        best = max(found.where(setting="first").values("score"))
        yield from runner.grid(setting=[f"after {best}"], seed=asked.seeds)

    def measure(facts, asked):
        measured.append(facts)
        return {"score": 10 * len(measured), "curve": [1], "seed": "overwritten"}

    return runner.Benchmark(
        settings=settings, measure=measure, tiny=tiny, seeds=range(2), name="toy"
    )


def run(benchmark, folder, *, only="", again=False, **asked):
    found = Lines.of("toy", folder)
    runner.measure(benchmark, runner.Asked(**asked), found, only=only, again=again)
    assert folder is None or found == Lines.of("toy", folder)
    return found


def test_lines_are_made_once_and_say_where_they_are_from(tmp_path, capsys):
    measured = []
    found = run(toy(measured), tmp_path)
    assert found.values("setting") == ["first", "first", "after 20", "after 20"]
    assert found.values("score") == [10, 20, 30, 40]
    # Facts name a line: a result cannot change them.
    assert found.values("seed") == [0, 1, 0, 1]
    expected = {"benchmark", "commit", "date", "device", "cores", "jax", "python"}
    assert expected <= found[0].keys()
    assert json.loads(capsys.readouterr().out.splitlines()[0]) == measured[0] | {"score": 10}
    assert run(toy(measured), tmp_path) == found
    assert len(measured) == 4


def test_an_interrupted_call_goes_on(tmp_path):
    measured = []
    run(toy(measured), tmp_path, only="setting=first seed=1")
    # Lines of others stay, also if they are written meanwhile.
    found = run(toy(measured), tmp_path, seeds=[0, 1])
    assert [facts["seed"] for facts in measured] == [1, 0, 0, 1]
    assert len(found) == 4


def test_measuring_again_replaces_lines_with_the_same_facts(tmp_path):
    measured = []
    first = run(toy(measured), tmp_path)
    found = run(toy(measured), tmp_path, again=True, only="first")
    assert found == [*first[2:], *found.where(setting="first")]
    assert found.where(setting="first").values("score") == [50, 60]


def test_a_tiny_run_writes_nothing_by_default(tmp_path):
    measured = []
    benchmark = toy(measured, tiny=[{"setting": "small"}])
    found = run(benchmark, None, tiny=True)
    assert found.values("tiny") == [True]
    assert measured == [{"setting": "small"}]
    parsed = __main__.parser().parse_args(["sort", "--tiny", "--seeds", "1", "2"])
    assert (parsed.tiny, parsed.results, parsed.seeds) == (True, None, [1, 2])


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_has_a_tiny_run_with_a_program(name):
    benchmark = runner.load(name)
    assert benchmark.tiny
    assert benchmark.summary.endswith((".", "?"))
    assert all(isinstance(fact, str) for facts in benchmark.tiny for fact in facts)
    assert (benchmark.draw is None) == (not benchmark.figure)


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "programs").glob("*.py")))
def test_what_a_program_uses_is_there(path):
    importlib.import_module(f"benchmarks.programs.{path.stem}")


def test_a_recipe_becomes_a_line():
    asked = runner.Asked(tiny=True)
    facts = {"seed": 3, "setting": "ARSM"}
    line = runner.load("univariate").measure(facts, asked)
    assert line["steps"] == recipes.TINY["steps"]
    assert line["seed"] == 3
    assert "out" not in line
    assert "seconds" not in line
    curve = recipes.train("univariate", asked, curves=["eval_reward"], seed=3)["curve"]
    assert len(curve["steps"]) == len(curve["eval_reward"]) >= 2


def test_run_folders_stay_where_that_is_asked_for_and_go_on(tmp_path):
    asked = runner.Asked(tiny=True, runs=tmp_path)
    first, again = (recipes.train("univariate", asked, seed=3) for _ in range(2))
    assert first == again
    recipes.train("univariate", asked, seed=4)
    assert len(list(tmp_path.iterdir())) == 2


def test_the_commit_is_marked_if_code_was_changed(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True)

    monkeypatch.setattr(lines, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert lines.commit() is None
    code, result = tmp_path / "benchmarks" / "a.py", tmp_path / "benchmarks" / "results" / "a.jsonl"
    result.parent.mkdir(parents=True)
    code.write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "code")
    head = lines.commit()
    assert re.fullmatch("[0-9a-f]{12}", head)
    result.write_text("{}")
    assert lines.commit() == head
    code.write_text("2")
    assert lines.commit() == f"{head}+changes"


@pytest.mark.parametrize(
    ("write", "values", "expected"),
    [
        (tables.percent(), [0.5, 0.6], "55.0 ± 7.1 (50.0 to 60.0)"),
        (tables.percent(2, span=False), [0.5, 0.6], "55.00 ± 7.07"),
        (tables.percent(), [0.5], "50.0"),
        (tables.spread(".3g", ".2g"), [1, 3], "2 ± 1.4"),
        (tables.one(",.1f"), [1234.56, 0], "1,234.6"),
        (tables.growth(".2f"), [(4, 64), (2, 8), (8, 512)], "n^3.00"),
        (tables.growth(".2f"), [(4, 64)], "-"),
    ],
)
def test_cells_are_written_from_the_values_of_their_lines(write, values, expected):
    found = Lines({"a": value} for value in values)
    assert tables.Column("head", "a", write).cell(found) == expected


def test_cells_leave_out_what_diverged_or_is_not_there():
    found = Lines([{"a": 1, "n": 2}, {"diverged": "at 3", "n": 2}, {"a": 5, "n": 4}, {"n": 2}])
    shown = tables.Column("a", "a", str, {"n": 2})
    rows = [(["x", 1], found), (["y", 2], Lines())]
    expected = "| name | number | a |\n|---|---|---|\n| x | 1 | [1] |\n| y | 2 | - |"
    assert tables.table(["name", "number"], rows, [shown]) == expected
