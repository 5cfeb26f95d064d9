"""What few taps far apart cost: convolutions at lags against dilated, FFT and dense ones.

Part ``convolution``, one line per batch: sequences of 2,048 steps, 32 channels to 32, 8 taps within
512 steps at even distances, so that a dilated convolution of 8 taps gives the same numbers. The FFT
and the dense convolution have a kernel of all 512 lags, as learning by a dense kernel needs it.
Median milliseconds of the gradient with respect to input and weights, forward pass included, all
called in turn; and the temporary memory that the compiler plans. Part ``attention``, one line per
length: one head of 32 features at 16 lags within half the length, against causal
``jax.nn.dot_product_attention``, which is only compiled where it would need more than 4 GiB.
Called with ``XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"``, so
that products and convolutions take one thread.
"""

from benchmarks.lines import Facts, Line, Lines
from benchmarks.runner import Benchmark, program
from benchmarks.tables import markdown

BATCHES = (1, 4, 16, 64)
LENGTHS = (1_024, 4_096, 16_384)
CONVOLUTIONS = ("dilated", "FFT", "dense")
CONVOLUTION: Facts = {
    "part": "convolution",
    "steps": 2_048,
    "channels": 32,
    "reach": 512,
    "taps": 8,
}
ATTENTION: Facts = {"part": "attention", "features": 32, "taps": 16}


def mebibytes(line: Line, name: str) -> str:
    """Write the memory of a program."""
    return f"{line['temporary_bytes'][name] / 2**20:,.3g}"


def ratio(line: Line, name: str, to: str) -> str:
    """Write how many times as long a program takes; a dash if it was not run."""
    times = line["milliseconds"]
    return f"x {times[name] / times[to]:.2g}" if name in times else "-"


def convolutions(lines: Lines) -> str:
    """Write a row per batch."""
    heads = [
        "batch",
        "`lag_conv`, ms",
        "all at once",
        *(f"{name}" for name in CONVOLUTIONS),
        "`lag_conv`, MiB",
        *(f"{name}, MiB" for name in CONVOLUTIONS),
    ]
    rows = []
    for line in lines:
        times = [ratio(line, name, "lag_conv") for name in ("all at once", *CONVOLUTIONS)]
        memory = [mebibytes(line, name) for name in ("lag_conv", *CONVOLUTIONS)]
        rows.append([line["batch"], f"{line['milliseconds']['lag_conv']:.3g}", *times, *memory])
    return markdown(heads, rows)


def attentions(lines: Lines) -> str:
    """Write a row per length."""
    heads = ["T", "`lag_attention`, ms", "dense", "`lag_attention`, MiB", "dense, MiB"]
    rows = []
    for line in lines:
        memory = [mebibytes(line, name) for name in ("lag_attention", "dense")]
        times = [
            f"{line['milliseconds']['lag_attention']:.3g}",
            ratio(line, "dense", "lag_attention"),
        ]
        rows.append([f"{line['length']:,}", *times, *memory])
    return markdown(heads, rows)


def write(lines: Lines) -> str:
    """Write both tables, as far as they were measured."""
    parts = {"convolution": convolutions, "attention": attentions}
    found = {part: lines.where(part=part) for part in parts}
    return "\n\n".join(parts[part](some) for part, some in found.items() if some)


BENCHMARK = Benchmark(
    settings=lambda asked, lines: [
        *(CONVOLUTION | {"batch": batch} for batch in BATCHES),
        *(ATTENTION | {"length": length} for length in LENGTHS),
    ],
    measure=program("lags_speed"),
    tiny=[
        {"part": "convolution", "steps": 32, "channels": 2, "reach": 9, "taps": 3, "batch": 2},
        {"part": "attention", "features": 4, "taps": 3, "length": 16},
    ],
    table=write,
    repeats=15,
)
