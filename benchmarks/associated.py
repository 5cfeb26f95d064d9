"""Objectives of their own for every component, against one loss through all layers.

Four kinds of lines, all of the recipe ``associated``. "rate": runs with seed 100 that choose the
learning rate of each method, by validation accuracy, in the nets of "init". "init": nets of four
sigmoid layers on the bundled digits, from three sizes of first weights. "noise": a net of four
layers whose second is a hyperlayer, trained as a whole, by components, or with the hyperlayer
isolated: accuracy, and the noise that its draws bring into the gradient of the layer below. With
``--mnist DIR`` "mnist": all 60,000 images, two layers with ELU and four with sigmoids.
"""

from collections.abc import Iterator
from itertools import product
from statistics import mean
from typing import Any

from benchmarks.lines import Facts, Line, Lines
from benchmarks.recipes import train
from benchmarks.runner import Asked, Benchmark
from benchmarks.tables import Column, percent, spread, table

METHODS = ("backprop", "associated")
INITS = ("he", "glorot", "glorot4")
RATES, RATE_SEED = (3e-4, 1e-3, 3e-3), 100
DIGITS: Facts = {"data": "digits", "activation": "sigmoid", "depth": 4, "steps": 1_500}
NOISE: Facts = {"data": "digits", "activation": "elu", "depth": 4, "steps": 1_500, "hyperlayer": 2}
MNIST: Facts = {"data": "mnist", "width": 128, "steps": 18_000}
NETS = (("elu", 2, ("he",)), ("sigmoid", 4, INITS))
"""On MNIST: activation, depth and sizes of first weights."""


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give the runs that choose a rate, then those at that rate."""
    for rate, method, init in product(RATES, METHODS, INITS):
        yield (
            {"kind": "rate", "method": method, "init": init, "learning_rate": rate}
            | {"seed": RATE_SEED}
            | DIGITS
        )
    for seed, method, init in product(asked.seeds, METHODS, INITS):
        rate = best_rate(lines, method=method, init=init)
        yield (
            {"kind": "init", "method": method, "init": init, "learning_rate": rate}
            | {"seed": seed}
            | DIGITS
        )
    for seed, method in product(asked.seeds, (*METHODS, "isolated")):
        yield {"kind": "noise", "method": method, "seed": seed} | NOISE
    if asked.mnist:
        for seed, (activation, depth, inits) in product(asked.seeds, NETS):
            for method, init in product(METHODS, inits):
                rate = best_rate(lines, method=method, init=init)
                yield (
                    {"kind": "mnist", "method": method, "init": init, "learning_rate": rate}
                    | {
                        "seed": seed,
                        "activation": activation,
                        "depth": depth,
                    }
                    | MNIST
                )


def best_rate(lines: Lines, **facts: Any) -> float:
    """Choose the learning rate of a method and a size of first weights by validation accuracy."""
    tried = lines.where(kind="rate", seed=RATE_SEED, **facts)

    def score(rate: float) -> float:
        accuracies = tried.where(learning_rate=rate).values("validation_accuracy")
        return mean(accuracies) if accuracies else 0.0

    return max(RATES, key=score)


def measure(facts: Facts, asked: Asked) -> Line:
    """Train once."""
    options = {name: value for name, value in facts.items() if name != "kind"}
    return train("associated", asked, **options)


def write(lines: Lines) -> str:
    """Write accuracy by first weights, what noise does, and MNIST."""
    found = lines.where(kind="init")
    rows = (
        ([method, init], found.where(method=method, init=init))
        for method, init in product(METHODS, INITS)
    )
    written = ["four sigmoid layers, digits:", table(["method", "first weights"], rows, ACCURACY)]
    found = lines.where(kind="noise")
    rows = (([method], found.where(method=method)) for method in (*METHODS, "isolated"))
    written += ["second of four layers a hyperlayer, digits:", table(["method"], rows, NOISY)]
    found = lines.where(kind="mnist")
    rows = (
        ([f"{depth} x {activation}", init, method], lines)
        for activation, depth, inits in NETS
        for init, method in product(inits, METHODS)
        if (lines := found.where(activation=activation, depth=depth, init=init, method=method))
    )
    written += [
        "MNIST, 60,000 images:",
        table(["layers", "first weights", "method"], rows, ACCURACY),
    ]
    return "\n\n".join(written)


ACCURACY = (
    Column("rate", "learning_rate", lambda rates: f"{rates[0]:g}"),
    Column("seeds", "seed", lambda seeds: str(len(seeds))),
    Column("training accuracy, %", "train_accuracy", percent(span=False)),
    Column("test accuracy, %", "test_accuracy", percent()),
)
NOISY = (
    *ACCURACY[1:],
    Column("noise of the gradient below", "gradient_noise_below", spread(".2f", ".1g")),
)
FIRST = {"data": "digits", "width": 8, "seed": 0, "activation": "elu"}

BENCHMARK = Benchmark(
    settings=settings,
    measure=measure,
    tiny=[
        {
            "kind": "init",
            "method": "associated",
            "init": "glorot4",
            "depth": 2,
            "steps": 2,
            **FIRST,
        },
        {"kind": "noise", "method": "isolated", "hyperlayer": 2, "depth": 3, "steps": 2, **FIRST},
        {"kind": "mnist", "method": "backprop", "init": "he", "depth": 2, "steps": 2, **FIRST},
    ],
    table=write,
    seeds=range(3),
)
