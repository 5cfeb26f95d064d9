"""Edges found of a hidden wiring, and what that is worth: pursuit, linear methods, dense weights.

Nodes are driven by four others each, which nobody names: chaotic maps, or masses on springs. From
1,000 pairs of states (5,000 nodes: 600) a method has to say which four. "pursuit" trains shared
networks and places edges by exact gains. Ridge and lasso fit linear weights to states, or to states
and their squares, which for maps is the true law; their penalty is chosen on validation, and ridge
is also fitted again, without a penalty, to the four edges of each node that it has found. "dense"
trains the model of pursuit with a matrix for every pair of nodes; it has the CPU seconds that
pursuit took on that seed, and so has lasso. Errors are those of one step on other trajectories, as
a share of the variance, and of five steps that the model goes on by itself, in standard deviations.
Seconds are CPU time of one thread, probes included, compiling not.
"""

from collections.abc import Iterator

from benchmarks.lines import Facts, Line, Lines
from benchmarks.runner import Asked, Benchmark, grid, program
from benchmarks.tables import Column, ends, table

PURSUIT = "pursuit"
METHODS = {
    PURSUIT: "pursuit",
    "known": "true edges given",
    "random": "random edges",
    "dense": "dense weights, same seconds",
    "ridge": "ridge, states",
    "ridge refit": "the same, refitted to the edges found",
    "lasso": "lasso, states, same seconds",
    "ridge squares": "ridge, states and squares",
    "ridge squares refit": "the same, refitted to the edges found",
    "lasso squares": "lasso, states and squares, same seconds",
}
CASES = {
    ("maps", 50): tuple(METHODS),
    ("springs", 50): tuple(METHODS)[:7],
    ("maps", 500): tuple(METHODS),
    ("springs", 500): tuple(METHODS)[:7],
    ("maps", 5000): (PURSUIT, "ridge squares", "ridge squares refit"),
}
TIMED = ("dense", "lasso", "lasso squares")
SAMPLES = {50: 1000, 500: 1000, 5000: 600}


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give all cases, the small ones first, and of each pursuit first, whose seconds others get."""
    for (task, nodes), methods in CASES.items():
        samples = [SAMPLES[nodes]]
        seeds = asked.seeds if nodes < 5000 else asked.seeds[:1]
        yield from grid(task=[task], nodes=[nodes], samples=samples, seed=seeds, method=methods)


def measure(facts: Facts, asked: Asked) -> Line:
    """Measure one method; as long as pursuit took, if it needs to be told."""
    run = program("wiring")
    if facts["method"] not in TIMED:
        return run(facts, asked)
    found = Lines.of("wiring").where(**(facts | {"method": PURSUIT}))
    seconds = found.values("seconds")
    return run(facts | {"seconds": seconds[0] if seconds and not asked.tiny else 0.2}, asked)


def write(lines: Lines) -> str:
    """Write edges, errors, time and memory, a row for each case and method."""
    columns = [
        Column("seeds", "seed", lambda seeds: f"{len(seeds)}"),
        Column("edges found, %", lambda line: 100 * line["edges_found"], ends(".1f")),
        Column("error of a step", "relative_mse", ends(".2g")),
        Column("of 5 steps", "rollout_error", ends(".2f")),
        Column("CPU seconds", "seconds", ends(".3g")),
        Column("MiB", lambda line: line["program_bytes"] / 2**20, ends(",.0f")),
    ]
    rows = (
        ([task, f"{nodes:,}", METHODS[method]], lines.where(task=task, nodes=nodes, method=method))
        for (task, nodes), methods in CASES.items()
        for method in methods
    )
    return table(["system", "nodes", "method"], rows, columns)


BENCHMARK = Benchmark(
    settings=settings,
    measure=measure,
    tiny=list(grid(task=["maps"], nodes=[8], samples=[100], seed=[0], method=METHODS)),
    table=write,
    seeds=range(3),
)
