"""Does an unbiased gradient serve hyperlayer and sort better than the mixture's own?

Runs of the recipes ``identity`` and ``sort`` with their curves, and one line per setting with the
time of a step (``--only part=time``, on an idle machine); the tables read the curves at equal steps
and at equal seconds. Learning rates are the recipes' own, and for each
estimator also three times as high and a third: the best of the three by its final figure on one
seed that is not reported (a line of its own), the highest if they are level.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from benchmarks.figures import band, tidy
from benchmarks.lines import Facts, Line, Lines
from benchmarks.recipes import train
from benchmarks.runner import Asked, Benchmark, grid, program
from benchmarks.tables import Column, one, spread, table

CHOICE_SEED = 100
FACTORS = (0.333, 1.0, 3.0)
ALONE = {"num_global": 0, "num_local": 0}
MIXED = {"relocate_every": 0}
"""What only a mixture has: no tuple is relocated."""

IDENTITY: dict[str, dict[str, Any]] = {
    "hyperlayer": MIXED,
    "hyperlayer, points not shared": MIXED | {"chunk_size": 1},
    "RLOO-4": {"method": "rloo"},
    "RLOO-16": {"method": "rloo", "num_samples": 16},
    "ARSM": {"method": "arsm"},
    "score function of Gaussians, no baseline": {"method": "reinforce"},
    "hyperlayer, neighbours alone": MIXED | ALONE,
    "hyperlayer, neighbours alone, not shared": MIXED | {"chunk_size": 1} | ALONE,
    "RLOO-4, neighbours alone": {"method": "rloo"} | ALONE,
    "ARSM, neighbours alone": {"method": "arsm"} | ALONE,
    "ARM, neighbours alone": {"method": "arm"} | ALONE,
}
SORT: dict[str, dict[str, Any]] = {
    "mixture, all levels": {"method": "mixture", "loss": "separate"},
    "mixture, last level": {"method": "mixture", "loss": "plain"},
    "RLOO-4": {"method": "rloo", "loss": "plain"},
    "RLOO-16": {"method": "rloo", "loss": "plain", "num_samples": 16},
}
COLOURS = ("#2166ac", "#92c5de", "#b2182b", "#f4a582", "#4d9221", "#b8e186", "#888888")


class Task(NamedTuple):
    """What is trained, and by what its runs are compared."""

    settings: Mapping[str, Mapping[str, Any]]
    options: Mapping[str, Any]
    learning_rate: float
    """The recipe's own."""

    curve: str
    """Metric along the way."""

    shown: str
    """Name of the metric in tables and figures; more is better."""

    digits: str
    seeds: range


TASKS = {
    "identity": Task(
        IDENTITY,
        {"size": 16, "steps": 8_000},
        0.005,
        "eval_cells_found",
        "cells found of 16",
        ".1f",
        range(5),
    ),
    "sort": Task(
        SORT, {"n": 8, "steps": 4_000}, 0.002, "eval_exact_match", "exact match", ".3f", range(3)
    ),
}


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Choose the rates, then give the runs of the seeds, then the times."""
    for task, of in TASKS.items():
        yield from runs(task, dict.fromkeys(of.settings, FACTORS), [CHOICE_SEED])
        best = {setting: [best_factor(lines, task, setting)] for setting in of.settings}
        yield from runs(task, best, [seed for seed in asked.seeds if seed in of.seeds])
    yield from grid(part=["time"], task=TASKS)


def runs(
    task: str, factors: Mapping[str, Sequence[float]], seeds: Iterable[int]
) -> Iterator[Facts]:
    """Give the runs of some settings, each with some factors of its learning rate."""
    for seed in seeds:
        for setting, some in factors.items():
            yield from grid(task=[task], setting=[setting], factor=some, seed=[seed])


def best_factor(lines: Lines, task: str, setting: str) -> float:
    """Give the factor of the learning rate that did best on the seed for choosing."""
    tried = lines.where(task=task, setting=setting, seed=CHOICE_SEED)
    scores = [(np.mean(line["curve"]["values"][-3:]), line["factor"]) for line in tried]
    return max(scores)[1] if scores else FACTORS[0]


def measure(facts: Facts, asked: Asked) -> Line | list[Line]:
    """Time all settings of a task in turn, or train once."""
    if "part" in facts:
        return program("unbiased")(facts, asked)
    of = TASKS[facts["task"]]
    options = {**of.options, **of.settings[facts["setting"]], "seed": facts["seed"]}
    options["learning_rate"] = facts["factor"] * of.learning_rate
    line = train(facts["task"], asked, curves=[of.curve], **options)
    curve = line["curve"]
    return line | {"curve": {"steps": curve["steps"], "values": curve[of.curve]}}


def reported(lines: Lines) -> Lines:
    """Leave out the runs that choose the rate, and times."""
    return Lines(line for line in lines.having("curve") if line["seed"] != CHOICE_SEED)


def step_ms(lines: Lines, task: str, setting: str) -> float:
    """Give the newest time of a step."""
    return lines.where(task=task, setting=setting).values("step_ms")[-1]


def at_step(line: Line, step: float) -> float:
    """Read a curve at a step; at its end if it is shorter."""
    return float(np.interp(step, line["curve"]["steps"], line["curve"]["values"]))


def table_of(lines: Lines, task: str) -> str:
    """Write the figures of a task at equal steps and at equal seconds."""
    of = TASKS[task]
    first, total = next(iter(of.settings)), of.options["steps"]
    early = total // 4

    def seconds_of_first(line: Line) -> float:
        ratio = step_ms(lines, task, first) / step_ms(lines, task, line["setting"])
        return at_step(line, early * ratio)

    columns = [
        Column("rate", "factor", lambda all: {1.0: "default", 3.0: "x 3"}.get(all[0], "/ 3")),
        Column(f"{early:,} steps", lambda line: at_step(line, early), spread(of.digits)),
        Column(f"{total:,} steps", lambda line: at_step(line, total), spread(of.digits)),
        Column("ms per step", lambda line: step_ms(lines, task, line["setting"]), one(".2f")),
        Column(f"seconds of {early:,} steps of the first row", seconds_of_first, spread(of.digits)),
    ]
    rows = (([name], reported(lines).where(task=task, setting=name)) for name in of.settings)
    return table([f"{task}: {of.shown}"], rows, columns)


def draw(figure: Figure, lines: Lines) -> None:
    """Draw the curves of both tasks against steps."""
    panels = figure.subplots(1, 2)
    for ax, (task, of) in zip(panels, TASKS.items(), strict=True):
        shown = [name for name in of.settings if "alone" not in name]
        for setting, colour in zip(shown, COLOURS, strict=False):
            curves = reported(lines).where(task=task, setting=setting).values("curve")
            values = [curve["values"] for curve in curves]
            band(ax, curves[0]["steps"], values, label=setting, color=colour)
        ax.set(xlabel="steps", ylabel=of.shown, title=task)
    tidy(*panels, legend=7.5)


BENCHMARK = Benchmark(
    settings=settings,
    measure=measure,
    tiny=[
        *grid(task=["identity"], setting=["RLOO-4"], factor=[1.0], seed=[0]),
        *grid(task=["sort"], setting=["mixture, last level"], factor=[1.0], seed=[0]),
        *grid(part=["time"], task=TASKS),
    ],
    table=lambda lines: "\n\n".join(table_of(lines, task) for task in TASKS),
    draw=draw,
    figure="unbiased",
    seeds=range(5),
    repeats=7,
)
