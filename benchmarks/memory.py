"""What a memory of learned addresses costs, and what it and an embedding of few rows are worth.

Part ``speed``: 4,096 addresses, drawn alike over a grid of two axes, read by interpolation vectors
of 8 numbers; median milliseconds of CPU time, all sizes and programs called in turn. "slopes":
the read and its gradient with respect to addresses and to the rows that were read. "and update":
these, added up where rows are equal, and Adam on these rows alone (``update_rows``), table and
state given away; "in an autoencoder": of 1,024 images of 784 pixels, with four heads, 128 units
before and a linear decoder behind. "dense slope": the gradient has the shape of the table. "dense
Adam" and "``lazy_rows``" are optimizers on top of that. "Large pages" are those of a process that
was started with ``GLIBC_TUNABLES=glibc.malloc.hugetlb=1``, on Linux.

Part ``image``: a photograph of 106 x 160 pixels that scikit-learn brings, half of the pixels for
training, a quarter each for validation and test, about 6,000 numbers for every method. Part
``characters``: the next character of the text that scikit-learn brings, from the last two trigrams,
each of all that occur being a word; 90 % of the text for training. In both, every method is trained
with the same three rates, and the rate and the time of stopping are those of the best validation,
for every seed. PSNR and bits are those of the test part.
"""

from collections.abc import Iterator

from benchmarks.lines import Facts, Line, Lines
from benchmarks.runner import Asked, Benchmark, grid, program
from benchmarks.tables import Column, markdown, one, spread, table

CELLS = (32, 64, 128, 256, 512, 1_024)
SPEED: Facts = {"part": "speed", "reads": 4_096, "features": 8}
PROGRAMS = {
    "slopes": "slopes of addresses and rows",
    "update": "and update, by rows",
    "autoencode": "the same in an autoencoder",
    "dense": "dense slope",
    "adam": "dense Adam",
    "lazy": "`lazy_rows`",
}
BY_ROWS = ("slopes", "update", "autoencode")
"""Those that touch what is read, and nothing else."""

IMAGES = {
    "grid": "plain grid of colours",
    "decoded": "plain grid of 4 features, decoder",
    "network": "network alone",
    "addresses": "learned addresses, 2 heads, decoder",
    "sampled": "the same, points drawn, spread annealed",
    "offsets": "learned offsets from the place, decoder",
    "keys": "product keys, 2 heads of 8 rows, decoder",
}
EMBEDDINGS = {
    "dense": "dense",
    "narrow": "dense, of 3 features, and a matrix",
    "one row": "one hashed row",
    "hashed": "2 hashed rows, values learned",
    "relocated": "the same, rows relocated",
}
METHODS = {"image": IMAGES, "characters": EMBEDDINGS}


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give the times first, then both comparisons."""
    yield SPEED | {"cells": list(CELLS)}
    yield SPEED | {"cells": list(CELLS), "pages": "large"}
    for seed in asked.seeds:
        for part, methods in METHODS.items():
            yield from grid(part=[part], seed=[seed], method=methods)


def measure(facts: Facts, asked: Asked) -> Line:
    """Measure one part."""
    return program(f"memory_{facts['part']}")(facts, asked)


def times(lines: Lines) -> str:
    """Write a row for each program, a column for each size."""
    rows = []
    for line in lines:
        large = line.get("pages") == "large"
        for name, words in PROGRAMS.items():
            if large and name not in BY_ROWS:
                continue
            row = [line["milliseconds"][name][str(size)] for size in line["cells"]]
            head = f"{words}, large pages" if large else words
            rows.append([head, *(f"{time:.3g}" for time in row), f"x {row[-1] / row[0]:.3g}"])
    heads = [f"{size:,} x {size:,}" for size in CELLS]
    return markdown(["milliseconds of a step", *heads, "last to first"], rows)


def write(lines: Lines) -> str:
    """Write three tables, as far as they were measured."""
    found = {part: lines.where(part=part) for part in ("speed", *METHODS)}
    tables = [times(found["speed"])] if found["speed"] else []
    columns = {
        "image": [
            Column("seeds", "seed", lambda seeds: f"{len(seeds)}"),
            Column("numbers", "numbers", one(",")),
            Column("PSNR of test pixels, dB", "psnr", spread(".2f")),
            Column("of training pixels", "training_psnr", spread(".2f")),
            Column("cells used, %", _used, spread(".0f")),
        ],
        "characters": [
            Column("seeds", "seed", lambda seeds: f"{len(seeds)}"),
            Column("numbers of the embedding", "numbers", one(",")),
            Column("bits per character", "bits", spread(".3f")),
            Column("of training", "training_bits", spread(".3f")),
        ],
    }
    for part, methods in METHODS.items():
        rows = [([name], found[part].where(method=method)) for method, name in methods.items()]
        if found[part]:
            tables.append(table([part], rows, columns[part]))
    return "\n\n".join(tables)


def _used(line: Line) -> float | None:
    return 100 * line["used"] if "used" in line else None


BENCHMARK = Benchmark(
    settings=settings,
    measure=measure,
    tiny=[
        {"part": "speed", "reads": 8, "features": 2, "cells": [4, 8]},
        {"part": "speed", "reads": 8, "features": 2, "cells": [4], "pages": "large"},
        *grid(part=["image"], seed=[0], method=["network", "sampled", "keys"]),
        *grid(part=["characters"], seed=[0], method=["narrow", "relocated"]),
    ],
    table=write,
    repeats=15,
)
