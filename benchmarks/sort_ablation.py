"""What the parts of the differentiable sorts are worth: relaxation, loss, proposals, candidates.

Runs of the recipe ``sort`` with eight distinct bundled digits and a certainty of 6, everything but
one or two options the same; match on test digits. And the bias of one split of four keys.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.figures import tidy
from benchmarks.lines import Facts, Line, Lines
from benchmarks.recipes import train
from benchmarks.runner import Asked, Benchmark, grid, program
from benchmarks.sort import MATCHES
from benchmarks.tables import Column, one, table

STEPS = 1_000
SOFT: dict[str, Any] = {"method": "soft", "learn_certainty": False}
MIXTURE: dict[str, Any] = {"method": "mixture", "loss": "separate"}
SETTINGS: dict[str, dict[str, Any]] = {
    "soft, order": SOFT,
    "soft, order, certainty learned": SOFT | {"learn_certainty": True},
    "soft, ranks": SOFT | {"loss": "ranks"},
    "soft, positions": SOFT | {"loss": "plain"},
    "quicksort, 16 uniform": MIXTURE,
    "quicksort, 16, all near": MIXTURE | {"num_near": 15},
    "quicksort, 4 uniform": MIXTURE | {"num_candidates": 4},
    "quicksort, all 70": MIXTURE | {"num_candidates": 70},
    "quicksort, 16 uniform, plain": MIXTURE | {"loss": "plain"},
}
PROPOSALS = ((2, 0), (4, 0), (4, 3), (5, 0), (6, 0))
BIASES = [{"bias": True, "num_candidates": count, "num_near": near} for count, near in PROPOSALS]


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give the biases, then what is trained."""
    yield from BIASES
    yield from grid(seed=asked.seeds, setting=SETTINGS, steps=[STEPS])


def measure(facts: Facts, asked: Asked) -> Line:
    """Measure a bias, or train once."""
    if "bias" in facts:
        return program("sort_ablation")(facts, asked)
    options = SETTINGS[facts["setting"]] | {"n": 8, "steps": facts["steps"], "batch": 32}
    return train("sort", asked, seed=facts["seed"], **options)


def write(lines: Lines) -> str:
    """Write exact and element-wise match on test digits, and the biases of a split."""
    columns = [
        Column("candidates", "num_candidates", one()),
        Column("of them near", "num_near", one()),
        Column("bias of the mean split", "error", one(".3f")),
        Column("its noise", "noise", one(".3f")),
    ]
    rows = (([setting], lines.where(setting=setting)) for setting in SETTINGS)
    splits = (([], Lines([line])) for line in lines.where(bias=True))
    return "\n\n".join([table(["setting"], rows, MATCHES), table([], splits, columns)])


def draw(figure: Figure, lines: Lines) -> None:
    """Draw the error on test digits, a dot for every seed and a bar for their mean."""
    ax = figure.subplots()
    for height, setting in enumerate(reversed(SETTINGS)):
        errors = [1 - match for match in lines.where(setting=setting).values(MATCHES[0].of)]
        colour = "#b2182b" if setting.startswith("soft") else "#2166ac"
        ax.barh(height, np.mean(errors), color=colour, alpha=0.3, height=0.65)
        ax.plot(errors, [height] * len(errors), "o", color=colour, markersize=4)
    ax.set_yticks(range(len(SETTINGS)), reversed(SETTINGS))
    ax.set(xlabel="error on test digits (1 - exact match)", xlim=(0, None))
    tidy(ax)


BENCHMARK = Benchmark(
    settings=settings,
    measure=measure,
    tiny=[*BIASES[:1], *grid(seed=[0], setting=["soft, order"], steps=[2])],
    table=write,
    draw=draw,
    figure="sort_ablation",
    inches=(6.5, 3.0),
)
