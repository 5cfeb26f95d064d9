"""Are the delays of 32 channels found among 1,000 candidates, with the readout unknown too?

Channels are delayed, each by its own number of steps, and mixed by a random matrix; noise of
variance 0.25 is added. A line per seed, kind of inputs (white, or autoregressive with 0.9) and
method: delays placed by 8 probes while the readout is trained, or a dense kernel of 1,000 lags for
each channel, by FFT, with two rates, trained for as many seconds as pursuit took with the same
seed. A delay counts as found if it is the lag of the tap, or of the largest weight of the kernel.
"""

from collections.abc import Iterator
from statistics import mean, median

from benchmarks.lines import Facts, Line, Lines
from benchmarks.runner import Asked, Benchmark, grid, program
from benchmarks.tables import Column, table

METHODS = ("pursuit", "dense kernel, rate 0.001", "dense kernel, rate 0.01")
INPUTS = ("white", "coloured")
SIZES: Facts = {"channels": 32, "reach": 1_000}


def _per_step(line: Line) -> float:
    return 1e3 * line["took"] / line["steps"]


COSTS = (
    Column("seconds", "took", lambda values: f"{median(values):.2g}"),
    Column("ms per step", _per_step, lambda values: f"{median(values):.3g}"),
    Column("MiB", lambda line: line["temporary_bytes"] / 2**20, lambda its: f"{its[0]:.3g}"),
)


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Pursue first: the others take as long."""
    for facts in grid(inputs=INPUTS, method=METHODS, seed=asked.seeds):
        if facts["method"] == "pursuit":
            yield SIZES | facts
            continue
        pursued = lines.where(inputs=facts["inputs"], method="pursuit", seed=facts["seed"])
        if pursued:
            yield SIZES | facts | {"seconds": pursued[0]["took"]}


def listed(values: list[int]) -> str:
    """Write how many were found, seed by seed."""
    return ", ".join(map(str, values))


def write(lines: Lines) -> str:
    """Write a row per kind of inputs and method."""
    rows = [
        ([inputs, method], lines.where(inputs=inputs, method=method))
        for inputs in INPUTS
        for method in METHODS
        if lines.where(inputs=inputs, method=method)
    ]
    columns = [
        Column("found of 32, by seed", "found", listed),
        Column("loss (noise 0.25)", "loss", lambda values: f"{mean(values):.3f}"),
        *COSTS,
    ]
    return table(("inputs", "method"), rows, columns)


TINY: Facts = {"channels": 3, "reach": 20, "inputs": "white", "seed": 0}

BENCHMARK = Benchmark(
    settings=settings,
    measure=program("delays"),
    tiny=[
        TINY | {"method": METHODS[0]},
        TINY | {"inputs": "coloured", "method": METHODS[1], "seconds": 0.01},
    ],
    table=write,
    seeds=range(5),
)
