"""A small transformer on characters at equal CPU seconds: pointers, dense, lags, the window alone.

Runs of the recipe ``characters`` on a text in ``--text DIR``: two blocks of width 64 with four
heads, windows of 512 characters, two of them per step. Steps of training are timed in turn, so
that noise hits all methods alike, and each method gets as many as fit into its CPU seconds of one
thread: compiling, validating and testing do not count. Each has its learning rate from the same
three, by validation after a third of the seconds with a seed of its own.
"""

from collections.abc import Iterator
from typing import Any

from benchmarks.lines import Facts, Line, Lines
from benchmarks.recipes import train
from benchmarks.runner import Asked, Benchmark, grid, program
from benchmarks.tables import Column, one, spread, table

METHODS = {
    "pointers": "8 nearest steps, 1 pointer a head",
    "dense": "dense",
    "window": "8 nearest steps alone",
    "lags": "8 nearest steps, 1 lag a head",
}
RATES = (1e-3, 3e-3, 1e-2)
SECONDS, OF_RATES = 36, 12
SEED_OF_RATES = 100
SIZES: dict[str, Any] = {"length": 512, "batch": 2}


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give the times of steps, then for some methods all rates, then the best one with all seeds.

    Lines tell how many steps there are, and which rate is the best.
    """
    if not asked.text:
        return
    yield {"part": "time"}
    for methods in (("pointers", "dense", "window"), ("lags",)):
        for method in methods:
            length = {"steps": [steps_in(OF_RATES, lines, method)]}
            axes = {"part": ["rate"], "method": [method], "seed": [SEED_OF_RATES]}
            yield from grid(**axes, learning_rate=RATES, **length)
        for seed in asked.seeds:
            for method in methods:
                steps = steps_in(SECONDS, lines, method)
                facts = {"part": "judged", "method": method, "seed": seed, "steps": steps}
                yield facts | {"learning_rate": best_rate(lines, method)}


def milliseconds(lines: Lines, method: str) -> float:
    """Give the time of a step; without a line, some."""
    found = lines.where(part="time", method=method)
    return found[0]["milliseconds"] if found else 100.0


def steps_in(seconds: float, lines: Lines, method: str) -> int:
    """Give the even number of steps that fit into seconds."""
    return 2 * round(500 * seconds / milliseconds(lines, method))


def best_rate(lines: Lines, method: str) -> float:
    """Give the learning rate of the fewest bits in validation; without a line, the second."""
    found = lines.where(part="rate", method=method)
    tried = [line for line in found if "diverged" not in line]
    best = min(tried, key=lambda line: line["validation_bits"], default=None)
    return best["learning_rate"] if best else RATES[1]


def measure(facts: Facts, asked: Asked) -> Any:
    """Time a step of every method, or train once."""
    if facts["part"] == "time":
        return program("characters")(facts | {"methods": tuple(METHODS)} | SIZES, asked)
    steps = facts["steps"]
    options = {"steps": steps, "warmup": steps // 10, "evaluate_every": steps // 2}
    if asked.tiny:
        options["warmup"] = 1
    options |= {name: facts[name] for name in ("seed", "learning_rate")}
    return train(
        "characters", asked, attention=facts["method"], data_dir=asked.text, **options, **SIZES
    )


def write(lines: Lines) -> str:
    """Write bits per character by method."""

    def seconds(line: Line) -> float:
        return line["steps"] * milliseconds(lines, line["method"]) / 1000

    judged, timed = {"part": "judged"}, {"part": "time"}
    columns = [
        Column("seeds", "seed", lambda seeds: f"{len(seeds)}", judged),
        Column("bits per character, test", "test_bits", spread(".3f"), judged),
        Column("validation", "validation_bits", spread(".3f"), judged),
        Column("steps", "steps", one(","), judged),
        Column("CPU seconds", seconds, one(".0f"), judged),
        Column("milliseconds a step", "milliseconds", one(".1f"), timed),
        Column("learning rate", "learning_rate", one("g"), judged),
        Column("numbers learned", "parameters", one(","), judged),
    ]
    rows = (([name], lines.where(method=method)) for method, name in METHODS.items())
    return table(["each step reads"], rows, columns)


BENCHMARK = Benchmark(
    settings=settings,
    measure=measure,
    tiny=[
        {"part": "time"},
        *(
            {"part": "judged", "method": method, "seed": 0, "steps": 2, "learning_rate": 1e-3}
            for method in METHODS
        ),
    ],
    table=write,
    repeats=40,
)
