"""Delays of channels behind an unknown readout, learned by gradients, in a number of seconds.

A position for each channel, between 0 and the last lag; what is read there is mixed by the readout.
Deviations of Gaussians shrink from a quarter of the reach to 0.3 steps, rates of positions fall to
0 along a half cosine, both by the share of the seconds that are spent.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.lines import Facts, Line
from benchmarks.programs import delays
from benchmarks.programs.delays import BATCH, READOUT_RATE, System, batches
from benchmarks.runner import Asked
from benchmarks.timing import compiled, temporary_bytes
from sparse_hyper_jax import conv

AT_ONCE = 10
WIDEST, NARROWEST = 0.25, 0.3
DRAWN_FROM_ALL, DRAWN_NEARBY = 4, 2

Read = Callable[[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
"""Key, positions ``(C,)``, deviation, readout ``(C, U)`` and ``x (b, T, C)`` to ``(b, T, U)``."""


def measure(facts: Facts, asked: Asked) -> Line:
    """Find the delays of one system by one method."""
    method, _, rate = facts["method"].partition(", rate ")
    if method not in READS:
        return delays.measure(facts, asked)
    system, readout = delays.start(facts)
    channels, reach = facts["channels"], facts["reach"]
    generator = np.random.default_rng(facts["seed"] + 2000)
    positions = jnp.asarray(generator.uniform(0, reach - 1, channels), jnp.float32)
    parameters = {"positions": positions, "readout": readout}
    read = partial(READS[method], reach=reach)
    budget = float(rate) * reach, facts["seconds"]
    return moved(system, parameters, read, reach, budget)


def gaussian_kernel(
    key: jax.Array, positions: Any, deviation: Any, readout: Any, x: jax.Array, *, reach: int
) -> jax.Array:
    """Weigh all lags by a Gaussian that sums to 1, as dilated convolutions of learned spacings."""
    distances = (jnp.arange(reach)[:, None] - positions) / deviation
    kernel = jax.nn.softmax(-(distances**2) / 2, axis=0)
    length = x.shape[1] + reach
    spectra = jnp.fft.rfft(x, length, axis=1) * jnp.fft.rfft(kernel, length, axis=0)[None]
    return jnp.fft.irfft(spectra, length, axis=1)[:, : x.shape[1]] @ readout


def two_taps(
    key: jax.Array, positions: Any, deviation: Any, readout: Any, x: jax.Array, *, reach: int
) -> jax.Array:
    """Interpolate between the two lags around a position."""
    low = jnp.minimum(jnp.floor(positions), reach - 2)
    share = (positions - low)[:, None]
    weights = jnp.stack([readout * (1 - share), readout * share])
    lags = jnp.stack([low, low + 1]).astype(jnp.int32)
    return conv.lag_conv(x, weights, lags, reach=reach)


def drawn_lags(
    key: jax.Array, positions: Any, deviation: Any, readout: Any, x: jax.Array, *, reach: int
) -> jax.Array:
    """Read at lags drawn for each channel, which share it by their density."""
    lags, shares = conv.gaussian_shares(
        key,
        positions,
        jnp.full_like(positions, 1) * deviation**2,
        reach,
        num_global=DRAWN_FROM_ALL,
        num_local=DRAWN_NEARBY,
    )
    own = conv.LagShares(lags[:, None], shares[:, None])
    return conv.soft_lag_conv(x, readout[None], own, reach=reach)


READS = {"Gaussian kernel": gaussian_kernel, "two taps": two_taps, "Gaussians, drawn": drawn_lags}


def moved(
    system: System, parameters: Any, read: Read, reach: int, budget: tuple[float, float]
) -> Line:
    """Train positions, by so many lags a step at first, and the readout, for so many seconds."""
    cells, seconds = budget
    rates = {"positions": optax.adam(1.0), "readout": optax.adam(READOUT_RATE)}
    optimizer = optax.partition(rates, {name: name for name in rates})

    def few(state: Any, key: jax.Array, deviation: Any, rate: Any, system: System) -> Any:
        def step(state: Any, key: jax.Array) -> tuple[Any, None]:
            parameters, moments = state
            batch_key, draw_key = jax.random.split(key)
            x, y = batches(batch_key, system, BATCH)

            def loss(parameters: Any) -> jax.Array:
                positions, readout = parameters["positions"], parameters["readout"]
                return jnp.mean((read(draw_key, positions, deviation, readout, x) - y) ** 2)

            updates, moments = optimizer.update(jax.grad(loss)(parameters), moments, parameters)
            updates["positions"] *= rate
            parameters = optax.apply_updates(parameters, updates)
            parameters["positions"] = jnp.clip(parameters["positions"], 0, reach - 1)
            return (parameters, moments), None

        return jax.lax.scan(step, state, jax.random.split(key, AT_ONCE))[0]

    def schedule(share: float) -> tuple[jax.Array, jax.Array]:
        wide = WIDEST * reach
        deviation = wide * (NARROWEST / wide) ** share
        return jnp.float32(deviation), jnp.float32(cells * 0.5 * (1 + np.cos(np.pi * share)))

    state = parameters, optimizer.init(parameters)
    run, _ = compiled(few, state, jax.random.key(0), *schedule(0.0), system)
    start, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < seconds:
        state = run(state, jax.random.key(count), *schedule(spent / seconds), system)
        jax.block_until_ready(state)
        count += 1
    took = time.perf_counter() - start
    lags = jnp.round(state[0]["positions"]).astype(jnp.int32)
    y = conv.lag_conv(system.x[-4:], state[0]["readout"][None], lags[None], reach=reach)
    return {
        "found": int(jnp.sum(lags == system.delays)),
        "loss": round(float(jnp.mean((y - system.y[-4:]) ** 2)), 4),
        "took": round(took, 3),
        "steps": AT_ONCE * count,
        "temporary_bytes": temporary_bytes(run),
    }
