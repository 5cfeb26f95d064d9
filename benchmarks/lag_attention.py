"""Recall at hidden lags: attention at lags that are pursued, against dense attention and others.

Every step says a key (of 32) and a value (of 8), and asks for a key; the answer is the value that
was said with it at one of four hidden lags, drawn below half of the length. One head, tied
embeddings of 32, batches of 2 new sequences, Adam. Dense attention has a bias for every distance,
with a rate of its own, chosen on another seed. "same seconds" ends after the CPU seconds that
pursuit took on that seed; "separate embeddings" has others for what is asked and told than for
what is said. Seconds are CPU time of one thread, probes included, compiling not.
Accuracies are those on 2**14 new steps or more. Where a step would take more than 4 GiB, nothing
is trained, and the line says how much. One line per length, method and seed.
"""

from collections.abc import Iterator

from benchmarks.lines import Facts, Line, Lines
from benchmarks.runner import Asked, Benchmark, grid, program
from benchmarks.tables import Column, ends, spread, table

LENGTHS = (1024, 4096, 16384)
STEPS = 250
PURSUIT, DENSE, SAME_SECONDS = "pursuit", "dense, learned bias", "dense, learned bias, same seconds"
SEPARATE = "separate embeddings: "
METHODS = {
    1024: (
        PURSUIT,
        "pursuit, one sequence a probe",
        "hidden lags given",
        "random lags",
        "nearest lags",
        DENSE,
        SAME_SECONDS,
        SEPARATE + PURSUIT,
        SEPARATE + "pursuit by matrices",
    ),
    4096: (PURSUIT, "hidden lags given", SAME_SECONDS, SEPARATE + "pursuit by matrices", DENSE),
    16384: (PURSUIT, DENSE),
}
"""Methods by length."""

ONCE = {(4096, DENSE): 50, (16384, DENSE): 50}
"""Steps of what takes too long for more of them, and for more than one seed, or does not fit."""


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give all methods by length and seed: pursuit first, whose seconds others are given."""
    for length, methods in METHODS.items():
        for method in methods:
            once = ONCE.get((length, method))
            seeds = asked.seeds[:1] if once else asked.seeds
            yield from grid(length=[length], steps=[once or STEPS], method=[method], seed=seeds)


def measure(facts: Facts, asked: Asked) -> Line:
    """Measure one method; as long as pursuit took, if it says so."""
    run = program("lag_attention")
    if facts["method"] != SAME_SECONDS:
        return run(facts, asked)
    found = Lines.of("lag_attention").where(**(facts | {"method": PURSUIT}))
    seconds = [line["training_seconds"] + line["probing_seconds"] for line in found]
    return run(facts | {"seconds": seconds[0] if seconds and not asked.tiny else 0.1}, asked)


def all_found(counts: list[int]) -> str:
    """Write in how many runs all lags were found, and how many lags in the others."""
    others = [count for count in counts if count < 4]
    rest = f"; else {ends('.0f')(others)}" if others else ""
    return f"{len(counts) - len(others)} of {len(counts)}{rest}"


def write(lines: Lines) -> str:
    """Write accuracy, lags, time and memory, a row for each length and method."""
    columns = [
        Column("seeds", "seed", lambda seeds: f"{len(seeds)}"),
        Column("all 4 lags", "found", all_found),
        Column("accuracy, %", lambda line: _percent(line, "accuracy"), ends(".1f")),
        Column("best possible, %", lambda line: _percent(line, "best_possible"), spread(".1f")),
        Column("steps", "steps_done", ends(".0f")),
        Column("CPU seconds", _seconds, ends(".3g")),
        Column("until 94 %", "seconds_to", ends(".3g")),
        Column("MiB of a step", lambda line: line["temporary_bytes"] / 2**20, ends(",.0f")),
    ]
    rows = (
        ([f"{length:,}", method], found)
        for length in LENGTHS
        for method in METHODS[length]
        if (found := lines.where(length=length, method=method))
    )
    return table(["T", "method"], rows, columns)


def _percent(line: Line, field: str) -> float | None:
    return 100 * line[field] if field in line else None


def _seconds(line: Line) -> float | None:
    return line["training_seconds"] + line["probing_seconds"] if "steps_done" in line else None


BENCHMARK = Benchmark(
    settings=settings,
    measure=measure,
    tiny=list(grid(length=[64], steps=[30], seed=[0], method=METHODS[1024])),
    table=write,
    seeds=range(10, 15),
)
