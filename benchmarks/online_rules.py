"""What is learned from one stream, step by step, without a way back: online rules and short ways.

Every step shows a bit and asks for the one of five steps before; parameters change in every step
(``programs/online_rules.py``). Cells of 16 units: a GRU, and units that see only themselves, for
which SnAp-1 is exact. Beside the rules, ways back of 1, 5, 6 and 10 steps from every step: to be
right about a delay of five, six are needed. Each has five rates of Adam, chosen on another seed by
the loss of the last tenth of 50,000 steps, which is also what is shown, in bits: 1 is a guess.
"""

from collections.abc import Iterator
from statistics import median

from benchmarks.lines import Facts, Lines
from benchmarks.runner import Asked, Benchmark, grid, program
from benchmarks.tables import Column, one, spread, table

CELLS = ("GRU", "diagonal")
RULES = ("RTRL", "SnAp-1", "UORO", "through 1", "through 5", "through 6", "through 10")
NAMES = {rule: rule.replace("through", "a way back of") + " steps" for rule in RULES[3:]}
NAMES[RULES[3]] = "no way back"
RATES, TUNED_AT = (0.0001, 0.0003, 0.001, 0.003, 0.01), 100
TASK: Facts = {"delay": 5, "width": 16, "steps": 50_000, "longest": 10}


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give the runs that choose rates, then those of the judged seeds."""
    for facts in grid(cell=CELLS, rule=RULES):
        for rate in RATES:
            yield TASK | facts | {"rate": rate, "seed": TUNED_AT}
        tried = lines.where(seed=TUNED_AT, **facts)
        if tried:
            rate = min(tried, key=lambda line: line["loss"])["rate"]
            for seed in asked.seeds:
                yield TASK | facts | {"rate": rate, "seed": seed}


def write(lines: Lines) -> str:
    """Write a row per cell and rule."""
    judged = Lines(line for line in lines if line["seed"] != TUNED_AT)
    columns = [
        Column("seeds", "loss", lambda losses: str(len(losses))),
        Column("loss, bits", "loss", spread(".3f")),
        Column("numbers kept", "numbers", one(",")),
        Column("µs per step", "microseconds", lambda values: f"{median(values):.0f}"),
        Column("rate", "rate", one()),
    ]
    rows = (
        ([cell, NAMES.get(rule, rule)], judged.where(cell=cell, rule=rule))
        for cell in CELLS
        for rule in RULES
    )
    return table(["cell", "gradient of the cell"], rows, columns)


BENCHMARK = Benchmark(
    settings=settings,
    measure=program("online_rules"),
    tiny=[
        TASK | facts | {"rate": 0.01, "seed": 0}
        for facts in grid(cell=["diagonal"], rule=["SnAp-1", "through 6"])
    ],
    table=write,
)
