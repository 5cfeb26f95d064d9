"""Does memory recover what sparse backpropagation loses? MNIST, 784-500-500-10, 4 %, 20 epochs.

    python benchmarks/sparse_backprop_accuracy.py --mnist DIR             all settings and seeds
    python benchmarks/sparse_backprop_accuracy.py --mnist DIR --seeds 3 4   some seeds
    python benchmarks/sparse_backprop_accuracy.py --table | --draw        from the JSON lines

One JSON line per run of the recipe ``sparse-backprop``: test accuracy of the parameters with the
best validation accuracy, and the validation curve. Lines that are there already are not run again,
so that an interrupted call goes on, and several may run side by side.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from report import Report, percent, read_lines, train_and_show

from sparse_hyper_jax.train import plots
from sparse_hyper_jax.train.recipes.sparse_backprop import SparseBackpropRecipe
from sparse_hyper_jax.train.run_folder import RunFolder

NAME = "sparse_backprop_accuracy"
FIGURE = Path(__file__).parent.parent / "docs" / "sparse_backprop.png"
RATIO, HIDDEN, PIXELS, CLASSES = 0.04, 500, 784, 10
SETTINGS: dict[str, dict[str, Any]] = {
    "dense": {"select": "dense"},
    "dense, as small as the backward pass": {"select": "dense"},
    "dense, as short as the backward pass": {"select": "dense", "epochs": 1},
    "row": {"select": "row", "memory": 0.0},
    "row, memory": {"select": "row"},
    "unified": {"select": "unified", "memory": 0.0},
    "unified, memory": {"select": "unified"},
    "unified, shared memory": {"select": "unified", "granularity": "shared"},
    "candidates": {"select": "candidates", "memory": 0.0},
    "candidates, memory": {"select": "candidates"},
    "random": {"select": "random", "memory": 0.0},
    "error feedback on weights": {"select": "error-feedback", "memory": 1.0},
}
COLOURS = {"dense": "0.3", "row": "#cb181d", "unified": "#08519c", "candidates": "#41ab5d"}


def backward_products(hidden: int, kept: float) -> int:
    """Count multiplications per image of a backward pass; the input needs no gradient."""
    return round(kept * (PIXELS * hidden + 2 * hidden * hidden)) + 2 * hidden * CLASSES


def equal_width() -> int:
    """Find the dense network whose backward pass costs as much as the sparse one."""
    target = backward_products(HIDDEN, RATIO)
    return min(range(1, HIDDEN), key=lambda h: abs(backward_products(h, 1.0) - target))


def run(report: Report, setting: str, optimizer: str, seed: int, folder: Path) -> None:
    """Train once and write the line, unless it is there."""
    wanted = (setting, optimizer, seed)
    if wanted in {(line["setting"], line["optimizer"], line["seed"]) for line in read_lines(NAME)}:
        return
    hidden = equal_width() if "small" in setting else HIDDEN
    common: dict[str, Any] = {"data": "mnist", "data_dir": folder, "hidden": hidden, "quiet": True}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "run"
        recipe = SparseBackpropRecipe(
            **{"ratio": RATIO, **common, **SETTINGS[setting]},
            optimizer=optimizer,
            seed=seed,
            out=path,
        )
        result = recipe.run()
        steps, accuracy = plots.read_curve(RunFolder(path), "eval_accuracy")
    left_out = {"out", "seconds"}  # several runs may share the machine
    kept = {key: value for key, value in result.items() if key not in left_out}
    curve = {"every": int(steps[1]), "accuracy": [round(float(one), 4) for one in accuracy]}
    report.add(**{"setting": setting, **kept, "epochs": recipe.epochs, "curve": curve})


def table() -> str:
    """Give the test accuracies as a Markdown table: mean, standard deviation, lowest to highest."""
    rows = ["| setting | Adam | SGD |", "|---|---|---|"]
    for setting in SETTINGS:
        cells = []
        for optimizer in ("adam", "sgd"):
            runs = [
                line["test_accuracy"]
                for line in read_lines(NAME)
                if (line["setting"], line["optimizer"]) == (setting, optimizer)
            ]
            cells.append(percent(runs, 2))
        rows.append(f"| {setting} | {cells[0]} | {cells[1]} |")
    return "\n".join(rows)


def draw() -> Figure:
    """Draw validation errors over epochs: Adam on the left, SGD on the right."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)

    def curve(ax: Axes, setting: str, optimizer: str) -> None:
        chosen = [
            line["curve"]["accuracy"]
            for line in read_lines(NAME)
            if (line["setting"], line["optimizer"]) == (setting, optimizer)
        ]
        if not chosen:
            return
        runs = 100 * (1 - np.asarray(chosen))[:, 1:]
        style = "-" if "memory" in setting or setting == "dense" else "--"
        colour = COLOURS[setting.split(",", maxsplit=1)[0]]
        epochs = np.arange(1, runs.shape[1] + 1)
        plots.plot_band(ax, epochs, runs, label=setting, color=colour, style=style)

    for ax, optimizer in zip(panels, ("adam", "sgd"), strict=True):
        for setting in SETTINGS:
            if setting.split(",", maxsplit=1)[0] in COLOURS and not any(
                word in setting for word in ("small", "short", "shared")
            ):
                curve(ax, setting, optimizer)
        title = {"adam": "Adam 0.001", "sgd": "SGD 0.1"}[optimizer]
        ax.set(xlabel="epoch", title=title, yscale="log", xticks=(1, 5, 10, 15, 20))
        ticks = (1.5, 2, 3, 5, 10, 20)
        ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
        ax.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("validation error, %")
    panels[1].legend(frameon=False, fontsize=8)
    return figure


def train(seed: int, mnist: Path) -> None:
    """Make the lines of one seed."""
    report = Report(NAME, append=True)
    for setting in SETTINGS:
        for optimizer in ("adam", "sgd"):
            run(report, setting, optimizer, seed, mnist)


if __name__ == "__main__":
    train_and_show(
        __doc__.splitlines()[0], train, seeds=range(5), table=table, draw=draw, figure=FIGURE
    )
