"""What sparse backpropagation saves: one backward pass, a whole training step, time to accuracy.

One line per shape and ratio, medians in milliseconds of all variants called in turn. Dense is timed
in both layouts of its kernel and the faster one is compared with. Backward passes include
selection, gathers, scatters and the update of the memory. A backward pass or training step is one
of ten in a ``lax.scan`` with donated state, as the training loop runs it; float32, default
precision, threads not pinned. Time to 97 %, with ``--mnist DIR``, counts training alone, and looks
at the validation images four times per epoch.
"""

from collections.abc import Iterator

from matplotlib.figure import Figure

from benchmarks.figures import tidy
from benchmarks.lines import Facts, Lines
from benchmarks.runner import Asked, Benchmark, grid, program

SHAPES = ((32, 784, 500), (128, 1024, 1024), (1024, 1024, 1024), (128, 4096, 4096))
RATIOS = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
NETWORKS = ((32, 500, 2), (128, 1024, 3), (1024, 1024, 3))
TRAINED = (("784-500-500-10", 50), ("784-1024-1024-1024-10", 1024))
TO_ACCURACY = ("dense", "unified", "unified, memory", "candidates, memory", "row, memory")
COLOURS = {"unified": "#08519c", "candidates": "#41ab5d", "row": "#cb181d"}


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Give backward passes, training steps, and with MNIST whole training."""
    for batch, n_in, n_out in SHAPES:
        for ratio in RATIOS:
            yield backward(batch, n_in, n_out, ratio)
    for batch, width, depth in NETWORKS:
        yield from steps(batch, width, depth, [0.04, 0.16])
    for network, batch in TRAINED if asked.mnist else ():
        yield from whole(network, batch, asked.seeds)


def backward(batch: int, n_in: int, n_out: int, ratio: float) -> Facts:
    """Name a backward pass."""
    return {"part": "backward", "batch": batch, "n_in": n_in, "n_out": n_out, "ratio": ratio}


def steps(batch: int, width: int, depth: int, ratios: list[float]) -> Iterator[Facts]:
    """Name training steps with both optimizers."""
    sizes = {"batch": [batch], "width": [width], "hidden_layers": [depth]}
    return grid(part=["step"], **sizes, optimizer=["sgd", "adam"], ratio=ratios)


def whole(network: str, batch: int, seeds: list[int]) -> Iterator[Facts]:
    """Name whole training."""
    fixed = {"part": ["time to 97 %"], "network": [network], "batch": [batch]}
    return grid(**fixed, seed=seeds, setting=TO_ACCURACY)


def draw(figure: Figure, lines: Lines) -> None:
    """Draw the speed-up of the backward pass over the ratio, a panel for each shape."""
    panels = figure.subplots(1, len(SHAPES), sharey=True)
    for ax, (batch, n_in, n_out) in zip(panels, SHAPES, strict=True):
        chosen = lines.where(part="backward", batch=batch, n_in=n_in, n_out=n_out)
        for name, colour in COLOURS.items():
            for suffix, dash in (("", "-"), (", slot memory", "--")):
                speed = [line["speedup"][name + suffix] for line in chosen]
                style = {"linestyle": dash, "color": colour, "marker": "o", "markersize": 3}
                ax.plot(chosen.values("ratio"), speed, label=name + suffix, **style)
        ax.axhline(1, color="0.6", linewidth=0.8)
        ax.set(xlabel="share of components", xscale="log", yscale="log")
        ax.set_title(f"batch {batch}, {n_in} to {n_out}", fontsize=9)
        ax.set_xticks(RATIOS, [f"{ratio:g}" for ratio in RATIOS], fontsize=7)
        ax.set_yticks((0.25, 0.5, 1, 2, 4, 8, 16), ["1/4", "1/2", "1", "2", "4", "8", "16"])
        ax.minorticks_off()
    tidy(*panels)
    panels[0].set_ylabel("backward pass: times as fast as dense")
    entries = panels[0].get_legend_handles_labels()
    figure.legend(*entries, loc="outside right center", frameon=False, fontsize=8)


BENCHMARK = Benchmark(
    settings=settings,
    measure=program("sparse_backprop_speed"),
    tiny=[backward(8, 16, 16, 0.25), *steps(8, 16, 2, [0.25]), *whole("784-8-8-10", 4, [0])],
    draw=draw,
    figure="sparse_backprop_speed",
    inches=(10.0, 3.0),
)
