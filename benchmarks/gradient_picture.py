"""Bias against variance at equal cost, for most ways of this library to change a gradient.

    python benchmarks/gradient_picture.py              measure, print the tables, docs/gradients.png
    python benchmarks/gradient_picture.py --table      only print the tables
    python benchmarks/gradient_picture.py --draw       tables and figure from the JSON lines

One JSON line per method: what ``gradient_report`` says about it on a small problem whose exact
gradient is known (``gradient_problems.py``), and its counted cost. A method may be repeated and
averaged: that divides the variance and leaves the bias, so the figure shows variance times cost.
"""

import argparse
import itertools
from pathlib import Path
from typing import Any

import jax
from gradient_problems import PROBLEMS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from report import Report, read_lines

from sparse_hyper_jax.diagnostics import gradient_report

NAME = "gradient_picture"
DRAWS = 100_000
FEWER = {"sparse backpropagation": 2_000}
LEAST = 1e-4
"""Smaller variances are drawn here, as 0."""

COLOURS = ("#2166ac", "#b2182b", "#4d9221", "#762a83", "#e08214", "#444444")


def measure() -> None:
    """Write a line for every method of every problem."""
    report = Report(NAME)
    for make in PROBLEMS:
        problem = make()
        draws = FEWER.get(problem.title, DRAWS)
        keys = jax.random.split(jax.random.key(0), draws)
        for name, method in problem.methods.items():
            figures = gradient_report(problem.exact, method.estimate, keys)
            report.add(
                problem=problem.title,
                method=name,
                cost=method.cost,
                counted=problem.cost,
                draws=draws,
                **{field: float(value) for field, value in figures._asdict().items()},
            )


def bias_of(line: dict[str, Any]) -> str:
    """Write a bias, or that none was seen above twice the noise."""
    seen = line["bias"] > 2 * line["noise"]
    return f"{line['bias']:.2g}" if seen else f"none seen (noise {line['noise']:.1g})"


def table() -> str:
    """Give a Markdown table per problem."""
    rows = []
    lines = read_lines(NAME)
    for title in dict.fromkeys(line["problem"] for line in lines):
        chosen = [line for line in lines if line["problem"] == title]
        rows += [
            f"| {title} | {chosen[0]['counted']} | bias | variance | variance x cost | cosine |",
            "|---" * 6 + "|",
        ]
        for line in chosen:
            variance = line["variance"]
            shown = (
                "0" if value < 1e-9 else f"{value:.2g}"
                for value in (variance, variance * line["cost"])
            )
            one, two = shown
            rows.append(
                f"| {line['method']} | {line['cost']:g} | {bias_of(line)} | {one} | {two} "
                f"| {line['cosine']:.2f} |"
            )
        rows.append("")
    return "\n".join(rows)


def draw() -> Figure:
    """Draw one panel per problem."""
    lines = read_lines(NAME)
    titles = list(dict.fromkeys(line["problem"] for line in lines))
    figure = Figure(figsize=(13.5, 6.8), layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    for ax, title in zip(panels, titles, strict=False):
        chosen = [line for line in lines if line["problem"] == title]
        draw_panel(ax, chosen)
        ax.set_title(f"{title}\ncost: {chosen[0]['counted']}", fontsize=10)
    explain(panels[-1])
    return figure


def draw_panel(ax: Axes, lines: list[dict[str, Any]]) -> None:
    """Draw the methods of one problem, the noisiest first; hollow where no bias was seen."""
    styles = itertools.product("osD", COLOURS)
    for line in sorted(lines, key=lambda line: -line["variance"] * line["cost"]):
        marker, colour = next(styles)
        seen = line["bias"] > 2 * line["noise"]
        ax.plot(
            line["bias"] if seen else 0.0,
            max(line["variance"] * line["cost"], LEAST),
            marker,
            color=colour,
            markersize=6.5,
            markeredgewidth=1.5,
            fillstyle="full" if seen else "none",
            label=line["method"],
            clip_on=False,
        )
    ax.set(yscale="log", xlabel="bias / |g|", ylabel="variance x cost / |g|²")
    ax.set(xlim=(-0.04, 1.04), ylim=(LEAST / 2, 1e3))
    powers = range(-3, 4)
    ticks = [LEAST, *(10.0**power for power in powers)]
    ax.set_yticks(ticks, ["0", *(f"$10^{{{power}}}$" for power in powers)])
    ax.minorticks_off()
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=7.5)


def explain(ax: Axes) -> None:
    """Say how to read the panels."""
    ax.axis("off")
    ax.text(
        0.0,
        0.95,
        "Each point is one way to estimate a gradient g\n"
        "whose exact value is known.\n\n"
        "To the left: less bias (hollow, at the edge: none\n"
        "above twice the noise of the measurement).\n\n"
        "Down: less variance for the same cost. Points\n"
        "at the bottom do not vary at all.\n\n"
        "Averaging divides a variance and leaves a bias:\n"
        "what lies to the right stays there.\n\n"
        "Tuples: exact is the choice among all cells;\n"
        "methods that choose among fewer points are\n"
        "unbiased for another loss.",
        va="top",
        fontsize=9,
        transform=ax.transAxes,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="only print the tables")
    parser.add_argument("--draw", action="store_true", help="print the tables and draw")
    asked = parser.parse_args()
    if not (asked.table or asked.draw):
        measure()
    print(table())
    if not asked.table:
        draw().savefig(Path("docs") / "gradients.png", dpi=150)


if __name__ == "__main__":
    main()
