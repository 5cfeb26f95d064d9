"""Settings x seeds -> a measured function -> lines; then the table and the figure of the lines."""

import importlib
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from benchmarks.lines import RESULTS, ROOT, Facts, Line, Lines, commit, surroundings

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line asks for."""

    mnist: Path | None = None
    cluttered: Path | None = None
    text: Path | None = None
    citations: Path | None = None
    fsdd: Path | None = None
    nmnist: Path | None = None
    seeds: Sequence[int] = ()
    """Seeds of what is trained; by default the benchmark's own."""

    repeats: int = 0
    """Rounds in which programs are timed; by default the benchmark's own."""

    runs: Path | None = None
    """Where run folders of recipes stay; those that are there go on."""

    tiny: bool = False
    """Whether it is only tried whether all programs run."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One claim: what is measured, how, and how it is shown."""

    settings: Callable[[Asked, Lines], Iterable[Facts]]
    """Gives the facts of all measurements; it may look at the lines so far for what comes next."""

    measure: Callable[[Facts, Asked], Line | Iterable[Line]]
    """Makes the other fields of the line, or lines, with these facts."""

    tiny: Sequence[Facts]
    """Settings that run every program once, in seconds."""

    table: Callable[[Lines], str] | None = None
    """Writes the tables of the page."""

    draw: "Callable[[Figure, Lines], None] | None" = None
    """Draws ``docs/FIGURE.png``, of ``inches``."""

    figure: str = ""
    inches: tuple[float, float] = (10.0, 3.6)
    seeds: Sequence[int] = range(3)
    repeats: int = 15
    name: str = ""
    """That of its file, as the summary is the first line of its docstring."""

    summary: str = ""


def module_of(name: str) -> ModuleType:
    """Import the file of a benchmark."""
    return importlib.import_module(f"benchmarks.{name}")


def load(name: str) -> Benchmark:
    """Give a benchmark with the name and the summary of its file."""
    module = module_of(name)
    return replace(module.BENCHMARK, name=name, summary=(module.__doc__ or "").split("\n")[0])


def program(name: str) -> Callable[[Facts, Asked], Any]:
    """Give the function ``measure`` of a file in ``programs/``, which imports JAX when called."""

    def measure(facts: Facts, asked: Asked) -> Any:
        return importlib.import_module(f"benchmarks.programs.{name}").measure(facts, asked)

    return measure


def grid(**axes: Iterable[Any]) -> Iterator[Facts]:
    """Combine all values of all facts; the last one changes fastest."""
    return (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))


def measure(benchmark: Benchmark, asked: Asked, lines: Lines, *, only: str, again: bool) -> None:
    """Measure what has no line yet, and keep the lines as they come.

    Calls may run side by side, and one that was interrupted goes on where it stopped.

    Args:
        benchmark: what is measured.
        asked: its options.
        lines: those so far; the new ones are put there.
        only: a pattern in the facts, which read like ``size=64 seed=0``.
        again: measure also what has lines; the new ones replace them.
    """
    asked = replace(
        asked,
        seeds=asked.seeds or benchmark.seeds,
        repeats=asked.repeats or (1 if asked.tiny else benchmark.repeats),
    )
    # The code that runs is that of now, whatever is committed while it runs.
    version, done, count = commit(), [], 0
    for facts in benchmark.tiny if asked.tiny else benchmark.settings(asked, lines):
        count += 1
        lines.refresh()
        known = facts in done or (lines.where(**facts) and not again)
        if known or not re.search(only, " ".join(f"{name}={facts[name]}" for name in facts)):
            continue
        done.append(facts)
        found = benchmark.measure(facts, asked)
        results = [found] if isinstance(found, dict) else list(found)
        common = {"benchmark": benchmark.name, "commit": version, **surroundings()}
        common |= {"tiny": True} if asked.tiny else {}
        # Facts name the lines, so no result may change them.
        lines.put(facts, [common | facts | result | facts for result in results])
        for result in results:
            shown = {name: value for name, value in result.items() if name != "curve"}
            print(json.dumps(facts | shown | facts), flush=True)
    hint = "--again measures them again" if count else "perhaps it needs --mnist DIR"
    print(f"measured {len(done)} of {count} settings; {hint}", file=sys.stderr)


def show(benchmark: Benchmark, lines: Lines, *, draw: bool) -> None:
    """Print the table, and draw the figure if that is asked for."""
    if benchmark.table:
        print(benchmark.table(lines))
    if draw and benchmark.draw and lines.path:
        from matplotlib.figure import Figure

        figure = Figure(figsize=benchmark.inches, layout="constrained")
        benchmark.draw(figure, lines)
        folder = ROOT / "docs" if lines.path.parent == RESULTS else lines.path.parent
        figure.savefig(folder / f"{benchmark.figure}.png", dpi=150)
