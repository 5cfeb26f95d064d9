"""Classify cluttered digits through a glimpse: hyperlayers, spatial transformer, score function.

    python benchmarks/glimpse_table.py --mnist DIR --cluttered DIR    train, resumable
    python benchmarks/glimpse_table.py --table                        print the tables

Three parts; every line has the errors on validation and test images, the later ones on training
images too:

* all models with equal steps, on generated canvases of 60 x 60 with four distractors of 8 x 8 and
  on the ready-made set of 40 x 40;
* what the readers of the hyperlayer cost in quality: draws, number of points, randomness;
* one model trained for long.

All models have the same preprocessing network and head; one window of 28 x 28.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from report import Report, mean_and_spread, percent, read_lines

from sparse_hyper_jax.train.recipes.glimpse import GlimpseRecipe

NAME = "glimpse_table"
SEEDS = (0, 1, 2)
MODELS = ("scale", "box", "affine", "quad", "stn", "reinforce", "conv")
TASKS: dict[str, dict[str, Any]] = {
    "60 x 60": {"data": "mnist", "canvas": 60},
    "40 x 40": {"data": "cluttered"},
}
READERS: dict[str, dict[str, Any]] = {
    "upright": {},
    "sampled, draws='pixel'": {"reader": "sampled", "draws": "pixel"},
    "sampled, draws='glimpse'": {"reader": "sampled"},
    "sampled, neighbours only": {"reader": "sampled", "num_global": 0, "num_local": 0},
}
"""Ways to read an upright window. The first is the recipe's; grids that turn are sampled."""

STEPS, LONG_STEPS = 2_000, (15_000, 30_000)


def run(report: Report, folders: dict[str, Path], facts: dict[str, Any], **options: Any) -> None:
    """Train once and write the line, unless it is there."""
    facts = {"reader": None, **facts}
    if any(facts.items() <= line.items() for line in read_lines(NAME)):
        return
    task = TASKS[facts["task"]]
    recipe = GlimpseRecipe(
        **task,
        data_dir=folders[task["data"]],
        model=facts["model"],
        steps=facts["steps"],
        seed=facts["seed"],
        quiet=True,
        **options,
    )
    with tempfile.TemporaryDirectory() as folder:
        result = dataclasses.replace(recipe, out=Path(folder) / "run").run()
    names = ("train_error", "validation_error", "test_error", "seconds", "deviation")
    report.add(**facts, **{name: result[name] for name in names if name in result})


def train(folders: dict[str, Path], seeds: list[int], tasks: list[str]) -> None:
    """Train what has no line yet."""
    report = Report(NAME, append=True)
    for seed in seeds:
        for task in tasks:
            for model in MODELS:
                run(report, folders, {"task": task, "model": model, "steps": STEPS, "seed": seed})
        if "60 x 60" in tasks:
            facts = {"task": "60 x 60", "model": "scale", "steps": STEPS, "seed": seed}
            for steps in LONG_STEPS[: 2 if seed == 0 else 1]:
                run(report, folders, facts | {"steps": steps})
            for reader, options in READERS.items():
                if options:
                    run(report, folders, facts | {"reader": reader}, **options)


def lines_of(**facts: Any) -> list[dict[str, Any]]:
    """Read the lines with the given facts."""
    return [line for line in read_lines(NAME) if facts.items() <= line.items()]


def errors(lines: list[dict[str, Any]]) -> str:
    """Write test errors in per cent."""
    return percent([line["test_error"] for line in lines])


def table() -> str:
    """Write the errors of all models on both tasks."""
    heads = [f"{task}, test error" for task in TASKS]
    rows = [f"| model | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for model in MODELS:
        facts = {"model": model, "steps": STEPS, "reader": None}
        if not lines_of(**facts):
            continue
        parts = [errors(lines_of(task=task, **facts)) for task in TASKS]
        rows.append(f"| {model} | {' | '.join(parts)} |")
    return "\n".join(rows)


def reader_table() -> str:
    """Write the errors of the readers, and of long training."""
    rows = ["| reader | steps | test error | deviation at the end, pixels |", "|---" * 4 + "|"]
    long = sorted({line["steps"] for line in read_lines(NAME)} - {STEPS})
    for reader, steps in [
        *((reader, STEPS) for reader in READERS),
        *(("upright", n) for n in long),
    ]:
        named = None if reader == "upright" else reader
        lines = lines_of(task="60 x 60", model="scale", steps=steps, reader=named)
        if not lines:
            continue
        spread = mean_and_spread([line["deviation"] for line in lines], 2)
        rows.append(f"| {reader} | {steps:,} | {errors(lines)} | {spread} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, help="folder of the four MNIST files")
    parser.add_argument("--cluttered", type=Path, help="folder of the ready-made 40 x 40 set")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--table", action="store_true", help="only print the tables")
    asked = parser.parse_args()
    if not asked.table:
        folders = {"mnist": asked.mnist, "cluttered": asked.cluttered}
        tasks = [task for task, options in TASKS.items() if folders[options["data"]]]
        if not tasks:
            parser.error("pass --mnist DIR or --cluttered DIR to train; --table shows the lines")
        train(folders, asked.seeds, tasks)
    print(table(), reader_table(), sep="\n\n")


if __name__ == "__main__":
    main()
