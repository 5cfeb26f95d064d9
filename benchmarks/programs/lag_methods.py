"""The methods of ``lags_quality``: each decides at which lags a layer reads, and trains it."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.programs.lag_training import (
    UNITS,
    Forward,
    Params,
    Run,
    State,
    Task,
    Work,
    head,
    loss_of,
    program,
)
from sparse_hyper_jax import conv, ops

PLACED_BY = 0.4
"""Share of the seconds after which all positions are fixed; weights are trained to the end."""

FIRST_PROBE = 0.03
PROBE_BATCH = 32
FALSE_RATE = 0.01
SELECT_FROM = 64
"""Series from which linear methods choose lags at once; a probe of a pursuit has 32."""

DENSE_BATCH = 16
"""Series of a step of a dense kernel, whose cost hangs on its length more than on these: four times
as many as elsewhere take half as long again."""

APART = 4
"""Least distance of lags chosen by norms, of which neighbours would take each other's place. True
lags are 8 apart or more: the methods that need this are told so."""


class Outcome:
    """A trained model: how it is evaluated, and its lags."""

    def __init__(
        self, forward: Forward, state: State, fixed: dict[str, Any], lags: Any = None
    ) -> None:
        """Keep what was trained; ``lags`` is None for models that have none."""
        self.forward, self.state, self.fixed = forward, state, fixed
        self.lags = None if lags is None else [int(lag) for lag in lags]


@lru_cache
def reads(count: int, reach: int, strict: bool) -> Forward:
    """Read at the first ``count`` lags; empty slots are masked."""

    def forward(params: Params, fixed: dict[str, Any], inputs: jax.Array) -> jax.Array:
        lags, placed = fixed["lags"][:count], fixed["placed"][:count]
        weights = params["taps"][:count]
        return conv.lag_conv(inputs, weights, lags, placed, reach=reach, strict=strict)

    return forward


def at_lags(run: Run, lags: Any, state: State | None = None) -> Outcome:
    """Train to the end with fixed lags."""
    task, lags = run.task, np.sort(np.asarray(lags)).astype(np.int32)
    if state is None:
        state = run.start(taps=run.fresh_taps(len(lags)))
    fixed = {"lags": lags, "placed": np.ones(len(lags), bool)}
    forward = reads(len(lags), task.reach, task.strict)
    work = Work(forward, ("reads", len(lags)), task.binary)
    state = run.train(work, state, fixed, 1.0)
    return Outcome(forward, state, fixed, lags)


def oracle(run: Run) -> Outcome:
    """Be told the lags."""
    return at_lags(run, run.task.lags)


def random_lags(run: Run) -> Outcome:
    """Draw the lags."""
    generator = np.random.default_rng(run.facts["seed"])
    allowed = np.arange(int(run.task.strict), run.task.reach)
    return at_lags(run, generator.choice(allowed, run.task.slots, replace=False))


def window(run: Run) -> Outcome:
    """Read the last steps."""
    first = int(run.task.strict)
    return at_lags(run, np.arange(first, first + run.task.slots))


# Pursuit.


def allowed_lags(run: Run) -> np.ndarray:
    """Say which lags may be read."""
    return np.arange(run.task.reach) >= int(run.task.strict)


def statistics(reach: int) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    """Measure the autocorrelation by lag, and the covariance of channels."""

    def measure(inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        samples = inputs.reshape(-1, inputs.shape[-1])
        centred = samples - samples.mean(0)
        return conv.autocovariance(inputs, reach), centred.T @ centred / len(samples)

    return measure


class Probed(NamedTuple):
    """What a probe reads: some series, what is known about all, and which lags are allowed."""

    inputs: jax.Array
    targets: jax.Array
    about: tuple[jax.Array, jax.Array]
    allowed: np.ndarray


def probe_of(forward: Forward, task: Task, rule: str) -> Callable[..., ops.Taps]:
    """Compute the gains of all lags on a few series, and place up to two taps."""

    def probe(params: Params, fixed: dict[str, Any], given: Probed) -> ops.Taps:
        pre = forward(params, fixed, given.inputs)
        slope = jax.grad(lambda pre: loss_of(head(params, pre), given.targets, task.binary))(pre)
        white = ops.whiten_cotangent(slope)
        taps = ops.Taps(fixed["lags"][:, None], fixed["placed"])
        correlation, covariance = given.about

        def gains(part: slice) -> jax.Array:
            inputs, slopes = given.inputs[part], white[part]
            found = conv.lag_gains(inputs, slopes, task.reach, strict=task.strict)
            return ops.decorrelated_gains(found, covariance)

        options = {"autocorrelation": correlation, "allowed": given.allowed}
        if rule == "halves":
            one, other = gains(slice(0, None, 2)), gains(slice(1, None, 2))
            counts = given.inputs.shape[1] - np.arange(task.reach)
            # Fewer cells than one over the rate can confirm nothing.
            options |= {"counts": counts, "false_rate": max(FALSE_RATE, 2 / task.reach)}
            return ops.pursue_halves(one, other, taps, 2, **options)
        least = 5.0 if rule == "z" else None
        return ops.pursue_gains(gains(slice(None)), taps, 2, min_z=least, **options)

    return probe


def pursuit(run: Run, *, slots: int, rule: str) -> Outcome:
    """Place two taps a probe from 3 % of the seconds on, the last near 40 %."""
    task, probes = run.task, slots // 2
    state = run.start(taps=run.fresh_taps(slots))
    fixed = {"lags": np.zeros(slots, np.int32), "placed": np.zeros(slots, bool)}
    sample = run.some_series(PROBE_BATCH)[0]
    about = program(("statistics", task.reach), statistics(task.reach), run.clock, sample)(sample)
    count = 2
    for number in range(probes + 1):
        until = FIRST_PROBE + (PLACED_BY - FIRST_PROBE) * number / max(probes - 1, 1)
        forward = reads(count, task.reach, task.strict)
        work = Work(forward, ("reads", count), task.binary)
        state = run.train(work, state, fixed, 1.0 if number == probes else until)
        if number == probes:
            break
        given = Probed(*run.some_series(PROBE_BATCH), about, allowed_lags(run))
        arguments = (state.params, fixed, given)
        probe = probe_of(forward, task, rule)
        made = program(("probe", rule, count, task.reach), probe, run.clock, *arguments)
        found = jax.device_get(made(*arguments))
        fixed = {"lags": found.positions[:, 0], "placed": found.placed}
        # Only as many slots as are needed are read, rounded up so that few programs are compiled.
        count = max(2, 2 * -(-int(found.placed.sum()) // 2))
    return Outcome(forward, state, fixed, fixed["lags"][fixed["placed"]])


def pursuit_fixed(run: Run) -> Outcome:
    """Be told how many lags there are."""
    return pursuit(run, slots=run.task.slots, rule="fixed")


def pursuit_z(run: Run) -> Outcome:
    """Have twice the slots; place what stands out by z > 5."""
    return pursuit(run, slots=2 * run.task.slots, rule="z")


def pursuit_halves(run: Run) -> Outcome:
    """Have twice the slots; place what a second half of the series confirms."""
    return pursuit(run, slots=2 * run.task.slots, rule="halves")


# Linear methods, which choose all lags before training.


def linear(run: Run, *, orthogonal: bool) -> Outcome:
    """Choose lags by how well the targets are predicted linearly."""
    task = run.task

    def choose(inputs: jax.Array, targets: jax.Array, allowed: jax.Array) -> jax.Array:
        autocorrelation, covariance = statistics(task.reach)(inputs)
        centred = targets - targets.mean()
        gains = conv.lag_gains(inputs, centred, task.reach, strict=task.strict)
        gains = ops.decorrelated_gains(gains, covariance)
        taps = ops.empty_taps(task.slots)
        if orthogonal:
            taps = ops.pursue_gains(
                gains,
                taps,
                task.slots,
                autocorrelation=autocorrelation,
                allowed=allowed,
                min_z=None,
            )
        else:
            scores = (gains**2).sum((1, 2))
            taps = ops.pursue(scores, taps, task.slots, apart=_apart(task), allowed=allowed)
        return taps.positions[:, 0]

    arguments = (*run.some_series(SELECT_FROM), allowed_lags(run))
    name = ("linear", orthogonal, task.reach, task.slots)
    return at_lags(run, program(name, choose, run.clock, *arguments)(*arguments))


def _apart(task: Task) -> int:
    """Neighbours are kept away from each other in series, not among pixels."""
    return 0 if task.binary else APART - 1


def matching_pursuit(run: Run) -> Outcome:
    """Select forward by the linear squared error, then train."""
    return linear(run, orthogonal=True)


def cross_correlation(run: Run) -> Outcome:
    """Take the largest cross-correlations with the targets, then train."""
    return linear(run, orthogonal=False)


# The dense kernel.


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
    found = ops.pursue(scores, taps, count, apart=_apart(run.task), allowed=allowed)
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


# Positions by gradient descent.


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


# A stack that reaches as far by depth.


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


METHODS: dict[str, Callable[[Run], Outcome]] = {
    "oracle": oracle,
    "pursuit": pursuit_fixed,
    "pursuit, halves": pursuit_halves,
    "pursuit, z > 5": pursuit_z,
    "matching pursuit": matching_pursuit,
    "dense, pruned": dense_pruned,
    "dense, pruned, two rates": dense_pruned,
    "group lasso": lasso,
    "dense": dense_alone,
    "cross-correlation": cross_correlation,
    "gaussian": gaussian,
    "interpolated": interpolated,
    "dilated stack": dilated_stack,
    "window": window,
    "random": random_lags,
}
