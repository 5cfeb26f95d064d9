"""One run of one method on one task, in a number of CPU seconds of one thread."""

import os

# Before JAX is imported: one thread, so that CPU seconds are those of the method.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)

from functools import lru_cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import get_data_path

from benchmarks.lines import Facts, Line
from benchmarks.programs import lag_depth
from benchmarks.programs.lag_methods import METHODS
from benchmarks.programs.lag_training import Run, Task, measured
from benchmarks.runner import Asked
from sparse_hyper_jax import conv
from sparse_hyper_jax.checks import require
from sparse_hyper_jax.train.data import (
    draw_system,
    load_digits,
    load_spoken,
    make_canvas,
    run_system,
)

SIZES = {
    "coloured": {"channels": 32, "reach": 1024, "length": 2048, "train": 256, "correlation": 0.9},
    "white": {"channels": 32, "reach": 1024, "length": 2048, "train": 256, "correlation": 0.0},
    "small": {"channels": 4, "reach": 64, "length": 512, "train": 32, "correlation": 0.9},
}
TINY = {"channels": 3, "reach": 80, "length": 128, "train": 16}
NOISE = 0.5
CANVAS = {"length": 2048, "reach": 256, "digits": 6, "train": 256}


WITHOUT = {"channels": 4, "reach": 256, "length": 1024, "train": 128}
PERIOD = 40


@lru_cache(maxsize=1)
def make_task(name: str, seed: int, tiny: bool, fsdd: Path | None = None) -> Task:
    """Draw a system and its series, or canvases of one hidden width; or take what was recorded."""
    if name == "canvas":
        return _canvas(seed, tiny)
    if name == "eeg":
        return _recording()
    if name == "speech":
        return _speech(fsdd)
    if name in ("interaction", "periodic"):
        return _without_signal(name, seed, tiny)
    size = SIZES[name] | (TINY if tiny else {})
    keys = jax.random.split(jax.random.key(seed), 4)
    apart = 8 if size["reach"] > 64 else 4
    system = draw_system(keys[0], channels=size["channels"], reach=size["reach"], apart=apart)
    options = {"length": size["length"], "correlation": size["correlation"], "noise": NOISE}
    one = jax.jit(jax.vmap(partial(run_system, system=system, **options)))
    counts = zip(keys[1:], (size["train"], 8, 16), strict=True)
    drawn = [one(jax.random.split(key, count)) for key, count in counts]
    lags = np.sort(system.lags)
    return Task(*drawn, lags=lags, floor=NOISE**2, reach=size["reach"], slots=len(lags))


def _without_signal(name: str, seed: int, tiny: bool) -> Task:
    """Draw a system on which pursuit has to fail: four lags, with AR(1) inputs or periodic ones.

    ``interaction``: the products of two pairs, of which no lag alone says anything. ``periodic``:
    four additive lags, but every channel repeats itself after 40 steps but for 1 % of its variance.
    """
    size = WITHOUT | (TINY if tiny else {})
    keys = jax.random.split(jax.random.key(seed), 4)
    system = draw_system(
        keys[0], channels=size["channels"], reach=size["reach"], additive=4, products=0
    )
    wave = jax.random.normal(keys[0], (PERIOD, size["channels"]))

    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        shift_key, input_key, noise_key = jax.random.split(key, 3)
        inputs = run_system(input_key, system, length=size["length"])[0]
        if name == "periodic":
            shift = jax.random.randint(shift_key, (), 0, PERIOD)
            again = jnp.roll(wave, shift, axis=0)[jnp.arange(len(inputs)) % PERIOD]
            inputs = again + 0.1 * inputs
        read = [
            conv.lag_conv(inputs, weights[None, :, None], lag[None], reach=size["reach"])
            for lag, weights in zip(system.lags, system.weights, strict=True)
        ]
        if name == "interaction":
            targets = 0.7 * (read[0] * read[1] + read[2] * read[3])
        else:
            targets = 0.5 * jnp.tanh(jnp.stack(read)).sum(axis=0)
        return inputs, targets + NOISE * jax.random.normal(noise_key, targets.shape)

    one, counts = jax.jit(jax.vmap(draw)), (size["train"], 8, 16)
    drawn = [one(jax.random.split(key, count)) for key, count in zip(keys[1:], counts, strict=True)]
    lags = np.sort(system.lags)
    return Task(*drawn, lags=lags, floor=NOISE**2, reach=size["reach"], slots=len(lags))


def _canvas(seed: int, tiny: bool) -> Task:
    """Canvases read pixel by pixel; their width, from 24 to 60, is hidden."""
    size = CANVAS | ({"train": 16} if tiny else {})
    width_key, *keys = jax.random.split(jax.random.key(seed), 4)
    width = jax.random.randint(width_key, (), 24, 61)
    images = load_digits().images

    def draw(key: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
        options = {"length": size["length"], "digits": size["digits"]}
        one = partial(make_canvas, images=images, width=width, **options)
        pixels = jax.jit(jax.vmap(one))(jax.random.split(key, count))
        return pixels, pixels

    w = int(width)
    near = [1, 2, w - 1, w, w + 1, w + 2, 2 * w, 2 * w + 1]
    return Task(
        draw(keys[0], size["train"]),
        draw(keys[1], 16),
        draw(keys[2], 64),
        lags=np.array(near),
        floor=None,
        reach=size["reach"],
        slots=len(near),
        strict=True,
        binary=True,
    )


def _recording() -> Task:
    """Four channels of an electroencephalogram, which matplotlib brings: 800 steps, no more.

    The first channel is predicted from the past of all. The first 500 steps are for training, in
    windows of 128; 150 each for validation and test. Nobody knows its lags: a window is given.
    """
    path = Path(get_data_path()) / "sample_data" / "eeg.dat"
    signal = np.fromfile(path, dtype=float).reshape(-1, 4)
    signal = ((signal - signal[:500].mean(0)) / signal[:500].std(0)).astype(np.float32)

    def cut(start: int, stop: int, length: int) -> tuple[jax.Array, jax.Array]:
        starts = range(start, stop - length + 1, 12)
        inputs = jnp.stack([signal[at : at + length] for at in starts])
        return inputs, inputs[..., :1]

    parts = (cut(0, 500, 128), cut(500, 650, 150), cut(650, 800, 150))
    window = np.arange(1, 9)
    return Task(*parts, lags=window, floor=None, reach=64, slots=len(window), strict=True)


def _speech(folder: Path | None) -> Task:
    """Energies of spoken digits in 16 bands, 64 windows a word: the next mean of all is predicted.

    Windows are spread over the word, so a lag is a share of it. Of every digit and speaker the
    first five takes are for test, as is official, the next three for validation.
    """
    require(folder is not None, "task speech without a folder", "spoken digits", "pass --fsdd DIR")
    spoken = load_spoken(Path(str(folder)), bands=16, times=64)
    signal = np.moveaxis(spoken.bands, 1, 2)
    rest = signal[spoken.takes >= 8]
    signal = (signal - rest.mean((0, 1))) / rest.std((0, 1))

    def part(chosen: np.ndarray) -> tuple[jax.Array, jax.Array]:
        inputs = jnp.asarray(signal[chosen], jnp.float32)
        loudness = inputs.mean(-1, keepdims=True)
        return inputs, loudness / signal[spoken.takes >= 8].mean(-1).std()

    takes, window = spoken.takes, np.arange(1, 9)
    parts = (part(takes >= 8), part((takes >= 5) & (takes < 8)), part(takes < 5))
    return Task(*parts, lags=window, floor=None, reach=32, slots=len(window), strict=True)


def measure(facts: Facts, asked: Asked) -> Line:
    """Train by one method, and compare its lags with the true ones."""
    if facts["task"] == "depth":
        return lag_depth.measure(facts, asked.tiny)
    task = make_task(facts["task"], facts["seed"], asked.tiny, asked.fsdd)
    run = Run(task, facts)
    outcome = METHODS[facts["method"]](run)
    used = run.clock.share() * run.clock.seconds
    line: Line = measured(outcome.forward, outcome.state, outcome.fixed, task)
    line |= {"steps": run.steps, "cpu_seconds": round(used, 2), "temporary_bytes": run.bytes}
    if task.floor is not None:
        line["floor"] = task.floor
    if outcome.lags is not None:
        lags, true = sorted(outcome.lags), [int(lag) for lag in task.lags]
        known = {} if facts["task"] in ("eeg", "speech") else {"true": true, **compared(lags, true)}
        line |= {"lags": lags, "taps": len(lags), **known}
    return line


def compared(lags: list[int], true: list[int]) -> Line:
    """Count true lags that have a tap within a step, and taps that have no such lag."""
    far = np.abs(np.subtract.outer(np.array(true), np.array(lags))) > 1
    return {
        "taps": len(lags),
        "found": int((~far).any(axis=1).sum()) if len(lags) else 0,
        "false": int(far.all(axis=0).sum()) if len(lags) else 0,
    }
