"""Do delays of bands help to tell digits of a speaker who was not trained on?

Lines of the recipe ``delays``, with ``--fsdd DIR``: spoken digits by 39 bands, each read at one
delay, none for all, at random, or learned, by pursuit or by the gradient of Gaussians; all have the
same 64 units and parameters, and the recipe's defaults, which were set before any accuracy was
seen. One of the six speakers is left out, the other five are trained on.
"""

from collections.abc import Iterator
from itertools import product
from statistics import mean
from typing import Any

from benchmarks.lines import Facts, Line, Lines
from benchmarks.recipes import train
from benchmarks.runner import Asked, Benchmark
from benchmarks.tables import Column, markdown, percent, table

METHODS = {
    "none": "no delay",
    "random": "at random",
    "pursuit": "learned by pursuit",
    "gaussian": "learned by gradient",
}
SPEAKERS = range(6)
SPOKEN: Facts = {"task": "fsdd", "validate": False}


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give all methods and speakers, seed by seed."""
    if asked.fsdd:
        for seed, speaker, method in product(asked.seeds, SPEAKERS, METHODS):
            yield SPOKEN | {"method": method, "held_out": speaker, "seed": seed}


def measure(facts: Facts, asked: Asked) -> Line:
    """Train once."""
    return train("delays", asked, **facts)


def write(lines: Lines) -> str:
    """Write accuracies by method and speaker, and the mean over the speakers."""
    rows = [([name], lines.where(method=method)) for method, name in METHODS.items()]
    columns = [
        Column("runs", "seed", lambda seeds: str(len(seeds))),
        Column("training, %", "train_accuracy", percent(span=False)),
        *(
            Column(f"speaker {one}", "test_accuracy", percent(span=False), {"held_out": one})
            for one in SPEAKERS
        ),
    ]
    written = table(["delays"], rows, columns)
    return written + "\n\n" + markdown(["delays", "mean of the speakers, %, by seed"], means(lines))


def means(lines: Lines) -> Iterator[list[Any]]:
    """Give a row per method: for each seed the mean over the speakers, if all were left out."""
    for method, name in METHODS.items():
        found = lines.where(method=method)
        runs = [found.where(seed=seed) for seed in found.each("seed")]
        whole = [mean(one.values("test_accuracy")) for one in runs if len(one) == len(SPEAKERS)]
        yield [name, percent()(whole) if whole else "-"]


BENCHMARK = Benchmark(
    settings=settings,
    measure=measure,
    tiny=[{"task": "sum", "method": "gaussian", "reach": 5, "seed": 0}],
    table=write,
    seeds=range(3),
)
