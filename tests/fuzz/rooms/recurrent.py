"""Oracles of ``recurrent``: an elementwise linear cell, whose gradients are powers."""

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import recurrent
from tests.fuzz import draw
from tests.fuzz.compare import EPS, LOST, Near
from tests.fuzz.program import Program

D = 2


def cell(a, h, x):
    return a * h + x


def sequence(rng, steps):
    """A factor per unit, a start, and what is read; no power of a factor gets large."""
    return {
        "a": np.clip(draw.reals(rng, (D,)), -1.25, 1.25),
        "h0": draw.reals(rng, (D,)),
        "xs": draw.reals(rng, (steps, D)),
    }


def states_of(case):
    """States from the first on, in which every step begins, and sizes of what they are made of."""
    states, sizes = [case["h0"]], [np.abs(case["h0"])]
    for x in case["xs"]:
        states.append(cell(case["a"], states[-1], x))
        sizes.append(cell(np.abs(case["a"]), sizes[-1], np.abs(x)))
    return np.stack(states), np.stack(sizes)


def slopes_of(case, passed, reach=None):
    """Slopes of ``sum(weights * states)``, and the sizes of what they are summed of.

    Args:
        case: its arguments.
        passed: ``(T,)``, what a gradient is multiplied by before it leaves step t backwards.
        reach: ``(T,)``, the first step that the loss of step t reaches.
    """
    states, sizes = states_of(case)
    weights = case["weights"]
    result = {"a": 0.0, "h0": 0.0, "xs": np.zeros_like(case["xs"])}
    size = {name: np.abs(value) for name, value in result.items()}
    for t in range(len(weights)):
        g, scale = weights[t], np.abs(weights[t])
        first = 0 if reach is None else reach[t]
        for j in range(t, first - 1, -1):
            result["a"] = result["a"] + g * states[j]
            size["a"] = size["a"] + scale * sizes[j]
            result["xs"][j] += g
            size["xs"][j] += scale
            g, scale = g * case["a"] * passed[j], scale * np.abs(case["a"] * passed[j])
        if first == 0:
            result["h0"], size["h0"] = result["h0"] + g, size["h0"] + scale
    return result, size


def compared(case, passed, reach=None, *, start=True):
    """Expect states as ``y``, and their slopes."""
    states, sizes = states_of(case)
    steps = len(states)
    slopes, slope_sizes = slopes_of(case, passed, reach)
    near = {
        f"d_{name}": Near(slopes[name], EPS * (8 * steps + 32) * slope_sizes[name] + LOST)
        for name in (("a", "h0", "xs") if start else ("a", "xs"))
    }
    return near | {"y": Near(states[1:], EPS * (4 * steps + 8) * sizes[1:] + LOST)}


def scans(rng):
    """Scans of a whole sequence: plain backwards, cut every lag steps, weighted before a step."""
    steps, kind = int(rng.integers(1, 10)), draw.pick(rng, "checkpointed", "truncated", "weighted")
    lag = int(rng.integers(1, steps + 2))
    segments = draw.pick(rng, None, int(rng.integers(1, steps + 1)))

    def arguments(rng):
        passed = rng.choice([0.0, 0.5, 1.0, 1.5], steps).astype(np.float32)
        return sequence(rng, steps) | {"passed": passed}

    def run(a, h0, xs, passed):
        if kind == "checkpointed":

            def step(h, x):
                h = cell(a, h, x)
                return h, h

            return {"y": recurrent.checkpointed_scan(step, h0, xs, segments=segments)[1]}
        if kind == "truncated":
            return {"y": recurrent.tbptt_scan(cell, a, h0, xs, lag=lag)[1]}
        return {"y": recurrent.weighted_scan(cell, a, h0, xs, passed)[1]}

    def expect(case, got):
        if kind == "weighted":
            return compared(case, case["passed"])
        reach = [t // lag * lag for t in range(steps)] if kind == "truncated" else None
        return compared(case, np.ones(steps), reach, start=kind == "checkpointed")

    return Program(
        {"checkpointed": "checkpointed_scan", "truncated": "tbptt_scan"}.get(kind, "weighted_scan"),
        {"steps": steps, "lag": lag, "segments": segments},
        arguments,
        run,
        expect,
        slopes=("a", "xs") if kind == "truncated" else ("a", "h0", "xs"),
    )


def windows(rng):
    """``tbptt_windows`` and ``window_scan``: every loss once, from the state of a whole pass."""
    steps, form = int(rng.integers(1, 10)), draw.pick(rng, "buffer", "disjoint")
    lag = int(rng.integers(1, steps + 2))
    table = recurrent.tbptt_windows(steps, lag, form=form)

    def run(a, h0, xs):
        def window(h, both):
            run_steps, counts = both
            states, h = recurrent.window_scan(cell, a, h, xs, run_steps, carry=table.carry)
            # Every step counts in one window: a sum over windows puts each in its place.
            placed = jnp.zeros((steps, D)).at[run_steps].add(jnp.where(counts[:, None], states, 0))
            return h, placed

        both = jnp.asarray(table.steps), jnp.asarray(table.losses)
        return {"y": jax.lax.scan(window, h0, both)[1].sum(axis=0)}

    def expect(case, got):
        reach = np.zeros(steps, int)
        for run_steps, counts in zip(table.steps, table.losses, strict=True):
            reach[run_steps[counts]] = run_steps[run_steps >= 0].min()
        return compared(case, np.ones(steps), reach, start=False)

    return Program(
        "window_scan",
        {"steps": steps, "lag": lag, "form": form},
        lambda rng: sequence(rng, steps),
        run,
        expect,
        slopes=("a", "xs"),
    )


def lags(rng):
    """Gradients of the last loss by lag, their sizes, and the bias of every truncation."""
    steps, rows = int(rng.integers(1, 9)), int(rng.integers(1, 4))

    def arguments(rng):
        case = sequence(rng, steps)
        case["h0"] = draw.reals(rng, (rows, D))
        case["xs"] = draw.reals(rng, (steps, rows, D))
        return case | {"target": draw.reals(rng, (rows, D)), "lag": rng.integers(1, steps + 1)}

    def run(a, h0, xs, target, lag):
        def loss(a, h):
            return jnp.mean(jnp.sum(h * target, axis=-1))

        gradients = recurrent.lag_gradients(cell, loss, a, h0, xs)
        norms = recurrent.lag_norms(gradients, rows=rows)

        def of_lag(a):
            return recurrent.truncated_loss(cell, loss, a, h0, xs, lag=lag)

        value, slope = jax.value_and_grad(of_lag)(a)
        biases = recurrent.bias_by_lag(cell, loss, a, h0, xs)
        whole = jax.grad(lambda a: recurrent.truncated_loss(cell, loss, a, h0, xs, lag=steps))(a)
        return {
            "gradients": gradients,
            "phi": norms.phi,
            "cum": norms.cum,
            "value": value,
            "slope": slope,
            # A gradient of 0 has no relative bias.
            "biases": jnp.where(jnp.any(whole != 0), biases, 0),
        }

    def expect(case, got):
        states, sizes = states_of(case)
        powers = case["a"] ** np.arange(steps)[:, None]
        gradients = powers[:, None] * case["target"] / rows
        whole = gradients * rows
        sums = whole.mean(axis=1).cumsum(axis=0)
        sum_sizes = np.abs(whole).mean(axis=1).cumsum(axis=0)
        shares = (gradients * states[-2::-1]).sum(axis=1)
        share_sizes = (np.abs(gradients) * sizes[-2::-1]).sum(axis=1)
        until = shares.cumsum(axis=0)
        off = EPS * (8 * steps + 16)
        phi = np.linalg.norm(whole, axis=-1).mean(axis=1)
        slope_off = off * share_sizes.sum(axis=0) + LOST
        length = np.linalg.norm(until[-1])
        far = np.linalg.norm(slope_off)
        biases = np.linalg.norm(until[-1] - until, axis=1) / max(length, LOST)
        # Where the whole gradient is rounding, so is what is measured in units of it.
        loose = length <= 64 * far
        bias_off = np.inf if loose else 4 * far * (1 + biases) / length
        return {
            "gradients": Near(gradients, off * np.abs(gradients) + LOST),
            "phi": Near(phi, off * phi + LOST),
            "cum": Near(
                np.linalg.norm(sums, axis=1), off * np.linalg.norm(sum_sizes, axis=1) + LOST
            ),
            "value": Near(
                (states[-1] * case["target"]).sum() / rows,
                off * (sizes[-1] * np.abs(case["target"])).sum() + LOST,
            ),
            "slope": Near(until[case["lag"] - 1], slope_off),
            "biases": Near(got["biases"] if loose else biases, bias_off),
        }

    return Program("lag_gradients", {"steps": steps, "rows": rows}, arguments, run, expect)


def online(rng):
    """``rtrl`` and ``snap1``, exact for an elementwise cell; ``uoro`` is finite, and its states."""
    steps, rule = int(rng.integers(1, 7)), draw.pick(rng, "rtrl", "snap1", "uoro")
    elementwise = bool(rng.random() < 0.5)

    def run(key, a, h0, xs, target):
        made = getattr(recurrent, rule)
        made = made(cell, elementwise=elementwise) if rule == "snap1" else made(cell)

        def step(carry, both):
            h, trace = carry
            (x, key), options = both, {}
            options = {"key": key} if rule == "uoro" else {}
            one = made.step(trace, a, h, x, lambda h: jnp.sum(h * target), **options)
            return (one.h, one.trace), one

        both = (xs, jax.random.split(key, steps))
        _, done = jax.lax.scan(step, (h0, made.init(a, h0)), both)
        return {"h": done.h, "loss": done.loss, "slope": done.gradient}

    def expect(case, got):
        states, sizes = states_of(case)
        off = EPS * (8 * steps + 16)
        target = case["target"]
        near = {
            "h": Near(states[1:], off * sizes[1:] + LOST),
            "loss": Near(
                (states[1:] * target).sum(axis=1), off * (sizes[1:] * np.abs(target)).sum(1) + LOST
            ),
        }
        if rule == "uoro":
            return near
        trace, trace_size, slopes, slope_sizes = 0.0, 0.0, [], []
        for h, size in zip(states, sizes[:-1], strict=False):
            trace = case["a"] * trace + h
            trace_size = np.abs(case["a"]) * trace_size + size
            slopes.append(trace * target)
            slope_sizes.append(trace_size * np.abs(target))
        slopes, slope_sizes = np.stack(slopes[:steps]), np.stack(slope_sizes)
        return near | {"slope": Near(slopes, off * slope_sizes + LOST)}

    return Program(
        rule,
        {"steps": steps, "elementwise": elementwise},
        lambda rng: sequence(rng, steps) | {"target": draw.reals(rng, (D,))},
        run,
        expect,
        keyed=True,
    )


def cuts(rng):
    """``artbp_weights``: cut, or weighed by what is never cut."""
    steps = int(rng.integers(1, 12))

    def arguments(rng):
        chances = rng.choice([0.0, 0.25, 0.5, 0.99], steps)
        return {"chances": chances.astype(np.float32)}

    def run(key, chances):
        made = recurrent.artbp_weights(key, chances)
        return {"cut": made.cut, "weights_": made.weights}

    def expect(case, got):
        whole = 1 / (1 - case["chances"])
        return {
            "cut": Near(got["cut"] & (case["chances"] > 0)),
            "weights_": Near(np.where(got["cut"], 0, whole), 64 * EPS * whole**2),
        }

    return Program("artbp_weights", {"steps": steps}, arguments, run, expect, keyed=True)


FAMILIES = (scans, scans, windows, lags, online, cuts)
