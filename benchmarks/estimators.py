"""What one estimate costs: every estimator against the number of classes and of variables.

One line per number of variables ``K``, of classes ``C``, and estimator: median milliseconds and
temporary bytes of value and gradient for 64 instances under one ``vmap``, and how often ``f`` is
evaluated. ``f`` is a quadratic form of the one-hot rows, ``|x W|^2 / K`` with ``W (K C, 32)``:
``64 K C`` floating-point operations and a few more per evaluation, stated in every line.
"""

from benchmarks.lines import Facts, Line, Lines
from benchmarks.runner import Benchmark, program
from benchmarks.tables import Column, one, table

USUAL = {"variables": 16, "classes": 8}
AXES = {
    "K = 16 variables against classes": ("C", "classes", (2, 4, 8, 16, 32)),
    "C = 8 classes against variables": ("K", "variables", (1, 4, 16, 64, 256)),
}
"""Letter, name and values of what varies."""


def places(name: str, values: tuple[int, ...]) -> list[Facts]:
    """Give the settings along an axis."""
    return [USUAL | {name: value} for value in values]


def figures(line: Line) -> str:
    """Write evaluations, time and memory."""
    size = line["temporary_bytes"] / 2**20
    return f"{line['evaluations']}: {line['milliseconds']:.2f} ms, {size:.2f} MiB"


def write(lines: Lines) -> str:
    """Write both tables: a row per estimator, a column per setting."""
    rows = [([name], lines.where(estimator=name)) for name in lines.each("estimator")]
    written = []
    for title, (letter, name, values) in AXES.items():
        columns = [
            Column(f"{letter} = {place[name]}", figures, one(), place)
            for place in places(name, values)
        ]
        written.append(f"{title} (evaluations: time, temporary memory)")
        written.append(table(["estimator"], rows, columns))
    return "\n\n".join(written)


BENCHMARK = Benchmark(
    settings=lambda asked, lines: [
        place for _, name, values in AXES.values() for place in places(name, values)
    ],
    measure=program("estimators"),
    tiny=[{"variables": 2, "classes": 5}],
    table=write,
    repeats=30,
)
