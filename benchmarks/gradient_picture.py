"""Bias against variance at equal cost, for most ways of this library to change a gradient.

One line per method: what ``gradient_report`` says about it on a small problem whose exact gradient
is known (``programs/gradient_problems.py``), and its counted cost. A method may be repeated and
averaged: that divides the variance and leaves the bias, so the figure shows variance times cost.
"""

import itertools

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.figures import tidy
from benchmarks.lines import Line, Lines
from benchmarks.runner import Benchmark, grid, program
from benchmarks.tables import Column, bias, one, table

PROBLEMS = (
    "discrete choices",
    "tuples of a hyperlayer",
    "sorting",
    "sparse backpropagation",
    "choice of an expert",
)
LEAST = 1e-4
"""Smaller variances are drawn here, as 0."""

COLOURS = ("#2166ac", "#b2182b", "#4d9221", "#762a83", "#e08214", "#444444")
HOW_TO_READ = """\
Each point is one way to estimate a gradient g
whose exact value is known.

To the left: less bias (hollow, at the edge: none
above twice the noise of the measurement).

Down: less variance for the same cost. Points
at the bottom do not vary at all.

Averaging divides a variance and leaves a bias:
what lies to the right stays there.

Tuples: exact is the choice among all cells;
methods that choose among fewer points are
unbiased for another loss."""


def total(line: Line) -> float:
    """Give the variance at the cost of one."""
    return line["variance"] * line["cost"]


def number(values: list[float]) -> str:
    """Write a variance, or that there is none."""
    return "0" if values[0] < 1e-9 else f"{values[0]:.2g}"


def write(lines: Lines) -> str:
    """Write a table per problem, a row per method."""
    written = []
    for problem in lines.each("problem"):
        chosen = lines.where(problem=problem)
        columns = [
            Column(chosen[0]["counted"], "cost", one("g")),
            Column("bias", lambda line: bias(line, ".2g"), one()),
            Column("variance", "variance", number),
            Column("variance x cost", total, number),
            Column("cosine", "cosine", one(".2f")),
        ]
        written.append(
            table([problem], (([line["method"]], Lines([line])) for line in chosen), columns)
        )
    return "\n\n".join(written)


def draw(figure: Figure, lines: Lines) -> None:
    """Draw one panel per problem, and how to read them."""
    panels = figure.subplots(2, 3).ravel()
    for ax, problem in zip(panels, lines.each("problem"), strict=False):
        chosen = lines.where(problem=problem)
        draw_panel(ax, chosen)
        ax.set_title(f"{problem}\ncost: {chosen[0]['counted']}", fontsize=10)
    panels[-1].axis("off")
    panels[-1].text(0.0, 0.95, HOW_TO_READ, va="top", fontsize=9, transform=panels[-1].transAxes)


def draw_panel(ax: Axes, lines: Lines) -> None:
    """Draw the methods of one problem, the noisiest first; hollow where no bias was seen."""
    styles = itertools.product("osD", COLOURS)
    for line, (marker, colour) in zip(sorted(lines, key=total, reverse=True), styles, strict=False):
        seen = line["bias"] > 2 * line["noise"]
        place = (line["bias"] if seen else 0.0, max(total(line), LEAST))
        style = {"color": colour, "markersize": 6.5, "markeredgewidth": 1.5, "clip_on": False}
        style |= {"fillstyle": "full" if seen else "none", "label": line["method"]}
        ax.plot(*place, marker, **style)
    ax.set(yscale="log", xlabel="bias / |g|", ylabel="variance x cost / |g|²")
    ax.set(xlim=(-0.04, 1.04), ylim=(LEAST / 2, 1e3))
    powers = range(-3, 4)
    ticks = [LEAST, *(10.0**power for power in powers)]
    ax.set_yticks(ticks, ["0", *(f"$10^{{{power}}}$" for power in powers)])
    ax.minorticks_off()
    tidy(ax)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=7.5)


BENCHMARK = Benchmark(
    settings=lambda asked, lines: grid(problem=PROBLEMS),
    measure=program("gradient_problems"),
    tiny=list(grid(problem=PROBLEMS)),
    table=write,
    draw=draw,
    figure="gradients",
    inches=(13.5, 6.8),
)
