"""What each differentiable sort teaches a key network, on numbers written with MNIST digits.

All methods share data, key network, optimizer, steps, batches and seeds; only the loss on the
standardised keys differs, always told the right order and nothing else. Relaxations that give a
matrix are trained by the cross-entropy of its entries at the true permutation. Each method's
certainty (the inverse of its softness or temperature) is the best of ``CERTAINTIES`` by the
validation digits after training with seed 0 at ``n = 8``, with further ones, doubled or halved, as
long as the best is at an end; the other seeds and sizes use that one.
Peers: three methods of softjax, where it is installed (Python >= 3.12).
"""

import importlib.util
from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure

from benchmarks.figures import COLOURS, tidy
from benchmarks.lines import Facts, Lines
from benchmarks.runner import Asked, Benchmark, program
from benchmarks.tables import Column, percent, table

# Not softjax's transport, "ot": the linear solver in its gradient fails at such softness.
PEERS = ("softjax softsort", "softjax neuralsort", "softjax sorting_network")
METHODS = ("order_loss", "quicksort", *(PEERS if importlib.util.find_spec("softjax") else ()))
SIZES, CERTAINTIES, TESTED = (4, 8), (3.0, 6.0, 12.0), (4, 8, 16, 32)
COMMON = {"steps": 1_000, "batch": 16, "digits": 3}


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Look for the best certainty of every method, then give the other seeds and sizes."""
    for method in METHODS if asked.mnist else ():
        tried = list(CERTAINTIES)
        for certainty in tried:
            yield {"method": method, "n": 8, "seed": 0, "certainty": certainty, **COMMON}
            best = best_certainty(lines, method)
            if certainty == tried[-1] and best in {min(tried), max(tried)}:
                tried.append(best / 2 if best == min(tried) else best * 2)
        for n in SIZES:
            for seed in asked.seeds:
                best = best_certainty(lines, method)
                yield {"method": method, "n": n, "seed": seed, "certainty": best, **COMMON}


def best_certainty(lines: Lines, method: str) -> float:
    """Choose by validation after seed 0 at n = 8."""
    tried = lines.where(method=method, n=8, seed=0, **COMMON)
    return max(tried, key=lambda line: line["validation"])["certainty"] if tried else CERTAINTIES[0]


def chosen(lines: Lines, method: str, n: int) -> Lines:
    """Choose the runs at the best certainty."""
    return lines.where(method=method, n=n, certainty=best_certainty(lines, method), **COMMON)


def write(lines: Lines) -> str:
    """Write exact match, trained at one length and tested at others."""
    columns = [
        Column(f"test n = {m}", lambda line, m=m: line["test"][str(m)], percent(span=False))
        for m in TESTED
    ]
    rows = (
        ((method, f"{best_certainty(lines, method):g}", n), found)
        for method in lines.each("method")
        for n in SIZES
        if (found := chosen(lines, method, n))
    )
    return table(["loss", "certainty", "trained at n"], rows, columns)


def draw(figure: Figure, lines: Lines) -> None:
    """Draw the error on validation digits against steps, mean and spread over seeds."""
    panels = figure.subplots(1, len(SIZES))
    for ax, n in zip(panels, SIZES, strict=True):
        for method, colour in zip(lines.each("method"), COLOURS, strict=False):
            curves = np.array(chosen(lines, method, n).values("curve"))
            if not len(curves):
                continue
            steps, errors = curves[0, :, 0], 1 - curves[:, :, 1]
            centre, spread = errors.mean(0), errors.std(0, ddof=1)
            width = 2.4 if method == "order_loss" else 1.2
            ax.plot(steps, centre, color=colour, label=method, linewidth=width)
            ends = (centre - spread, centre + spread)
            ax.fill_between(steps, *ends, color=colour, alpha=0.15, linewidth=0)
        ax.set(title=f"{n} numbers of 3 digits", xlabel="steps", ylim=(0, 1))
    tidy(*panels)
    panels[0].set_ylabel("error (1 - exact match)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False)


BENCHMARK = Benchmark(
    settings=settings,
    measure=program("sort_quality"),
    tiny=[
        {"method": method, "n": 4, "seed": 0, "certainty": 6.0, "steps": 2, "batch": 2, "digits": 2}
        for method in METHODS
    ],
    table=write,
    draw=draw,
    figure="sort_quality",
    inches=(9.0, 3.6),
)
