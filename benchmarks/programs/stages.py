"""Every arrow and the whole training step of the identity layer."""

import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.lines import ROOT, Facts, Line
from benchmarks.programs.identity_step import (
    BATCH,
    SAMPLING,
    bound,
    make_steps,
    raw_parameters,
    start,
)
from benchmarks.runner import Asked
from benchmarks.timing import compiled, interleaved, temporary_bytes
from sparse_hyper_jax import ops

STEPS_PER_CALL = 20
LARGEST_TABLE = 512
"""Largest size whose whole table of proportions is timed; the steps never hold it."""


def stages(size: int) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...], bool]]:
    """Name every stage: function, arguments, and whether it has a gradient."""
    shape, keys = (size, size), jax.random.split(jax.random.key(0), 3)
    raw = raw_parameters(size)
    tuples = bound(raw)
    points = ops.sample_tuples(keys[0], tuples.means, shape, **SAMPLING).reshape(-1, 2)
    mask = ops.first_occurrence(points, shape)
    entries = jax.random.normal(keys[1], (len(points),))
    x = jax.random.normal(keys[2], (size, BATCH))

    def sample(means: jax.Array) -> jax.Array:
        return ops.sample_tuples(keys[0], means, shape, **SAMPLING)

    def multiply(values: jax.Array, x: jax.Array) -> jax.Array:
        return ops.sparse_multiply(points, values, x, (size,))

    def proportions(means: jax.Array, variances: jax.Array) -> jax.Array:
        return ops.proportions(points, mask, means, variances)

    named = {
        "bounds": (lambda raw: bound(raw)[:2], (raw,), True),
        "sample": (sample, (tuples.means,), False),
        "duplicates": (lambda points: ops.first_occurrence(points, shape), (points,), False),
        "proportions": (proportions, (tuples.means, tuples.variances), True),
        "mix": (lambda *tuples: ops.mix_values(points, mask, *tuples), tuple(tuples), True),
        "multiply": (multiply, (entries, x), True),
    }
    return {k: v for k, v in named.items() if k != "proportions" or size <= LARGEST_TABLE}


def gradient_of(function: Callable[..., Any], count: int) -> Callable[..., Any]:
    """Give value and gradient of the sum of squares of the outputs."""

    def scalar(*arguments: Any) -> jax.Array:
        return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(function(*arguments)))

    return jax.value_and_grad(scalar, argnums=tuple(range(count)))


def measure(facts: Facts, asked: Asked) -> list[Line]:
    """Measure all stages of one size, and the step."""
    size = facts["size"]
    named = stages(size).items()
    lines = [{"stage": name} | one_stage(*stage, asked.repeats) for name, stage in named]
    return [*lines, {"stage": "training step"} | whole_step(size, asked.repeats)]


def one_stage(
    function: Callable[..., Any], arguments: tuple[Any, ...], has_gradient: bool, repeats: int
) -> Line:
    """Measure one stage."""
    programs = {"forward": compiled(function, *arguments)[0]}
    if has_gradient:
        programs["gradient"] = compiled(gradient_of(function, len(arguments)), *arguments)[0]
    calls = {kind: partial(program, *arguments) for kind, program in programs.items()}
    times = interleaved(calls, repeats=repeats)
    return {
        "forward_ms": round(times["forward"], 4),
        "gradient_ms": round(times["gradient"], 4) if has_gradient else None,
        "temporary_bytes": temporary_bytes(programs["gradient" if has_gradient else "forward"]),
    }


def whole_step(size: int, repeats: int) -> Line:
    """Measure the training step, and the peak of a process that does nothing else."""
    count = max(1, min(STEPS_PER_CALL, 4096 // size))
    arguments = (start(raw_parameters(size)), jax.random.key(1))
    program, seconds = compiled(make_steps(count), *arguments)
    calls = {"step": partial(program, *arguments)}
    milliseconds = interleaved(calls, repeats=max(1, min(5, repeats), repeats // 4))["step"]
    command = [sys.executable, "-m", __name__, str(size)]
    peak = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {
        "gradient_ms": round(milliseconds / count, 4),
        "compile_seconds": round(seconds, 2),
        "temporary_bytes": temporary_bytes(program),
        "process_peak_bytes": int(peak.stdout),
    }


if __name__ == "__main__":
    arguments = (start(raw_parameters(int(sys.argv[1]))), jax.random.key(1))
    jax.block_until_ready(jax.jit(make_steps(2))(*arguments))
    print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
