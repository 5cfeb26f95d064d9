"""Does powerpropagation make networks easier to prune? MNIST, 784-300-100-10, 50,000 steps.

Runs of the recipe ``powerprop``: test accuracy of the final weights, whole and pruned in one shot
to 20 densities without any training afterwards.
"""

from collections.abc import Callable, Iterator
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.figures import band, tidy
from benchmarks.lines import Facts, Line, Lines
from benchmarks.recipes import train
from benchmarks.runner import Asked, Benchmark
from benchmarks.tables import Column, percent, table

ALPHAS = (1.0, 2.0, 3.0, 4.0, 5.0)
SHOWN = (1.0, 0.1833, 0.0886, 0.0546, 0.0336, 0.0207)
"""Of the densities that are measured."""

SETTINGS: dict[str, dict[str, Any]] = {
    **{f"SGD, alpha {alpha:g}": {"alpha": alpha} for alpha in ALPHAS},
    "SGD, alpha 1, L1 1e-05": {"alpha": 1.0, "l1": 1e-5},
    "SGD, alpha 1, L1 1e-04": {"alpha": 1.0, "l1": 1e-4},
    "SGD, alpha 1, L1 3e-04": {"alpha": 1.0, "l1": 3e-4},
    "SGD, alpha 2, decay 2e-04": {"alpha": 2.0, "weight_decay": 2e-4},
    "SGD, alpha 3, decay 2e-04": {"alpha": 3.0, "weight_decay": 2e-4},
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


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give the seeds of every setting, five for SGD and three for Adam."""
    for seed in asked.seeds if asked.mnist else ():
        for setting, seeds in SEEDS.items():
            if seed in seeds:
                yield {"setting": setting, "seed": seed}


def measure(facts: Facts, asked: Asked) -> Line:
    """Train once, and prune."""
    options = SETTINGS | ADAM
    options = options[facts["setting"]] | {"data": "mnist", "evaluate_every": 10_000}
    return train("powerprop", asked, seed=facts["seed"], **options)


def accuracy(density: float) -> Callable[[Line], float]:
    """Give test accuracy at the nearest density that was measured."""

    def at(line: Line) -> float:
        chosen = min(line["densities"], key=lambda one: abs(one - density))
        return line["pruned_test_accuracy"][line["densities"].index(chosen)]

    return at


def write(lines: Lines) -> str:
    """Write accuracies at some densities, and what the weights are like; a row per setting."""
    columns = [Column(f"{100 * one:.3g} %", accuracy(one), percent(span=False)) for one in SHOWN]
    columns += [
        Column("below 0.001", "below_0.001", percent(span=False)),
        Column("sign flips", "sign_flips", percent(span=False)),
    ]
    found = {setting: lines.where(setting=setting) for setting in SEEDS}
    failed = {name: runs for name, runs in found.items() if runs == runs.having("diverged")}
    rows = (([setting], runs) for setting, runs in found.items() if setting not in failed)
    written = [table(["setting"], rows, columns)]
    ends = " |" * len(columns)
    written += [f"| {name} | all {len(runs)} runs diverged{ends}" for name, runs in failed.items()]
    return "\n".join(written)


def draw(figure: Figure, lines: Lines) -> None:
    """Draw accuracy over density: powers alone, with penalties, and with Adam."""

    def curve(ax: Axes, setting: str, colour: str, style: str = "-") -> None:
        runs = [line for line in lines.where(setting=setting) if "diverged" not in line]
        if runs:
            label = setting.replace("SGD, ", "").replace("Adam, ", "")
            shares = [[100 * one for one in line["pruned_test_accuracy"]] for line in runs]
            band(ax, runs[0]["densities"], shares, label=label, color=colour, style=style)

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
        tidy(ax)
        ax.legend(frameon=False, fontsize=7.5, loc="lower right")
    panels[0].set(ylabel="test accuracy, %", ylim=(0, 100))


BENCHMARK = Benchmark(
    settings=settings,
    measure=measure,
    tiny=[{"setting": "Adam on weights, alpha 2", "seed": 0}],
    table=write,
    draw=draw,
    figure="powerprop",
    inches=(12.0, 3.8),
    seeds=range(5),
)
