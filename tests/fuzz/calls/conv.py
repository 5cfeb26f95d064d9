"""Calls of ``conv``."""

import jax.numpy as jnp

from sparse_hyper_jax import conv
from tests.fuzz import draw
from tests.fuzz.calls.parts import reals
from tests.fuzz.calls.pursuit import taps
from tests.fuzz.wrong import Call, array, choice, count, flag, key, number, shape, thing

K, C, OUT = 2, 3, 4


def placing(rng, *size):
    return array(rng.random(size) < 0.7, "flags", optional=True)


def kernel(rng, *, own, channels=True):
    """Weights of taps; where channels stay by themselves another axis would mix them."""
    if own:
        return array(reals(rng, K, C), ranks=False, last=channels)
    return array(reals(rng, K, C, OUT))


def lag_taps(rng):
    """Weights and lags that fit each other."""
    size = draw.pick(rng, (K,), (K, C))
    return {
        "weights": kernel(rng, own=rng.random() < 0.5),
        "lags": array(rng.integers(0, 4, size), "integers", last=len(size) == 2),
        "placed": placing(rng, *size),
    }


def reach(*, optional=False):
    return count(4, 1, 2**31 - 1, optional=optional)


def lag_conv(rng):
    arguments = {"x": array(reals(rng, 2, 6, C), ranks=False, lengths=False, last=True)}
    arguments |= lag_taps(rng) | {"reach": reach(optional=True), "strict": flag(False)}
    one_by_one = thing(True, 1, "no", [True], optional=True, family="flag")
    return Call("conv.lag_conv", conv.lag_conv, arguments | {"one_by_one": one_by_one}, 4)


def lag_conv_step(rng):
    stream = conv.init_lag_stream(5, C, (2,))
    bad = [
        stream._replace(past=stream.past[0, 0]),
        stream._replace(past=None),
        stream._replace(past="past"),
        stream._replace(at=None),
        stream._replace(at=0.5),
        stream._replace(at=jnp.zeros(2, jnp.int32)),
        (stream.past,),
        stream.past,
    ]
    arguments = {"stream": thing(stream, *bad, family="stream")}
    arguments |= {"x": array(reals(rng, 2, C), last=True)} | lag_taps(rng)
    return Call("conv.lag_conv_step", conv.lag_conv_step, arguments | {"strict": flag(False)}, 4)


def init_lag_stream(rng):
    arguments = {"reach": reach(), "channels": count(3, 1)}
    arguments |= {"batch_shape": shape((2,), ranks=False)}
    return Call("conv.init_lag_stream", conv.init_lag_stream, arguments, 2)


def lag_kernel(rng):
    arguments = lag_taps(rng) | {"reach": reach(), "strict": flag(False)}
    own = draw.pick(rng, True, False)
    arguments["weights"] = kernel(rng, own=own, channels=False)
    if own:
        # Of how many channels is then what the weights say.
        size = (K,)
        arguments["lags"] = array(rng.integers(0, 4, size), "integers")
        arguments["placed"] = placing(rng, *size)
    return Call("conv.lag_kernel", conv.lag_kernel, arguments, 3)


def gains_of(rng, *sizes):
    """What gains are made of."""
    sharing = draw.pick(rng, *conv.SHARINGS)
    own = sharing == "channel"
    return {
        "x": array(reals(rng, *sizes, C), last=own),
        "cotangent": array(reals(rng, *sizes, C if own else OUT), last=own),
        "sharing": choice(sharing),
    }


def lag_gains(rng):
    arguments = gains_of(rng, 2, 6)
    sharing = arguments.pop("sharing")
    arguments |= {"reach": reach(), "sharing": sharing, "strict": flag(False)}
    return Call("conv.lag_gains", conv.lag_gains, arguments, 3)


def autocovariance(rng):
    arguments = {"x": array(reals(rng, 2, 6, C), ranks=False, lengths=False)}
    arguments |= {"reach": reach(), "sharing": choice("shared")}
    return Call("conv.autocovariance", conv.autocovariance, arguments, 2)


def window(*, optional=False):
    return shape((3, 2), optional=optional)


def offset_taps(rng):
    return {
        "weights": kernel(rng, own=rng.random() < 0.5),
        "offsets": array(rng.integers(-1, 2, (K, 2)), "integers", last=True),
        "placed": placing(rng, K),
    }


def offset_conv(rng):
    arguments = {"x": array(reals(rng, 2, 5, 4, C), ranks=False, lengths=False, last=True)}
    arguments |= offset_taps(rng) | {"window": window(optional=True), "wrap": flag(False)}
    return Call("conv.offset_conv", conv.offset_conv, arguments, 4)


def offset_kernel(rng):
    arguments = offset_taps(rng) | {"window": window()}
    arguments["weights"] = kernel(rng, own=rng.random() < 0.5, channels=False)
    return Call("conv.offset_kernel", conv.offset_kernel, arguments, 3)


def offset_gains(rng):
    arguments = gains_of(rng, 2, 5, 4)
    sharing = arguments.pop("sharing")
    arguments |= {"window": window(), "sharing": sharing, "wrap": flag(False)}
    return Call("conv.offset_gains", conv.offset_gains, arguments, 3)


def offset_autocovariance(rng):
    arguments = {"x": array(reals(rng, 2, 5, 4, C), ranks=False, lengths=False)}
    arguments |= {"window": window(), "wrap": flag(False)}
    return Call("conv.offset_autocovariance", conv.offset_autocovariance, arguments, 2)


def window_offsets(rng):
    positions = array(rng.integers(0, 2, (K, 2)), "integers", lengths=False, last=True)
    arguments = {"positions": positions, "window": window()}
    return Call("conv.window_offsets", conv.window_offsets, arguments, 2)


def start_weights(rng):
    weights = array(reals(rng, K, C), "floats", ranks=False)
    marks = {name: array(rng.random(K) < 0.5, "flags") for name in ("before", "after")}
    arguments = {"key": key(), "weights": weights, **marks, "scale": number(0.02, -1.0)}
    return Call("conv.start_weights", conv.start_weights, arguments, 4)


def probe_lags(rng):
    arguments = {"x": array(reals(rng, 4, 6, C)), "cotangent": array(reals(rng, 4, 6, OUT))}
    arguments |= {"taps": taps(rng), "count": count(1), "reach": reach(), "strict": flag(False)}
    arguments |= {"directions": count(2, 1), "min_z": number(5.0, optional=True)}
    return Call("conv.probe_lags", conv.probe_lags, arguments | {"apart": count(0)}, 3)


CALLS = (
    lag_conv,
    lag_conv,
    lag_conv_step,
    init_lag_stream,
    lag_kernel,
    lag_gains,
    autocovariance,
    offset_conv,
    offset_kernel,
    offset_gains,
    offset_autocovariance,
    window_offsets,
    start_weights,
    probe_lags,
)
