"""Learn the identity: sizes and seeds, ablations, REINFORCE, and the figure of all of them.

Runs of the recipe ``identity``: test error over steps, the step from which on it is exact for good,
seconds per step without evaluation. Seeds differ in initialisation, data and samples.
"""

from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.figures import band, tidy
from benchmarks.lines import Facts, Lines
from benchmarks.runner import Asked, Benchmark, program
from benchmarks.tables import Column, one, table

EVERY = 250
STEPS = {8: 4_000, 16: 4_000, 32: 12_000, 64: 30_000, 128: 16_000, 256: 8_000}
SMALL, TWO, THREE = {16: 10_000}, {16: 10_000, 32: 12_000}, {16: 10_000, 32: 12_000, 64: 30_000}
EARLY = {256: 1_250, 512: 1_250, 1024: 1_250}
LARGE = "relocation every 50 steps, 64 points"
WRONG = "early moves, wrong ones too"
ALL = "early moves to any cell"
ALL_WRONG = "early moves to any cell, wrong ones too"
MOVES_ALONE = "the same moves, no descent"
LARGEST = "the same moves, as far as an hour goes"
MOVES = {
    "num_global": 0,
    "num_local": 2,
    "relocate_every": 50,
    "relocation_batches": 8,
    "lost": 0.02,
    "moved_spread": -4.0,
}
"""For sampled ones, there are as many points when tuples move as cover a quarter of all cells."""

ANYWHERE = MOVES | {"relocate_every": 25, "move_anywhere": True, "moved_spread": -9.0}
"""The best of all cells is the right one more often than the best of some: settle there at once."""

STILL = {"move_wrong": True, "learning_rate": 1e-9}
"""What moves do by themselves: the control of all that is said of descent."""

ALONE = {"num_global": 0, "num_local": 0}
FIXED = {"relocate_every": 0}
SETTINGS: dict[str, tuple[dict[str, Any], Mapping[int, int], int]] = {
    "default": ({}, STEPS, 5),
    LARGE: ({"relocate_every": 50, "relocation_points": 64}, {1024: 14_000}, 1),
    WRONG: (MOVES | {"move_wrong": True}, {1024: 2_500}, 3),
    ALL: (ANYWHERE, EARLY, 3),
    ALL_WRONG: (ANYWHERE | {"move_wrong": True}, EARLY, 3),
    MOVES_ALONE: (ANYWHERE | STILL, EARLY, 3),
    LARGEST: (ANYWHERE | {"move_wrong": True}, {4096: 1_250}, 1),
    "no relocation": (FIXED, THREE, 5),
    "no relocation, student-t density": (FIXED | {"tuple_density": "student_t"}, TWO, 5),
    "no relocation, laplace density": (FIXED | {"tuple_density": "laplace"}, TWO, 5),
    "no relocation, variance floor 0.05": (FIXED | {"variance_floor": 0.05}, TWO, 5),
    "no extra points": (ALONE, SMALL, 5),
    "no extra points, no relocation": (ALONE | FIXED, SMALL, 5),
    "reinforce": ({"method": "reinforce"}, SMALL, 5),
    **{
        f"samples in {groups} groups": ({"sample_groups": groups}, {16: 4_000}, 5)
        for groups in (1, 4, 16, 64)
    },
}
"""Options, steps by size, number of seeds."""


def options_of(setting: str, size: int) -> dict[str, Any]:
    """Give the options of the recipe."""
    options = SETTINGS[setting][0]
    many = {"relocation_points": size // 4} if setting == WRONG else {}
    return options | many


SHOWN = (
    *("default", LARGE, WRONG, ALL, ALL_WRONG, LARGEST, MOVES_ALONE, "no relocation"),
    *("no extra points", "no extra points, no relocation", "reinforce"),
)
SIZE_COLOURS = {
    8: "#9ecae1",
    16: "#4292c6",
    32: "#08519c",
    64: "#41ab5d",
    128: "#005a32",
    256: "#dd3497",
    512: "#ae017e",
    1024: "#49006a",
    4096: "#000000",
}
RIGHT_PANEL = {
    "default": {"color": SIZE_COLOURS[16]},
    "no relocation": {"color": "#807dba", "style": "--"},
    "no extra points": {"color": "#fd8d3c"},
    "no extra points, no relocation": {"color": "#fd8d3c", "style": "--"},
    "reinforce": {"color": "#cb181d"},
}


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give all sizes and seeds of every setting."""
    for setting, (_, steps_of, count) in SETTINGS.items():
        for size in steps_of:
            for seed in asked.seeds[:count]:
                yield {"setting": setting, "size": size, "seed": seed}


def exact(steps: list[int]) -> str:
    """Write from which step on runs are exact for good: the median and the last one."""
    return f"{median(steps):,g}, {max(steps):,}"


def ends(counts: list[int]) -> str:
    """Write the least and the largest number."""
    return "\N{EN DASH}".join(f"{count:,}" for count in sorted({min(counts), max(counts)}))


def write(lines: Lines) -> str:
    """Write when runs become exact, and how many cells they find."""
    columns = [
        Column("steps", "steps", one(",")),
        Column(
            "seeds exact",
            lambda line: line["exact_from_step"] is not None,
            lambda found: f"{sum(found)} of {len(found)}",
        ),
        Column("exact from step (median, last)", "exact_from_step", exact),
        Column("cells found", "test_cells_found", ends),
    ]
    rows = (
        ((setting.replace("reinforce", "REINFORCE"), f"{size:,}"), found)
        for setting in SHOWN
        for size in SETTINGS[setting][1]
        if (found := lines.where(setting=setting, size=size))
    )
    return table(["setting", "n"], rows, columns)


def draw(figure: Figure, lines: Lines) -> None:
    """Draw the curves: sizes, early moves in large matrices, ablations and REINFORCE."""
    left, middle, right = axes = figure.subplots(1, 3, sharey=True)

    def curve(ax: Axes, setting: str, size: int, label: str, **style: str) -> None:
        curves = lines.where(setting=setting, size=size).values("curve")
        if curves:
            runs = np.maximum([one["mse"] for one in curves], 1e-7)
            band(ax, EVERY * np.arange(runs.shape[1]), runs, label=label, **style)

    for size, colour in SIZE_COLOURS.items():
        curve(left, "default", size, f"n = {size:,}", color=colour)
        curve(middle, ALL_WRONG, size, f"n = {size:,}", color=colour)
        if size < 1024:  # where it makes no difference
            curve(middle, ALL, size, f"{size:,}, wrong stay", color=colour, style="--")
    curve(middle, LARGEST, 4096, "n = 4,096", color=SIZE_COLOURS[4096])
    curve(middle, WRONG, 1024, "1,024, sampled", color="#c994c7")
    curve(middle, LARGE, 1024, "1,024, late", color="0.6")
    for setting, style in RIGHT_PANEL.items():
        curve(right, setting, 16, setting, **style)
    titles = ("learning the n x n identity", "early moves", "ablations, n = 16")
    for ax, title in zip(axes, titles, strict=True):
        ax.set(yscale="log", xlabel="step", title=title)
        ax.set_xscale("symlog", linthresh=EVERY)
        ax.set_xlim(left=0)
    tidy(*axes, legend=8)
    left.set_ylabel("test mean squared error (floor 1e-7)")


BENCHMARK = Benchmark(
    settings=settings,
    measure=program("identity"),
    tiny=[{"setting": "default", "size": 8, "seed": 0}],
    table=write,
    draw=draw,
    figure="identity",
    inches=(14.0, 3.8),
    seeds=range(5),
)
