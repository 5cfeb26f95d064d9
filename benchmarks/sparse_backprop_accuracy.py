"""Does memory recover what sparse backpropagation loses? MNIST, 784-500-500-10, 4 %, 20 epochs.

Runs of the recipe ``sparse-backprop``: test accuracy of the parameters with the best validation
accuracy, and the validation curve.
"""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.figures import band, tidy
from benchmarks.lines import Facts, Line, Lines
from benchmarks.recipes import train
from benchmarks.runner import Asked, Benchmark, grid
from benchmarks.tables import Column, percent, table

RATIO, HIDDEN, PIXELS, CLASSES = 0.04, 500, 784, 10
SETTINGS: dict[str, dict[str, Any]] = {
    "dense": {"method": "dense"},
    "dense, as small as the backward pass": {"method": "dense"},
    "dense, as short as the backward pass": {"method": "dense", "steps": 1_100},
    "row": {"method": "row", "memory": 0.0},
    "row, memory": {"method": "row"},
    "unified": {"method": "unified", "memory": 0.0},
    "unified, memory": {"method": "unified"},
    "unified, shared memory": {"method": "unified", "granularity": "shared"},
    "candidates": {"method": "candidates", "memory": 0.0},
    "candidates, memory": {"method": "candidates"},
    "random": {"method": "random", "memory": 0.0},
    "error feedback on weights": {"method": "error-feedback", "memory": 1.0},
}
OPTIMIZERS = {"adam": "Adam", "sgd": "SGD"}
COLOURS = {"dense": "0.3", "row": "#cb181d", "unified": "#08519c", "candidates": "#41ab5d"}
DRAWN = tuple(f"{method}{memory}" for method in COLOURS for memory in ("", ", memory"))


def backward_products(hidden: int, kept: float) -> int:
    """Count multiplications per image of a backward pass; the input needs no gradient."""
    return round(kept * (PIXELS * hidden + 2 * hidden * hidden)) + 2 * hidden * CLASSES


def equal_width() -> int:
    """Find the dense network whose backward pass costs as much as the sparse one."""
    target = backward_products(HIDDEN, RATIO)
    return min(range(1, HIDDEN), key=lambda h: abs(backward_products(h, 1.0) - target))


def measure(facts: Facts, asked: Asked) -> Line:
    """Train once."""
    hidden = equal_width() if "small" in facts["setting"] else HIDDEN
    options = {"ratio": RATIO, "data": "mnist", "hidden": (hidden, hidden)}
    options |= SETTINGS[facts["setting"]]
    options |= {name: facts[name] for name in ("optimizer", "seed")}
    line = train("sparse-backprop", asked, curves=["eval_accuracy"], **options)
    curve = line["curve"]
    every, accuracy = curve["steps"][1], curve["eval_accuracy"]
    return line | {"curve": {"every": every, "accuracy": accuracy}}


def write(lines: Lines) -> str:
    """Write test accuracies, a row per setting."""
    columns = [
        Column(head, "test_accuracy", percent(2), {"optimizer": optimizer})
        for optimizer, head in OPTIMIZERS.items()
    ]
    rows = (([setting], lines.where(setting=setting)) for setting in SETTINGS)
    return table(["setting"], rows, columns)


def draw(figure: Figure, lines: Lines) -> None:
    """Draw validation errors over epochs: Adam on the left, SGD on the right."""
    panels = figure.subplots(1, 2, sharey=True)
    for ax, (optimizer, rate) in zip(panels, (("adam", 0.001), ("sgd", 0.1)), strict=True):
        for setting in DRAWN:
            curves = lines.where(setting=setting, optimizer=optimizer).values("curve")
            if curves:
                errors = 100 * (1 - np.asarray([curve["accuracy"] for curve in curves]))[:, 1:]
                style = "-" if "memory" in setting or setting == "dense" else "--"
                colour = COLOURS[setting.partition(",")[0]]
                epochs = range(1, 1 + errors.shape[1])
                band(ax, epochs, errors, label=setting, color=colour, style=style)
        title = f"{OPTIMIZERS[optimizer]} {rate}"
        ax.set(xlabel="epoch", title=title, yscale="log", xticks=(1, 5, 10, 15, 20))
        ticks = (1.5, 2, 3, 5, 10, 20)
        ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
    tidy(*panels)
    panels[0].set_ylabel("validation error, %")
    panels[1].legend(frameon=False, fontsize=8)


BENCHMARK = Benchmark(
    settings=lambda asked, lines: grid(
        seed=asked.seeds if asked.mnist else [], setting=SETTINGS, optimizer=OPTIMIZERS
    ),
    measure=measure,
    tiny=list(grid(seed=[0], setting=["unified, memory"], optimizer=["sgd"])),
    table=write,
    draw=draw,
    figure="sparse_backprop",
    seeds=range(5),
)
