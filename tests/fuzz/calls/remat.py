"""Calls of ``remat``."""

import jax.numpy as jnp

from sparse_hyper_jax import remat
from tests.fuzz import draw
from tests.fuzz.wrong import Call, choice, count, flag, function, thing, tree

X = jnp.ones((2, 3))


def f(x):
    return jnp.sum(jnp.tanh(jnp.sin(x)))


def functions():
    return function(f, lambda x: "text", lambda x: object())


def argument():
    return tree(X, "text", object(), {"a": "b"}, [object()], family="argument")


def budget():
    bad = (0, -1, 1.5, 0.0, -0.5, float("nan"), True, "half", None, [1], 1j)
    return thing(0.9, *bad, number=False)


def budgeted(rng):
    def use(fn, budget, x, **options):
        return remat.budgeted_checkpoint(fn, budget, measure=False, **options)(x)

    arguments = {"fn": functions(), "budget": budget(), "x": argument()}
    arguments |= {"objective": choice("memory"), "family": choice("closures")}
    arguments |= {"points": count(3, 2), "barrier": choice("cond")}
    return Call("remat.budgeted_checkpoint", use, arguments, 3)


def made(rng):
    """What is refused where the function is made already."""
    arguments = {"fn": function(f), "budget": budget(), "objective": choice("time")}
    arguments |= {"measure": flag(False), "points": count(3, 2), "family": choice("all")}
    arguments |= {"of": tree(None, "grad", 3, jnp.ones(2), family="of")}
    return Call("remat.budgeted_checkpoint", remat.budgeted_checkpoint, arguments, 2)


def planned(rng):
    arguments = {"fn": functions(), "x": argument(), "family": choice("thin")}
    arguments["points"] = count(3, 2)
    return Call("remat.plan", remat.plan, arguments, 2)


def measured(rng):
    frontier = remat.plan(f, X)
    wrong = remat.plan(lambda x: jnp.sum(x * 2 + jnp.cos(x) * x), X)
    bad = [(), frontier[0].chain, ("plan",), 3, draw.pick(rng, None, "plans"), wrong]
    arguments = {"fn": function(f), "frontier": tree(frontier, *bad, family="frontier")}
    arguments |= {"x": argument(), "barrier": choice("checkpoint")}
    return Call("remat.measure", remat.measure, arguments, 3)


CALLS = (budgeted, made, planned, measured)
