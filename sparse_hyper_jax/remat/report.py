"""What people read of a choice: a table of the plans, and memory over the schedule."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from sparse_hyper_jax.remat.choice import Choice, Options, gradient_of
from sparse_hyper_jax.remat.costs import bytes_of
from sparse_hyper_jax.remat.live import live_curve
from sparse_hyper_jax.remat.plan import Plan
from sparse_hyper_jax.remat.traced import Traced

BARS = " ▁▂▃▄▅▆▇█"
COLUMNS = 64


def report_of(whole: Traced, choice: Choice, options: Options) -> str:
    """Write table and drawing."""
    how = "compiled" if choice.measured else "estimated"
    heading = (
        f"budget {choice.budget:,} bytes of temporaries, {how}; "
        f"taken: plan {choice.taken} of {len(choice.tried)} tried"
    )
    return "\n".join([heading, *_table(whole, choice), "", *_drawing(whole, choice, options)])


def _table(whole: Traced, choice: Choice) -> list[str]:
    """Write a row for every plan, and what comes on top of all."""
    heads = ["plan", "segments", "again", "model", "temporaries", "kept", "GFLOP", "seconds"]
    rows = []
    for number, (plan, found) in enumerate(zip(choice.tried, choice.found, strict=True)):
        cells = [
            f"{number}{'*' if number == choice.taken else ''}",
            str(len(plan.chain)),
            f"{plan.overhead:.2f}",
            f"{plan.peak:,}",
            f"{found:,}",
        ]
        if choice.measured:
            one = choice.measured[number]
            cells += [
                f"{one.residual_bytes:,}",
                f"{one.flops / 1e9:.3g}",
                f"{one.compile_seconds:.1f}",
            ]
        rows.append(cells)
    program = whole.program
    inputs = sum(bytes_of(program.types[number]) for number in program.inputs)
    return [
        *_aligned([heads[: len(rows[0])], *rows]),
        f"on top: {inputs:,} bytes of arguments, results of the gradient, and an optimizer's state",
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows]


def _drawing(whole: Traced, choice: Choice, options: Options) -> list[str]:
    """Draw the live bytes of plain backpropagation and of the plan that is taken."""
    named = {"plain": choice.tried[0], f"plan {choice.taken}": choice.plan}
    curves = {name: _curve(whole, plan, options) for name, plan in named.items()}
    top = max(map(max, curves.values()), default=0)
    lines = [f"live bytes from the first equation of the gradient to the last, full bar {top:,}:"]
    return [*lines, *(f"{name:>8} {bars(curve, top)}" for name, curve in curves.items())]


def _curve(whole: Traced, plan: Plan, options: Options) -> list[int]:
    args, kwargs = whole.tree.unflatten(whole.leaves)
    return live_curve(gradient_of(whole, plan, options), *args, **kwargs) or [0]


def bars(curve: Sequence[int], top: int, columns: int = COLUMNS) -> str:
    """Draw numbers as a line of bars, each the largest of its part."""
    columns = min(columns, len(curve))
    edges = [len(curve) * column // columns for column in range(columns + 1)]
    parts = (curve[start:stop] for start, stop in pairwise(edges))
    heights = (-(-max(part) * (len(BARS) - 1) // max(top, 1)) for part in parts)
    return "".join(BARS[height] for height in heights)
