"""The training step of the identity layer on meshes of several devices, fake ones on a CPU."""

import math
import re
from collections import Counter
from functools import partial
from typing import Any

import jax

from benchmarks.lines import Facts, Line
from benchmarks.programs.identity_step import identity_loss, make_steps, raw_parameters, start
from benchmarks.runner import Asked
from benchmarks.timing import interleaved, temporary_bytes
from sparse_hyper_jax import dist, ops

STEPS_PER_CALL = 10
MESHES = ((1, 1), (2, 1), (1, 2), (2, 2), (1, 4), (4, 2), (2, 4), (1, 8))
"""Lengths of ``data`` and ``tuples``."""

EXCHANGES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")
BYTES = {"pred": 1, "s32": 4, "u32": 4, "f32": 4}


def compiled_steps(way: str, axes: str, size: int) -> tuple[Any, tuple[Any, jax.Array]]:
    """Compile some training steps as one function; give it and its arguments, on the mesh."""
    mesh = dist.make_mesh(axes)
    multiply = partial(dist.hyperlayer, mesh=mesh) if way == "dist" else ops.hyperlayer
    place = partial(dist.shard_batch, mesh=mesh)
    steps = make_steps(STEPS_PER_CALL, partial(identity_loss, multiply=multiply, place=place))
    state = dist.shard_tuples(start(raw_parameters(size)), mesh)
    arguments = (state, jax.random.key(1))
    placed = (dist.tuple_shardings(state, mesh), None)
    return jax.jit(steps, out_shardings=placed).lower(*arguments).compile(), arguments


def exchanged_bytes(compiled: Any) -> dict[str, int]:
    """Add up the results on one device by kind of exchange; the loop's body is one step."""
    total: Counter[str] = Counter()
    pattern = rf"= (.+?) ({'|'.join(EXCHANGES)})(?:-start)?\("
    for results, kind in re.findall(pattern, compiled.as_text()):
        for dtype, lengths in re.findall(r"([a-z]+\d*)\[([\d,]*)\]", results):
            total[kind] += BYTES[dtype] * math.prod(map(int, filter(None, lengths.split(","))))
    return dict(sorted(total.items()))


def measure(facts: Facts, asked: Asked) -> list[Line]:
    """Measure both ways on all meshes that fit, at one size."""
    size, devices, calls, lines = facts["size"], len(jax.devices()), {}, []
    for data, tuples in MESHES:
        for way in ("dist", "jit"):
            if data * tuples > devices or size % tuples:
                continue
            axes = f"data={data},tuples={tuples}"
            program, arguments = compiled_steps(way, axes, size)
            calls[way, axes] = partial(program, *arguments)
            lines.append(
                {
                    "way": way,
                    "mesh": axes,
                    "devices": data * tuples,
                    "exchanged_bytes": exchanged_bytes(program),
                    "temporary_bytes": temporary_bytes(program),
                }
            )
    times = interleaved(calls, repeats=asked.repeats)
    for line in lines:
        line["step_ms"] = round(times[line["way"], line["mesh"]] / STEPS_PER_CALL, 3)
    return lines
