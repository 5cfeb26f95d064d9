"""The command line of the fuzzer; the docstring of the package says what it does."""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

ROOMS = (
    *("ops", "sort", "glimpse", "estimators", "backprop", "pruning", "reparam", "continual"),
    *("remat", "recurrent", "diagnostics", "nn", "dist", "conv", "attention", "graph"),
    *("spiking", "explain", "local", "memory"),
)
KINDS = ("cases", "illegal", "mismatches", "nan", "silent", "obscure")
PER_PLAN = 250
"""Cases that share a compiled program."""


def parser() -> argparse.ArgumentParser:
    """Make the parser of all options."""
    made = argparse.ArgumentParser("python -m tests.fuzz")
    add = made.add_argument
    add("--cases", type=int, default=0, help="legal cases, over all rooms together")
    add("--illegal", type=int, default=0, help="illegal cases, over all rooms together")
    add("--seed", type=int, default=0)
    add("--room", choices=ROOMS, help="this one alone")
    add("--plan", type=int, help="with --room: this plan alone, as a finding names it")
    add("--per-plan", type=int, default=PER_PLAN, help="legal cases of a compiled program")
    add("--json", type=Path, metavar="PATH", help="append the result to this file")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked for; the exit status says whether anything went wrong."""
    asked = parser().parse_args(arguments)
    prepare()
    from benchmarks.lines import commit, surroundings
    from tests.fuzz.run import fuzz

    before, began = commit(), time.perf_counter()
    findings = fuzz(
        cases=asked.cases if asked.plan is None else asked.per_plan * (asked.plan + 1),
        illegal=asked.illegal,
        seed=asked.seed,
        room=asked.room,
        plan=asked.plan,
        per_plan=asked.per_plan,
    )
    for line in findings.lines():
        print(line, file=sys.stderr)
    found = {kind: findings.total(kind) for kind in KINDS}
    rooms = {
        name: {kind: n for kind, n in sorted(counts.items()) if n}
        for name, counts in findings.counts.items()
    }
    line = {
        "benchmark": "fuzz",
        "commit": before,
        **surroundings(),
        "seed": asked.seed,
        "per_plan": asked.per_plan,
    }
    line |= found | {"seconds": round(time.perf_counter() - began), "rooms": rooms}
    print(json.dumps(line))
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        with asked.json.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    return int(any(found[kind] for kind in ("mismatches", "nan", "silent", "obscure")))


def prepare() -> None:
    """Compile as the suite does, cheaply, but with all passes unless the environment says else."""
    from tests import compiling

    os.environ["XLA_FLAGS"] = compiling.with_cheap_flags(os.environ, version("jaxlib"))


if __name__ == "__main__":
    sys.exit(main())
