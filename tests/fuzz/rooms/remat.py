"""Oracles of ``remat``: what recomputation changes is memory, and neither values nor slopes."""

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import remat
from sparse_hyper_jax.remat.traced import traced
from tests.fuzz import draw
from tests.fuzz.compare import EPS, LOST, Near
from tests.fuzz.program import Program

WIDTH = 3
UNARY = {
    "sin": (jnp.sin, np.sin),
    "tanh": (jnp.tanh, np.tanh),
    "relu": (jax.nn.relu, lambda v: np.maximum(v, 0)),
    "turn": (lambda v: jnp.flip(v.T.reshape(-1)).reshape(v.shape), None),
    "half": (lambda v: v / 2, lambda v: v / 2),
    "centre": (lambda v: v - jnp.mean(v, 0, keepdims=True), lambda v: v - v.mean(0, keepdims=True)),
}
UNARY["turn"] = (UNARY["turn"][0], lambda v: np.flip(v.T.reshape(-1)).reshape(v.shape))
BINARY = {
    "add": (jnp.add, np.add),
    "mul": (lambda v, w: v * jnp.tanh(w), lambda v, w: v * np.tanh(w)),
    "dot": (lambda v, w: jnp.matmul(v, w, precision="highest") / 2, lambda v, w: v @ w / 2),
    "where": (lambda v, w: jnp.where(v > w, v, w / 2), lambda v, w: np.where(v > w, v, w / 2)),
}
FREE = ("jit", "scan", "cond", "none")


def drawn_steps(rng):
    """A small graph: every step reads one or two of the values before."""
    steps = []
    for number in range(2, 2 + int(rng.integers(1, 12))):
        one, two = (int(rng.integers(0, number)) for _ in range(2))
        table = UNARY if rng.random() < 0.5 else BINARY
        name = list(table)[rng.integers(len(table))]
        steps.append((name, one, two, FREE[rng.integers(len(FREE))]))
    return steps


def followed(steps, which, x, y):
    """Compute all values by JAX, with what wraps a step, or by NumPy."""
    values = [x, y]
    for name, one, two, wrap in steps:
        table = UNARY if name in UNARY else BINARY
        args = [values[one]] if name in UNARY else [values[one], values[two]]
        function = table[name][which]
        values.append(function(*args) if which else wrapped(function, wrap)(*args))
    return values[-1]


def wrapped(function, wrap):
    """The same function, behind something that a tracer has to open or to leave alone."""
    if wrap == "jit":
        return jax.jit(function)
    if wrap == "scan":
        return lambda *args: jax.lax.scan(lambda c, _: (c, function(*args)), 0, None, 1)[1][0]
    if wrap == "cond":
        return lambda *args: jax.lax.cond(args[0].shape[0] > 0, function, function, *args)
    return function


def cut_by_plan(function, x, y, *, family, barrier, points, number):
    """Realise one plan of a frontier, whatever it takes: small functions are best left plain."""
    plans = remat.plan(function, x, y, family=family, points=points)
    whole = traced(function, (x, y), {})
    constants = list(whole.program.constants.values())
    return whole.cut(plans[number % len(plans)].chain, barrier, constants)


def recomputed(rng):
    steps, chosen = drawn_steps(rng), bool(rng.random() < 0.3)
    options = {
        "family": draw.pick(rng, "thin", "closures", "all"),
        "barrier": draw.pick(rng, "checkpoint", "cond"),
        "points": int(rng.integers(2, 6)),
    }
    choice = {"objective": draw.pick(rng, "memory", "time"), "measure": False}
    number = int(rng.integers(1, 5))

    def function(x, y):
        return followed(steps, 0, x, y)

    def run(x, y, cotangent):
        if chosen:
            lean = remat.budgeted_checkpoint(function, 1.0, **options, **choice)
        else:
            lean = cut_by_plan(function, x, y, number=number, **options)
        value, pull = jax.vjp(lean, x, y)
        plain, pull_plain = jax.vjp(function, x, y)
        names = ("y", "plain", "slope_x", "slope_y", "plain_x", "plain_y")
        both = (value, plain, *pull(cotangent), *pull_plain(cotangent))
        return dict(zip(names, both, strict=True))

    def expect(case, got):
        value = followed(steps, 1, case["x"], case["y"])
        # What flips at a kink by rounding is not compared; the planned and the plain one agree.
        kinks = any(name in ("where", "relu") for name, *_ in steps)
        size = 1 + np.abs(value).max(initial=0)
        near = {"y": Near(got["plain"], 8 * EPS * size), "plain": None}
        if not kinks:
            near["plain"] = Near(value, 64 * EPS * (1 + len(steps)) * size * 8)
        for name in ("x", "y"):
            plain = got[f"plain_{name}"].astype(np.float64)
            allowed = 64 * EPS * (np.abs(plain).max(initial=0) + size) + LOST
            near[f"slope_{name}"] = Near(plain, allowed)
        return near

    return Program(
        "budgeted_checkpoint" if chosen else "plan",
        {"steps": tuple(steps), "number": number, **options, **choice},
        lambda rng: {name: draw.reals(rng, (WIDTH, WIDTH)) for name in ("x", "y", "cotangent")},
        run,
        expect,
    )


FAMILIES = (recomputed,)
