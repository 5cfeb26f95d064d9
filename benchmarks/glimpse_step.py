"""What a training step takes that learns where to look, and what its parts take.

Whole steps of the recipe ``glimpse``, as it compiles them, with batches of 64 canvases that are
made in the step. The ways differ in what is warped and in what the locating network sees. Parts are
timed on their own, ``where``, ``window`` and ``head`` with gradients: the locating network, reading
the window, naming the digit; they are those of the first and of the last way. Times are of the
processor, medians of interleaved calls of several steps each, all ways of one task in one run: they
count what is computed and not the waiting for other processes. With ``--mnist DIR``.
"""

from collections.abc import Iterator
from typing import Any

from benchmarks.lines import Facts, Lines
from benchmarks.runner import Asked, Benchmark, program
from benchmarks.tables import markdown

TASKS: dict[str, dict[str, Any]] = {
    "100 x 100, one window 32 x 32": {"canvas": 100, "distractors": 8, "window": 32},
}
WAYS: dict[str, dict[str, Any]] = {
    "images warped, every pixel seen": {},
    "digits warped": {"warped": "digit"},
    "digits warped, seen at half size": {"warped": "digit", "shrink": 2},
}
"""Ways to take a step: the first one is the recipe's own."""

PARTS = ("canvases", "where", "window", "head")


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give the tasks."""
    return ({"task": task} for task in TASKS if asked.mnist)


def write(lines: Lines) -> str:
    """Write a row per task and way: the step, as a share of the first way, and its parts."""
    heads = ["task", "way", "step", *PARTS]

    def row(task: str, way: str) -> list[str]:
        found, first = (lines.where(task=task, way=one) for one in (way, next(iter(WAYS))))
        times = {line["part"]: line["milliseconds"] for line in found}
        whole = first.where(part="step")[0]["milliseconds"]
        step = f"{times['step']:.0f} ms (x {times['step'] / whole:.2f})"
        return [
            *(task, way, step),
            *(f"{times[part]:.0f} ms" if part in times else "-" for part in PARTS),
        ]

    return markdown(heads, (row(task, way) for task in lines.each("task") for way in WAYS))


BENCHMARK = Benchmark(
    settings=settings,
    measure=program("glimpse_step"),
    tiny=[{"task": "100 x 100, one window 32 x 32"}],
    table=write,
)
