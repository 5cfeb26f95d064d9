import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sparse_hyper_jax import __version__
from sparse_hyper_jax.train import cli
from sparse_hyper_jax.train.cli import Entry, main
from sparse_hyper_jax.train.command import Command, in_flags

from .toy import RECIPES, ToyRecipe, compiled_once

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(tmp_path_factory):
    with compiled_once(tmp_path_factory.mktemp("compiled")):
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    ToyRecipe(steps=2, out=folder, quiet=True).run()
    return folder


@pytest.fixture
def run_of_two_steps(tmp_path, finished):
    shutil.copytree(finished, tmp_path / "run")


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


def test_no_flags_at_all_run_the_defaults(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call("toy") == 0
    assert json.loads(capsys.readouterr().out)["count"] == ToyRecipe().steps


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


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["nothing"], [], ["--hlep"]])
def test_what_needs_no_recipe_loads_neither_jax_nor_extras(words):
    program = (
        "import sys\nfrom sparse_hyper_jax.train.cli import main\n"
        f"try: main({words})\nexcept SystemExit: pass\n"
        "heavy = {'jax', 'numpy', 'tyro', 'orbax', 'tqdm', 'optax', 'flax'}\n"
        "print('loaded', *heavy & sys.modules.keys(), file=sys.stderr)"
    )
    words = [sys.executable, "-c", program]
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    assert ended.stderr.splitlines()[-1] == "loaded"


def test_result_is_the_only_line_on_standard_output(tmp_path, capsys):
    assert call("toy", "--out", tmp_path / "run", "--steps", 12, "--seed", 1) == 0
    output, errors = capsys.readouterr()
    result = json.loads(output)
    assert output.count("\n") == 1
    assert result.keys() == {"digest", "count"}
    assert result == json.loads((tmp_path / "run" / "result.json").read_text())
    assert "a line that belongs on standard error" in errors

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
        (["--out", "run", "--resume", "--steps", "9"], "found that --steps was 2 and is now 9;"),
        (["--fault", "value"], "ValueError: a fault"),
        (
            ["--fault", "api"],
            "found --data-dir 3 with --resume; expected an int; pass another",
        ),
        (["--out", ""], 'found --out ""; expected the name of a folder; pass --out DIR'),
        (["--data_dir="], 'found --data-dir ""'),
        (["--seed", "-1"], "found --seed -1; expected a whole number from 0 to 4294967295; pass"),
        (["--seed", "99999999999999999999"], "found --seed 99999999999999999999;"),
        (["--pause", "inf"], "found --pause inf; expected a finite number; pass another --pause"),
        (["--pause", "nan"], "found --pause nan"),
        (["--rates", "1", "nan"], "found --rates nan"),
    ],
)
@pytest.mark.usefixtures("run_of_two_steps")
def test_errors_of_the_user_are_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(cli.TRACEBACK, raising=False)
    (tmp_path / "file").write_text("")
    assert call("toy", "--quiet", *words) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert message in errors
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("sparse-hyper: ")
    assert not [*tmp_path.glob("runs/*")]
    assert not (tmp_path / "config.json").exists()


def test_traceback_on_request(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(cli.TRACEBACK, "1")
    assert call("toy", "--out", tmp_path, "--fault", "value") == 2
    assert "Traceback" in capsys.readouterr().err


def test_faults_of_the_program_keep_their_traceback(tmp_path):
    with pytest.raises(TypeError, match="a fault"):
        call("toy", "--out", tmp_path, "--fault", "type")


@pytest.mark.parametrize(("fault", "code"), [("stop", 130), ("end", 143)])
def test_interrupt_before_anything_was_saved_promises_nothing(
    tmp_path, monkeypatch, capsys, fault, code
):
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    assert call("toy", "--fault", fault) == code
    assert signal.getsignal(signal.SIGTERM) is before
    last = capsys.readouterr().err.splitlines()[-1]
    assert "nothing was saved, start again with: " in last
    assert shlex.split(last.partition("with: ")[2]) == ["sparse-hyper", "toy", "--fault", fault]
    assert not any(Path("runs").iterdir())


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("saved", [True, False])
def test_command_to_go_on_with_names_the_folder_and_what_is_there(tmp_path, saved, named):
    flags = ("--steps", "3", *(["--out", str(tmp_path)] if named else []))
    command = Command("toy", flags, ToyRecipe(out=tmp_path))
    assert command.how_to_go_on() == f"nothing was saved, start again with: {command_of(flags)}"
    (tmp_path / "config.json").write_text("{}")
    if saved:
        (tmp_path / "checkpoints" / "10").mkdir(parents=True)
        (tmp_path / "checkpoints" / "10" / "_CHECKPOINT_METADATA").write_text("")
    what = "go on from the last checkpoint" if saved else "no checkpoint yet, start over"
    again = ("--steps", "3", "--out", str(tmp_path), "--resume")
    assert command.how_to_go_on() == f"{what} with: {command_of(again)}"
    resumed = Command("toy", again, ToyRecipe(out=tmp_path, resume=True))
    assert resumed.how_to_go_on() == f"{what} with: {command_of(again)}"
    assert Command("toy", ("-x",)).how_to_go_on().endswith("with: sparse-hyper toy -x")


def command_of(flags):
    return shlex.join(["sparse-hyper", "toy", *flags])


def stopped(words, folder, *, step, number):
    """Run until that step is recorded, send a signal; give how it ended and what it said."""
    process = subprocess.Popen(
        words,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    metrics, line = folder / "metrics.jsonl", f'"step": {step},'
    while process.poll() is None and not (metrics.exists() and line in metrics.read_text()):
        time.sleep(0.01)
    os.kill(process.pid, number)
    output, errors = process.communicate()
    assert output == ""
    assert "saving first" in errors
    assert "go on from the last checkpoint" in errors
    command = shlex.split(errors.splitlines()[-1].partition("with: ")[2])
    assert command[:2] == ["sparse-hyper", "toy"]
    return process.returncode, errors, command[1:]


def test_stopped_process_goes_on_with_the_command_it_names(tmp_path, capsys):
    # Stopped by Ctrl-C, gone on with, stopped by SIGTERM, gone on with to the end.
    program, folder = [sys.executable, "-m", "tests.train.toy"], tmp_path / "a run"
    words = ["toy", "--out", str(folder), "--steps", "105", "--pause", "0.1"]
    code, errors, words = stopped([*program, *words], folder, step=20, number=signal.SIGINT)
    assert code == 130, errors
    code, errors, words = stopped([*program, *words], folder, step=60, number=signal.SIGTERM)
    assert code == 143, errors
    assert "going on from step" in errors
    assert call(*words) == 0
    output, errors = capsys.readouterr()
    assert json.loads(output)["count"] == 105
    assert "going on from step" in errors


def test_refused_option_leaves_no_folder_for_the_corrected_command(tmp_path, capsys):
    out = tmp_path / "run"
    assert call("toy", "--out", out, "--steps", 0) == 2
    assert "found --steps 0; expected" in capsys.readouterr().err
    assert not out.exists()
    assert call("toy", "--out", out, "--steps", 2, "--quiet") == 0


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("found seed=3; pass seed=4", "found --seed 3; pass --seed 4"),
        ("found data_dir=None", "found --data-dir None"),
        ("pass resume=True or another", "pass --resume or another"),
        ("my_seed=3 a.seed=3 seed==3", "my_seed=3 a.seed=3 seed==3"),
    ],
)
def test_messages_speak_of_flags(message, told):
    assert in_flags(message, ["seed", "data_dir", "resume"]) == told


def test_missing_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(cli.EXTRAS, "no_such_module", "no-such-package")
    assert call("toy") == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert "found no no-such-package;" in errors
    assert 'pip install "sparse_hyper_jax[train]"' in errors


@pytest.mark.parametrize("name", cli.RECIPES)
def test_typo_in_a_flag_is_told_before_anything_runs(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([name, "--sead", "3"])
    output, errors = capsys.readouterr()
    assert ended.value.code == 2
    assert output == ""
    assert "--sead" in errors
    assert "--seed" in errors
    assert not list(tmp_path.iterdir())


def test_recipes_are_named_by_module_and_class():
    for entry in cli.RECIPES.values():
        module, _, name = entry.target.partition(":")
        assert module.startswith("sparse_hyper_jax.train.recipes.")
        assert name.isidentifier()
    assert Entry("a:B", "c").summary == "c"
