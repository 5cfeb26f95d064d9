"""Two agents in a matrix game: is the gradient through the other's answer worth its bias?

The second agent sees what the first one did. Estimates of the gradient of their common payoff
(``programs/matrix_game.py``): bias and variance at policies drawn at random, relative to the length
of the exact gradient and its square, and what 50 pairs of agents play after 500 steps along the
estimates, all at the same rate.
"""

from statistics import mean
from typing import Any

from benchmarks.lines import Line, Lines
from benchmarks.runner import Benchmark, grid, program
from benchmarks.tables import Column, bias, one, percent, spread, table

METHODS = (
    "exact",
    "score function",
    "RLOO-4",
    "RLOO-4 and peer term",
    "ARSM",
    "without replacement, 4",
    "in turn: RLOO-2, RLOO-2",
    "in turn: RLOO-2, exact",
    "straight-through",
    "Gumbel straight-through",
    "in turn: straight-through, RLOO-2",
)


def biases(found: list[Any]) -> str:
    """Write the bias over the seeds, or that none was seen in any."""
    if found[0]["variance"] < 1e-9:
        return "0"
    if all(line["bias"] <= 2 * line["noise"] for line in found):
        return bias({"bias": 0, "noise": mean(line["noise"] for line in found)}, "")
    return spread(".2f")([line["bias"] for line in found])


def write(lines: Lines) -> str:
    """Write a row per method."""

    def reached(payoff: int) -> Column:
        return Column(f"play {payoff}, %", f"reached {payoff}", percent(0, span=False))

    def itself(line: Line) -> Line:
        return line

    columns = [
        Column("evaluations", "cost", one()),
        Column("bias", itself, biases),
        Column("variance", "variance", spread(".2g")),
        Column("cosine", "cosine", spread(".2f")),
        *map(reached, (11, 7, 6, 5)),
    ]
    rows = (([method], lines.where(method=method)) for method in METHODS)
    return table(["method"], rows, columns)


BENCHMARK = Benchmark(
    settings=lambda asked, lines: grid(seed=asked.seeds, method=METHODS),
    measure=program("matrix_game"),
    tiny=[{"seed": 0, "method": method} for method in METHODS],
    table=write,
)
