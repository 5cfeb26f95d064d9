"""Figures of tuples, training curves and sorted images; every function returns its figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import matplotlib as mpl
import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sparse_hyper_jax import checks
from sparse_hyper_jax.explain import Description
from sparse_hyper_jax.ops import ContinuousTuples
from sparse_hyper_jax.train.run_folder import RunFolder

VALUES = mpl.colormaps["RdYlBu"]
INK = "#1f3b57"
LATTICE = "0.8"
STYLE = {
    "figure.dpi": 90,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
"""Settings of the notebooks: ``matplotlib.rcParams.update(STYLE)``."""


def plot_tuples(
    tuples: ContinuousTuples, shape: Sequence[int], *, ax: Axes | None = None
) -> Figure:
    """Draw continuous tuples: ellipses for rank 2, error bars for rank 1.

    An ellipse reaches one standard deviation around its mean and fades with its area; its colour
    is the tanh of its value, red for negative, blue for positive.

    Args:
        tuples: ``k`` continuous tuples of rank 1 or 2; for rank 2 the first axis (outputs) runs
            down, as in a matrix.
        shape: the lengths of the index space.
        ax: where to draw; by default a new figure.

    Returns:
        the figure.

    Raises:
        ValueError: another rank.
    """
    shape = checks.check_index_shape("shape", shape)
    _, rank = checks.check_tuples(*tuples)
    checks.require(
        rank in (1, 2) and len(shape) == rank,
        f"tuples of rank {rank} in shape {shape}",
        "rank 1 or 2, as many lengths",
        "plot two columns of the means at a time",
    )
    ax = Figure(figsize=(4, 4), layout="constrained").subplots() if ax is None else ax
    means, variances, values = (np.asarray(leaf, np.float64) for leaf in tuples)
    colours = VALUES(0.5 + 0.5 * np.tanh(values))
    (_plot_ellipses if rank == 2 else _plot_bars)(ax, means, np.sqrt(variances), colours, shape)
    return _figure_of(ax)


def _figure_of(ax: Axes) -> Figure:
    return ax.figure if isinstance(ax.figure, Figure) else ax.figure.figure


def _plot_ellipses(
    ax: Axes, means: np.ndarray, deviations: np.ndarray, colours: np.ndarray, shape: Sequence[int]
) -> None:
    rows, columns = shape
    grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2)
    ax.scatter(*grid.T, s=max(0.3, 60 / max(shape)), color=LATTICE, linewidths=0, zorder=0)
    colours = colours.copy()
    colours[:, 3] = np.clip(1 / (1 + deviations.prod(axis=1)), 0.08, 0.9)
    heights, widths = np.maximum(2 * deviations, 0.35).T
    ax.add_collection(
        EllipseCollection(
            widths,
            heights,
            np.zeros(len(means)),
            units="xy",
            offsets=means[:, ::-1],
            offset_transform=ax.transData,
            facecolors=colours,
            edgecolors="none",
        )
    )
    ax.scatter(*means[:, ::-1].T, s=max(1.0, 160 / max(shape)), color=INK, linewidths=0)
    ax.set(xlim=(-0.7, columns - 0.3), ylim=(rows - 0.3, -0.7), aspect="equal")
    ax.set(xticks=_ends(columns), yticks=_ends(rows), xlabel="input", ylabel="output")


def _plot_bars(
    ax: Axes, means: np.ndarray, deviations: np.ndarray, colours: np.ndarray, shape: Sequence[int]
) -> None:
    number = np.arange(len(means))
    ax.vlines(np.arange(shape[0]), -0.7, len(means) - 0.3, color=LATTICE, linewidth=0.6, zorder=0)
    ax.barh(number, 2 * deviations[:, 0], left=means[:, 0] - deviations[:, 0], color=colours)
    ax.plot(means[:, 0], number, ".", color=INK)
    ax.set(xlim=(-0.7, shape[0] - 0.3), ylim=(len(means) - 0.3, -0.7))
    ax.set(xticks=_ends(shape[0]), yticks=_ends(len(means)), xlabel="index", ylabel="tuple")


def _ends(size: int) -> list[int]:
    return sorted({0, size - 1})


def plot_matrix(
    matrix: np.ndarray,
    *,
    ax: Axes | None = None,
    limit: float | None = None,
    numbers: bool = False,
) -> Figure:
    """Draw a matrix: blue for positive, red for negative, grey for missing (NaN) cells.

    Args:
        matrix: ``(rows, columns)``.
        ax: where to draw; by default a new figure.
        limit: the absolute value of the darkest colour; by default the largest.
        numbers: write the non-zeros into their cells.

    Returns:
        the figure.
    """
    matrix = np.asarray(matrix, np.float64)
    ax = Figure(figsize=(4, 4), layout="constrained").subplots() if ax is None else ax
    limit = max(float(np.nanmax(np.abs(matrix))), 1e-12) if limit is None else float(limit)
    colours = mpl.colormaps["RdBu"].with_extremes(bad="0.87")
    ax.imshow(matrix, cmap=colours, vmin=-1.25 * limit, vmax=1.25 * limit)
    ax.set(xticks=_ends(matrix.shape[1]), yticks=_ends(matrix.shape[0]))
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    for (row, column), value in np.ndenumerate(matrix if numbers else [[]]):
        if abs(value) >= 0.005:
            colour = "white" if abs(value) > 0.7 * limit else INK
            ax.text(column, row, f"{value:.2f}", ha="center", va="center", size=7, color=colour)
    return _figure_of(ax)


def plot_description(
    description: Description, *, axes: Sequence[str] = ("output", "input"), ax: Axes | None = None
) -> Figure:
    """Draw what each connection carries: stems for rank 1, discs for rank 2.

    The height of a stem, or the area of a disc, is the importance. Hollow is what has not settled,
    or sits on the cell of another.

    Args:
        description: of connections of rank 1 or 2; for rank 2 the first axis runs down.
        axes: names of the axes of the index space; for rank 1 the last one counts.
        ax: where to draw; by default a new figure.

    Returns:
        the figure.

    Raises:
        ValueError: another rank.
    """
    found: Any = jax.tree.map(np.asarray, description)
    rank = found.positions.shape[1]
    checks.require(
        rank in (1, 2), f"positions of rank {rank}", "rank 1 or 2", "plot two of their columns"
    )
    ax = Figure(figsize=(4, 4 / rank), layout="constrained").subplots() if ax is None else ax
    worth = np.nan_to_num(found.importance)
    inside = np.where((found.settled & ~found.duplicate)[:, None], to_rgba(INK), 1.0)
    if rank == 1:
        ax.vlines(found.positions[:, 0], 0, worth, color=INK, linewidth=1.2)
        ax.scatter(found.positions[:, 0], worth, color=inside, edgecolors=INK, s=22, zorder=2)
        ax.set(xlabel=axes[-1], ylabel="importance", ylim=(0, None))
    else:
        areas = 120 * worth / max(worth.max(initial=0), 1e-12)
        ax.scatter(*found.positions[:, ::-1].T, color=inside, edgecolors=INK, s=areas)
        ax.set(xlabel=axes[-1], ylabel=axes[0], aspect="equal")
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        ax.invert_yaxis()
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _figure_of(ax)


def read_curve(folder: RunFolder, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Read steps and values of one metric of a run, where it was recorded."""
    rows = [line for line in folder.metrics() if line.get(name) is not None]
    checks.require(
        all(isinstance(row[name], int | float) for row in rows),
        f"values of {name!r} in {folder.path} that are no numbers",
        "numbers",
        "read another metric, or restore the file of metrics",
    )
    return np.array([row["step"] for row in rows]), np.array([row[name] for row in rows])


def plot_settling(
    snapshots: Mapping[int, ContinuousTuples],
    shape: Sequence[int],
    curve: tuple[np.ndarray, np.ndarray],
) -> Figure:
    """Draw tuples at four moments of training and the test error.

    Args:
        snapshots: rank-2 tuples by step.
        shape: lengths of the index space.
        curve: steps and mean squared errors.

    Returns:
        the figure.
    """
    steps = sorted(snapshots)
    # Early moments matter more: most of the movement is over long before the end.
    chosen = [steps[round(share * (len(steps) - 1))] for share in (0, 0.08, 0.25, 1)]
    figure = Figure(figsize=(14, 3.2), layout="constrained")
    *panels, last = figure.subplots(1, 5)
    for step, ax in zip(chosen, panels, strict=True):
        plot_tuples(snapshots[step], shape, ax=ax)
        ax.set_title(f"step {step:,}", fontsize=10)
    error = np.maximum(curve[1], 1e-7)
    last.semilogy(curve[0], error, color=INK, linewidth=1.5)
    last.set(xlabel="step", ylabel="test error (floor 1e-7)", title="mean squared error")
    last.title.set_fontsize(10)
    last.spines[["top", "right"]].set_visible(False)
    return figure


def animate_tuples(
    snapshots: Mapping[int, ContinuousTuples], shape: Sequence[int], path: Path
) -> None:
    """Write a GIF of tuples settling.

    Args:
        snapshots: rank-2 tuples by step.
        shape: lengths of the index space.
        path: file to write.
    """
    figure = Figure(figsize=(3.6, 3.8), layout="constrained")
    ax = figure.subplots()
    steps = sorted(snapshots)

    def draw(step: int) -> list[Any]:
        ax.clear()
        plot_tuples(snapshots[step], shape, ax=ax)
        ax.set_title(f"step {step:,}", fontsize=10)
        return []

    # The last picture stays for a while before the film starts again.
    frames = [*steps, *[steps[-1]] * 10]
    FuncAnimation(figure, draw, frames=frames).save(path, PillowWriter(fps=8), dpi=80)


def plot_image_rows(stages: Sequence[np.ndarray], names: Sequence[str]) -> Figure:
    """Draw sequences of images at several moments, below each other.

    Args:
        stages: one array ``(sequences, n, height, width)`` per moment, values in [0, 1]; sequences
            stand side by side, moments below each other.
        names: what to write beside each moment.

    Returns:
        the figure.
    """
    count, n, height, width = stages[0].shape
    ratio = 0.55 * width / height
    figure = Figure(figsize=(ratio * count * (n + 0.5) + 1.2, 0.62 * len(stages)))
    figure.subplots_adjust(left=1.1 / figure.get_figwidth(), right=0.99, top=0.97, bottom=0.03)
    blocks = figure.subplots(len(stages), count, squeeze=False, gridspec_kw={"wspace": 0.12})
    for name, images, line in zip(names, stages, blocks, strict=True):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
        for sequence, ax in zip(images, line, strict=True):
            ax.imshow(np.concatenate(list(sequence), axis=1), cmap="gray_r", vmin=0, vmax=1)
            ax.vlines(width * np.arange(1, n) - 0.5, -0.5, height - 0.5, color="0.85", lw=0.8)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set(color="0.6", visible=True)
    return figure


def plot_band(
    ax: Axes, steps: np.ndarray, runs: np.ndarray, *, label: str, color: str, style: str = "-"
) -> None:
    """Draw the mean of several runs and the band from the least to the largest.

    Args:
        ax: where to draw.
        steps: ``(t,)``.
        runs: ``(seeds, t)``.
        label: for the legend.
        color: of line and band.
        style: of the line.
    """
    ax.plot(steps, runs.mean(axis=0), style, color=color, label=label, linewidth=1.5)
    ax.fill_between(steps, runs.min(axis=0), runs.max(axis=0), color=color, alpha=0.15, linewidth=0)


def plot_curves(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], *, x_label: str = "step"
) -> Figure:
    """Draw metrics of one run, a panel for each, the last value in its title.

    Args:
        curves: label to steps and values.
        x_label: what the steps are.

    Returns:
        the figure.
    """
    figure = Figure(figsize=(3.6 * len(curves), 2.8), layout="constrained")
    for ax, (label, (steps, values)) in zip(
        figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True
    ):
        ax.plot(steps, values, color=INK, linewidth=1.5)
        last = f": {values[-1]:.3f}" if len(values) else ""
        ax.set(xlabel=x_label, title=f"{label}{last}")
        ax.title.set_fontsize(10)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def plot_histograms(values: Mapping[str, np.ndarray], *, x_label: str) -> Figure:
    """Draw how several sets of numbers are spread, one line each, counts on a log scale.

    Args:
        values: label to numbers.
        x_label: what the numbers are.

    Returns:
        the figure.
    """
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    ax = figure.subplots()
    reach = max(np.quantile(np.abs(numbers), 0.999) for numbers in values.values())
    edges = np.linspace(-reach, reach, 82)
    for label, numbers in values.items():
        counts, _ = np.histogram(np.clip(numbers, -reach, reach), edges)
        ax.stairs(counts, edges, label=label, linewidth=1.4)
    ax.set(xlabel=x_label, ylabel="entries", yscale="log")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8)
    return figure


def plot_glimpses(images: np.ndarray, corners: np.ndarray, windows: np.ndarray) -> Figure:
    """Draw images with the outlines of their windows, and below what is read there.

    The side that is up in a window is drawn thicker.

    Args:
        images: ``(n, H, W)``, values in [0, 1]; or ``(n, H, W, 3)``, in colour.
        corners: ``(n, g, 4, 2)`` rows and columns of upper left, upper right, lower right and lower
            left corners.
        windows: ``(n, g, h, w)``, or with channels.

    Returns:
        the figure.
    """
    count, glimpses = corners.shape[:2]
    heights = [1.0, *[0.5] * glimpses]
    figure = Figure(figsize=(1.25 * count, 1.3 * sum(heights)), layout="constrained")
    axes = figure.subplots(1 + glimpses, count, squeeze=False, height_ratios=heights)
    colors = mpl.colormaps["tab10"](np.arange(glimpses) % 10)
    for column, (image, quads, reads) in enumerate(zip(images, corners, windows, strict=True)):
        axes[0, column].imshow(image, cmap="gray_r", vmin=0, vmax=1)
        for row, (quad, read, color) in enumerate(zip(quads, reads, colors, strict=True)):
            closed = np.concatenate([quad, quad[:1]])
            axes[0, column].plot(closed[:, 1], closed[:, 0], color=color, linewidth=1)
            axes[0, column].plot(quad[:2, 1], quad[:2, 0], color=color, linewidth=2.4)
            # Matplotlib warns of colours above 1, if only by a rounding error.
            axes[1 + row, column].imshow(np.clip(read, 0, 1), cmap="gray_r", vmin=0, vmax=1)
            axes[1 + row, column].spines[:].set_color(color)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    return figure
