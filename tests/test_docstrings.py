"""The example of every public name runs, and prints what its docstring says."""

import ast
import doctest
import importlib
import inspect
import itertools
import pkgutil
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparse_hyper_jax

ROOT = Path(__file__).parent.parent
# Modules of the ground floor whose functions serve the library's own code, not its users.
INSIDE = {"checks", "entrance", "placement"}

# Public names without an example, each with the reason.
WITHOUT_EXAMPLE = {
    "continual.Train": "a type of arguments",
    "pruning.Masks": "a type of arguments and results",
    "recurrent.Cell": "a type of arguments",
    "recurrent.LAG_BUCKETS": "a tuple of numbers",
    "train.Arrays": "a type of arguments",
    "train.Count": "a type of fields: the example of a recipe has them",
    "train.Metrics": "a type of results",
    "train.NotNegative": "a type of fields",
    "train.Positive": "a type of fields",
    "train.download_mnist": "fetches files from the network",
    "train.load_mnist": "reads files of 11 MB, which the package does not bring",
}

GIVEN = {"jax": jax, "jnp": jnp, "np": np}
# An array may be printed over several lines.
CHECKER = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def own_names(module):
    """Names that a module exports, or defines where it has no list of that."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def names_for_recipes():
    """Of ``train`` the contributor's page shows what a recipe is made of; data sets come too."""
    page = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
    found = re.findall(r"^from (sparse_hyper_jax\.train\.\S+) import (.*)$", page, re.MULTILINE)
    names = [(module, name) for module, several in found for name in several.split(", ")]
    data = importlib.import_module("sparse_hyper_jax.train.data")
    return [*names, *((data.__name__, name) for name in data.__all__)]


def public_names():
    """For every room its public names, each with the module to look for it."""
    rooms = {}
    for found in pkgutil.iter_modules(sparse_hyper_jax.__path__):
        module = importlib.import_module(f"sparse_hyper_jax.{found.name}")
        if found.name not in INSIDE | {"train"}:
            rooms[found.name] = [(module.__name__, name) for name in own_names(module)]
    return rooms | {"train": names_for_recipes()}


ROOMS = public_names()


def docstring_of(module_name, name):
    """The docstring of a function or class, or the string below an assignment."""
    value = inspect.unwrap(getattr(importlib.import_module(module_name), name))
    if inspect.isfunction(value) or inspect.isclass(value):
        return inspect.getdoc(value) or ""
    folder = ROOT.joinpath(*module_name.split("."))
    paths = sorted(folder.glob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    texts = [text for path in paths for text in strings_below(path, name)]
    return inspect.cleandoc(texts[0]) if texts else ""


def strings_below(path, name):
    """Strings that stand below an assignment to a name."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    for statement, after in itertools.pairwise(body):
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if is_text and any(isinstance(one, ast.Name) and one.id == name for one in targets):
            yield after.value.value


def example_of(module_name, name):
    """The lines of code of the last section, which is called Example; none without one."""
    _, found, text = docstring_of(module_name, name).partition("\nExample:\n")
    return doctest.DocTestParser().get_examples(text) if found else []


def test_every_room_has_names():
    assert all(ROOMS.values())
    assert {"ops", "precision", "train"} <= set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_has_an_example(room):
    without = {f"{room}.{name}" for place, name in ROOMS[room] if not example_of(place, name)}
    excused = {name for name in WITHOUT_EXAMPLE if name.partition(".")[0] == room}
    assert sorted(excused - without) == [], "an exception that is none"
    assert sorted(without - excused) == []


@pytest.mark.parametrize("room", ROOMS)
def test_examples_print_what_they_say(room, tmp_path, monkeypatch):
    said = []
    runner = doctest.DocTestRunner(optionflags=CHECKER)
    for place, name in ROOMS[room]:
        # A folder for each: what one example writes is no file of the next one.
        (tmp_path / f"{place}.{name}").mkdir()
        monkeypatch.chdir(tmp_path / f"{place}.{name}")
        example = example_of(place, name)
        test = doctest.DocTest(example, dict(GIVEN), f"{place}.{name}", None, None, None)
        runner.run(test, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)


def test_examples_are_short():
    lines = {
        f"{place}.{name}": sum(one.source.count("\n") for one in example_of(place, name))
        for names in ROOMS.values()
        for place, name in names
    }
    assert {name: count for name, count in lines.items() if count > 8} == {}
