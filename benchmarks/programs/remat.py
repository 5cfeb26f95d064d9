"""Gradients with and without recomputation: each setting in a process of its own.

    python -m benchmarks.programs.remat MODEL memory|time SMALL REPEATS

It prints lines as JSON.
"""

import json
import os
import subprocess
import sys
import time
from functools import partial
from importlib.metadata import version
from typing import Any

from benchmarks.lines import ROOT, Facts, Line
from benchmarks.programs.process_memory import (
    ENVIRONMENT,
    largest_scratch,
    raised,
    result_bytes,
)
from benchmarks.runner import Asked

FLAG = "--xla_disable_hlo_passes=cse_barrier_expander"
POINTS = 6
"""Plain backpropagation and five other plans."""


def barriers() -> str:
    """Say whether XLA for the CPU keeps the barriers of a checkpoint, or needs a flag for it."""
    old = tuple(map(int, version("jax").split(".")[:3])) < (0, 11, 1)
    return "kept with a flag" if old else "kept"


def measure(facts: Facts, asked: Asked) -> list[Line]:
    """Run the program of one setting."""
    settings = {"XLA_FLAGS": FLAG if barriers() != "kept" else "", **ENVIRONMENT}
    words = [facts["model"], facts["part"], str(int(asked.tiny)), str(asked.repeats)]
    return json.loads(child(*words, **settings))


def child(*words: str, **settings: str) -> str:
    """Run this file with some words, and give its last line."""
    command = [sys.executable, "-m", "benchmarks.programs.remat", *words]
    environment = os.environ | settings
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return ended.stdout.splitlines()[-1]


def variants(model: str, small: bool) -> tuple[dict[str, Any], Line]:
    """Give gradients by name, and what planning took.

    Returns:
        for every variant a function, its arguments, and facts of its plan.
    """
    import jax

    from benchmarks.programs.remat_models import MODELS
    from sparse_hyper_jax import remat
    from sparse_hyper_jax.remat.traced import traced

    make = MODELS[model]
    loss, args = make(lambda block: block, small)
    dots = jax.checkpoint_policies.dots_saveable
    named = {
        "plain": loss,
        "whole": jax.checkpoint(loss),
        "per block": make(jax.checkpoint, small)[0],
        "dots saveable": jax.checkpoint(loss, policy=dots),
    }
    found: dict[str, Any] = {name: (jax.grad(one), args, {}) for name, one in named.items()}
    start = time.perf_counter()
    plans = remat.plan(loss, *args, points=POINTS)
    seconds = time.perf_counter() - start
    whole = traced(loss, args, {})
    constants = list(whole.program.constants.values())
    for number, plan in enumerate(plans[1:], start=1):
        planned = whole.cut(plan.chain, "checkpoint", constants)
        about = {"segments": len(plan.chain), "overhead": round(plan.overhead, 4)}
        found[f"plan {number}"] = (jax.grad(planned), args, about)
    steps, nodes = len(whole.program.steps), len(whole.nodes.step_of)
    return found, {"equations": steps, "nodes": nodes, "plan_seconds": round(seconds, 2)}


def memory(model: str, small: bool) -> list[Line]:
    """Read what every variant takes, as it is compiled and as it runs."""
    import jax

    from benchmarks.timing import compiled, temporary_bytes

    found, planning = variants(model, small)
    gradient, args, _ = found["plain"]
    scratch = largest_scratch(gradient, *args)
    lines = []
    for name, (gradient, args, about) in found.items():
        program = compiled(gradient, *args)[0]
        lines.append(
            {
                "variant": name,
                "temporary_bytes": temporary_bytes(program),
                "result_bytes": result_bytes(program),
                "scratch_bytes": scratch,
                "process_bytes": raised(program, *args),
                "gigaflops": round(program.cost_analysis()["flops"] / 1e9, 4),
                "argument_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(args)),
                **about,
                **planning,
            }
        )
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def timed(model: str, small: bool, repeats: int) -> list[Line]:
    """Time all variants in turn."""
    from benchmarks.timing import compiled, interleaved

    found, _ = variants(model, small)
    calls = {
        name: partial(compiled(gradient, *args)[0], *args)
        for name, (gradient, args, _) in found.items()
    }
    times = interleaved(calls, repeats=repeats)
    return [
        {"variant": name, "milliseconds": round(one, 3), "ratio": round(one / times["plain"], 3)}
        for name, one in times.items()
    ]


if __name__ == "__main__":
    model, part, small, repeats = sys.argv[1:]
    tiny = small == "1"
    print(json.dumps(memory(model, tiny) if part == "memory" else timed(model, tiny, int(repeats))))
