"""What powerpropagation costs: a training step with and without it, in the same process, in turn.

Networks 784-width-width-width-10 with biases, cross-entropy, float32. A step is one of ten in a
``lax.scan`` with donated state, as the training loop runs it. One line per optimizer: median
milliseconds of each variant and its overhead over the plain step, in shares of it. Variants differ
in nothing but the reparametrisation: they differentiate through ``to_weights``; "chained" takes the
weights' gradient and puts ``scale_by_power_jacobian`` before the optimizer.
"""

from benchmarks.lines import Lines
from benchmarks.runner import Benchmark, grid, program
from benchmarks.tables import markdown

OPTIMIZERS = ("sgd", "adam")


def write(lines: Lines) -> str:
    """Write the overheads: a row per optimizer, a column per variant."""
    heads = ["optimizer", "width", "batch", "plain, ms", *lines[0]["overhead"]]
    rows = (
        [
            *(line[name] for name in heads[:3]),
            line["milliseconds"]["plain"],
            *(f"{100 * line['overhead'][variant]:+.1f} %" for variant in heads[4:]),
        ]
        for line in lines
    )
    return markdown(heads, rows)


BENCHMARK = Benchmark(
    settings=lambda asked, lines: grid(optimizer=OPTIMIZERS, width=[1024], batch=[128]),
    measure=program("powerprop_step"),
    tiny=list(grid(optimizer=OPTIMIZERS, width=[4], batch=[2])),
    table=write,
    repeats=40,
)
