import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sparse_hyper_jax import __version__
from sparse_hyper_jax.train import cli
from sparse_hyper_jax.train.cli import Entry, main

from .toy import RECIPES, ToyRecipe, compiled_once

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(tmp_path_factory):
    with compiled_once(tmp_path_factory.mktemp("compiled")):
        yield


def call(*words):
    return main([str(word) for word in words], recipes=RECIPES)


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_the_recipes(capsys, flag):
    with pytest.raises(SystemExit) as ended:
        main([flag])
    output, errors = capsys.readouterr()
    assert ended.value.code == 0
    assert errors == ""
    for name, entry in cli.RECIPES.items():
        assert f"{name} " in output
        assert entry.summary in output
    assert "--resume" in output


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"sparse-hyper {__version__}\n"


def test_help_of_a_recipe_shows_its_fields(capsys):
    with pytest.raises(SystemExit) as ended:
        call("toy", "--help")
    output = capsys.readouterr().out
    assert ended.value.code == 0
    for word in ("sparse-hyper toy", "--steps INT", "Number of training steps.", "--resume", "25"):
        assert word in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "required"),
        (["nothing"], "invalid choice: 'nothing'"),
        (["toy", "--stepz", "3"], "--stepz"),
        (["toy", "--steps", "many"], "many"),
    ],
)
def test_wrong_words_are_named(capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        call(*words)
    output, errors = capsys.readouterr()
    assert ended.value.code == 2
    assert output == ""
    assert message in errors


def test_help_loads_neither_recipes_nor_extras():
    program = (
        "import sys\nfrom sparse_hyper_jax.train.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(*{'tyro', 'orbax', 'tqdm', 'optax', 'flax'} & sys.modules.keys(), file=sys.stderr)"
    )
    words = [sys.executable, "-c", program]
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    assert ended.stderr == "\n"


def test_result_is_the_only_line_on_standard_output(tmp_path, capsys):
    assert call("toy", "--out", tmp_path / "run", "--steps", 12, "--seed", 1) == 0
    output, errors = capsys.readouterr()
    result = json.loads(output)
    assert output.count("\n") == 1
    assert result.keys() == {"digest", "count"}
    assert result == json.loads((tmp_path / "run" / "result.json").read_text())
    assert "a line that belongs on standard error" in errors
    assert f"run folder: {tmp_path / 'run'}" in errors

    # The same as a plain object, without the command line, and as a resumed run.
    assert ToyRecipe(seed=1, steps=12, out=tmp_path / "plain", quiet=True).run() == result
    capsys.readouterr()
    assert call("toy", "--out", tmp_path / "run", "--steps", 12, "--seed", 1, "--resume") == 0
    assert json.loads(capsys.readouterr().out) == result


def test_recipe_of_a_folder_by_default(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call("toy", "--steps", 2, "--quiet") == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("toy-")
    assert json.loads(capsys.readouterr().out)["count"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "file"], "found file, which cannot be written to"),
        (["--out", "run"], "found a run in run;"),
        (["--out", "none", "--resume"], "found no run in none;"),
        (["--resume"], "found --resume without --out"),
        (["--out", "run", "--resume", "--steps", "9"], "steps was 2 and is now 9"),
        (["--fault", "value"], "ValueError: a fault"),
    ],
)
def test_errors_of_the_user_are_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(cli.TRACEBACK, raising=False)
    (tmp_path / "file").write_text("")
    ToyRecipe(steps=2, out=tmp_path / "run", quiet=True).run()
    capsys.readouterr()
    assert call("toy", "--quiet", *words) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert message in errors
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("sparse-hyper: ")


def test_traceback_on_request(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(cli.TRACEBACK, "1")
    assert call("toy", "--out", tmp_path, "--fault", "value") == 2
    assert "Traceback" in capsys.readouterr().err


def test_faults_of_the_program_keep_their_traceback(tmp_path):
    with pytest.raises(TypeError, match="a fault"):
        call("toy", "--out", tmp_path, "--fault", "type")


def test_interrupt_tells_how_to_go_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call("toy", "--fault", "stop") == 130
    errors = capsys.readouterr().err
    (folder,) = Path("runs").iterdir()
    words = shlex.split(errors.splitlines()[-1].partition("with: ")[2])
    assert words == ["sparse-hyper", "toy", "--fault", "stop", "--out", str(folder), "--resume"]


def test_interrupted_process_goes_on_with_the_command_it_names(tmp_path):
    words = [sys.executable, "-m", "tests.train.toy", "toy", "--out", str(tmp_path / "a run")]
    words += ["--steps", "45", "--pause", "0.1"]
    options = {"cwd": ROOT, "text": True}
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **options
    )
    metrics = tmp_path / "a run" / "metrics.jsonl"
    while process.poll() is None and (
        not metrics.exists() or '"step": 20,' not in metrics.read_text()
    ):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    output, errors = process.communicate()
    assert process.returncode == 130, errors
    assert output == ""
    command = shlex.split(errors.splitlines()[-1].partition("with: ")[2])
    assert command[:2] == ["sparse-hyper", "toy"]
    ended = subprocess.run([*words[:3], *command[1:]], capture_output=True, check=True, **options)
    assert json.loads(ended.stdout.splitlines()[-1])["count"] == 45


def test_missing_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(cli.EXTRAS, "no_such_module", "no-such-package")
    assert call("toy") == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert "found no no-such-package;" in errors
    assert 'pip install "sparse_hyper_jax[train]"' in errors


def test_recipes_are_named_by_module_and_class():
    for entry in cli.RECIPES.values():
        module, _, name = entry.target.partition(":")
        assert module.startswith("sparse_hyper_jax.train.recipes.")
        assert name.isidentifier()
    assert Entry("a:B", "c").summary == "c"
