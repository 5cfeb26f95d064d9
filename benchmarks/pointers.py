"""Addresses that a number tells: pointers against dense attention.

Every step holds 8 random bits and names by one real number how far back the bits lie that it is to
repeat, up to half of the length; a network of 13, 32 and 1 units, Adam, new sequences in every
step. "exact" is the share of addresses that are right to the step, on new sequences. Dense
attention gets Fourier features of the position of the answer as its query, and those of positions
as its keys; "same seconds" ends after the CPU seconds that pointers took on that seed. Seconds are
CPU time of one thread, compiling not included. One line per method and seed, and one per length and
method with the time of a step for each query.
"""

from collections.abc import Iterator

from benchmarks.lines import Facts, Line, Lines
from benchmarks.runner import Asked, Benchmark, grid, program
from benchmarks.tables import Column, ends, one, table

LENGTH, BATCH, STEPS, FEWER = 256, 8, 4000, 2000
POINTERS, DENSE = "pointers", "dense, told the position"
SAME_SECONDS = "dense, told the position, same seconds"
METHODS = (
    POINTERS,
    SAME_SECONDS,
    "pointers, none wide",
    "pointers, none wide, constant rate",
    "pointers, none wide, not held",
    "pointers, uniform points",
)
LENGTHS = (256, 1024, 4096)
QUERIES = 4096


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give costs, then methods by seed, pointers first, whose seconds others are given."""
    for length in LENGTHS:
        batch = [QUERIES // length]
        yield from grid(part=["cost"], length=[length], batch=batch, method=[POINTERS, DENSE])
    task = {"part": ["address"], "length": [LENGTH], "batch": [BATCH], "steps": [STEPS]}
    for method in METHODS:
        yield from grid(**task, method=[method], seed=asked.seeds)
    yield from grid(**(task | {"steps": [FEWER]}), method=[POINTERS], seed=asked.seeds)


def measure(facts: Facts, asked: Asked) -> Line:
    """Measure one method; as long as pointers took, if it says so."""
    run = program("pointers")
    if facts["method"] != SAME_SECONDS:
        return run(facts, asked)
    found = Lines.of("pointers").where(**(facts | {"method": POINTERS}))
    seconds = [line["training_seconds"] for line in found]
    limit = seconds[0] if seconds and not asked.tiny else 0.1
    return run(facts | {"seconds": limit, "method": DENSE}, asked)


def write(lines: Lines) -> str:
    """Write addresses by method, and the cost of a query by length."""
    found = Column("exact, %", lambda line: 100 * line["exact"], ends(".1f"))
    columns = [
        Column("seeds", "seed", lambda seeds: f"{len(seeds)}"),
        found,
        Column("at most 2 off, %", lambda line: 100 * line["within_2"], ends(".1f")),
        Column("steps", "steps_done", ends(",.0f")),
        Column("CPU seconds", "training_seconds", ends(".3g")),
    ]
    rows = (
        ([method], own)
        for method, steps in (*((method, STEPS) for method in METHODS), (POINTERS, FEWER))
        if (own := lines.where(part="address", method=method, steps=steps))
    )
    costs = [
        Column(f"{name}: {head}", field, one(spec), {"method": method})
        for name, method in (("pointers", POINTERS), ("dense", DENSE))
        for head, field, spec in (
            ("microseconds a query", "microseconds_per_query", ".2f"),
            ("bytes a query", "temporary_bytes_per_query", ",.0f"),
        )
    ]
    lengths = (
        ([f"{length:,}"], own)
        for length in LENGTHS
        if (own := lines.where(part="cost", length=length))
    )
    return table(["method"], rows, columns) + "\n\n" + table(["T"], lengths, costs)


BENCHMARK = Benchmark(
    settings=settings,
    measure=measure,
    tiny=[
        *grid(part=["address"], length=[32], batch=[2], steps=[50], method=METHODS[:2], seed=[0]),
        {"part": "cost", "length": 32, "batch": 2, "method": POINTERS},
    ],
    table=write,
    seeds=range(40, 43),
    repeats=7,
)
