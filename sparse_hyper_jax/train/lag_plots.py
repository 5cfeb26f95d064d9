"""Gain curves over all candidate lags, with marks on those that were found."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sparse_hyper_jax.train.models.lag_report import LagReport
from sparse_hyper_jax.train.plots import INK

FOUND, KNOWN, LIMIT = "#c8553d", "#2a7f9e", "0.55"


def plot_lags(
    report: LagReport,
    *,
    least: int,
    found_in: Sequence[float],
    known: Sequence[int] = (),
    min_gain: float | None = None,
    metric: str = "mse",
    found: bool = True,
) -> Figure:
    """Draw gains before and after the search, and what each lag is worth; the legend stands above.

    Args:
        report: of one model.
        least: the smallest candidate lag.
        found_in: ``(k,)``, share of restarts with this lag or one next to it.
        known: true lags, where they are known.
        min_gain: what gains had to exceed, if anything.
        metric: name of the loss.
        found: whether the lags were found, or chosen without a look at the data.

    Returns:
        the figure.
    """
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    start, end, worth = figure.subplots(3, 1, sharex=True)
    places = np.arange(least, least + len(report.first))
    lags, importance = report.lags, report.importance
    for ax, curve, title in (
        (start, report.first, "gain of every lag before any is placed"),
        (end, report.left, "gain that is left beyond these lags"),
    ):
        ax.plot(places, curve, color=INK, linewidth=0.9)
        if min_gain is not None:
            ax.axhline(min_gain, color=LIMIT, linewidth=0.8, linestyle="--")
        ax.set(ylabel="gain / largest by chance", title=title)
        _mark(ax, lags, known)
    colours = [(*_rgb(FOUND), 0.25 + 0.75 * share) for share in found_in]
    worth.vlines(lags, 0, importance, colors=colours, linewidth=2)
    worth.scatter(lags, importance, color=colours, s=18, zorder=3)
    worth.errorbar(lags, importance, report.errors, fmt="none", ecolor=INK, elinewidth=0.8)
    worth.axhline(0, color=LIMIT, linewidth=0.6)
    worth.set(
        xlabel="lag (rows from input to target)",
        ylabel=f"rise of {metric}",
        title="importance: validation loss without the lag; pale where few restarts found it",
    )
    for ax in (start, end, worth):
        ax.spines[["top", "right"]].set_visible(False)
        ax.title.set_fontsize(10)
    figure.legend(
        handles=_handles(known, min_gain, found=found),
        loc="outside upper right",
        ncols=3,
        frameon=False,
    )
    return figure


def _mark(ax: Axes, lags: np.ndarray, known: Sequence[int]) -> None:
    """Put marks below the curves, where they hide nothing."""
    below = ax.get_xaxis_transform()
    ax.margins(x=0.01, y=0.08)
    low, high = ax.get_ylim()
    ax.set_ylim(low - 0.2 * (high - low), high)
    ax.plot(lags, np.full(len(lags), 0.1), "^", color=FOUND, markersize=5, transform=below)
    ax.plot(known, np.full(len(known), 0.03), "|", color=KNOWN, markersize=7, transform=below)


def _handles(known: Sequence[int], min_gain: float | None, *, found: bool) -> list[Line2D]:
    handles = [
        Line2D([], [], color=FOUND, marker="^", linestyle="", label="found" if found else "read")
    ]
    if known:
        handles.append(Line2D([], [], color=KNOWN, marker="|", linestyle="", label="true"))
    if min_gain is not None:
        label = f"needed: {min_gain:g} x the largest by chance"
        handles.append(Line2D([], [], color=LIMIT, linestyle="--", linewidth=0.8, label=label))
    return handles


def _rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return red, green, blue
