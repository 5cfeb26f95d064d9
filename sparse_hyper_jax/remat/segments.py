"""Segments that realise a plan: each keeps what it reads, and runs again for its gradient.

One checkpoint around a whole function would be one block of recomputation: what is kept between
the passes falls, but not the peak. One for every segment lowers the peak; the last one has none.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from sparse_hyper_jax.remat.barriers import GUARDS
from sparse_hyper_jax.remat.costs import is_free
from sparse_hyper_jax.remat.graph import Nodes
from sparse_hyper_jax.remat.program import Atom, Program, Step, outputs_of, run


class Segment(NamedTuple):
    """A part of a program.

    Attributes:
        steps: its nodes, and the views that they read, in the program's order.
        reads: values from earlier segments, arguments and constants.
        writes: values that later segments or the results read.
    """

    steps: tuple[Step, ...]
    reads: tuple[int, ...]
    writes: tuple[int, ...]


def segments_of(program: Program, nodes: Nodes, chain: tuple[int, ...]) -> list[Segment]:
    """Cut a program along a chain of lower sets."""
    owned = _owned(nodes, chain)
    found: list[Segment] = []
    wanted: set[int] = set()
    for number in reversed(range(len(owned))):
        ends = program.outputs if number == len(owned) - 1 else ()
        steps, reads = _closed(program, nodes, owned[number], ends)
        written = [value for step in owned[number] for value in program.steps[step].writes]
        writes = tuple(value for value in written if value in wanted)
        wanted |= reads
        parts = tuple(program.steps[step] for step in sorted(steps))
        found.append(Segment(parts, tuple(sorted(reads)), writes))
    return found[::-1]


def _owned(nodes: Nodes, chain: tuple[int, ...]) -> list[list[int]]:
    """List the steps that are the nodes of each segment."""
    owned: list[list[int]] = [[] for _ in chain]
    for node, step in enumerate(nodes.step_of):
        owned[next(n for n, one in enumerate(chain) if one >> node & 1)].append(step)
    return owned


def _closed(
    program: Program, nodes: Nodes, own: list[int], ends: Iterable[Atom]
) -> tuple[set[int], set[int]]:
    """Add the views that steps and ends read; give all steps, and the values from elsewhere."""
    steps, reads, mine = set(own), set(), set(own)
    open_: list[Atom] = [*ends, *(atom for step in own for atom in program.steps[step].reads)]
    while open_:
        value = open_.pop()
        if not isinstance(value, int) or value in reads:
            continue
        writer = nodes.writer.get(value)
        if writer is None or (writer not in mine and not is_free(program.steps[writer].equation)):
            reads.add(value)
        elif writer not in steps:
            steps.add(writer)
            open_ += program.steps[writer].reads
    return steps, reads


def run_segments(
    program: Program,
    segments: list[Segment],
    inputs: Iterable[Any],
    constants: Iterable[Any],
    barrier: str,
) -> Any:
    """Run a program segment by segment.

    Args:
        program: what is run.
        segments: all of its steps.
        inputs: leaves of the arguments.
        constants: arrays in the order of ``program.constants``.
        barrier: what keeps a compiler from computing only once; a key of ``GUARDS``.

    Returns:
        the function's results.
    """
    values = dict(zip(program.inputs, inputs, strict=True))
    values.update(zip(program.constants, constants, strict=True))
    run(program.keys, values)
    for segment in segments[:-1]:
        guarded = GUARDS[barrier](_body_of(segment))
        results = guarded(*(values[value] for value in segment.reads))
        values.update(zip(segment.writes, results, strict=True))
    run(segments[-1].steps, values)
    return outputs_of(program, values)


def _body_of(segment: Segment) -> Callable[..., tuple[Any, ...]]:
    """Make a function of what a segment reads."""

    def body(*arrays: Any) -> tuple[Any, ...]:
        values = dict(zip(segment.reads, arrays, strict=True))
        run(segment.steps, values)
        return tuple(values[value] for value in segment.writes)

    return body
