"""The multiply and the training step on an accelerator, against the memory's own speed.

One line per claim. ``copy``: bytes per second of a device-to-device copy, read and written.
``multiply``: milliseconds of ``W x`` and of its gradients for a batch of 64, and the bytes that the
entries, the rows that they gather and the output take, per second and as a share of the copy's
speed. ``step``: milliseconds of a training step of the identity layer. There are no results yet. On
a CPU it stops, because the other benchmarks are for that; ``--tiny`` runs there.
"""

from collections.abc import Iterator

from benchmarks.lines import Facts, Lines
from benchmarks.runner import Asked, Benchmark, program

MULTIPLY = ((10**5, 10**6), (10**6, 10**7), (10**6, 3 * 10**7))
STEPS = (64, 256, 1024, 4096, 16384)


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give all claims, on an accelerator."""
    import jax

    if jax.default_backend() == "cpu":
        raise SystemExit("found a CPU; expected a GPU or TPU; measure stages and multiply here")
    yield {"claim": "copy"}
    yield from ({"claim": "multiply", "size": n, "entries": k, "batch": 64} for n, k in MULTIPLY)
    yield from ({"claim": "step", "size": size} for size in STEPS)


BENCHMARK = Benchmark(
    settings=settings,
    measure=program("gpu"),
    tiny=[
        {"claim": "copy"},
        {"claim": "multiply", "size": 100, "entries": 1_000, "batch": 64},
        {"claim": "step", "size": 16},
    ],
    repeats=10,
)
