"""A function at the shapes of its arguments, from tracing to cutting."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from sparse_hyper_jax.entrance import check_function
from sparse_hyper_jax.remat.graph import Nodes, nodes_of
from sparse_hyper_jax.remat.program import Program, leaves_of, trace
from sparse_hyper_jax.remat.segments import run_segments, segments_of

Function = Callable[..., Any]


class Traced(NamedTuple):
    """A function at the shapes of its arguments, ready to be cut."""

    program: Program
    nodes: Nodes
    leaves: list[Any]
    tree: Any

    def cut(self, chain: tuple[int, ...], barrier: str, constants: Any) -> Function:
        """Make the function that runs by the segments of a chain."""
        segments = segments_of(self.program, self.nodes, chain)

        def planned(*args: Any, **kwargs: Any) -> Any:
            leaves = jax.tree.leaves((args, kwargs))
            return run_segments(self.program, segments, leaves, constants, barrier)

        return planned


def traced(fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Traced:
    """Trace a function for planning."""
    check_function("fn", fn)
    leaves, tree = leaves_of(args, kwargs)
    program = trace(fn, leaves, tree)
    return Traced(program, nodes_of(program), leaves, tree)
