"""Does a lag that is chosen by its bias spare the search for one? Two copy tasks, and characters.

Runs of the recipe ``tbptt``: an LSTM of 32 units learns to tell symbols again after a delay of 10
steps, or of 5 to 10; one of 64 units predicts the next character, of a text in ``--text DIR``.
Fixed lags against lags that are chosen in every epoch, by the bound of Aicher et al. 2019 or by the
bias measured on the same windows. All runs see the same data the same number of times; rates are
those of the paper, the same for all settings, times the root of the lag.

Seeds from 3 on are judged apart: what was decided was decided by the first three.
"""

import math
from collections.abc import Iterator
from statistics import mean, median
from typing import Any

from matplotlib.figure import Figure

from benchmarks.figures import COLOURS, band, tidy
from benchmarks.lines import Facts, Line, Lines
from benchmarks.recipes import train
from benchmarks.runner import Asked, Benchmark, grid
from benchmarks.tables import Column, percent, spread, table

EPOCHS, EARLY, LAST = 40, 16, 10
TASKS: dict[str, dict[str, Any]] = {
    "copy, delay 10": {"delay": 10},
    "copy, delay 5 to 10": {"delay": 10, "least_delay": 5},
}
CHARACTERS, CHARACTER_EPOCHS, CHARACTER_EARLY = "characters", 10, 3
CHARACTER_OPTIONS: dict[str, Any] = {"task": "text", "length": 4000, "width": 64}
SETTINGS: dict[str, dict[str, Any]] = {
    "fixed lag 5": {"method": "fixed", "lag": 5},
    "fixed lag 10": {"method": "fixed", "lag": 10},
    "fixed lag 32": {"method": "fixed", "lag": 32},
    "bound below 0.9": {"delta": 0.9},
    "bound below 0.5": {"delta": 0.5},
    "measured below 0.5": {"method": "measured", "delta": 0.5},
}


JUDGED = ("fixed lag 10", "bound below 0.9", "bound below 0.5")
FRESH = (3, 4, 5)
"""Seeds for the settings that are judged, after all was decided."""


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give the copy tasks, seeds that nothing was decided by, and characters if there is a text."""
    yield from grid(task_name=TASKS, seed=asked.seeds, setting=SETTINGS)
    yield from grid(task_name=["copy, delay 10"], seed=FRESH, setting=JUDGED)
    if asked.text:
        yield from grid(task_name=[CHARACTERS], seed=asked.seeds, setting=SETTINGS)


def measure(facts: Facts, asked: Asked) -> Line:
    """Train once."""
    characters = facts["task_name"] == CHARACTERS
    options = CHARACTER_OPTIONS if characters else TASKS[facts["task_name"]]
    return train(
        "tbptt",
        asked,
        curves=["eval_cross_entropy"],
        seconds=True,
        steps=CHARACTER_EPOCHS if characters else EPOCHS,
        seed=facts["seed"],
        **options | SETTINGS[facts["setting"]],
    )


def best(line: Line, epochs: int = EPOCHS) -> float:
    """Give the lowest perplexity of validation sequences after any of the first epochs.

    The rates of the paper make the last steps of an epoch rough, for all settings alike.
    """
    return math.exp(min(line["curve"]["eval_cross_entropy"][: epochs + 1]))


def best_fixed(lines: Lines) -> float:
    """Give the mean perplexity of the best fixed lag, which nobody knows beforehand."""
    fixed = (lines.where(setting=name) for name in SETTINGS if "fixed" in name)
    return min(mean(map(best, found)) for found in fixed if found)


def last(line: Line, field: str) -> list[float]:
    """Give what was noted of the last epochs; what nothing bounds is infinite."""
    return [math.inf if one is None else one for one in line[field][-LAST - 1 : -1]]


def ends(values: list[list[float]]) -> str:
    """Write the least and the largest lag of the last epochs of all seeds."""
    least, most = min(map(min, values)), max(map(max, values))
    return f"{least}" if least == most else f"{least} to {most}"


def middle(spec: str) -> Any:
    """Write the median over the last epochs of all seeds."""

    def write(values: list[list[float]]) -> str:
        number = median(one for run in values for one in run)
        return format(number, spec) if math.isfinite(number) else "none"

    return write


def write(lines: Lines) -> str:
    """Write the copy tasks, the judged settings with fresh seeds, and characters."""
    first = Lines(line for line in lines if line["seed"] not in FRESH)
    fresh = Lines(line for line in lines if line["seed"] in FRESH)
    copied = [(task, first.where(task_name=task)) for task in TASKS]
    tables = [
        rows_of(copied, EARLY, EPOCHS),
        rows_of([("copy, delay 10, other seeds", fresh)], EARLY, EPOCHS),
        rows_of(
            [(CHARACTERS, first.where(task_name=CHARACTERS))], CHARACTER_EARLY, CHARACTER_EPOCHS
        ),
    ]
    return "\n\n".join(one for one in tables if one.count("\n") > 1)


def rows_of(tasks: list[tuple[str, Lines]], early: int, epochs: int) -> str:
    """Write perplexities, lags, and the bound of the bias beside the bias."""
    of_best = {id(line): best_fixed(lines) for _, lines in tasks if lines for line in lines}

    def behind(line: Line) -> float:
        return best(line) / of_best[id(line)] - 1

    columns = [
        Column("seeds", "seed", lambda seeds: f"{len(seeds)}"),
        Column(f"perplexity, {early} epochs", lambda line: best(line, early), spread(".2f")),
        Column(f"{epochs} epochs", best, spread(".3f")),
        Column("above the best fixed lag, %", behind, percent()),
        Column("lags", lambda line: last(line, "lags"), ends),
        Column("bound of the bias", lambda line: last(line, "delta_hats"), middle(".2g")),
        Column("measured bias", lambda line: last(line, "measured_biases"), middle(".2g")),
    ]
    rows = (
        ([task, setting], found)
        for task, lines in tasks
        for setting in SETTINGS
        if (found := lines.where(setting=setting))
    )
    return table(["task", "setting"], rows, columns)


def draw(figure: Figure, lines: Lines) -> None:
    """Draw perplexity and lag by epoch, and bound and bias by epoch, of the copy task."""
    left, middle_panel, right = figure.subplots(1, 3)
    copied = lines.where(task_name="copy, delay 10")
    runs = Lines(line for line in copied if line["seed"] not in FRESH)
    for setting, colour in zip(SETTINGS, COLOURS, strict=False):
        found = runs.where(setting=setting)
        if not found:
            continue
        curves = [[best(line, epoch) for epoch in range(EPOCHS + 1)] for line in found]
        band(left, range(EPOCHS + 1), curves, label=setting, color=colour)
        if not setting.startswith("fixed"):
            band(middle_panel, range(EPOCHS + 1), found.values("lags"), label=setting, color=colour)
        if setting in ("fixed lag 10", "bound below 0.9"):
            for name, style in (("delta_hats", ":"), ("measured_biases", "-")):
                values = [
                    [math.nan if one is None else one for one in run] for run in found.values(name)
                ]
                label = f"{setting}, {'bound' if style == ':' else 'measured'}"
                for number, run in enumerate(values):
                    right.plot(
                        run, style, color=colour, linewidth=1.2, label="" if number else label
                    )
    left.set(xlabel="epoch", ylabel="perplexity, best so far", ylim=(1, 2.5))
    middle_panel.set(xlabel="epoch", ylabel="lag")
    right.set(xlabel="epoch", ylabel="relative bias", yscale="log")
    tidy(left, right, legend=7)
    tidy(middle_panel)


BENCHMARK = Benchmark(
    settings=settings,
    measure=measure,
    tiny=list(grid(seed=[0], task_name=["copy, delay 10"], setting=["bound below 0.9"])),
    table=write,
    draw=draw,
    figure="tbptt",
    inches=(11.0, 3.4),
)
