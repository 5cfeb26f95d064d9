"""Classify cluttered digits through a glimpse: hyperlayers, spatial transformer, score function.

Runs of the recipe ``glimpse``, with ``--mnist DIR``, ``--cluttered DIR`` or both:

* all models with equal steps, on generated canvases of 60 x 60 with four distractors of 8 x 8 and
  on the ready-made set of 40 x 40;
* what the readers of the hyperlayer cost in quality: draws, number of points, randomness; and what
  cheaper steps cost;
* one model trained for long, and with windows that move to what is found anywhere too;
* on one seed, windows that turn and what reads without a window, where digits and distractors are
  rotated and scaled, at most to four times their length, or have random colours.

All models have the same preprocessing network and head; one window of 28 x 28.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from benchmarks.lines import Facts, Line, Lines
from benchmarks.recipes import train
from benchmarks.runner import Asked, Benchmark
from benchmarks.tables import Column, percent, spread, table

MODELS = ("scale", "box", "affine", "quad", "stn", "reinforce", "conv")
TASKS: dict[str, dict[str, Any]] = {
    "60 x 60": {"data": "mnist", "canvas": 60},
    "40 x 40": {"data": "cluttered"},
}
HARDER: dict[str, dict[str, Any]] = {
    "100 x 100, rotated and scaled": {"canvas": 100, "distractors": 10, "rotated": True},
    "60 x 60, in colour": {"canvas": 60, "coloured": True},
}
TURNING = ("affine", "quad", "stn", "conv")
READERS: dict[str, dict[str, Any]] = {
    "upright": {},
    "sampled, draws='pixel'": {"reader": "sampled", "points_per": "pixel"},
    "sampled, draws='glimpse'": {"reader": "sampled"},
    "sampled, neighbours only": {"reader": "sampled", "num_global": 0, "num_local": 0},
    "upright, digits warped, seen at half size": {"warped": "digit", "shrink": 2},
}
"""Ways to read an upright window. The first is the recipe's; grids that turn are sampled. The last
is read as the first in cheaper steps, see ``glimpse_step``."""

FOUND = "upright, soft-argmax x 8"
PLACES = {FOUND: {"soft_argmax": 8.0}}
"""The recipe's reader, at places that are found in another way; trained for long alone."""

STEPS, LONG_STEPS = 2_000, (15_000, 30_000)
UPRIGHT = {"task": "60 x 60", "method": "scale", "reader": None}


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give all models on the tasks whose data are there, then the readers and long training."""
    tasks = [task for task, of in TASKS.items() if getattr(asked, of["data"])]
    for seed in asked.seeds:
        for task in tasks:
            for model in MODELS:
                facts = {"task": task, "method": model, "reader": None}
                yield facts | {"steps": STEPS, "seed": seed}
        for steps in LONG_STEPS[: 2 if seed == 0 else 1] if "60 x 60" in tasks else ():
            yield UPRIGHT | {"steps": steps, "seed": seed}
        if "60 x 60" in tasks:
            yield UPRIGHT | {"reader": FOUND, "steps": LONG_STEPS[0], "seed": seed}
        for reader in list(READERS)[1:] if "60 x 60" in tasks else ():
            yield UPRIGHT | {"reader": reader, "steps": STEPS, "seed": seed}
    for task in HARDER if asked.mnist else ():
        for model in TURNING:
            facts = {"task": task, "method": model, "reader": None}
            yield facts | {"steps": STEPS, "seed": asked.seeds[0]}


def measure(facts: Facts, asked: Asked) -> Line:
    """Train once."""
    tasks = TASKS | {task: options | {"data": "mnist"} for task, options in HARDER.items()}
    options = tasks[facts["task"]] | (READERS | PLACES)[facts["reader"] or "upright"]
    options |= {name: facts[name] for name in ("method", "steps", "seed")}
    return train("glimpse", asked, seconds=True, **options)


def error(line: Line) -> float:
    """Give the share of test images that are misread."""
    return 1 - line["test_accuracy"]


def write(lines: Lines) -> str:
    """Write the errors of all models on both tasks; those of the readers, and of long training."""
    columns = [Column(f"{task}, test error", error, percent(), {"task": task}) for task in TASKS]
    equal = lines.where(reader=None, steps=STEPS)
    models = (([model], equal.where(method=model)) for model in MODELS)
    hard = Lines(line for line in equal if line["task"] in HARDER)
    turning = (([model], hard.where(method=model)) for model in TURNING)
    harder = [Column(f"{task}, test error", error, percent(), {"task": task}) for task in HARDER]
    long = sorted(set(lines.values("steps")) - {STEPS})
    ways = [*((reader, STEPS) for reader in READERS), *(("upright", steps) for steps in long)]
    ways.append((FOUND, LONG_STEPS[0]))
    readers = (
        ([reader, f"{steps:,}"], lines.where(**UPRIGHT | facts_of(reader), steps=steps))
        for reader, steps in ways
    )
    heads = (
        Column("test error", error, percent()),
        Column("deviation at the end, pixels", "deviation", spread(".2f")),
    )
    return "\n\n".join(
        [
            table(["model"], measured(models), columns),
            table(["reader", "steps"], measured(readers), heads),
            table(["model, one seed"], measured(turning), harder),
        ]
    )


def facts_of(reader: str) -> Facts:
    """Give the fact of a reader; the recipe's own needs none."""
    return {"reader": None if reader == "upright" else reader}


def measured(rows: Iterable[tuple[Any, Lines]]) -> list[tuple[Any, Lines]]:
    """Leave out rows without lines."""
    return [row for row in rows if row[1]]


BENCHMARK = Benchmark(
    settings=settings,
    measure=measure,
    tiny=[{"task": "60 x 60", "method": "scale", "reader": None, "steps": 2, "seed": 0}],
    table=write,
)
