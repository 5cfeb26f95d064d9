"""What the figures of all benchmarks share."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Curve = tuple[Sequence[float], Sequence[float], Sequence[float], Mapping[str, Any]]
COLOURS = ("#b2182b", "#f4a582", "#2166ac", "#92c5de", "#4d9221", "#b8e186", "#762a83", "#888888")


def tidy(*panels: Axes, legend: float | None = None) -> None:
    """Take away what no figure needs; give each panel a legend of a font size."""
    for ax in panels:
        ax.spines[["top", "right"]].set_visible(False)
        if legend:
            ax.legend(frameon=False, fontsize=legend)


def band(ax: Axes, steps: Iterable[Any], runs: Iterable[Any], **style: str) -> None:
    """Draw the mean of several runs and the band from the least to the largest."""
    from sparse_hyper_jax.train.plots import plot_band  # imports JAX

    plot_band(ax, np.asarray(steps), np.asarray(runs), **style)


def against_size(
    figure: Figure, curves: Mapping[str, Curve], x: str, labels: Sequence[str]
) -> None:
    """Draw time and memory against a size, both axes logarithmic.

    Args:
        figure: gets a panel for each.
        curves: sizes, milliseconds, MiB and style by label.
        x: name of the size.
        labels: of milliseconds and MiB.
    """
    panels = figure.subplots(1, 2)
    for label, (sizes, milliseconds, mebibytes, style) in curves.items():
        for ax, numbers in zip(panels, (milliseconds, mebibytes), strict=True):
            ax.plot(sizes, numbers, marker="o", markersize=3.5, label=label, **style)
    for ax, label in zip(panels, labels, strict=True):
        ax.set(xscale="log", yscale="log", xlabel=x, ylabel=label)
        ax.grid(visible=True, color="0.9", linewidth=0.6)
    tidy(*panels)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
