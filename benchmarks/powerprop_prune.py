"""Does powerpropagation make networks easier to prune? MNIST, 784-300-100-10, 50,000 steps.

    python benchmarks/powerprop_prune.py --mnist DIR               all settings and seeds
    python benchmarks/powerprop_prune.py --mnist DIR --seeds 3 4   some seeds
    python benchmarks/powerprop_prune.py --table | --draw          from the JSON lines

One JSON line per run of the recipe ``powerprop``: test accuracy of the final weights, whole and
pruned in one shot to 20 densities without any training afterwards. Lines that are there already are
not run again, so that an interrupted call goes on, and several may run side by side.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from report import Report, percent, read_lines, train_and_show

from sparse_hyper_jax.train import plots
from sparse_hyper_jax.train.recipes.powerprop import DENSITIES, PowerpropRecipe

NAME = "powerprop_prune"
FIGURE = Path(__file__).parent.parent / "docs" / "powerprop.png"
ALPHAS = (1.0, 2.0, 3.0, 4.0, 5.0)
SHOWN = (1.0, 0.2, 0.1, 0.05, 0.03, 0.02)
SETTINGS: dict[str, dict[str, Any]] = {
    **{f"SGD, alpha {alpha:g}": {"alpha": alpha} for alpha in ALPHAS},
    "SGD, alpha 1, L1 1e-05": {"alpha": 1.0, "l1": 1e-5},
    "SGD, alpha 1, L1 1e-04": {"alpha": 1.0, "l1": 1e-4},
    "SGD, alpha 1, L1 3e-04": {"alpha": 1.0, "l1": 3e-4},
    "SGD, alpha 2, decay 2e-04": {"alpha": 2.0, "decay": 2e-4},
    "SGD, alpha 3, decay 2e-04": {"alpha": 3.0, "decay": 2e-4},
}
ADAM: dict[str, dict[str, Any]] = {
    "Adam, alpha 1": {"alpha": 1.0, "optimizer": "adam"},
    **{
        f"Adam on {seen}, alpha {alpha:g}": {"alpha": alpha, "optimizer": "adam", "adapt_to": seen}
        for seen in ("theta", "weights")
        for alpha in ALPHAS[1:]
    },
}
SEEDS = {**dict.fromkeys(SETTINGS, range(5)), **dict.fromkeys(ADAM, range(3))}


def run(report: Report, setting: str, seed: int, folder: Path) -> None:
    """Train once and write the line, unless it is there."""
    if (setting, seed) in {(line["setting"], line["seed"]) for line in read_lines(NAME)}:
        return
    with tempfile.TemporaryDirectory() as name:
        options = {**SETTINGS, **ADAM}[setting]
        recipe = PowerpropRecipe(
            **options,
            data="mnist",
            data_dir=folder,
            evaluate_every=10_000,
            seed=seed,
            out=Path(name) / "run",
            quiet=True,
        )
        try:
            result = recipe.run()
        except FloatingPointError as error:
            report.add(setting=setting, seed=seed, diverged=str(error).split(";")[0])
            return
    result.pop("out")
    rounded = {
        key: [round(one, 4) for one in value] if isinstance(value, list) else value
        for key, value in result.items()
    }
    report.add(setting=setting, **rounded)


def accuracies(setting: str) -> np.ndarray:
    """Give test accuracies ``(seeds, densities)`` of the runs that did not diverge."""
    runs = [
        line["pruned_test_accuracy"]
        for line in read_lines(NAME)
        if line["setting"] == setting and "diverged" not in line
    ]
    return np.asarray(runs).reshape(len(runs), len(DENSITIES))


def table() -> str:
    """Give accuracies at some densities as a Markdown table, and what the weights are like."""
    places = [int(np.argmin(np.abs(np.asarray(DENSITIES) - density))) for density in SHOWN]
    names = [f"{100 * DENSITIES[place]:.3g} %" for place in places]
    rows = [
        "| setting | " + " | ".join([*names, "below 0.001", "sign flips"]) + " |",
        "|---" * (len(names) + 3) + "|",
    ]
    for setting in SEEDS:
        runs = accuracies(setting)
        if not len(runs):
            failed = sum(line["setting"] == setting for line in read_lines(NAME))
            rows.append(f"| {setting} | all {failed} runs diverged" + " |" * (len(names) + 2))
            continue
        cells = [percent(list(runs[:, place]), span=False) for place in places]
        for name in ("below_0.001", "sign_flips"):
            values = [
                line[name]
                for line in read_lines(NAME)
                if line["setting"] == setting and name in line
            ]
            cells.append(percent(values, span=False))
        rows.append(f"| {setting} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def draw() -> Figure:
    """Draw accuracy over density: powers alone, with penalties, and with Adam."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    colours = ["0.35", "#fdae6b", "#f16913", "#d94801", "#7f2704"]
    blues = {
        "alpha 1, L1 1e-05": "#9ecae1",
        "alpha 1, L1 1e-04": "#4292c6",
        "alpha 1, L1 3e-04": "#08519c",
    }
    greens = {"alpha 2, decay 2e-04": "#a1d99b", "alpha 3, decay 2e-04": "#238b45"}
    for alpha, colour in zip(ALPHAS, colours, strict=True):
        curve(panels[0], f"SGD, alpha {alpha:g}", colour)
    curve(panels[1], "SGD, alpha 1", colours[0])
    curve(panels[1], "SGD, alpha 5", colours[-1])
    for name, colour in {**blues, **greens}.items():
        curve(panels[1], f"SGD, {name}", colour)
    curve(panels[2], "Adam, alpha 1", colours[0])
    for seen, style in (("theta", "--"), ("weights", "-")):
        for alpha, colour in list(zip(ALPHAS, colours, strict=True))[1:]:
            curve(panels[2], f"Adam on {seen}, alpha {alpha:g}", colour, style)
    titles = ("plain SGD", "SGD with a penalty", "Adam")
    for ax, title in zip(panels, titles, strict=True):
        ax.set(xscale="log", xlabel="share of weights kept", title=title)
        ax.set_xticks((0.01, 0.03, 0.1, 0.3, 1), ("1 %", "3 %", "10 %", "30 %", "100 %"))
        ax.minorticks_off()
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=7.5, loc="lower right")
    panels[0].set(ylabel="test accuracy, %", ylim=(0, 100))
    return figure


def curve(ax: Axes, setting: str, colour: str, style: str = "-") -> None:
    """Draw one setting, if it was run."""
    runs = 100 * accuracies(setting)
    if len(runs):
        label = setting.replace("SGD, ", "").replace("Adam, ", "")
        plots.plot_band(ax, np.asarray(DENSITIES), runs, label=label, color=colour, style=style)


def train(seed: int, mnist: Path) -> None:
    """Make the lines of one seed."""
    report = Report(NAME, append=True)
    for setting, seeds in SEEDS.items():
        if seed in seeds:
            run(report, setting, seed, mnist)


if __name__ == "__main__":
    train_and_show(
        __doc__.splitlines()[0], train, seeds=range(5), table=table, draw=draw, figure=FIGURE
    )
