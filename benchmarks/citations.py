"""Accuracy on citation graphs of which edges are missing: given, nearest and pursued edges.

A graph convolution network of two layers as published (16 units, dropout 0.5, weight decay 5e-4 on
the first layer, Adam with 0.01, 200 steps, rows of words normalised), on the public split; the step
of the best validation accuracy is judged. Of the given edges a share is kept. "nearest" adds ten
edges to each paper from those with the most alike words, "pursuit" ten that exact gains place to
explain its words, "topics" ten with the most alike 16 topics, "denoised" ten with the most alike
16 topics of words that a trained denoiser fills in: none looks at labels. The share of words that
is filled in was chosen by validation papers of Cora without edges. With no edges kept and none
added the network is a perceptron.
"""

from collections.abc import Iterator

from benchmarks.lines import Facts, Line, Lines
from benchmarks.recipes import train
from benchmarks.runner import Asked, Benchmark, grid
from benchmarks.tables import Column, markdown, percent, table

TASKS = {"cora": "Cora", "citeseer": "Citeseer", "generated": "generated papers"}
KEEPS = (1.0, 0.75, 0.5, 0.25, 0.0)
METHODS = {
    "given": "kept edges alone",
    "nearest": "and 10 nearest papers",
    "topics": "and 10 of the nearest topics",
    "denoised": "and 10 of the nearest topics, denoised",
    "pursuit": "and 10 pursued papers",
}
SHARES = (0.5, 0.7, 0.8, 0.9, 0.95)
"""Of words that a denoiser fills in. The recipe's own, which has its lines by then, was chosen by
validation papers."""

FEWER = 5
"""Seeds of everything but the given edges as they are."""


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give all graphs as they are first, then those without edges, then those in between."""
    tasks = list(TASKS) if asked.citations else ["generated"]
    yield from grid(task=tasks, keep=[1.0], method=["given"], seed=asked.seeds)
    for keep in (0.0, 0.5, 0.25, 0.75, 1.0):
        yield from grid(task=tasks, keep=[keep], method=METHODS, seed=asked.seeds[:FEWER])
    if asked.citations:
        facts: Facts = {"task": "cora", "keep": 0.0, "method": "denoised"}
        yield from (facts | one for one in grid(corruption=SHARES, seed=asked.seeds[:FEWER]))


def measure(facts: Facts, asked: Asked) -> Line:
    """Train once."""
    line = train("citations", asked, **facts)
    if "corruption" in facts:  # nothing is to be chosen by test papers
        line.pop("test_accuracy", None)
    return line


def write(lines: Lines) -> str:
    """Write a table for every graph: a row for each share of edges, a column for each method."""
    columns = [
        Column(name, "test_accuracy", percent(span=False), {"method": method})
        for method, name in METHODS.items()
    ]
    tables = []
    for task, name in TASKS.items():
        rows = []
        for keep in KEEPS:
            found = lines.where(task=task, keep=keep)
            rows.append([f"{keep:.0%}", *(column.cell(found) for column in columns)])
        heads = [f"{name}: edges kept", *(f"{column.head}, %" for column in columns)]
        tables.append(markdown(heads, rows))
    denoised = lines.where(task="cora", keep=0.0, method="denoised")
    shares = (([f"{share:.0%}"], denoised.where(corruption=share)) for share in SHARES)
    found = [Column("validation accuracy, %", "validation_accuracy", percent(span=False))]
    heads = "Cora without edges: words that are left out for the denoiser"
    return "\n\n".join([*tables, table([heads], shares, found)])


BENCHMARK = Benchmark(
    settings=settings,
    measure=measure,
    tiny=list(grid(task=["generated"], keep=[0.5], method=METHODS, seed=[0])),
    table=write,
    seeds=range(10),
)
