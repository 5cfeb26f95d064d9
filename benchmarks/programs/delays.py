"""Delays of channels behind an unknown readout: pursued, or read off a dense kernel."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.lines import Facts, Line
from benchmarks.runner import Asked
from benchmarks.timing import compiled, temporary_bytes
from sparse_hyper_jax import conv, ops

DECAY = {"white": 0.0, "coloured": 0.9}
NOISE, PROBES, EVERY, BATCH, SEQUENCES = 0.25, 8, 50, 2, 16
READOUT_RATE = 0.02
THRESHOLDS = {"pursuit": 5.0, "pursuit without a threshold": None}


class System(NamedTuple):
    """A generated system and its data."""

    delays: jax.Array
    """``(C,)``."""

    x: jax.Array
    """``(sequences, T, C)``."""

    y: jax.Array
    """The same shape."""


def measure(facts: Facts, asked: Asked) -> Line:
    """Find the delays of one system by one method."""
    method, _, rate = facts["method"].partition(", rate ")
    system, readout = start(facts)
    if method in THRESHOLDS:
        probes = 2 if asked.tiny else PROBES
        return pursued(system, readout, facts["reach"], probes, THRESHOLDS[method])
    return by_kernel(system, readout, facts["reach"], float(rate), facts["seconds"])


def start(facts: Facts) -> tuple[System, jax.Array]:
    """Draw a system, and the readout ``(C, C)`` that every method begins with."""
    seed, channels = facts["seed"], facts["channels"]
    readout = jax.random.normal(jax.random.key(seed + 1000), (channels, channels))
    system = make_system(seed, channels, facts["reach"], DECAY[facts["inputs"]])
    return system, readout * (0.1 / channels**0.5)


def make_system(seed: int, channels: int, reach: int, decay: float) -> System:
    """Draw delays, a mixing matrix and sequences three times as long as the reach."""
    generator = np.random.default_rng(seed)
    delays = jnp.asarray(generator.integers(0, reach, channels), jnp.int32)
    steps = 3 * reach
    x = generator.normal(size=(SEQUENCES, steps, channels)).astype(np.float32)
    for step in range(1, steps):
        x[:, step] = decay * x[:, step - 1] + (1 - decay**2) ** 0.5 * x[:, step]
    mixing = generator.normal(size=(channels, channels)).astype(np.float32) / channels**0.5
    clean = conv.lag_conv(x, jnp.ones((1, channels)), delays[None]) @ mixing
    noise = generator.normal(size=x.shape).astype(np.float32) * NOISE**0.5
    return System(delays, jnp.asarray(x), clean + noise)


def batches(key: jax.Array, system: System, count: int) -> tuple[jax.Array, jax.Array]:
    """Draw sequences of a training step or a probe."""
    rows = jax.random.choice(key, SEQUENCES - 4, (count,), replace=False)
    return system.x[rows], system.y[rows]


def trained(
    train: tuple[Callable[..., jax.Array], Any, int], state: Any, key: jax.Array, system: System
) -> Any:
    """Take some steps with parameters and moments, by a loss and an optimizer."""
    loss, optimizer, steps = train

    def step(state: Any, key: jax.Array) -> tuple[Any, None]:
        parameters, moments = state
        x, y = batches(key, system, BATCH)
        gradient = jax.grad(loss)(parameters, x, y)
        updates, moments = optimizer.update(gradient, moments, parameters)
        return (optax.apply_updates(parameters, updates), moments), None

    return jax.lax.scan(step, state, jax.random.split(key, steps))[0]


def pursued(
    system: System, readout: jax.Array, reach: int, probes: int, min_z: float | None
) -> Line:
    """Place delays where they stand out, and train the readout in between."""
    channels = readout.shape[0]
    optimizer = optax.adam(READOUT_RATE)

    def mixed(readout: jax.Array, taps: ops.Taps, x: jax.Array) -> jax.Array:
        lags, placed = taps.positions[..., 0].T, taps.placed.T
        return conv.lag_conv(x, readout[None], lags, placed, reach=reach)

    def loss(readout: jax.Array, taps: ops.Taps, x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean((mixed(readout, taps, x) - y) ** 2)

    def part(state: Any, taps: ops.Taps, key: jax.Array, system: System) -> Any:
        probe_key, key = jax.random.split(key)
        x, y = batches(probe_key, system, 8)
        cotangent = mixed(state[0], taps, x) - y  # of half the sum of squares
        taps = conv.probe_delays(x, cotangent, taps, reach=reach, mixed=True, min_z=min_z)
        of_readout = lambda readout, x, y: loss(readout, taps, x, y)  # noqa: E731
        return trained((of_readout, optimizer, EVERY), state, key, system), taps

    taps = ops.Taps(jnp.zeros((channels, 1, 1), jnp.int32), jnp.zeros((channels, 1), bool))
    state = readout, optimizer.init(readout)
    keys = jax.random.split(jax.random.key(0), probes)
    run, _ = compiled(part, state, taps, keys[0], system)
    start = time.perf_counter()
    for key in keys:
        state, taps = jax.block_until_ready(run(state, taps, key, system))
    took = time.perf_counter() - start
    placed, found = taps.placed[:, 0], taps.positions[:, 0, 0] == system.delays
    return {
        "found": int(jnp.sum(placed & found)),
        "false": int(jnp.sum(placed & ~found)),
        "loss": round(float(loss(state[0], taps, system.x[-4:], system.y[-4:])), 4),
        "took": round(took, 3),
        "steps": probes * EVERY,
        "temporary_bytes": temporary_bytes(run),
    }


def by_kernel(system: System, readout: jax.Array, reach: int, rate: float, seconds: float) -> Line:
    """Train a kernel of all lags for each channel, and take the largest weights."""
    steps, channels = system.x.shape[1:]
    optimizer = optax.partition(
        {"kernel": optax.adam(rate), "readout": optax.adam(READOUT_RATE)},
        {"kernel": "kernel", "readout": "readout"},
    )

    def loss(parameters: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        spectra = jnp.fft.rfft(x, steps + reach, axis=1)
        spectra *= jnp.fft.rfft(parameters["kernel"], steps + reach, axis=0)[None]
        delayed = jnp.fft.irfft(spectra, steps + reach, axis=1)[:, :steps]
        return jnp.mean((delayed @ parameters["readout"] - y) ** 2)

    parameters = {"kernel": jnp.zeros((reach, channels)), "readout": readout}
    state = parameters, optimizer.init(parameters)
    few = partial(trained, (loss, optimizer, 10))
    run, _ = compiled(few, state, jax.random.key(0), system)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        state = jax.block_until_ready(run(state, jax.random.key(count), system))
        count += 1
    took = time.perf_counter() - start
    largest = jnp.argmax(jnp.abs(state[0]["kernel"]), axis=0)
    return {
        "found": int(jnp.sum(largest == system.delays)),
        "loss": round(float(loss(state[0], system.x[-4:], system.y[-4:])), 4),
        "took": round(took, 3),
        "steps": 10 * count,
        "temporary_bytes": temporary_bytes(run),
    }
