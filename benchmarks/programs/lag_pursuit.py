"""Methods of ``lags_quality`` that choose lags by gains: pursuit in training, linear ones first."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.programs.lag_training import (
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
            taps = ops.pursue(scores, taps, task.slots, apart=least_apart(task), allowed=allowed)
        return taps.positions[:, 0]

    arguments = (*run.some_series(SELECT_FROM), allowed_lags(run))
    name = ("linear", orthogonal, task.reach, task.slots)
    return at_lags(run, program(name, choose, run.clock, *arguments)(*arguments))


def least_apart(task: Task) -> int:
    """Neighbours are kept away from each other in series, not among pixels."""
    return 0 if task.binary else APART - 1


def matching_pursuit(run: Run) -> Outcome:
    """Select forward by the linear squared error, then train."""
    return linear(run, orthogonal=True)


def cross_correlation(run: Run) -> Outcome:
    """Take the largest cross-correlations with the targets, then train."""
    return linear(run, orthogonal=False)
