"""Methods of ``lags_quality`` that train all lags, or positions, or reach far by depth."""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.programs.lag_pursuit import (
    PLACED_BY,
    Outcome,
    allowed_lags,
    at_lags,
    least_apart,
)
from benchmarks.programs.lag_training import (
    UNITS,
    Forward,
    Params,
    Run,
    Work,
)
from sparse_hyper_jax import conv, ops

DENSE_BATCH = 16
"""Series of a step of a dense kernel, whose cost hangs on its length more than on these: four times
as many as elsewhere take half as long again."""


@lru_cache
def dense_reads(reach: int, strict: bool) -> Forward:
    """Convolve with a kernel of all lags, by FFT."""

    def forward(params: Params, fixed: dict[str, Any], inputs: jax.Array) -> jax.Array:
        steps = inputs.shape[1]
        length = _fast_length(steps + reach - 1)
        kernel = params["kernel"].at[0].set(0) if strict else params["kernel"]
        spectrum = jnp.fft.rfft(inputs, length, axis=1)
        product = jnp.einsum("bfc,fco->bfo", spectrum, jnp.fft.rfft(kernel, length, axis=0))
        return jnp.fft.irfft(product, length, axis=1)[:, :steps]

    return forward


def _fast_length(least: int) -> int:
    """The smallest product of powers of 2, 3 and 5 that is large enough."""
    sizes = (2**a * 3**b * 5**c for a in range(16) for b in range(4) for c in range(3))
    return min(size for size in sizes if size >= least)


def _group_norms(params: Params) -> jax.Array:
    return jnp.sqrt((params["kernel"] ** 2).sum((1, 2)) + 1e-12).sum()


def dense(run: Run, *, penalized: bool, pruned: bool) -> Outcome:
    """Train all lags; then keep those of the largest norms and train these on."""
    task = run.task
    state = run.start(kernel=run.fresh_taps(task.reach))
    forward = dense_reads(task.reach, task.strict)
    penalty = _group_norms if penalized else None
    work = Work(forward, ("dense", penalized), task.binary, 2, DENSE_BATCH, penalty)
    rates = {"penalty": run.facts.get("penalty", 0.0)}
    state = run.train(work, state, {}, PLACED_BY if pruned else 1.0, lambda share: rates)
    if not pruned:
        return Outcome(forward, state, {})
    kernel = np.asarray(state.params["kernel"])
    lags = run.clock.uncounted(lambda: largest(run, (kernel**2).sum((1, 2))))
    params = {name: part for name, part in state.params.items() if name != "kernel"}
    run.facts |= {"rate": run.facts.get("after", run.facts["rate"])}
    return at_lags(run, lags, run.start(**params, taps=jnp.asarray(kernel[lags])))


def largest(run: Run, norms: np.ndarray) -> np.ndarray:
    """Give the lags of the largest norms, in order."""
    taps, count = ops.empty_taps(run.task.slots), run.task.slots
    scores, allowed = jnp.asarray(norms), jnp.asarray(allowed_lags(run))
    found = ops.pursue(scores, taps, count, apart=least_apart(run.task), allowed=allowed)
    return np.sort(found.positions[:, 0])


def dense_pruned(run: Run) -> Outcome:
    """Train densely, prune by norm, train on."""
    return dense(run, penalized=False, pruned=True)


def lasso(run: Run) -> Outcome:
    """The same with a group lasso on the lags."""
    return dense(run, penalized=True, pruned=True)


def dense_alone(run: Run) -> Outcome:
    """Train densely to the end."""
    return dense(run, penalized=False, pruned=False)


@lru_cache
def gaussian_reads(reach: int, strict: bool) -> Forward:
    """Read at points sampled around means, weighted by density: the hyperlayer."""

    def forward(params: Params, fixed: dict[str, Any], inputs: jax.Array) -> jax.Array:
        means = jnp.clip(params["positions"], int(strict), reach - 1)[:, None]
        variances = jnp.full_like(means, 1) * fixed["spread"] ** 2
        tuples = ops.ContinuousTuples(means, variances, jnp.ones(len(means)))
        entries = ops.relax(
            fixed["key"],
            tuples,
            (reach,),
            num_global=1,
            num_local=1,
            region=(min(64, reach),),
            chunk_size=1,
        )
        points = len(entries.values) // len(means)
        weights = jnp.repeat(params["taps"], points, axis=0) * entries.values[:, None, None]
        return conv.lag_conv(inputs, weights, entries.indices[:, 0], reach=reach, strict=strict)

    return forward


@lru_cache
def linear_reads(reach: int, strict: bool) -> Forward:
    """Read between two neighbouring lags, interpolated."""

    def forward(params: Params, fixed: dict[str, Any], inputs: jax.Array) -> jax.Array:
        positions = jnp.clip(params["positions"], int(strict), reach - 1)
        low = jnp.minimum(jnp.floor(positions), reach - 2)
        share = (positions - low)[:, None, None]
        weights = jnp.concatenate([params["taps"] * (1 - share), params["taps"] * share])
        lags = jnp.concatenate([low, low + 1]).astype(jnp.int32)
        return conv.lag_conv(inputs, weights, lags, reach=reach, strict=strict)

    return forward


def by_gradient(run: Run, name: str, forward: Forward) -> Outcome:
    """Train positions for 80 % of the seconds, then round them and train on."""
    task, count = run.task, run.task.slots
    generator = np.random.default_rng(run.facts["seed"])
    drawn = jnp.asarray(generator.uniform(0, task.reach - 1, count), jnp.float32)
    state = run.start(taps=run.fresh_taps(count), positions=drawn)
    wide, narrow = task.reach / 32, 0.3

    def rates(share: float) -> dict[str, float]:
        spread = wide * (narrow / wide) ** (share / 0.8)
        cells = run.facts["cells"] * 0.5 * (1 + np.cos(np.pi * share / 0.8))
        return {"positions": cells, "spread": spread}

    state = run.train(Work(forward, (name,), task.binary, 4), state, {}, 0.8, rates)
    lags = np.clip(np.round(state.params["positions"]), int(task.strict), task.reach - 1)
    order = np.argsort(lags, kind="stable")
    params = {name: part for name, part in state.params.items() if name != "positions"}
    params["taps"] = jnp.asarray(np.asarray(params["taps"])[order])
    return at_lags(run, lags, run.start(**params))


def gaussian(run: Run) -> Outcome:
    """Positions are means of Gaussians whose spread shrinks."""
    return by_gradient(run, "gaussian", gaussian_reads(run.task.reach, run.task.strict))


def interpolated(run: Run) -> Outcome:
    """Positions are real numbers between two lags."""
    return by_gradient(run, "interpolated", linear_reads(run.task.reach, run.task.strict))


@lru_cache
def stack_reads(depth: int, strict: bool) -> Forward:
    """Layers that read at lags 0 and 1, 2, 4, ..., each added to what it reads."""

    def forward(params: Params, fixed: dict[str, Any], inputs: jax.Array) -> jax.Array:
        if strict:
            inputs = jnp.pad(inputs, [(0, 0), (1, 0), (0, 0)])[:, :-1]
        units = inputs @ params["into"]
        for level in range(depth):
            read = conv.lag_conv(
                units, params["levels"][level], jnp.array([0, 2**level]), reach=2**level + 1
            )
            units += jax.nn.relu(read + params["level_bias"][level])
        return units @ params["out"]

    return forward


def dilated_stack(run: Run) -> Outcome:
    """A stack of dilated convolutions over the whole reach."""
    task, width = run.task, 32
    channels, depth = task.train[0].shape[-1], int(np.ceil(np.log2(task.reach)))
    generator = np.random.default_rng(run.facts["seed"])

    def draw(*shape: int) -> jax.Array:
        spread = 1 / np.sqrt(np.prod(shape[-3:-1]))
        return jnp.asarray(generator.normal(size=shape) * spread, jnp.float32)

    state = run.start(
        into=draw(channels, width),
        levels=draw(depth, 2, width, width),
        level_bias=jnp.zeros((depth, width)),
        out=draw(width, UNITS),
    )
    forward = stack_reads(depth, task.strict)
    work = Work(forward, ("stack", depth), task.binary, 4)
    return Outcome(forward, run.train(work, state, {}, 1.0), {})
