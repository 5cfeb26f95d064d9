"""Oracles of ``spiking``: a step of a rule that learns, spikes at random, a window of events."""

import itertools

import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import spiking
from tests.fuzz import draw
from tests.fuzz.compare import EPS, LOST, Near
from tests.fuzz.program import Program
from tests.fuzz.rooms.surrogates import psi


def membrane_steps(rng):
    """``membrane_loss_step`` on a grid of eighths: only its gradient and its loss are rounded."""
    sizes = [int(size) for size in rng.integers(1, 5, rng.integers(2, 5))]
    pairs = list(itertools.pairwise(sizes))
    batch = draw.pick(rng, (), (2,), (2, 2))
    threshold, decay = float(draw.pick(rng, 0.5, 1, 1.5)), float(draw.pick(rng, 0, 0.5, 0.75, 1))
    units, scale = draw.pick(rng, None, 2, 7), float(draw.pick(rng, 0.5, 2))
    surrogate = draw.pick(rng, "sigmoid", "superspike", "arctan", "triangle", "boxcar")
    rule = spiking.MembraneRule(
        decay=decay,
        threshold=threshold,
        mask=draw.pick(rng, "xor", "none"),
        reset_traces=bool(rng.random() < 0.7),
        trace_units=units,
        surrogate=surrogate,
        scale=scale,
    )

    def arguments(rng):
        case = {}
        for n, (inputs, outputs) in enumerate(pairs):
            case[f"w{n}"] = rng.integers(-12, 13, (inputs, outputs)) / 8
            case[f"v{n}"] = rng.integers(-16, int(8 * threshold), (*batch, outputs)) / 8
            case[f"e{n}"] = rng.integers(0, 17, (*batch, inputs)) / 8
        case["spikes"] = rng.integers(0, 2, (*batch, sizes[0]))
        case["target"] = rng.integers(0, 2, (*batch, sizes[-1]))
        return {name: array.astype(np.float32) for name, array in case.items()}

    def parts(case, name):
        return [case[f"{name}{n}"] for n in range(len(pairs))]

    def run(**case):
        state = spiking.MembraneState(tuple(parts(case, "v")), tuple(parts(case, "e")))
        given = parts(case, "w"), state, case["spikes"], case["target"]
        found = spiking.membrane_loss_step(*given, rule=rule)
        outputs = {"loss": found.loss}
        groups = {"v": found.state.v, "e": found.state.traces, "s": found.spikes}
        for name, group in (groups | {"g": found.gradient}).items():
            outputs |= {f"{name}{n}": one for n, one in enumerate(group)}
        return outputs

    def expect(case, got):
        near, given, potentials, traces = {}, case["spikes"], [], []
        for n, (w, v, e) in enumerate(zip(*(parts(case, name) for name in "wve"), strict=True)):
            reached, trace = np.minimum(decay * v + given @ w, threshold), decay * e + given
            given = (reached >= threshold).astype(float)
            left = 1 - given.sum(-1, keepdims=True) / (units or w.shape[1])
            shrunk = trace * np.maximum(0, left) if rule.reset_traces else trace
            near |= {f"v{n}": Near(reached * (1 - given)), f"s{n}": Near(given)}
            near[f"e{n}"] = Near(shrunk, 8 * EPS * trace)
            potentials.append(reached)
            traces.append(trace)
        counts = (case["target"] != given) | (rule.mask == "none")
        error = (threshold * case["target"] - potentials[-1]) * counts
        instances = int(np.prod(batch))
        loss = np.sum(error**2) / 2 / instances
        near["loss"] = Near(loss, 32 * EPS * loss)
        back, size = -error, np.abs(error)
        for n in reversed(range(len(pairs))):
            value, room = (
                traces[n].reshape(instances, -1).T @ one.reshape(instances, -1)
                for one in (back, size)
            )
            near[f"g{n}"] = Near(value / instances, 64 * EPS * room / instances + LOST)
            if n:
                slope, off = psi(surrogate, potentials[n - 1] - threshold, scale)
                back = back @ case[f"w{n}"].T * slope
                size = size @ np.abs(case[f"w{n}"]).T * (slope + off / (8 * EPS))
        return near

    options = {"sizes": sizes, "batch": batch, "rule": rule}
    return Program("membrane_loss_step", options, arguments, run, expect)


def decolle_steps(rng):
    """``decolle_step`` on a grid: only losses and slopes are rounded."""
    sizes = [int(size) for size in rng.integers(1, 5, rng.integers(2, 5))]
    pairs, classes = list(itertools.pairwise(sizes)), int(rng.integers(1, 4))
    batch, scale = draw.pick(rng, (), (2,), (2, 2)), float(draw.pick(rng, 0.5, 2))
    alpha, beta, gamma = (float(draw.pick(rng, 0, 0.5, 0.75, 1)) for _ in range(3))
    surrogate = draw.pick(rng, "sigmoid", "superspike", "arctan", "triangle", "boxcar")
    options = {"alpha": alpha, "beta": beta, "gamma": gamma, "surrogate": surrogate, "scale": scale}

    def arguments(rng):
        case = {"spikes": rng.integers(0, 2, (*batch, sizes[0]))}
        case["target"] = rng.integers(0, 9, (*batch, classes)) / 8
        for n, (inputs, outputs) in enumerate(pairs):
            case[f"w{n}"] = rng.integers(-12, 13, (inputs, outputs)) / 8
            case[f"g{n}"] = rng.integers(-8, 9, (outputs, classes)) / 8
            case |= {f"{name}{n}": rng.integers(0, 17, (*batch, inputs)) / 8 for name in "qp"}
            case[f"r{n}"] = rng.integers(-16, 1, (*batch, outputs)) / 8
            case[f"s{n}"] = rng.integers(0, 2, (*batch, outputs))
        return {name: array.astype(np.float32) for name, array in case.items()}

    def parts(case, name):
        return [case[f"{name}{n}"] for n in range(len(pairs))]

    def run(**case):
        layers = zip(*(parts(case, name) for name in "qprs"), strict=True)
        state = [spiking.DecolleLayer(*layer) for layer in layers]
        given = parts(case, "w"), parts(case, "g"), state, case["spikes"], case["target"]
        found = spiking.decolle_step(*given, **options)
        outputs = {f"score{n}": score for n, score in enumerate(found.scores)}
        for n, layer in enumerate(found.state):
            outputs |= {f"{name}{n}": part for name, part in layer._asdict().items()}
        return outputs | {"y": found.losses}

    def expect(case, got):
        near, given, losses = {}, case["spikes"], []
        instances = int(np.prod(batch))
        for n, layer in enumerate(zip(*(parts(case, name) for name in "wgqprs"), strict=True)):
            w, g, q, p, refractory, before = layer
            kept, left = alpha * p + (1 - alpha) * q, gamma * refractory - before
            near |= {f"q{n}": Near(beta * q + (1 - beta) * given), f"p{n}": Near(kept)}
            u = kept @ w + left
            given = (u >= 0).astype(float)
            score = given @ g
            near |= {f"refractory{n}": Near(left), f"spikes{n}": Near(given)}
            near |= {f"score{n}": Near(score), f"d_g{n}": Near(np.zeros_like(g))}
            error = score - case["target"]
            size = np.abs(error)
            losses.append(np.where(size < 1, size**2 / 2, size - 0.5).sum() / instances)
            slope, off = psi(surrogate, u, scale)
            weight, back = case["weights"][n] / instances, np.clip(error, -1, 1)
            value, room = (
                one.reshape(instances, -1)
                for one in (
                    back @ g.T * slope,
                    np.abs(back) @ np.abs(g).T * (slope + off / (8 * EPS)),
                )
            )
            value, room = (kept.reshape(instances, -1).T @ one for one in (value, room))
            near[f"d_w{n}"] = Near(weight * value, 64 * EPS * np.abs(weight) * room + LOST)
        return near | {"y": Near(np.stack(losses), 32 * EPS * np.stack(losses))}

    told = {"sizes": sizes, "batch": batch, "classes": classes} | options
    slopes = tuple(f"{name}{n}" for name in "wg" for n in range(len(pairs)))
    return Program("decolle_step", told, arguments, run, expect, slopes=slopes)


def random_spikes(rng):
    shape, steps, kind = draw.pick(rng, (), (4,), (2, 3)), int(rng.integers(0, 5)), draw.dtype(rng)

    def arguments(rng):
        sure = rng.choice([0.0, 1.0], shape)
        return {"p": np.where(rng.random(shape) < 0.5, sure, rng.random(shape)).astype(kind)}

    def expect(case, got):
        p = np.broadcast_to(case["p"], (steps, *shape))
        return {"y": Near(np.where(p >= 1, 1.0, np.where(p <= 0, 0.0, got["y"] == 1)))}

    def run(p, key):
        return {"y": spiking.poisson_spikes(key, p, steps=steps)}

    options = {"shape": shape, "steps": steps, "dtype": str(kind)}
    return Program("poisson_spikes", options, arguments, run, expect, keyed=True)


def events(rng, steps, count, field):
    """Places of events, of which some lie outside: these are padding."""
    places = rng.integers(-1, np.asarray(field) + 1, (steps, count, 2))
    return np.where(rng.random((steps, count, 1)) < 0.2, -1, places).astype(np.int32)


def addresses(rng):
    field, window = draw.shape(rng, 2, cells=100), draw.shape(rng, 2, cells=30)
    count = int(rng.integers(0, 9))

    def arguments(rng):
        centre = rng.integers(-2, np.asarray(field) + 2).astype(np.int32)
        return {"places": events(rng, 1, count, field)[0], "centre": centre}

    def run(places, centre):
        return {"places": spiking.readdress(places, centre, shape=field, window=window)}

    def expect(case, got):
        places = case["places"]
        moved = places - case["centre"] + np.asarray(window) // 2
        inside = (places >= 0) & (places < field) & (moved >= 0) & (moved < window)
        return {"places": Near(np.where(inside.all(1, keepdims=True), moved, -1))}

    options = {"shape": field, "window": window, "count": count}
    return Program("readdress", options, arguments, run, expect)


def activity(rng):
    field, steps, count = (
        draw.shape(rng, 2, cells=60),
        int(rng.integers(1, 5)),
        draw.pick(rng, 1, 5),
    )
    memory = int(count + rng.integers(0, 7))

    def run(places):
        state, centres = spiking.activity_state(field, memory=memory), []
        for n in range(steps):
            state, centre = spiking.follow_activity(state, places[n])
            centres.append(centre)
        return {"rows": state.rows, "columns": state.columns, "centres": jnp.stack(centres)}

    def expect(case, got):
        seen, centres = np.zeros((0, 2), int), []
        for places in case["places"]:
            inside = ((places >= 0) & (places < field)).all(1)
            seen = np.concatenate([seen, places[inside]])[-memory:]
            ranked, middle = np.sort(seen, axis=0), np.asarray(field) // 2
            centres.append(ranked[(len(seen) - 1) // 2] if len(seen) else middle)
        rows, columns = (np.bincount(seen[:, n], minlength=field[n]) for n in range(2))
        return {"rows": Near(rows), "columns": Near(columns), "centres": Near(np.stack(centres))}

    def arguments(rng):
        return {"places": events(rng, steps, count, field)}

    options = {"shape": field, "steps": steps, "count": count, "memory": memory}
    return Program("follow_activity", options, arguments, run, expect)


FAMILIES = (membrane_steps, decolle_steps, random_spikes, addresses, activity)
