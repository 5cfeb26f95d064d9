"""Recipes as measured functions: options in, figures out."""

import dataclasses
import hashlib
import importlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.lines import Line
from benchmarks.runner import Asked

LEFT_OUT = ("out", "data_dir", "images_dir", "download", "resume", "quiet", "format", "seconds")
"""Of a result: what the folder decides, and the seconds, since runs may share a machine."""

TINY: dict[str, Any] = {
    "steps": 2,
    "batch": 4,
    "evaluate_every": 1,
    "data": "digits",
    "draws": 4,
    "hidden": (8, 8),
    "tasks": 2,
}
"""Options of every recipe that has them, where it is only tried whether it runs."""


def recipe_of(name: str, asked: Asked, **options: Any) -> Any:
    """Make a recipe of the command line, with the folder of its data."""
    from sparse_hyper_jax.train.cli import RECIPES

    module, _, kind = RECIPES[name].target.partition(":")
    recipe = getattr(importlib.import_module(module), kind)(**options, quiet=True)
    names = {field.name for field in dataclasses.fields(recipe)}
    if asked.tiny:
        chosen = {option: value for option, value in TINY.items() if option in names}
        return dataclasses.replace(recipe, **chosen)
    of_data = ("mnist", "cluttered", "text", "fsdd", "nmnist")
    folders = {data: getattr(asked, data) for data in of_data}
    folders |= dict.fromkeys(("cora", "citeseer"), asked.citations)
    found = {
        "data_dir": folders.get(options.get("data") or options.get("task", "")),
        "images_dir": folders.get(options.get("images", "")),
    }
    return dataclasses.replace(recipe, **{name: folder for name, folder in found.items() if folder})


def train(
    name: str, asked: Asked, *, curves: Sequence[str] = (), seconds: bool = False, **options: Any
) -> Line:
    """Train once, in a folder that does not stay, or in one of those that are asked for.

    Args:
        name: the recipe.
        asked: where the data are and run folders stay, and whether it is only tried.
        curves: metrics along the way that are kept.
        seconds: whether the time it took is kept.
        **options: fields of the recipe.

    Returns:
        its result and ``curve``: the steps and every metric; or that it ``diverged``.
    """
    from sparse_hyper_jax.train.plots import read_curve
    from sparse_hyper_jax.train.run_folder import RunFolder

    recipe = recipe_of(name, asked, **options)
    with tempfile.TemporaryDirectory() as folder:
        path = (asked.runs or Path(folder)) / run_name(name, options)
        try:
            result = dataclasses.replace(recipe, out=path, resume=path.exists()).run()
        except FloatingPointError as error:
            return {"diverged": str(error).split(";")[0]}
        read = {metric: read_curve(RunFolder(path), metric) for metric in curves}
    left_out = set(LEFT_OUT) - ({"seconds"} if seconds else set())
    line = {field: value for field, value in result.items() if field not in left_out}
    if curves:
        values = {
            metric: [shortened(one) for one in values] for metric, (_, values) in read.items()
        }
        line["curve"] = {"steps": read[curves[0]][0].tolist()} | values
    return line


def run_name(name: str, options: Mapping[str, Any]) -> str:
    """Name the folder of a run: the same options give the same name, others another."""
    return f"{name}-{hashlib.sha256(repr(sorted(options.items())).encode()).hexdigest()[:12]}"


def shortened(number: float) -> float:
    """Keep six digits."""
    return float(f"{number:.6g}")
