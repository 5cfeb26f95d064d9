"""Calls of ``ops`` that score cells and place taps on them."""

import numpy as np

from sparse_hyper_jax import ops
from tests.fuzz.calls.parts import reals
from tests.fuzz.wrong import Call, array, count, number, thing

CELLS = 7


def taps(rng, k=3, *, ranks=True):
    """Slots, and what is none of these; with ``ranks`` another rank is not legal."""
    good = ops.Taps(rng.integers(0, CELLS, (k, 1)).astype(np.int32), rng.random(k) < 0.5)
    bad = [
        good._replace(positions=good.positions[:, 0]),
        good._replace(positions=good.positions * 1.0),
        good._replace(positions=None),
        good._replace(placed=good.placed[1:]),
        good._replace(placed=good.placed.astype(np.int32)),
        good._replace(placed="placed"),
        (good.positions,),
        good.positions,
        ops.Taps,
    ]
    bad += [good._replace(positions=np.tile(good.positions, (1, 9)))] if ranks else []
    return thing(good, *bad, family="taps")


def allowed(rng):
    return array(rng.random(CELLS) < 0.8, "flags", optional=True)


def scales():
    return {"ridge": number(1e-3, 0, -1.0), "floor": number(0.05, 0, -1.0)}


def correlation():
    return array(0.5 ** np.arange(CELLS), optional=True)


def placing(rng):
    return {"taps": taps(rng), "count": count(2), "apart": count(1), "allowed": allowed(rng)}


def empty_taps(rng):
    return Call("ops.empty_taps", ops.empty_taps, {"count": count(3), "rank": count(1, 1)}, 2)


def pursue(rng):
    scores = array(reals(rng, CELLS))
    options = placing(rng) | {"threshold": number(0.1, optional=True)}
    return Call("ops.pursue", ops.pursue, {"scores": scores, **options}, 3)


def drop_taps(rng):
    importance = array(reals(rng, 3))
    arguments = {"taps": taps(rng, ranks=False), "importance": importance, "count": count(1)}
    return Call("ops.drop_taps", ops.drop_taps, arguments, 3)


def whiten_cotangent(rng):
    cotangent = array(reals(rng, 6, 3), ranks=False, lengths=False)
    arguments = {"cotangent": cotangent, "count": count(2, 1), "ridge": number(0.01, 0, -1.0)}
    return Call("ops.whiten_cotangent", ops.whiten_cotangent, arguments, 1)


def decorrelated_gains(rng):
    gains = array(reals(rng, CELLS, 2, 3), ranks=False, lengths=False)
    arguments = {"gains": gains, "covariance": array(np.eye(2)), "ridge": number(1e-3, 0, -1.0)}
    return Call("ops.decorrelated_gains", ops.decorrelated_gains, arguments, 2)


def residual_scores(rng):
    gains = array(reals(rng, CELLS, 2), ranks=False)
    arguments = {"gains": gains, "taps": taps(rng), "autocorrelation": correlation(), **scales()}
    return Call("ops.residual_scores", ops.residual_scores, arguments, 2)


def z_scores(rng):
    arguments = {"scores": array(reals(rng, CELLS), ranks=False, lengths=False)}
    return Call("ops.z_scores", ops.z_scores, arguments, 1)


def pursue_gains(rng):
    gains = array(reals(rng, CELLS, 2, 3), ranks=False)
    options = {"autocorrelation": correlation(), "covariance": array(np.eye(2), optional=True)}
    options |= placing(rng) | {"min_z": number(2.0, optional=True), **scales()}
    return Call("ops.pursue_gains", ops.pursue_gains, {"gains": gains, **options}, 1)


def halves(rng):
    first, second = (array(reals(rng, CELLS, 2)) for _ in range(2))
    counts = array(np.arange(CELLS, 0, -1), optional=True)
    options = {"autocorrelation": correlation(), "counts": counts, **scales()}
    arguments = {"first": first, "second": second, **placing(rng), **options}
    if rng.random() < 0.5:
        arguments |= {"false_rate": number(0.5, -0.1, 1.1)}
        return Call("ops.pursue_halves", ops.pursue_halves, arguments, 2)
    del arguments["count"]
    return Call("ops.split_half_p_values", ops.split_half_p_values, arguments, 2)


CALLS = (
    empty_taps,
    pursue,
    drop_taps,
    whiten_cotangent,
    decorrelated_gains,
    residual_scores,
    z_scores,
    pursue_gains,
    halves,
)
