"""Calls of ``recurrent``."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import recurrent
from tests.fuzz import draw
from tests.fuzz.wrong import Call, array, choice, count, function, key, number, thing, tree

T, D = 6, 3


def cell(a, h, x):
    return a * h + x


def cells():
    """A cell, and functions that change what kind of state it is."""
    bad = [
        lambda a, h, x: h[..., None] * jnp.ones(2),
        lambda a, h, x: {"h": h},
        lambda a, h, x: None,
        lambda a, h, x: jnp.sum(h),
        lambda a, h, x: "h",
    ]
    return function(cell, *bad)


def losses(*, params=True):
    """A loss, and functions that give no number."""
    if params:
        bad = [lambda a, h: h, lambda a, h: None, lambda a, h: {"l": 1.0}, lambda a, h: "x"]
        return function(lambda a, h: jnp.sum(h), *bad)
    return function(jnp.sum, lambda h: h, lambda h: None, lambda h: "x", lambda h: jnp.sum(h) * 1j)


NO_FLOATS = (None, "text", {}, jnp.ones(D, jnp.int32), jnp.ones(D) * 1j, object(), [None], ["a"])


def params():
    """Parameters whose gradient is asked for; elsewhere they are whatever the cell reads."""
    return tree(jnp.ones(D), *NO_FLOATS, family="state")


def state(*lead):
    return tree(jnp.zeros((*lead, D)), *NO_FLOATS, family="state")


def inputs(*lead):
    good = jnp.ones((T, *lead, D))
    bad = ("text", good[:0], jnp.ones(()), object(), {"a": good, "b": good[1:]})
    return tree(good, *bad, family="state")


def bound(function, position=1):
    """The same function, with parameters that any cell may hold."""
    return lambda *args, **options: function(
        *args[:position], jnp.ones(D), *args[position:], **options
    )


def sizes():
    bad = [[], [[1.0]], [1j], ["a"], [-1.0, 1.0], 3.0]
    return tree(np.float64(0.5) ** np.arange(T), *bad, None, "text", {"a": 1.0}, family="sizes")


def lag_gradients(rng):
    name = draw.pick(rng, "lag_gradients", "bias_by_lag", "truncated_loss")
    arguments = {"cell": cells(), "loss": losses()}
    function = getattr(recurrent, name)
    if name == "bias_by_lag":
        arguments["params"] = params()
    else:
        function = bound(function, 2)
    arguments |= {"h0": state(2), "xs": inputs(2)}
    count = len(arguments)
    if name == "truncated_loss":
        arguments["lag"] = lag()
    return Call(f"recurrent.{name}", function, arguments, count)


def lag():
    return count(2, 1)


def lag_norms(rng):
    good = np.ones((T, 2, D), np.float32)
    bad = [good[:, 0, 0], good[:0], None, {}, "text", good * 1j, {"a": good, "b": good[1:]}]
    arguments = {"gradients": tree(good, *bad, family="gradients"), "rows": count(2, 1)}
    return Call("recurrent.lag_norms", recurrent.lag_norms, arguments, 1)


def choosing(rng):
    name = draw.pick(rng, "fit_decay", "bias_bound", "choose_lag")
    arguments = {
        "fit_decay": {
            "phi": sizes(),
            "start": count(1, 0, T - 1),
            "method": choice("lsq"),
            "floor": number(-50.0),
        },
        "bias_bound": {
            "phi": sizes(),
            "cum": sizes(),
            "tau": count(2, 0, T - 1),
            # A decay of NaN is what fit_decay says of sizes that are none.
            "beta": tree(0.5, -1.0, "text", None, [0.5, 0.5], 1j, {}, family="number"),
        },
        "choose_lag": {
            "delta_hat": tree(0.5 ** np.arange(T), [], [[1.0]], None, "text", [1j], family="sizes"),
            "delta": number(0.5, 0.0, -1.0),
            "k_min": count(1, 1),
            "k_max": count(8, 1),
            "buckets": tree((2, 4), (0,), (2.5,), "text", 3, [[1]], {1, 2}, family="buckets"),
        },
    }[name]
    # Sizes are known numbers, whichever they are: two vectors may stand in each other's place.
    return Call(f"recurrent.{name}", getattr(recurrent, name), arguments, 1 + ("cum" in arguments))


def measured(rng):
    def loss_of_lag(params, lag):
        return jnp.sum(params) * lag

    bad = [lambda p, k: p, lambda p, k: None, lambda p, k: "x"]
    arguments = {"loss_of_lag": function(loss_of_lag, *bad), "params": params()}
    arguments |= {"lag": lag(), "reference": count(4, 1)}
    return Call("recurrent.measured_bias", recurrent.measured_bias, arguments, 2)


def windows(rng):
    if rng.random() < 0.5:
        arguments = {"length": count(8, 1), "lag": lag(), "form": choice("buffer")}
        return Call("recurrent.tbptt_windows", recurrent.tbptt_windows, arguments, 2)
    arguments = {"cell": cells(), "h": state(), "xs": inputs()}
    arguments |= {"steps": array([-1, 0, 1], "integers", lengths=False), "carry": count(1, 0, 2)}
    return Call("recurrent.window_scan", bound(recurrent.window_scan), arguments, 4)


def scans(rng):
    arguments = {"cell": cells(), "h0": state(), "xs": inputs()}
    if rng.random() < 0.5:
        arguments["lag"] = lag()
        return Call("recurrent.tbptt_scan", bound(recurrent.tbptt_scan), arguments, 3)
    # In the place of a state they are one, of whose shape the caller's cell makes what it will.
    arguments["weights"] = replace(array(np.ones(T)), family="state")
    return Call("recurrent.weighted_scan", bound(recurrent.weighted_scan), arguments, 4)


def checkpointed(rng):
    def step(h, x):
        return h + x, h

    bad = [lambda h, x: h, lambda h, x: (h[..., :1], h), lambda h, x: None, lambda h, x: ("h", h)]
    start = jnp.zeros(D)
    wrong = ("text", object(), start.astype(jnp.int32), ["a"], {"a": "b"})
    arguments = {"f": function(step, *bad), "init": tree(start, *wrong, family="state")}
    arguments["xs"] = inputs()
    arguments["segments"] = count(2, 1, optional=True)
    return Call("recurrent.checkpointed_scan", recurrent.checkpointed_scan, arguments, 3)


def online(rng):
    name = draw.pick(rng, "rtrl", "snap1", "uoro")

    def use(*, cell, trace, params, h, x, loss, key=None):
        rule = getattr(recurrent, name)(cell)
        trace = rule.init(params, h) if trace is None else trace
        return rule.step(trace, params, h, x, loss, key=key)

    x = jnp.ones(D)
    arguments = {"cell": cells(), "trace": thing(None, (1.0, 2.0), {"a": 1.0}, optional=True)}
    arguments |= {"params": params(), "h": state(), "loss": losses(params=False)}
    arguments |= {"x": tree(x, "text", object(), ["a"], family="state")}
    arguments |= {"key": key()} if name == "uoro" else {}
    return Call(f"recurrent.{name}", use, arguments)


def cuts(rng):
    arguments = {"key": key(), "probs": array(np.full(T, 0.25), lengths=False)}
    return Call("recurrent.artbp_weights", recurrent.artbp_weights, arguments, 2)


CALLS = (
    lag_gradients,
    lag_gradients,
    lag_norms,
    choosing,
    choosing,
    measured,
    windows,
    windows,
    scans,
    checkpointed,
    online,
    cuts,
)
