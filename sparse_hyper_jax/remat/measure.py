"""What plans cost when they are compiled."""

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax

from sparse_hyper_jax.checks import check_choice, require
from sparse_hyper_jax.entrance import check_function, check_instance
from sparse_hyper_jax.remat.barriers import GUARDS, Barrier
from sparse_hyper_jax.remat.costs import bytes_of
from sparse_hyper_jax.remat.families import is_lower
from sparse_hyper_jax.remat.graph import Graph
from sparse_hyper_jax.remat.plan import Plan
from sparse_hyper_jax.remat.traced import Function, Traced, traced


class Measured(NamedTuple):
    """What the gradient of a planned function takes.

    Attributes:
        plan: the plan.
        temporary_bytes: what the compiled program needs beyond arguments and results.
        residual_bytes: what is kept from the forward pass to the backward one, arguments among it.
        flops: operations as the compiler counts them; the body of a loop counts once.
        argument_bytes: what comes on top for arguments.
        output_bytes: what comes on top for results.
        compile_seconds: how long compiling took.

    Example:
        >>> from sparse_hyper_jax import remat
        >>> loss = lambda x: jnp.sum(jnp.sin(x))
        >>> plain, *_ = remat.measure(loss, remat.plan(loss, jnp.ones(8)), jnp.ones(8))
        >>> plain.argument_bytes, plain.output_bytes
        (32, 32)
    """

    plan: Plan
    temporary_bytes: int
    residual_bytes: int
    flops: float
    argument_bytes: int
    output_bytes: int
    compile_seconds: float


def measure(
    fn: Function,
    frontier: Sequence[Plan],
    *args: Any,
    of: Callable[[Function], Function] = jax.grad,
    barrier: Barrier = "checkpoint",
) -> tuple[Measured, ...]:
    """Compile the gradient of a function under every plan, and read what it takes.

    Args:
        fn: the function that was planned.
        frontier: plans of :func:`plan` for the same shapes.
        *args: its arguments, or their shapes and dtypes; nothing is computed.
        of: what makes the gradient of a function; called with the arguments' shapes.
        barrier: what keeps the compiler from computing only once: ``"checkpoint"`` or ``"cond"``;
            see :func:`budgeted_checkpoint`.

    Returns:
        a :class:`Measured` for every plan.

    Raises:
        ValueError: no plans, or those of another function; a function that names axes of a mesh or
            of a map and cannot be compiled by itself.

    Example:
        >>> from sparse_hyper_jax import remat
        >>> def loss(x):
        ...     for _ in range(16):
        ...         x = jnp.sin(x)
        ...     return jnp.sum(x)
        >>> frontier = remat.plan(loss, jnp.ones(256), points=2)
        >>> for one in remat.measure(loss, frontier, jnp.ones(256)):
        ...     print(one.residual_bytes)
        16384
        7168
    """
    check_choice("barrier", barrier, tuple(GUARDS))
    check_function("of", of)
    check_instance("frontier", frontier, tuple, list)
    for one in frontier:
        check_instance("a plan of frontier", one, Plan)
    whole = traced(fn, args, {})
    require(
        whole.program.alone,
        "a function that names axes of a mesh or of a map",
        "one that can be compiled by itself",
        "measure it outside of shard_map, or plan it by budgeted_checkpoint inside",
    )
    require(bool(frontier), "an empty frontier", "at least one plan", "pass what remat.plan gives")
    for one in frontier:
        _check_fits(one, whole.nodes.graph)
    return tuple(compile_plan(whole, one, of, barrier) for one in frontier)


def _check_fits(plan: Plan, graph: Graph) -> None:
    """Raise unless a chain consists of growing lower sets of a graph, up to all of it."""
    count, chain = len(graph.memory), plan.chain
    nodes = max(chain, default=0).bit_length()
    order = ", in another order" if nodes == count else ""
    require(
        chain[-1:] == ((1 << count) - 1,)
        and all(one & other == one for one, other in pairwise(chain))
        and all(is_lower(graph, one) for one in chain),
        f"a plan of {nodes} nodes for a function of {count}{order}",
        "plans of the same function and shapes",
        "call plan with the arguments of measure",
    )


def compile_plan(
    whole: Traced, plan: Plan, of: Callable[[Function], Function], barrier: str
) -> Measured:
    """Compile the gradient under one plan."""
    program = whole.program
    args, kwargs = whole.tree.unflatten([_shape_of(program.types[n]) for n in program.inputs])
    constants = [_shape_of(program.types[number]) for number in program.constants]

    def gradient(constants: Any, args: Any, kwargs: Any) -> Any:
        return of(whole.cut(plan.chain, barrier, constants))(*args, **kwargs)

    def residuals(constants: Any, args: Any, kwargs: Any) -> Any:
        return jax.vjp(lambda *a: whole.cut(plan.chain, barrier, constants)(*a, **kwargs), *args)[1]

    kept = jax.eval_shape(residuals, constants, args, kwargs)
    start = time.perf_counter()
    compiled = jax.jit(gradient).lower(constants, args, kwargs).compile()
    seconds = time.perf_counter() - start
    memory: Any = compiled.memory_analysis()
    return Measured(
        plan=plan,
        temporary_bytes=int(memory.temp_size_in_bytes),
        residual_bytes=sum(map(bytes_of, jax.tree.leaves(kept))),
        flops=float((compiled.cost_analysis() or {}).get("flops", 0.0)),
        argument_bytes=int(memory.argument_size_in_bytes),
        output_bytes=int(memory.output_size_in_bytes),
        compile_seconds=seconds,
    )


def _shape_of(aval: Any) -> jax.ShapeDtypeStruct:
    weak = bool(getattr(aval, "weak_type", False))
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=weak)
