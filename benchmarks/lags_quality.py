"""Which lags are found, and what that is worth, at equal CPU seconds: pursuit and other ways.

Tasks: a hidden system of 32 channels with 8 lags among 1,024, of which two are gates without a
linear effect, with coloured inputs (``coloured``) and white ones (``white``); one of 4 channels
with little data (``small``); canvases of hidden width read pixel by pixel (``canvas``). All methods
have the same perceptron behind the layer that reads the past, the same distribution of first
weights, and the same CPU seconds of one thread: probes, pruning and choosing included, compiling
not. Each has as many runs for tuning, on validation at seed 9: four rates of the weights, or for
positions that are learned by gradient descent four rates of these, in cells a step, with the rate
of the oracle; the group lasso has four penalties for each rate; with ``two rates``, what is left by
pruning is trained at the rate of the oracle, which no other method is told, and it alone is tuned
again on ``white``, which else takes the rates of ``coloured``. The judged seeds are 10 to 14, or
the first three of these; pursuit was developed on 9, 20 and 21.

On ``interaction`` (products of which no lag alone says anything) and ``periodic`` (inputs that
repeat themselves after 40 steps) pursuit cannot find the lags. ``depth`` is a system of two layers,
``eeg`` a recording of 800 steps, ``speech``, with ``--fsdd DIR``, words of 64 steps in 16 channels.
"""

from collections.abc import Iterator, Sequence

from benchmarks.lines import Facts, Line, Lines
from benchmarks.runner import Asked, Benchmark, program
from benchmarks.tables import markdown

TUNED_AT = 9
RATES = (0.00025, 0.001, 0.004, 0.016)
CELLS = (0.25, 1.0, 4.0, 16.0)
PENALTIES = (0.001, 0.004, 0.016, 0.064)
OPTIONS = ("rate", "cells", "penalty", "after")
SECONDS = {
    "coloured": 10.0,
    "white": 10.0,
    "small": 3.0,
    "depth": 5.0,
    "canvas": 6.0,
    "interaction": 2.0,
    "periodic": 2.0,
    "eeg": 2.0,
    "speech": 3.0,
}

MAIN = ("oracle", "pursuit", "matching pursuit", "dense, pruned", "group lasso")
COUNTED = ("pursuit, halves", "pursuit, z > 5")
CHEAP = ("cross-correlation", "random")
OTHERS = ("gaussian", "interpolated", "dilated stack")
RETUNED = "dense, pruned, two rates"
FEW = (*MAIN, "pursuit, halves", "cross-correlation", "dense")
DEPTH = (
    "both layers, oracle",
    "alternating pursuit",
    "joint pursuit",
    "one layer, 8 taps",
    "one layer, 16 taps",
    "two dense layers",
)
STEPS = (
    ("coloured", MAIN),
    ("coloured", COUNTED),
    ("white", (*MAIN, *COUNTED[:1])),
    ("interaction", ("oracle", "pursuit")),
    ("periodic", ("oracle", "pursuit")),
    ("depth", DEPTH),
    ("small", FEW),
    ("canvas", FEW),
    ("coloured", (*CHEAP, *OTHERS)),
    ("eeg", ("window", *FEW[1:], "random")),
    ("coloured", (RETUNED,)),
    ("white", (RETUNED,)),
    ("speech", ("window", *FEW[1:], "random")),
)
"""What is measured, in this order."""

FEWER = ("depth", "interaction", "periodic")
"""Tasks of which three seeds are judged; so are the methods that are far behind on ``coloured``."""

BORROWED = ("depth", "interaction", "periodic")
"""Tasks that take the rates of ``coloured``; methods that it has not take one from the middle."""

BY_GRADIENT = ("gaussian", "interpolated")
NAMES = {
    "oracle": "true lags, given",
    "pursuit": "**pursuit**, number of taps given",
    "pursuit, halves": "**pursuit**, number by split halves",
    "pursuit, z > 5": "pursuit, number by z > 5",
    "matching pursuit": "linear orthogonal matching pursuit",
    "dense, pruned": "dense kernel, pruned, trained on",
    "dense, pruned, two rates": "the same, trained on at the rate of the first row",
    "group lasso": "dense kernel with a group lasso, pruned, trained on",
    "dense": "dense kernel",
    "cross-correlation": "largest cross-correlations",
    "gaussian": "Gaussian lags, annealed",
    "interpolated": "lags interpolated between neighbours",
    "dilated stack": "stack of dilated layers",
    "window": "the last 8 steps",
    "random": "random lags",
}
TASKS = {
    "coloured": "32 channels, coloured inputs",
    "white": "32 channels, white inputs",
    "small": "4 channels, little data",
    "canvas": "canvases, nats",
    "eeg": "electroencephalogram",
    "speech": "spoken digits",
    "interaction": "products alone",
    "periodic": "inputs that repeat",
}


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give the runs for tuning, then those of the judged seeds with the best rates."""
    for task, methods in STEPS:
        if task == "speech" and not asked.fsdd:
            continue
        if task not in BORROWED:
            for method in tuned_on(task, methods):
                yield from tuning(task, method, lines)
        fewer = task in FEWER or (task == "coloured" and set(methods) <= {*CHEAP, *OTHERS})
        for seed in asked.seeds[: 3 if fewer else None]:
            for method in methods:
                yield facts(task, method, seed, **best(task, method, lines))


def tuned_on(task: str, methods: Sequence[str]) -> list[str]:
    """Leave out what takes its rates from elsewhere: on ``white`` all but one way to prune."""
    return [method for method in methods if task != "white" or method == RETUNED]


def facts(task: str, method: str, seed: int, **rates: float) -> Facts:
    """Name one run."""
    named = {"task": task, "method": method, "seed": seed, "seconds": SECONDS[task]}
    return named | rates


def tuning(task: str, method: str, lines: Lines) -> Iterator[Facts]:
    """Give the runs among which the rates of a method are chosen."""
    if method in BY_GRADIENT:
        weights = best(task, "oracle", lines)["rate"]
        grid = [{"rate": weights, "cells": cells} for cells in CELLS]
    elif method == RETUNED:
        after = best(task, "oracle", lines)["rate"]
        grid = [{"rate": rate, "after": after} for rate in RATES]
    elif method == "group lasso":
        grid = [{"rate": rate, "penalty": penalty} for rate in RATES for penalty in PENALTIES]
    else:
        grid = [{"rate": rate} for rate in RATES]
    for rates in grid:
        yield facts(task, method, TUNED_AT, **rates)


def best(task: str, method: str, lines: Lines) -> Facts:
    """Choose the rates of the lowest loss on validation; a middle one where none was measured."""
    own = task not in BORROWED and tuned_on(task, [method])
    tried = lines.where(task=task if own else "coloured", method=method, seed=TUNED_AT)
    if not tried:
        return {"rate": RATES[2]}
    lowest = min(tried, key=lambda line: line["valid"])
    return {name: lowest[name] for name in OPTIONS if name in lowest}


def write(lines: Lines) -> str:
    """Write a table for every task that has lines."""
    judged = Lines(line for line in lines if line["seed"] != TUNED_AT)
    tables = [_table(task, judged.where(task=task)) for task in TASKS if judged.where(task=task)]
    depth = judged.where(task="depth")
    return "\n\n".join([*tables, _depth(depth)] if depth else tables)


def _table(task: str, lines: Lines) -> str:
    """Write one row for every method."""
    oracle = _mean(lines.where(method="oracle"))
    heads = [TASKS[task], "seeds", "loss", "over the floor", "to the oracle", "found", "false"]
    rows = [
        _row(name, lines.where(method=method), oracle)
        for method, name in NAMES.items()
        if lines.where(method=method)
    ]
    return markdown([*heads, "taps", "steps", "MiB", "rate"], rows)


def _depth(lines: Lines) -> str:
    """Write what is found of two layers."""
    heads = ["two layers", "seeds", "loss", "pattern found of 8", "sums of lags read, of 16"]
    rows = [
        [
            method,
            len(found := lines.where(method=method)),
            _span(found.values("test"), 3),
            _list(found, "found"),
            _list(found, "sums_found"),
        ]
        for method in DEPTH
        if lines.where(method=method)
    ]
    return markdown([*heads, "steps"], [[*row, _steps(lines.where(method=row[0]))] for row in rows])


def _span(losses: list[float], digits: int) -> str:
    mean = sum(losses) / len(losses)
    return f"{mean:.{digits}f} ({min(losses):.{digits}f} to {max(losses):.{digits}f})"


def _steps(lines: Lines) -> str:
    return f"{min(lines.values('steps'))} to {max(lines.values('steps'))}"


def _mean(lines: Lines) -> float | None:
    losses = lines.values("test")
    return sum(losses) / len(losses) if losses else None


def _row(name: str, lines: Lines, oracle: float | None) -> list[str]:
    losses, mean, line = lines.values("test"), _mean(lines), lines[0]
    assert mean is not None
    digits = 1 if mean > 10 else 3
    floors = lines.values("floor")
    return [
        name,
        str(len(losses)),
        _span(losses, digits),
        f"{mean - sum(floors) / len(floors):.{digits}f}" if floors else "-",
        f"{100 * (mean / oracle - 1):+.0f} %" if oracle else "-",
        _list(lines, "found", f" of {len(line['true'])}" if "true" in line else ""),
        _list(lines, "false"),
        _list(lines, "taps"),
        _steps(lines),
        f"{max(lines.values('temporary_bytes')) / 2**20:.0f}",
        _rates(line),
    ]


def _list(lines: Lines, field: str, after: str = "") -> str:
    """Write a number for every seed, or one if they are equal."""
    numbers = lines.values(field)
    if not numbers:
        return "-"
    return (str(numbers[0]) if len(set(numbers)) == 1 else " ".join(map(str, numbers))) + after


def _rates(line: Line) -> str:
    named = {"rate": "", "cells": "; {} cells", "penalty": "; penalty {}", "after": ", then {}"}
    return "".join(
        (form or "{}").format(line[name]) for name, form in named.items() if name in line
    )


BENCHMARK = Benchmark(
    settings=settings,
    measure=program("lags_quality"),
    tiny=[
        facts(task, method, 0, rate=0.004, cells=1.0, penalty=0.004) | {"seconds": 0.05}
        for task, method in (
            *(("coloured", method) for method in NAMES),
            ("small", "pursuit"),
            ("canvas", "pursuit, halves"),
            ("eeg", "window"),
            ("eeg", "pursuit, halves"),
            ("interaction", "pursuit"),
            ("periodic", "pursuit"),
            *(("depth", method) for method in DEPTH),
        )
    ],
    table=write,
    seeds=range(10, 15),
)
