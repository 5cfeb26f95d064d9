"""How well and how tightly do ten tasks fit into one network? Permuted MNIST, 784-300-300-10.

    python benchmarks/packnet.py --mnist DIR               all settings and seeds
    python benchmarks/packnet.py --mnist DIR --seeds 1 2   some seeds
    python benchmarks/packnet.py --table | --draw          from the JSON lines

One JSON line per run of the recipe ``packnet``: test accuracy of every task after the last one is
learned, and the share of the shared weights in use after each. Lines that are there already are not
run again. Settings were chosen by validation accuracy of three tasks, seed 100.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from report import Report, percent, read_lines, train_and_show

from sparse_hyper_jax.train import plots
from sparse_hyper_jax.train.recipes.packnet import PacknetRecipe

NAME = "packnet"
FIGURE = Path(__file__).parent.parent / "docs" / "packnet.png"
COMMON: dict[str, Any] = {
    "steps": 3_000,
    "learning_rate": 0.3,
    "target": 0.98,
    "decay": 0.0,
    "retrain_steps": 1_000,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "sequential, alpha 1": {"method": "sequential", "alpha": 1.0},
    "PackNet, alpha 1": {"method": "packnet", "alpha": 1.0},
    "PackNet, alpha 2": {"method": "packnet", "alpha": 2.0},
    "EfficientPackNet, alpha 1": {"alpha": 1.0},
    "EfficientPackNet, alpha 2": {"alpha": 2.0},
    "EfficientPackNet, alpha 1, L1 1e-04": {"alpha": 1.0, "l1": 1e-4},
    "EfficientPackNet, alpha 2, decay 2e-04": {"alpha": 2.0, "decay": 2e-4},
}
# 0.98 gives up to 2 % of every task away; these give less away and take more weights.
STRICT = (
    "EfficientPackNet, alpha 1",
    "EfficientPackNet, alpha 2",
    "EfficientPackNet, alpha 1, L1 1e-04",
    "EfficientPackNet, alpha 2, decay 2e-04",
)
# Under a power small weights move slowly: it may need more steps.
LONG = ("PackNet, alpha 1", *STRICT)
SETTINGS |= {f"{name}, target 0.995": SETTINGS[name] | {"target": 0.995} for name in STRICT}
SETTINGS |= {f"{name}, 10,000 steps": SETTINGS[name] | {"steps": 10_000} for name in LONG}
DRAWN = {
    "PackNet, alpha 1": "#d94801",
    "EfficientPackNet, alpha 1": "0.35",
    "EfficientPackNet, alpha 2": "#9ecae1",
    "EfficientPackNet, alpha 2, decay 2e-04": "#08519c",
    "EfficientPackNet, alpha 1, L1 1e-04": "#41ab5d",
}


def run(report: Report, setting: str, seed: int, folder: Path) -> None:
    """Learn all tasks once and write the line, unless it is there."""
    if (setting, seed) in {(line["setting"], line["seed"]) for line in read_lines(NAME)}:
        return
    with tempfile.TemporaryDirectory() as name:
        recipe = PacknetRecipe(
            **COMMON | SETTINGS[setting],
            data="mnist",
            data_dir=folder,
            seed=seed,
            out=Path(name) / "run",
            quiet=True,
        )
        try:
            result = recipe.run()
        except FloatingPointError as error:
            report.add(setting=setting, seed=seed, diverged=str(error).split(";")[0])
            return
    left_out = {"out", "seconds"}  # several runs may share the machine
    kept = {key: value for key, value in result.items() if key not in left_out}
    report.add(setting=setting, **kept)


def runs_of(setting: str) -> list[dict[str, Any]]:
    """Give the runs of a setting that did not diverge."""
    lines = [line for line in read_lines(NAME) if line["setting"] == setting]
    return [line for line in lines if "diverged" not in line]


def table() -> str:
    """Give accuracies and capacity as a Markdown table."""
    rows = [
        "| setting | test accuracy of 10 tasks | when learned | weights used "
        "| by one task | tasks unchanged to the bit |",
        "|---|---|---|---|---|---|",
    ]
    for setting in SETTINGS:
        runs = runs_of(setting)
        failed = sum(line["setting"] == setting for line in read_lines(NAME)) - len(runs)
        cells = [
            percent([line["mean_test_accuracy"] for line in runs], 2),
            percent([line["mean_test_accuracy_when_learned"] for line in runs], 2, span=False),
            percent([line["share_used"][-1] for line in runs], span=False),
            percent([float(np.mean(line["share_of_task"])) for line in runs], span=False),
            ", ".join(str(line["unchanged_tasks"]) for line in runs),
        ]
        if SETTINGS[setting].get("method") == "sequential":
            cells[2:4] = ["-", "-"]  # nothing is set aside for a task
        name = setting + (f" ({failed} diverged)" if failed else "")
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def draw() -> Figure:
    """Draw accuracy of every task at the end, and the share of weights in use after each."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, colour in DRAWN.items():
        runs = runs_of(f"{name}, 10,000 steps")
        if not runs:
            continue
        tasks = np.arange(1, len(runs[0]["share_used"]) + 1)
        for ax, values in ((left, "test_accuracies"), (right, "share_used")):
            shares = 100 * np.asarray([line[values] for line in runs])
            plots.plot_band(ax, tasks, shares, label=name, color=colour)
    left.set(xlabel="task", ylabel="test accuracy after the last task, %")
    right.set(xlabel="tasks learned", ylabel="shared weights in use, %", ylim=(0, 100))
    entries = left.get_legend_handles_labels()
    figure.legend(*entries, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_xticks(range(1, 11))
    return figure


def train(seed: int, mnist: Path) -> None:
    """Make the lines of one seed."""
    report = Report(NAME, append=True)
    for setting in SETTINGS:
        run(report, setting, seed, mnist)


if __name__ == "__main__":
    train_and_show(
        __doc__.splitlines()[0], train, seeds=range(3), table=table, draw=draw, figure=FIGURE
    )
