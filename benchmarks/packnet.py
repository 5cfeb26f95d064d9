"""How well and how tightly do ten tasks fit into one network? Permuted MNIST, 784-300-300-10.

Runs of the recipe ``packnet``: test accuracy of every task after the last one is learned, and the
share of the shared weights in use after each. Settings were chosen by validation accuracy of three
tasks, seed 100.
"""

from statistics import mean
from typing import Any

from matplotlib.figure import Figure

from benchmarks.figures import band, tidy
from benchmarks.lines import Facts, Line, Lines
from benchmarks.recipes import train
from benchmarks.runner import Asked, Benchmark, grid
from benchmarks.tables import Column, percent, table

COMMON: dict[str, Any] = {
    "steps": 3_000,
    "learning_rate": 0.3,
    "weight_decay": 0.0,
    "retrain_steps": 1_000,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "sequential, alpha 1": {"method": "sequential", "alpha": 1.0},
    "PackNet, alpha 1": {"method": "packnet", "alpha": 1.0},
    "PackNet, alpha 2": {"method": "packnet", "alpha": 2.0},
    "EfficientPackNet, alpha 1": {"alpha": 1.0, "target": 0.98},
    "EfficientPackNet, alpha 2": {"alpha": 2.0, "target": 0.98},
    "EfficientPackNet, alpha 1, L1 1e-04": {"alpha": 1.0, "l1": 1e-4, "target": 0.98},
    "EfficientPackNet, alpha 2, decay 2e-04": {
        "alpha": 2.0,
        "weight_decay": 2e-4,
        "target": 0.98,
    },
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


def measure(facts: Facts, asked: Asked) -> Line:
    """Learn all tasks once."""
    options = COMMON | SETTINGS[facts["setting"]]
    return train("packnet", asked, data="mnist", seed=facts["seed"], **options)


def of_task(line: Line) -> float | None:
    """Give the share of weights set aside for one task; in sequence nothing is."""
    return None if line["method"] == "sequential" else mean(line["share_of_task"])


def used(line: Line) -> float | None:
    """Give the share of weights set aside for all tasks."""
    return None if line["method"] == "sequential" else line["share_used"][-1]


def write(lines: Lines) -> str:
    """Write accuracies and capacity, a row per setting."""
    columns = [
        Column("test accuracy of 10 tasks", "test_accuracy", percent(2)),
        Column("when learned", "test_accuracy_when_learned", percent(2, span=False)),
        Column("weights used", used, percent(span=False)),
        Column("by one task", of_task, percent(span=False)),
        Column("tasks unchanged to the bit", "unchanged_tasks", lambda n: ", ".join(map(str, n))),
    ]
    rows = (([setting], lines.where(setting=setting)) for setting in SETTINGS)
    return table(["setting"], rows, columns)


def draw(figure: Figure, lines: Lines) -> None:
    """Draw accuracy of every task at the end, and the share of weights in use after each."""
    left, right = figure.subplots(1, 2)
    for name, colour in DRAWN.items():
        runs = lines.where(setting=f"{name}, 10,000 steps")
        for ax, field in ((left, "test_accuracy_of_tasks"), (right, "share_used")):
            shares = [[100 * share for share in run] for run in runs.values(field)]
            band(ax, range(1, 11), shares, label=name, color=colour)
    left.set(xlabel="task", ylabel="test accuracy after the last task, %")
    right.set(xlabel="tasks learned", ylabel="shared weights in use, %", ylim=(0, 100))
    entries = left.get_legend_handles_labels()
    figure.legend(*entries, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    tidy(left, right)
    for ax in (left, right):
        ax.set_xticks(range(1, 11))


BENCHMARK = Benchmark(
    settings=lambda asked, lines: grid(seed=asked.seeds if asked.mnist else [], setting=SETTINGS),
    measure=measure,
    tiny=list(grid(seed=[0], setting=["PackNet, alpha 2", "EfficientPackNet, alpha 1"])),
    table=write,
    draw=draw,
    figure="packnet",
    inches=(10.0, 4.0),
)
