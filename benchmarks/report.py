"""What every benchmark shares: where and when it ran, how to time, where the lines go."""

import argparse
import datetime
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

import sparse_hyper_jax

RESULTS = Path(__file__).parent / "results"


def surroundings() -> dict[str, Any]:
    """Describe hardware, versions and date."""
    return {
        "date": datetime.date.today().isoformat(),
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "numpy": np.__version__,
        "sparse_hyper_jax": sparse_hyper_jax.__version__,
    }


class Report:
    """The lines of one benchmark, written one by one; ``append`` keeps those of earlier calls."""

    def __init__(self, name: str, folder: Path = RESULTS, *, append: bool = False):
        self.path = folder / f"{name}.jsonl"
        self.common = {"benchmark": name, **surroundings()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not append:
            self.path.write_text("")

    def add(self, **line: Any) -> None:
        """Append one line and show it."""
        with self.path.open("a") as file:
            file.write(json.dumps({**self.common, **line}) + "\n")
        shown = {name: value for name, value in line.items() if name != "curve"}
        print(json.dumps(shown), flush=True)


def read_lines(name: str) -> list[dict[str, Any]]:
    """Read the lines of a benchmark so far."""
    path = RESULTS / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def mean_and_spread(values: Sequence[float], digits: int) -> str:
    """Write mean ± standard deviation."""
    if not values:
        return "-"
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def percent(values: Sequence[float], digits: int = 1, *, span: bool = True) -> str:
    """Write shares in per cent: mean ± standard deviation, and (lowest to highest)."""
    runs = [100 * value for value in values]
    if not runs:
        return "-"
    if len(runs) == 1:
        return f"{runs[0]:.{digits}f}"
    spread = f" ({min(runs):.{digits}f} to {max(runs):.{digits}f})" if span else ""
    return f"{mean(runs):.{digits}f} ± {stdev(runs):.{digits}f}{spread}"


def train_and_show(
    description: str,
    train: Callable[[int, Path], None],
    *,
    seeds: Sequence[int],
    table: Callable[[], str],
    draw: Callable[[], Figure] | None = None,
    figure: Path | None = None,
) -> None:
    """Read the arguments of a benchmark that trains, and do what they ask for.

    Args:
        description: what ``--help`` says.
        train: makes the lines of a seed that are not there yet, from a folder with MNIST.
        seeds: default of ``--seeds``.
        table: makes the table from the lines.
        draw: makes the figure from the lines.
        figure: where it is saved.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--mnist", type=Path, help="folder of the four MNIST files")
    parser.add_argument("--seeds", type=int, nargs="+", default=seeds)
    parser.add_argument("--table", action="store_true", help="only print the table")
    if draw is not None:
        parser.add_argument("--draw", action="store_true", help="print the table and draw")
    asked = parser.parse_args()
    if asked.mnist is not None:
        for seed in asked.seeds:
            train(seed, asked.mnist)
    elif not (asked.table or getattr(asked, "draw", False)):
        parser.error("pass --mnist DIR to train; --table or --draw show what is there")
    print(table())
    if draw is not None and figure is not None and not asked.table:
        figure.parent.mkdir(exist_ok=True)
        draw().savefig(figure, dpi=150)


def interleaved(functions: Mapping[str, Callable[[], Any]], *, repeats: int) -> dict[str, float]:
    """Give the median milliseconds of several functions, called in turn so that noise hits all.

    Args:
        functions: each returns arrays that are waited for.
        repeats: rounds after two for warming up.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    # In a new order every round: what ran before leaves its data in the caches.
    shuffle, named = np.random.default_rng(0).permutation, list(functions.items())
    for round_number in range(repeats + 2):
        for number in shuffle(len(functions)):
            name, function = named[number]
            start = time.perf_counter()
            jax.block_until_ready(function())
            if round_number >= 2:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: median(values) for name, values in times.items()}


def temporary_bytes(function: Callable[..., Any], *arguments: Any) -> int:
    """Give the bytes that the compiled function needs beyond its inputs and outputs."""
    analysis = jax.jit(function).lower(*arguments).compile().memory_analysis()
    return int(analysis.temp_size_in_bytes)
