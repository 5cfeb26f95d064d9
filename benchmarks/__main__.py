"""The command line of all benchmarks; the docstring of the package says how it is used."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import benchmarks
from benchmarks import runner
from benchmarks.lines import RESULTS, Lines


def parser() -> argparse.ArgumentParser:
    """Make the parser of all options."""
    made = argparse.ArgumentParser("python -m benchmarks")
    add = made.add_argument
    add("name", nargs="?", choices=benchmarks.NAMES, metavar="NAME", help="without it: list all")
    add("--table", action="store_true", help="only print the table")
    add("--draw", action="store_true", help="only print the table and draw the figure")
    add("--tiny", action="store_true", help="run every program once, in small, and keep nothing")
    add("--only", default="", metavar="PATTERN", help="measure settings like 'size=64 seed=[01]'")
    add("--again", action="store_true", help="measure again what has lines, and replace them")
    add("--seeds", type=int, nargs="+", default=(), help="seeds of what is trained")
    add("--repeats", type=int, default=0, help="rounds in which programs are timed")
    add("--mnist", type=Path, metavar="DIR", help="folder of the four MNIST files")
    add("--cluttered", type=Path, metavar="DIR", help="folder of the ready-made cluttered digits")
    add("--text", type=Path, metavar="DIR", help="folder of one text, *.txt or *.txt.gz")
    add("--citations", type=Path, metavar="DIR", help="folder of cora.npz and citeseer.npz")
    add("--fsdd", type=Path, metavar="DIR", help="folder of one npz file of spoken digits")
    add("--nmnist", type=Path, metavar="DIR", help="folder of one npz file of N-MNIST")
    add("--runs", type=Path, metavar="DIR", help="keep run folders there, and go on with them")
    add("--results", type=Path, metavar="DIR", help="folder of the lines and of what is drawn")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what is asked for."""
    given = parser().parse_args(arguments)
    if given.name is None:
        for name in benchmarks.NAMES:
            print(f"{name:26}{runner.load(name).summary}")
        return
    benchmark = runner.load(given.name)
    lines = Lines.of(given.name, given.results or (None if given.tiny else RESULTS))
    if not (given.table or given.draw):
        fields = [field.name for field in dataclasses.fields(runner.Asked)]
        asked = runner.Asked(**{name: getattr(given, name) for name in fields})
        runner.measure(benchmark, asked, lines, only=given.only, again=given.again)
    if not given.tiny:
        runner.show(benchmark, lines, draw=given.draw)


if __name__ == "__main__":
    main()
