"""Does the router's gradient matter? Its error by enumeration, and a classifier with experts.

Three kinds of lines. "gradient": the expected gradient of a method of ``sparse_mixer``, summed over
experts and coins with ``exact_at_argmax=False``, against that of the expected loss; medians over
100 random problems of 8 experts and 4 outputs whose loss is a polynomial. Errors are relative to
grad0, the part that ordinary training drops, and to the whole gradient. "rate": runs of the recipe
``experts`` with seed 100 that choose the learning rate, the same for all routers and both sizes of
the network: the one of the highest mean validation accuracy. "training": runs at that rate, test
accuracy of the final parameters. The network has 32 units in all its layers, or 8: there the
experts are needed. Bundled digits; with ``--mnist DIR`` MNIST.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import product
from statistics import mean

from benchmarks.lines import Facts, Line, Lines
from benchmarks.recipes import train
from benchmarks.runner import Asked, Benchmark, grid, program
from benchmarks.tables import Column, one, percent, spread, table

RULES = ("gate", "first_order", "midpoint", "heun")
LOSSES = ("linear", "quadratic", "cubic", "quartic")
ROUTERS = ("top", *RULES, "default", "dense")
RATES, RATE_SEED = (1e-3, 3e-3, 1e-2), 100
WIDTHS = (32, 8)
"""Units before and after the mixture and in every expert."""

STEPS = {"digits": 3_000, "mnist": 20_000}


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give what is enumerated, the runs that choose the rate, then those at that rate."""
    yield from grid(kind=["gradient"], loss=LOSSES, method=RULES, problems=[100])
    data = "mnist" if asked.mnist else "digits"
    for rate in RATES:
        yield from runs("rate", data, rate, [RATE_SEED])
    yield from runs("training", data, best_rate(lines, data), asked.seeds)


def runs(kind: str, data: str, rate: float, seeds: Sequence[int]) -> Iterator[Facts]:
    """Give all routers in networks of both widths."""
    common = {"kind": kind, "data": data, "learning_rate": rate, "steps": STEPS[data]}
    for width, seed, router in product(WIDTHS, seeds, ROUTERS):
        yield common | {"method": router, "seed": seed, "width": width, "expert_width": width}


def best_rate(lines: Lines, data: str) -> float:
    """Choose the learning rate by validation accuracy."""
    tried = lines.where(kind="rate", data=data, seed=RATE_SEED)

    def score(rate: float) -> float:
        accuracies = tried.where(learning_rate=rate).values("validation_accuracy")
        return mean(accuracies) if accuracies else 0.0

    return max(RATES, key=score)


def measure(facts: Facts, asked: Asked) -> Line:
    """Enumerate, or train once."""
    if facts["kind"] == "gradient":
        return program("experts")(facts, asked)
    options = {name: value for name, value in facts.items() if name != "kind"}
    return train("experts", asked, evaluate_every=1_000, **options)


def write(lines: Lines) -> str:
    """Write the errors relative to grad0, then what training gave for every size."""
    enumerated = lines.where(kind="gradient")
    columns = [Column(loss, "error_of_grad0", one(".3f"), {"loss": loss}) for loss in LOSSES]
    rows = (([method], enumerated.where(method=method)) for method in RULES)
    written = [table(["method"], rows, columns)]
    for data, width in product(STEPS, WIDTHS):
        found = lines.where(kind="training", data=data, width=width)
        if found:
            rate = found[0]["learning_rate"]
            written.append(f"{data}, {width} units, learning rate {rate:g}:")
            rows = (([router], found.where(method=router)) for router in ROUTERS)
            written.append(table(["router"], rows, TRAINED))
    return "\n\n".join(written)


TRAINED = (
    Column("seeds", "seed", lambda seeds: str(len(seeds))),
    Column("test accuracy, %", "test_accuracy", percent(span=False)),
    Column("test cross-entropy", "test_cross_entropy", spread(".3g", ".2g")),
    Column("experts used", lambda line: math.exp(line["load_entropy"]), spread(".3g", ".2g")),
)
FIRST = {"data": "digits", "learning_rate": 1e-3, "seed": 0, "width": 8, "expert_width": 8}

BENCHMARK = Benchmark(
    settings=settings,
    measure=measure,
    tiny=[
        *grid(kind=["gradient"], loss=["cubic"], method=["heun"], problems=[2]),
        {"kind": "training", "method": "heun", "steps": 2, **FIRST},
    ],
    table=write,
    seeds=range(5),
)
