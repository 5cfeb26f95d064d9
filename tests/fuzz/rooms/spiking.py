"""Oracles of ``spiking``: neurons on a grid of eighths, where thresholds are decided exactly."""

import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import spiking
from tests.fuzz import draw
from tests.fuzz.compare import EPS, LOST, Near
from tests.fuzz.program import Program
from tests.fuzz.rooms import spiking_rules
from tests.fuzz.rooms.surrogates import OWN, psi


def scale_of(rng, surrogate):
    """The own scale, a known number, or one that is drawn for every case."""
    known = float(10 ** draw.pick(rng, -6, rng.uniform(-6, 4)))
    return draw.pick(rng, None, known, "traced"), OWN[surrogate]


def spikes(rng):
    """``spike`` and ``surrogate_slope``."""
    surrogate, name = draw.pick(rng, *OWN), draw.pick(rng, "spike", "surrogate_slope")
    given, own = scale_of(rng, surrogate)
    shape, kind = draw.pick(rng, (), (7,), (2, 3), (0,)), draw.dtype(rng)
    whole = bool(rng.random() < 0.15)

    def arguments(rng):
        drawn = np.float32(10 ** draw.pick(rng, -6, rng.uniform(-6, 6)))
        width = {None: own, "traced": drawn}.get(given, given)
        u = draw.reals(rng, shape, spread=draw.pick(rng, 1e-3, 0.1, 1, 100))
        u = np.where(rng.random(shape) < 0.5, u, u * np.float32(width))
        if surrogate in ("triangle", "boxcar"):
            # On the edges of the slope, and one float beside them.
            ends = np.float32(width) / np.asarray([2, 2, -2, 1, -1], np.float32)
            ends[1] = np.nextafter(ends[1], np.float32(0))
            u = np.where(rng.random(shape) < 0.2, rng.choice(ends, shape), u)
        most = 3e4 if kind == np.float16 else 1e8
        u = np.clip(u, -most, most).astype(np.int32 if whole else kind)
        return {"u": u, "scale": drawn}

    def run(u, scale):
        width = scale if given == "traced" else given
        return {"y": getattr(spiking, name)(u, surrogate=surrogate, scale=width)}

    def expect(case, got):
        width = {None: own, "traced": case["scale"]}.get(given, given)
        slope, off = psi(surrogate, case["u"].astype(np.float64), width)
        if name == "surrogate_slope":
            return {"y": Near(slope, off)}
        weights = case["weights"]
        near = {"d_u": Near(weights * slope, np.abs(weights) * off + LOST)}
        return near | {"y": Near((case["u"] >= 0).astype(float)), "d_scale": Near(np.zeros(()))}

    like = {} if whole or name == "surrogate_slope" else {"y": "u"}
    slopes = ("scale",) if whole else ("u", "scale")
    return Program(
        name,
        {"surrogate": surrogate, "scale": given, "shape": shape, "dtype": str(kind)},
        arguments,
        run,
        expect,
        slopes=slopes if name == "spike" else (),
        like=like,
    )


def neurons(rng):
    """``lif`` and ``lif_step``: all potentials are exact, so are all spikes."""
    stepwise = bool(rng.random() < 0.25)
    steps, surrogate = (1 if stepwise else int(rng.integers(1, 7))), draw.pick(rng, *OWN)
    shape, kind = draw.pick(rng, (), (3,), (2, 3)), draw.dtype(rng)
    reset, detach = draw.pick(rng, "zero", "subtract"), bool(rng.random() < 0.5)
    scale = draw.pick(rng, None, float(draw.pick(rng, 0.5, 2, 8)))
    own = {name: draw.pick(rng, (), shape[-1:], shape) for name in ("decay", "threshold")}
    at_rest = bool(rng.random() < 0.3) and not stepwise

    def arguments(rng):
        most = int(draw.pick(rng, 2, 8, 16))
        return {
            "currents": (rng.integers(-most, most + 1, (steps, *shape)) / 8).astype(kind),
            "v": (rng.integers(-8, 17, shape) / 8 * (not at_rest)).astype(np.float32),
            "decay": rng.choice([0, 0.25, 0.5, 0.75, 1], own["decay"]).astype(np.float32),
            "threshold": (rng.integers(-2, 17, own["threshold"]) / 8).astype(np.float32),
        }

    def run(currents, v, decay, threshold):
        options = {"decay": decay, "threshold": threshold, "reset": reset, "scale": scale}
        options |= {"detach_reset": detach, "surrogate": surrogate}
        if stepwise:
            one = spiking.lif_step(v, currents[0], **options)
            found = one._replace(spikes=one.spikes[None], potentials=one.potentials[None])
        else:
            found = spiking.lif(currents, v=None if at_rest else v, **options)
        return {"y": jnp.concatenate([found.spikes, found.potentials, found.v[None]])}

    def expect(case, got):
        return of_neurons(
            case, reset, detach, surrogate, OWN[surrogate] if scale is None else scale
        )

    slopes = ("currents", "decay", "threshold", *(() if at_rest else ("v",)))
    options = {"steps": steps, "shape": shape, "reset": reset, "detach_reset": detach}
    options |= {"surrogate": surrogate, "scale": scale, "dtype": str(kind), "at_rest": at_rest}
    options |= own
    name = "lif_step" if stepwise else "lif"
    return Program(name, options, arguments, run, expect, slopes=slopes)


def of_neurons(case, reset, detach, surrogate, scale):
    """Spikes, potentials and the last state, and slopes of their weighted sum."""
    steps, shape = len(case["currents"]), case["v"].shape
    decay, threshold = (np.broadcast_to(case[name], shape) for name in ("decay", "threshold"))
    before, potentials, fired, kept = [], [], [], case["v"]
    for current in case["currents"]:
        before.append(kept)
        v = decay * kept + current
        s = (v >= threshold).astype(float)
        kept = v * (1 - s) if reset == "zero" else v - threshold * s
        potentials.append(v)
        fired.append(s)
    y = np.stack([*fired, *potentials, kept])
    weights = case["weights"]
    of_s, of_v, g = weights[:steps], weights[steps : 2 * steps], weights[-1]
    size = np.abs(g)
    slopes = {"currents": np.zeros_like(case["currents"]), "decay": 0.0, "threshold": 0.0}
    sizes = {name: np.abs(value) for name, value in slopes.items()}
    for t in reversed(range(steps)):
        v, s = potentials[t], fired[t]
        slope, off = psi(surrogate, v - threshold, scale)
        # An error of the slope counts like eight roundings of something larger.
        steep = slope + off / (8 * EPS)
        loss = threshold if reset == "subtract" else v
        of_spike = of_s[t] - (0 if detach else g * loss)
        spike_size = np.abs(of_s[t]) + (0 if detach else size * np.abs(loss))
        lost = s * (reset == "subtract")
        slopes["threshold"] = slopes["threshold"] - of_spike * slope - g * lost
        sizes["threshold"] = sizes["threshold"] + spike_size * steep + size * lost
        passed = 1 - s if reset == "zero" else 1
        g = of_v[t] + of_spike * slope + g * passed
        size = np.abs(of_v[t]) + spike_size * steep + size * passed
        slopes["currents"][t], sizes["currents"][t] = g, size
        slopes["decay"] = slopes["decay"] + g * before[t]
        sizes["decay"] = sizes["decay"] + size * np.abs(before[t])
        g, size = g * decay, size * decay
    slopes["v"], sizes["v"] = g, size
    near = {"y": Near(y)}
    for name, slope in slopes.items():
        value, room = (summed_to(case[name].shape, part) for part in (slope, sizes[name]))
        near[f"d_{name}"] = Near(value, EPS * (32 + 8 * steps) * room + LOST)
    return near


def summed_to(shape, array):
    """Sum over the axes in front along which a number has been spread."""
    array = np.asarray(array, np.float64)
    return array.sum(tuple(range(array.ndim - len(shape)))) if array.ndim > len(shape) else array


FAMILIES = (spikes, spikes, neurons, neurons, *spiking_rules.FAMILIES)
