"""How much of a wave a window shows that is too coarse for it, by the variance of its pixels.

Windows of 32 x 32 pixels, each 8 pixels of the image apart. A wave across the image, of a frequency
in cycles per pixel of the window; the amplitude that the window shows, as a share of the wave's.
Above half a cycle per pixel (the limit of the window) whatever is shown is an alias: another wave
than that of the image. The deviation of a pixel's Gaussian is in units of the 8 pixels.
"""

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.lines import Line, Lines
from benchmarks.runner import Benchmark, grid, program
from benchmarks.tables import Column, one, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEP = 0.05
"""Between frequencies, from 0 on."""

SHOWN = (0.1, 0.25, 0.5, 0.75, 1.0)
READERS = (
    ("bilinear", 0.0),
    ("upright", 0.25),
    ("upright", 0.5),
    ("upright", 0.75),
    ("sampled", 0.5),
)
SIZES = {"stride": [8], "window": [32], "frequencies": [31]}


def name_of(reader: str, deviation: float) -> str:
    """Name a reader in the table and the picture."""
    words = {
        "bilinear": "bilinear",
        "upright": "extract_upright",
        "sampled": "extract, 8 + 8 points",
    }
    return words[reader] + (f", deviation {deviation:g}" if deviation else "")


def write(lines: Lines) -> str:
    """Write the share of the amplitude at some frequencies."""

    def at(frequency: float):
        return lambda line: line["amplitudes"][round(frequency / STEP)]

    columns = [Column(f"{share:g}", at(share), one(".3f")) for share in SHOWN]
    rows = (([name_of(*which)], lines.where(**facts_of(*which))) for which in READERS)
    return table(["cycles per pixel"], rows, columns)


def facts_of(reader: str, deviation: float) -> Line:
    """Give the facts that tell readers apart."""
    return {"reader": reader, "deviation": deviation}


def draw(figure: "Figure", lines: Lines) -> None:
    """Draw a zone plate as two readers show it, and what is left at every frequency."""
    first, second, curves = figure.subplots(1, 3, width_ratios=(1, 1, 1.5))
    for ax, which in ((first, READERS[0]), (second, READERS[2])):
        (line,) = lines.where(**facts_of(*which))
        ax.imshow(np.array(line["zones"]), cmap="gray", vmin=0, vmax=255)
        ax.set_title(name_of(*which), fontsize=9)
        ax.set_axis_off()
    for which in READERS:
        (line,) = lines.where(**facts_of(*which))
        shown = line["amplitudes"]
        curves.plot(STEP * np.arange(len(shown)), shown, label=name_of(*which))
    curves.axvline(0.5, color="gray", linestyle=":", linewidth=1)
    curves.set(xlabel="cycles per pixel of the window", ylabel="amplitude shown", ylim=(0, 1.4))
    curves.legend(fontsize=7, ncols=2, loc="upper right")


BENCHMARK = Benchmark(
    settings=lambda asked, lines: (
        facts_of(*which) | sizes for which in READERS for sizes in grid(**SIZES)
    ),
    measure=program("antialiasing"),
    tiny=[
        facts_of(*which) | {"stride": 2, "window": 4, "frequencies": 2} for which in READERS[1::3]
    ],
    table=write,
    draw=draw,
    figure="antialiasing",
    inches=(11.0, 3.4),
)
