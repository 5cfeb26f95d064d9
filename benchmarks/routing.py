"""Two experts of each token: what a product costs, and what evens the load.

Two kinds of lines. "speed": value and gradient of ``nn.Mixture`` with one hidden layer per expert,
1,024 tokens of 64 numbers, 128 hidden units, by the three products, called in turn: ``all`` experts
for all tokens, ``ragged`` (``jax.lax.ragged_dot``), and ``slots`` with room for 1.25 times the even
load. "balance": runs of the recipe ``experts`` on the bundled digits, 16 experts with room for 1.25
times the even load, by what is done about the load; test accuracy, how far the fullest expert is
above the mean (violation), and the share of choices that found no place, both for the test images.
"""

from collections.abc import Iterator
from typing import Any

from benchmarks.lines import Facts, Line, Lines
from benchmarks.recipes import train
from benchmarks.runner import Asked, Benchmark, grid, program
from benchmarks.tables import Column, one, percent, spread, table

EXPERTS = (4, 16, 64)
PRODUCTS = ("all", "ragged", "slots")
SIZES = {"tokens": [1024], "features": [64], "hidden": [128], "chosen": [2]}
BALANCES: dict[str, dict[str, Any]] = {
    "nothing": {"balance": 0.0},
    "loss, 0.01": {"balance": 0.01},
    "loss, 0.1": {"balance": 0.1},
    "bias, 0.001": {"balance": 0.0, "bias_rate": 0.001},
    "bias, 0.01": {"balance": 0.0, "bias_rate": 0.01},
}


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give the sizes to be timed, then the runs."""
    yield from grid(kind=["speed"], experts=EXPERTS, **SIZES)
    yield from grid(kind=["balance"], by=BALANCES, seed=asked.seeds, steps=[2_000])


def measure(facts: Facts, asked: Asked) -> Line | list[Line]:
    """Time the products, or train once."""
    if facts["kind"] == "speed":
        return program("routing")(facts, asked)
    options: dict[str, Any] = BALANCES[facts["by"]] | {
        name: facts[name] for name in ("seed", "steps")
    }
    return train(
        "experts",
        asked,
        method="top",
        num_experts=16,
        num_chosen=2,
        capacity_factor=1.25,
        evaluate_every=1_000,
        **options,
    )


def mebibytes(line: Line) -> float:
    """Give the memory of a line."""
    return line["bytes"] / 2**20


def write(lines: Lines) -> str:
    """Write the times by product and number of experts, then what the runs gave."""
    timed = lines.where(kind="speed")
    columns = [
        Column(f"E = {experts}: {head}", of, one(spec), {"experts": experts})
        for experts in EXPERTS
        for head, of, spec in (("ms", "milliseconds", ".1f"), ("MiB", mebibytes, ".0f"))
    ]
    rows = (([f"`{name}`"], timed.where(method=name)) for name in PRODUCTS)
    written = [table(["product"], rows, columns)]
    runs = lines.where(kind="balance")
    rows = (([by], runs.where(by=by)) for by in BALANCES)
    return "\n\n".join([*written, table(["load evened by"], rows, TRAINED)])


TRAINED = (
    Column("test accuracy, %", "test_accuracy", percent(span=False)),
    Column("violation", "violation", spread(".2f", ".2f")),
    Column("dropped, %", "dropped", percent(span=False)),
)

BENCHMARK = Benchmark(
    settings=settings,
    measure=measure,
    tiny=[
        *grid(kind=["speed"], experts=[3], tokens=[8], features=[2], hidden=[3], chosen=[2]),
        *grid(kind=["balance"], by=["bias, 0.01"], seed=[0], steps=[2]),
    ],
    table=write,
)
