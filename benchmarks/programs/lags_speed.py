"""Gradients of convolutions and of attention at few lags, and of what they are compared with."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.lines import Facts, Line
from benchmarks.runner import Asked
from benchmarks.timing import compiled, interleaved, temporary_bytes
from sparse_hyper_jax import attention, conv

LARGEST = 4 * 2**30
"""Bytes of temporary memory up to which a program is run."""


def measure(facts: Facts, asked: Asked) -> Line:
    """Time the gradients of one part, and count their memory."""
    parts = {"convolution": convolutions, "attention": attentions}
    functions, arguments = parts[facts["part"]](facts)
    programs = {
        name: compiled(gradient_of(function), *arguments(name))[0]
        for name, function in functions.items()
    }
    memory = {name: temporary_bytes(one) for name, one in programs.items()}
    calls = {
        name: partial(one, *arguments(name))
        for name, one in programs.items()
        if memory[name] <= LARGEST
    }
    times = interleaved(calls, repeats=asked.repeats)
    return {
        "milliseconds": {name: round(time, 4) for name, time in times.items()},
        "temporary_bytes": memory,
    }


def gradient_of(function: Callable[..., jax.Array]) -> Callable[..., Any]:
    """Give the gradient of half the sum of squares, with respect to all float arguments."""

    def loss(*arguments: jax.Array) -> jax.Array:
        return 0.5 * jnp.sum(jnp.square(function(*arguments)))

    def gradient(*arguments: jax.Array) -> Any:
        floats = [n for n, one in enumerate(arguments) if jnp.issubdtype(one.dtype, jnp.floating)]
        return jax.grad(loss, floats)(*arguments)

    return gradient


def convolutions(facts: Facts) -> tuple[dict[str, Any], Callable[[str], tuple]]:
    """Make functions of input and weights that give the same, and their arguments."""
    steps, channels, reach = facts["steps"], facts["channels"], facts["reach"]
    taps, batch = facts["taps"], facts["batch"]
    dilation = (reach - 1) // (taps - 1)
    lags = jnp.arange(taps) * dilation
    draw = np.random.default_rng(0).normal
    x = jnp.asarray(draw(size=(batch, steps, channels)), jnp.float32)
    weights = jnp.asarray(draw(size=(taps, channels, channels)), jnp.float32)
    weights /= (taps * channels) ** 0.5
    kernel = conv.lag_kernel(weights, lags, reach=reach)
    placed = jnp.ones(taps, bool)

    def at_lags(one_by_one: bool | None) -> Callable[..., jax.Array]:
        def convolved(x: jax.Array, weights: jax.Array, lags: jax.Array) -> jax.Array:
            return conv.lag_conv(x, weights, lags, placed, reach=reach, one_by_one=one_by_one)

        return convolved

    def along(x: jax.Array, weights: jax.Array, dilation: int) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x,
            weights[::-1],
            (1,),
            [(dilation * (len(weights) - 1), 0)],
            rhs_dilation=(dilation,),
            dimension_numbers=("NWC", "WIO", "NWC"),
        )

    def by_fft(x: jax.Array, kernel: jax.Array) -> jax.Array:
        length = steps + reach
        products = jnp.einsum(
            "bfc,fco->bfo",
            jnp.fft.rfft(x, length, axis=1),
            jnp.fft.rfft(kernel, length, axis=0),
        )
        return jnp.fft.irfft(products, length, axis=1)[:, :steps]

    functions = {
        "lag_conv": at_lags(None),
        "all at once": at_lags(False),
        "dilated": lambda x, weights: along(x, weights, dilation),
        "FFT": by_fft,
        "dense": lambda x, kernel: along(x, kernel, 1),
    }
    others = {"dilated": (x, weights), "FFT": (x, kernel), "dense": (x, kernel)}
    return functions, lambda name: others.get(name, (x, weights, lags))


def attentions(facts: Facts) -> tuple[dict[str, Any], Callable[[str], tuple]]:
    """Make functions of queries, keys and values, and their arguments."""
    length, features, taps = facts["length"], facts["features"], facts["taps"]
    generator = np.random.default_rng(0)
    shape = length, 1, features
    arrays = [jnp.asarray(generator.normal(size=shape), jnp.float32) for _ in range(3)]
    lags = jnp.asarray(generator.choice(length // 2, (1, taps), replace=False), jnp.int32)

    def at_lags(query: jax.Array, key: jax.Array, value: jax.Array, lags: jax.Array) -> jax.Array:
        return attention.lag_attention(query, key, value, lags)

    def dense(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        return jax.nn.dot_product_attention(query, key, value, is_causal=True)

    functions = {"lag_attention": at_lags, "dense": dense}
    return functions, lambda name: (*arrays, lags) if name == "lag_attention" else tuple(arrays)
