"""Spread cases over rooms, families and calls."""

import jax

from tests.fuzz import illegal as wrong
from tests.fuzz import legal
from tests.fuzz.calls import CALLS
from tests.fuzz.findings import Findings
from tests.fuzz.rooms import FAMILIES

MANY_PROGRAMS = 40


def fuzz(
    *,
    cases: int = 0,
    illegal: int = 0,
    seed: int = 0,
    room: str | None = None,
    plan: int | None = None,
    per_plan: int = 250,
) -> Findings:
    """Run so many cases of each kind.

    Args:
        cases: legal ones, in proportion to the number of families of a room.
        illegal: likewise, to the number of calls.
        seed: of everything.
        room: this one alone.
        plan: this one alone, of a room.
        per_plan: cases of a plan.

    Returns:
        what was counted and found.
    """
    findings = Findings()
    for name, number in shared_out(cases, FAMILIES, room):
        for done, first in enumerate(range(0, number, per_plan)):
            if plan is not None and plan != done:
                continue
            family = FAMILIES[name][done % len(FAMILIES[name])]
            count = min(per_plan, number - first)
            legal.run_plan(family, name, done, seed=seed, count=count, findings=findings)
            if done % MANY_PROGRAMS == MANY_PROGRAMS - 1:
                # A process may not hold thousands of programs.
                jax.clear_caches()
    for name, number in shared_out(illegal, CALLS, room):
        wrong.run_calls(CALLS[name], name, seed, number, findings)
    return findings


def shared_out(total, table, room):
    """Share out a number of cases among the rooms of a table, or give all to one of them."""
    names = [name for name in table if room in (None, name)]
    weights = [len(table[name]) for name in names]
    done, before = 0, 0
    for name, weight in zip(names, weights, strict=True):
        done += weight
        after = total * done // sum(weights)
        yield name, after - before
        before = after
