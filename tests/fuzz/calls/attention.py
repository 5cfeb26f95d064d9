"""Calls of ``attention``."""

import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import attention
from tests.fuzz.calls.parts import reals
from tests.fuzz.wrong import Call, array, count, flag, function, number, thing

H, G, K, T, REACH = 4, 2, 3, 5, 7


def rows(rng, *, steps=True):
    """Queries, keys and values."""
    lead = (2, T) if steps else (2,)
    return {
        "query": array(reals(rng, *lead, H, 3), last=True),
        "key": array(reals(rng, *lead, G, 3), last=True),
        "value": array(reals(rng, *lead, G, 2)),
    }


def lags(rng):
    return {"lags": array(rng.integers(0, T, (H, K)), "integers", last=True)}


def placed(rng):
    return {"placed": array(rng.random((H, K)) < 0.7, "flags", optional=True, last=True)}


def reading():
    return {"near": count(1), "scale": number(0.5, optional=True)}


def slots(rng):
    """Taps of all heads, and what is none of these."""
    good = attention.LagTaps(rng.integers(0, T, (H, K)).astype(np.int32), rng.random((H, K)) < 0.5)
    bad = [
        good._replace(lags=good.lags[0]),
        good._replace(lags=good.lags * 1.0),
        good._replace(lags=None),
        good._replace(placed=good.placed[:, 1:]),
        good._replace(placed=good.placed.astype(np.int32)),
        good._replace(placed="placed"),
        (good.lags,),
        good.lags,
        attention.LagTaps,
    ]
    return thing(good, *bad, family="taps")


def lag_attention(rng):
    arguments = rows(rng) | lags(rng) | placed(rng) | reading()
    return Call("attention.lag_attention", attention.lag_attention, arguments, 5)


def lag_attention_gains(rng):
    arguments = rows(rng) | lags(rng)
    arguments["value"] = array(reals(rng, 2, T, G, 2), last=True)
    arguments |= {"cotangent": array(reals(rng, 2, T, H, 2), last=True)} | placed(rng)
    arguments |= {"reach": count(REACH, 1)} | reading()
    arguments |= {"matrices": flag(False), "inserted": flag(False), "block": count(4, 1)}
    return Call("attention.lag_attention_gains", attention.lag_attention_gains, arguments, 5)


def lag_attention_cache(rng):
    arguments = {name: array(reals(rng, 2, T, G, 2), ranks=False) for name in ("key", "value")}
    arguments["reach"] = count(REACH, 1)
    return Call("attention.lag_attention_cache", attention.lag_attention_cache, arguments, 2)


def lag_attention_step(rng):
    known = jnp.zeros((2, T, G, 3)), jnp.zeros((2, T, G, 2))
    cache = attention.lag_attention_cache(*known, reach=REACH)
    bad = [
        cache._replace(keys=cache.keys[0]),
        cache._replace(keys=None),
        cache._replace(values=cache.values[..., :1]),
        cache._replace(values="values"),
        tuple(cache),
        known,
    ]
    arguments = {"cache": thing(cache, *bad, family="cache")} | rows(rng, steps=False)
    arguments["value"] = array(reals(rng, 2, G, 2), last=True)
    arguments |= lags(rng) | placed(rng) | reading()
    return Call("attention.lag_attention_step", attention.lag_attention_step, arguments, 5)


def empty_lags(rng):
    arguments = {"heads": count(H, 1), "count": count(K)}
    return Call("attention.empty_lags", attention.empty_lags, arguments, 2)


def placing():
    return {"near": count(1), "apart": count(0)}


def pursue_lags(rng):
    arguments = {"gains": array(reals(rng, H, REACH)), "taps": slots(rng), "count": count(1)}
    arguments |= placing() | {"min_z": number(5.0, optional=True)}
    return Call("attention.pursue_lags", attention.pursue_lags, arguments, 3)


def probe_attention(rng):
    arguments = rows(rng)
    arguments["value"] = array(reals(rng, 2, T, G, 2))
    arguments |= {"cotangent": array(reals(rng, 2, T, H, 2)), "taps": slots(rng)}
    arguments |= {"reach": count(REACH, 1), "count": count(1)} | placing()
    arguments |= {"directions": count(2, 1, optional=True), "min_z": number(5.0, optional=True)}
    arguments["scale"] = number(0.5, optional=True)
    return Call("attention.probe_attention", attention.probe_attention, arguments, 5)


def loss_of(taps):
    return -jnp.sum(jnp.where(taps.placed, taps.lags, 0)).astype(jnp.float32)


def losses():
    bad = [lambda taps: taps.lags * 1.0, lambda taps: None, lambda taps: "x", lambda taps: taps]
    return function(loss_of, *bad)


def judging(rng):
    if rng.random() < 0.5:
        arguments = {"loss": losses(), "taps": slots(rng)}
        return Call("attention.lag_importance", attention.lag_importance, arguments, 2)
    found = reals(rng, H, REACH)
    gains = [lambda taps: found[0], lambda taps: None, lambda taps: "x", lambda taps: found * 1j]
    arguments = {"loss": losses(), "gains": function(lambda taps: found, *gains)}
    arguments |= {"taps": slots(rng)} | placing()
    return Call("attention.swap_lag", attention.swap_lag, arguments, 3)


CALLS = (
    lag_attention,
    lag_attention,
    lag_attention_gains,
    lag_attention_cache,
    lag_attention_step,
    empty_lags,
    pursue_lags,
    probe_attention,
    judging,
)
