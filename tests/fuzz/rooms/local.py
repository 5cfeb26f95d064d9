"""Oracles of ``local``: linear components, whose losses and their slopes are in closed form."""

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import local
from tests.fuzz import draw
from tests.fuzz.compare import EPS, LOST, Near
from tests.fuzz.program import Program

ROUNDINGS = 64
"""Of a number that a few products of matrices with few columns have made."""


def product(one, two):
    return jnp.matmul(one.astype(jnp.float32), two, precision=jax.lax.Precision.HIGHEST)


def component(case, number):
    """Four linear functions of matrices ``forward1``, ``bridge1``, ... among the arguments."""
    names = local.Component._fields
    parts = [lambda x, name=name: product(x, case[f"{name}{number}"]) for name in names]
    return local.Component(*parts)


def network(rng):
    """Widths of what is kept of the input, and of what is told of the target."""
    depth = int(rng.integers(1, 4))
    widths, targets = rng.integers(1, 5, depth + 1), rng.integers(1, 5, depth + 1)
    shapes = {}
    for n in range(1, depth + 1):
        shapes[f"forward{n}"] = widths[n - 1], widths[n]
        shapes[f"bridge{n}"] = widths[n], targets[n]
        shapes[f"encode{n}"] = targets[n - 1], targets[n]
        shapes[f"decode{n}"] = targets[n], targets[n - 1]
    lead = draw.pick(rng, (1,), (3,), (2, 2))
    return depth, shapes, (*lead, int(widths[0])), (*lead, int(targets[0]))


def losses(rng):
    depth, shapes, x, target = network(rng)
    kind, whole = draw.dtype(rng), bool(rng.random() < 0.3)
    slopes = (*shapes, "x") if whole else (*shapes, "x", "target")

    def arguments(rng):
        case = {name: draw.reals(rng, shape) for name, shape in shapes.items()}
        told = rng.integers(-2, 3, target).astype(np.int32) if whole else draw.reals(rng, target)
        return case | {"x": draw.reals(rng, x, kind), "target": told}

    def run(x, target, **matrices):
        parts = [component(matrices, n) for n in range(1, depth + 1)]
        found = local.associated_losses(parts, x, target)
        y = jnp.concatenate([found.association, found.reconstruction])
        return {"y": y, "total": found.total, "output": found.output}

    def expect(case, got):
        near, values = {}, np.zeros((2, depth))
        off = np.zeros((2, depth))
        s, t = (Sized(case[name], np.abs(case[name])) for name in ("x", "target"))
        for n in range(1, depth + 1):
            new_s, new_t = through(case, f"forward{n}", s), through(case, f"encode{n}", t)
            pairs = (("forward", "bridge", s, new_s, new_t), ("encode", "decode", t, new_t, t))
            for row, (first, second, before, between, wanted) in enumerate(pairs):
                weight = case["weights"].reshape(2, depth)[row, n - 1]
                one = distance(case, (f"{first}{n}", f"{second}{n}"), (before, between), wanted)
                values[row, n - 1], off[row, n - 1] = one[0]
                for name, slope in zip((f"{first}{n}", f"{second}{n}"), one[1:], strict=True):
                    near[f"d_{name}"] = Near(
                        weight * slope.value, EPS * ROUNDINGS * np.abs(weight) * slope.size + LOST
                    )
            s, t = new_s, new_t
        for name in ("x", "target"):
            near[f"d_{name}"] = Near(np.zeros_like(case[name], np.float64))
        near["y"] = Near(values.reshape(-1), off.reshape(-1))
        near["total"] = Near(values.sum(), off.sum() + 8 * depth * EPS * values.sum())
        return near | {"output": Near(s.value, EPS * ROUNDINGS * s.size + LOST)}

    options = {"depth": depth, "x": x, "target": target, "dtype": str(kind), "whole": whole}
    return Program("associated_losses", options, arguments, run, expect, slopes=slopes)


class Sized:
    """Numbers, and the sizes of what they are summed of."""

    def __init__(self, value, size):
        self.value, self.size = value, size


def through(case, name, given):
    return Sized(given.value @ case[name], given.size @ np.abs(case[name]))


def distance(case, names, given, wanted):
    """The loss behind two matrices with its allowance, and its slopes for both."""
    before, between = given
    guess = through(case, names[1], between)
    rest = Sized(guess.value - wanted.value, guess.size + wanted.size)
    slip = EPS * ROUNDINGS * rest.size
    loss = np.mean(rest.value**2)
    off = np.mean(2 * np.abs(rest.value) * slip + slip**2) + ROUNDINGS * EPS * loss + LOST
    scale = 2 / rest.value.size

    def outer(one, two):
        return scale * one.reshape(-1, one.shape[-1]).T @ two.reshape(-1, two.shape[-1])

    matrix = case[names[1]]
    first = Sized(
        outer(before.value, rest.value @ matrix.T),
        outer(before.size, rest.size @ np.abs(matrix).T),
    )
    second = Sized(outer(between.value, rest.value), outer(between.size, rest.size))
    return (loss, off), first, second


def predictions(rng):
    depth, shapes, x, _ = network(rng)
    leave, kind = int(rng.integers(1, depth + 1)), draw.dtype(rng)
    exit_at = None if leave == depth and rng.random() < 0.5 else leave
    way = [f"forward{n}" for n in range(1, leave + 1)] + [f"bridge{leave}"]
    way += [f"decode{n}" for n in range(leave, 0, -1)]

    def arguments(rng):
        case = {name: draw.reals(rng, shape) for name, shape in shapes.items()}
        return case | {"x": draw.reals(rng, x, kind)}

    def run(x, **matrices):
        parts = [component(matrices, n) for n in range(1, depth + 1)]
        return {"y": local.associated_predict(parts, x, exit_at=exit_at)}

    def expect(case, got):
        y, back = Sized(case["x"], np.abs(case["x"])), case["weights"]
        back = Sized(back, np.abs(back))
        for name in way:
            y = through(case, name, y)
        for name in reversed(way):
            back = Sized(back.value @ case[name].T, back.size @ np.abs(case[name]).T)
        return {
            "y": Near(y.value, EPS * ROUNDINGS * y.size + LOST),
            "d_x": Near(back.value, EPS * ROUNDINGS * back.size + LOST),
        }

    options = {"depth": depth, "x": x, "exit_at": exit_at, "dtype": str(kind)}
    return Program("associated_predict", options, arguments, run, expect, slopes=("x",))


FAMILIES = (losses, predictions)
