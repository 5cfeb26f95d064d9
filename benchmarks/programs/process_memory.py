"""Memory of a process that runs a program, beside what the compiler plans for it.

Blocks of memory have to go back to the system as soon as they are freed, or a run is measured by
what was left over from another one: start the process with ``ENVIRONMENT``, which has the GNU
allocator map every larger block on its own.
"""

import ctypes
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.timing import compiled, temporary_bytes

ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_MMAP_MAX_": "1000000"}
PRODUCTS = ("conv_general_dilated", "dot_general")


def raised(program: Any, *args: Any) -> int:
    """Run a compiled program; give the bytes by which the peak of this process rises."""
    jax.block_until_ready(program(*args))  # brings in code and threads
    time.sleep(0.3)  # results are there before their temporaries are given back
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts from here
    before = resident("VmRSS")
    jax.block_until_ready(program(*args))
    return resident("VmHWM") - before


def resident(field: str) -> int:
    """Read the bytes of this process that are in memory, now or at the peak."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.split(f"{field}:")[1].split()[0])


def result_bytes(program: Any) -> int:
    """Give the bytes of the results of a compiled program."""
    return int(program.memory_analysis().output_size_in_bytes)


def largest_scratch(function: Callable[..., Any], *args: Any) -> int:
    """Give the most that a product or convolution within a function takes when it runs alone.

    Beyond what the compiler plans: the library behind it packs its operands into blocks of its own.
    """
    return max((_scratch(equation) for equation in _products(function, *args)), default=0)


def _products(function: Callable[..., Any], *args: Any) -> Iterator[Any]:
    """Give one equation of every kind and shape."""
    found = {}
    for equation in _equations(jax.make_jaxpr(function)(*args)):
        if equation.primitive.name in PRODUCTS:
            shapes = [(one.aval.shape, one.aval.dtype) for one in equation.invars]
            found[str((shapes, equation.params))] = equation
    yield from found.values()


def _equations(program: Any) -> Iterator[Any]:
    """Give all equations, also those within others."""
    inner = getattr(program, "jaxpr", program)
    for equation in inner.eqns:
        yield equation
        for leaf in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
            if _is_program(leaf):
                yield from _equations(leaf)


def _is_program(value: Any) -> bool:
    return hasattr(value, "eqns") or hasattr(getattr(value, "jaxpr", None), "eqns")


def _scratch(equation: Any) -> int:
    draw = np.random.default_rng(0)
    args = [
        jax.numpy.asarray(draw.normal(size=one.aval.shape), one.aval.dtype)
        for one in equation.invars
    ]
    program, _ = compiled(lambda *args: equation.primitive.bind(*args, **equation.params), *args)
    return raised(program, *args) - temporary_bytes(program) - result_bytes(program)
