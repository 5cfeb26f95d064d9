"""How every program is timed and its memory counted."""

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import jax
import numpy as np


def interleaved(
    functions: Mapping[Any, Callable[[], Any]],
    *,
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Any, float]:
    """Give the median milliseconds of several functions, called in turn so that noise hits all.

    Args:
        functions: each returns arrays that are waited for.
        repeats: rounds after two for warming up.
        clock: gives seconds; ``time.process_time`` counts those of all cores, but not the waiting
            for others where a machine is shared.

    Returns:
        the medians.
    """
    times: dict[Any, list[float]] = {name: [] for name in functions}
    # In a new order every round: what ran before leaves its data in the caches.
    shuffle, named = np.random.default_rng(0).permutation, list(functions.items())
    for round_number in range(repeats + 2):
        for number in shuffle(len(functions)):
            name, function = named[number]
            start = clock()
            jax.block_until_ready(function())
            if round_number >= 2:
                times[name].append(1e3 * (clock() - start))
    return {name: median(values) for name, values in times.items()}


def compiled(function: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[Any, float]:
    """Compile a function for its arguments; give the program and the seconds that took."""
    start = time.perf_counter()
    program = jax.jit(function, **options).lower(*arguments).compile()
    return program, time.perf_counter() - start


def temporary_bytes(program: Any) -> int:
    """Give the bytes that a compiled program needs beyond its inputs and outputs."""
    return int(program.memory_analysis().temp_size_in_bytes)


def going_on(step: Callable[..., Any], state: Any, *arguments: Any) -> Callable[[], Any]:
    """Compile ``state -> state`` with a donated state; each call goes on from the last one.

    Args:
        step: called with the state and the arguments.
        state: where it starts; copied, since it is given away.
        arguments: the same in every call.

    Returns:
        a function that makes the next state.
    """
    program = jax.jit(step, donate_argnums=0)
    held = [jax.tree.map(jax.numpy.array, state)]

    def run() -> Any:
        held[0] = program(held[0], *arguments)
        return held[0]

    return run
