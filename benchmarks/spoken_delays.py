"""Do delays of bands help to tell digits of a speaker who was not trained on?

Lines of the recipe ``delays``, with ``--fsdd DIR``: spoken digits by 39 bands, each read at one
delay, none for all, at random, or learned, by pursuit or by the gradient of Gaussians; all have the
same 64 units and parameters. One of the six speakers is left out. "rate": runs with seed 100 that
choose the learning rate of a method, by the accuracy on the speaker after the one left out, who is
not trained on either; "tested": three seeds at that rate, trained on all five.
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
RATES, RATE_SEED = (3e-3, 1e-2), 100
SPOKEN: Facts = {"task": "fsdd"}


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give, speaker by speaker, the runs that choose rates, and those at the best."""
    if not asked.fsdd:
        return
    for speaker, method in product(SPEAKERS, METHODS):
        facts = SPOKEN | {"method": method, "held_out": speaker}
        tried = [
            {"kind": "rate", **facts, "learning_rate": rate, "seed": RATE_SEED} for rate in RATES
        ]
        yield from tried
        found = [line for one in tried for line in lines.where(**one)]
        if len(found) < len(tried):
            continue
        best = max(found, key=lambda line: line["validation_accuracy"])["learning_rate"]
        for seed in asked.seeds:
            yield {
                "kind": "tested",
                **facts,
                "validate": False,
                "learning_rate": best,
                "seed": seed,
            }


def measure(facts: Facts, asked: Asked) -> Line:
    """Train once."""
    options = {name: value for name, value in facts.items() if name != "kind"}
    return train("delays", asked, **options)


def write(lines: Lines) -> str:
    """Write accuracies by method and speaker, and the mean over the speakers."""
    found = lines.where(kind="tested")
    rows = [([name], found.where(method=method)) for method, name in METHODS.items()]
    columns = [
        Column("runs", "seed", lambda seeds: str(len(seeds))),
        Column("training, %", "train_accuracy", percent(span=False)),
        *(
            Column(f"speaker {one}", "test_accuracy", percent(span=False), {"held_out": one})
            for one in SPEAKERS
        ),
    ]
    written = table(["delays"], rows, columns)
    return written + "\n\n" + markdown(["delays", "mean of the speakers, %, by seed"], means(found))


def means(found: Lines) -> Iterator[list[Any]]:
    """Give a row per method: for each seed the mean over the speakers, if all were left out."""
    for method, name in METHODS.items():
        of_method = found.where(method=method)
        runs = [of_method.where(seed=seed) for seed in of_method.each("seed")]
        whole = [mean(one.values("test_accuracy")) for one in runs if len(one) == len(SPEAKERS)]
        yield [name, percent()(whole) if whole else "-"]


BENCHMARK = Benchmark(
    settings=settings,
    measure=measure,
    tiny=[{"kind": "tested", "task": "sum", "method": "gaussian", "reach": 5, "seed": 0}],
    table=write,
    seeds=range(3),
)
