"""Which plan is taken: the first, from the cheapest on, whose gradient keeps to the budget."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.remat.gradients import gradient_maker
from sparse_hyper_jax.remat.live import live_peak
from sparse_hyper_jax.remat.measure import Measured, compile_plan
from sparse_hyper_jax.remat.plan import Plan, frontier
from sparse_hyper_jax.remat.traced import Function, Traced

LITTLE = 1.01
"""A plan that saves less than this factor is not worth what it computes again."""

ON_OLD_CPUS = (
    "on a CPU before JAX 0.11.1 set XLA_FLAGS=--xla_disable_hlo_passes=cse_barrier_expander before "
    "JAX is imported, or choose barrier='cond'"
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of :func:`budgeted_checkpoint`, checked."""

    budget: float
    objective: str
    measure: bool
    points: int
    family: str
    barrier: str
    of: Callable[[Function], Function] | None


class Choice(NamedTuple):
    """What was looked at, and what was taken.

    Attributes:
        budget: bytes that temporaries may take.
        tried: plans, plain first.
        found: bytes of temporaries of each.
        measured: of the same plans, if they were compiled; if not, ``found`` are estimates.
        taken: number of the plan that is taken.
    """

    budget: int
    tried: tuple[Plan, ...]
    found: tuple[int, ...]
    measured: tuple[Measured, ...]
    taken: int

    @property
    def plan(self) -> Plan:
        """The plan that is taken."""
        return self.tried[self.taken]


def gradient_of(whole: Traced, plan: Plan, options: Options) -> Function:
    """Make the gradient whose memory counts, at the plan."""
    of = options.of or gradient_maker(whole)
    return of(whole.cut(plan.chain, options.barrier, list(whole.program.constants.values())))


def choose(whole: Traced, options: Options) -> Choice:
    """Walk from the cheapest plan to the tightest.

    Raises:
        ValueError: no plan keeps to the budget.
    """
    plans = frontier(whole.nodes.graph, options.family, options.points)
    # What names axes of a mesh or of a map is not whole by itself, and cannot be compiled.
    compiles = options.measure and whole.program.alone
    of = options.of or gradient_maker(whole)
    args, kwargs = whole.tree.unflatten(whole.leaves)
    found: list[int] = []
    measured: list[Measured] = []
    budget, fits = 0, False
    for plan in plans:
        if compiles:
            measured.append(compile_plan(whole, plan, of, options.barrier))
            found.append(measured[-1].temporary_bytes)
        else:
            found.append(live_peak(gradient_of(whole, plan, options), *args, **kwargs))
        budget = options.budget if isinstance(options.budget, int) else options.budget * found[0]
        fits = found[-1] <= budget
        if fits and options.objective == "time":
            break
    least = min(found)
    require(
        least <= budget,
        f"a budget of {budget:,.0f} bytes for a gradient that takes {found[0]:,} as it is, and "
        f"{least:,} with the best of {len(plans)} plans",
        f"at least {least:,} bytes",
        f"raise the budget, or points to try more plans; {ON_OLD_CPUS}",
    )
    allowed = budget if options.objective == "time" else min(budget, LITTLE * least)
    taken = next(number for number, one in enumerate(found) if one <= allowed)
    return Choice(int(budget), plans[: len(found)], tuple(found), tuple(measured), taken)
