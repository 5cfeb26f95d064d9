"""One variable with thirty arms: variance of each estimator's gradient, and the reward it reaches.

Runs of the recipe ``univariate``: reward after 5,000 steps of plain ascent with rate 1, and bias
and variance from 200,000 estimates at uniform and at random logits.
"""

from typing import Any

from benchmarks.lines import Line, Lines
from benchmarks.recipes import train
from benchmarks.runner import Benchmark, grid
from benchmarks.tables import Column, bias, one, spread, table

SETTINGS: dict[str, dict[str, Any]] = {
    "exact": {"method": "enumeration"},
    "score function": {"method": "score_function"},
    "AR": {"method": "ar"},
    "ARS": {"method": "ars"},
    "ARSM": {"method": "arsm"},
    "RLOO-2": {"method": "rloo", "num_samples": 2},
    "RLOO-8": {"method": "rloo", "num_samples": 8},
    "without replacement, 8": {"method": "without_replacement", "num_samples": 8},
    "REBAR": {"method": "rebar"},
    "straight-through": {"method": "straight_through"},
    "Gumbel straight-through, 0.2": {"method": "gumbel_straight_through", "temperature": 0.2},
    "uninformed subset of 5": {"method": "uninformed_subset"},
    "informed subset of 5": {"method": "informed_subset"},
}


def variance(report: Line) -> str:
    """Write the variance per class; 0 where it is rounding."""
    return "0" if report["variance"] < 1e-9 else f"{report['class_variance']:.1e}"


def write(lines: Lines) -> str:
    """Write rewards and variances, a row per estimator."""

    def bias_of(line: Line) -> str:
        report = line["at_random_logits"]
        return "0" if report["variance"] < 1e-9 else bias(report, ".2f")

    columns = [
        Column("evaluations", "evaluations", one()),
        Column("reward", "reward", spread(".4f")),
        Column("variance, uniform logits", lambda line: variance(line["at_uniform_logits"]), one()),
        Column("random logits", lambda line: variance(line["at_random_logits"]), one()),
        Column("bias", bias_of, one()),
    ]
    rows = (([setting], lines.where(setting=setting)) for setting in SETTINGS)
    return table(["estimator"], rows, columns)


BENCHMARK = Benchmark(
    settings=lambda asked, lines: grid(seed=asked.seeds, setting=SETTINGS),
    measure=lambda facts, asked: train(
        "univariate", asked, seed=facts["seed"], **SETTINGS[facts["setting"]]
    ),
    tiny=[{"seed": 0, "setting": "ARSM"}],
    table=write,
)
