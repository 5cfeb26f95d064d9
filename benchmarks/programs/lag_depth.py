"""Two layers of lags, one on top of the other: what pursuit finds of their pattern.

``h[t] = tanh(.75 sum_u w_u . x[t - u])`` of four units, ``y[t] = sum_v a_v . h[t - v] + noise``,
with four lags ``u`` and four ``v``. The pattern is known up to a shift: ``u + s`` and ``v - s``
make the same system. Together the two layers see the inputs at the 16 lags ``u + v``.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.lines import Facts, Line
from benchmarks.programs.lag_pursuit import PLACED_BY, PROBE_BATCH, statistics
from benchmarks.programs.lag_rivals import dense_reads
from benchmarks.programs.lag_training import (
    UNITS,
    Forward,
    Params,
    Run,
    State,
    Task,
    Work,
    fresh_taps,
    head,
    loss_of,
    measured,
    program,
)
from sparse_hyper_jax import conv, ops
from sparse_hyper_jax.train.data import draw_system, run_system

CHANNELS, REACH, LENGTH, EACH = 8, 128, 1024, 4
NOISE = 0.3


@lru_cache(maxsize=1)
def draw_stack(seed: int, tiny: bool) -> Task:
    """Draw a system of two layers, and series of it."""
    keys = jax.random.split(jax.random.key(seed), 7)
    options: Any = {"reach": REACH, "additive": EACH, "products": 0, "apart": 8}
    units = [draw_system(key, channels=CHANNELS, **options) for key in keys[:4]]
    first = units[0].lags
    second = draw_system(keys[4], channels=1, **options).lags
    weights = 0.75 * jnp.stack([unit.weights for unit in units], axis=-1)
    mix = jax.random.normal(keys[5], (EACH, 4, 1)) / 4

    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        input_key, noise_key = jax.random.split(key)
        inputs = run_system(input_key, units[0], length=128 if tiny else LENGTH)[0]
        hidden = jnp.tanh(conv.lag_conv(inputs, weights, first, reach=REACH))
        targets = conv.lag_conv(hidden, mix, second, reach=REACH)
        return inputs, targets + NOISE * jax.random.normal(noise_key, targets.shape)

    counts = (16, 2, 2) if tiny else (256, 8, 16)
    parts = zip(jax.random.split(keys[6], 3), counts, strict=True)
    drawn = [jax.jit(jax.vmap(draw))(jax.random.split(key, count)) for key, count in parts]
    lags = np.stack([np.sort(first), np.sort(second)])
    return Task(*drawn, lags=lags, floor=NOISE**2, reach=REACH, slots=EACH)


@lru_cache
def stacked() -> Forward:
    """Read by one layer, and what it gives by a second one."""

    def forward(params: Params, fixed: dict[str, Any], inputs: jax.Array) -> jax.Array:
        return upper(params, fixed, lower(params, fixed, inputs))

    return forward


def lower(params: Params, fixed: dict[str, Any], inputs: jax.Array) -> jax.Array:
    """Give what the first layer reads, before its bias."""
    return conv.lag_conv(inputs, params["taps"], fixed["lags"], fixed["placed"], reach=2 * REACH)


def upper(params: Params, fixed: dict[str, Any], pre: jax.Array) -> jax.Array:
    """Give what the second layer reads from the units of the first."""
    units = jax.nn.relu(pre + params["lower_bias"])
    lags, placed = fixed["upper_lags"], fixed["upper_placed"]
    return conv.lag_conv(units, params["upper"], lags, placed, reach=REACH)


@lru_cache
def stacked_dense() -> Forward:
    """Read by two dense kernels."""

    def forward(params: Params, fixed: dict[str, Any], inputs: jax.Array) -> jax.Array:
        dense = dense_reads(REACH, False)
        units = jax.nn.relu(dense(params, {}, inputs) + params["lower_bias"])
        return dense({"kernel": params["upper"]}, {}, units)

    return forward


def probe_of(layer: str, count: int) -> Callable[..., tuple[ops.Taps, ops.Taps]]:
    """Place up to ``count`` taps in one layer, or in both."""

    def placed(inputs: jax.Array, slope: jax.Array, taps: ops.Taps, reach: int) -> ops.Taps:
        correlation, covariance = statistics(reach)(inputs)
        gains = conv.lag_gains(inputs, ops.whiten_cotangent(slope), reach)
        gains = ops.decorrelated_gains(gains, covariance)
        return ops.pursue_gains(gains, taps, count, autocorrelation=correlation, min_z=None)

    def probe(
        params: Params, fixed: dict[str, Any], inputs: jax.Array, targets: jax.Array
    ) -> tuple[ops.Taps, ops.Taps]:
        first = ops.Taps(fixed["lags"][:, None], fixed["placed"])
        second = ops.Taps(fixed["upper_lags"][:, None], fixed["upper_placed"])

        def loss(pre: jax.Array, more: jax.Array) -> jax.Array:
            outputs = head(params, upper(params, fixed, pre) + more)
            return loss_of(outputs, targets, False)

        pre = lower(params, fixed, inputs)
        slopes = jax.grad(loss, (0, 1))(pre, jnp.zeros((*pre.shape[:2], UNITS)))
        reach = REACH if layer != "one" else 2 * REACH
        if layer != "second":
            first = placed(inputs, slopes[0], first, reach)
        if layer in ("second", "both"):
            units = jax.nn.relu(pre + params["lower_bias"])
            second = placed(units, slopes[1], second, REACH)
        return first, second

    return probe


def begin(run: Run, slots: tuple[int, int]) -> tuple[State, dict[str, Any]]:
    """Draw weights, with empty slots but for one of the second layer, which reads the present."""
    key = run.next_key()
    state = run.start(
        taps=run.fresh_taps(slots[0]),
        lower_bias=run.clock.uncounted(lambda: 0.5 * jax.random.normal(key, (UNITS,))),
        upper=run.clock.uncounted(lambda: 10 * fresh_taps(key, slots[1], UNITS)),
    )
    fixed = {
        "lags": np.zeros(slots[0], np.int32),
        "placed": np.zeros(slots[0], bool),
        "upper_lags": np.zeros(slots[1], np.int32),
        "upper_placed": np.arange(slots[1]) == 0,
    }
    return state, fixed


def at_lags(run: Run) -> tuple[Forward, State, dict[str, Any]]:
    """Be told the lags of both layers."""
    state, fixed = begin(run, (EACH, EACH))
    first, second = run.task.lags.astype(np.int32)
    every = np.ones(EACH, bool)
    fixed |= {"lags": first, "placed": every, "upper_lags": second, "upper_placed": every}
    forward = stacked()
    return forward, run.train(Work(forward, ("stack", EACH, EACH), False), state, fixed, 1.0), fixed


def by_pursuit(
    run: Run, layers: list[str], slots: tuple[int, int], count: int = 1
) -> tuple[Forward, State, dict[str, Any]]:
    """Probe these layers, one after the other, until 40 % of the seconds are used up."""
    state, fixed = begin(run, slots)
    forward = stacked()
    work = Work(forward, ("stack", *slots), False)
    for number, layer in enumerate(layers):
        until = 0.03 + (PLACED_BY - 0.03) * number / (len(layers) - 1)
        state = run.train(work, state, fixed, until)
        arguments = (state.params, fixed, *run.some_series(PROBE_BATCH))
        made = program(("probe", layer, slots), probe_of(layer, count), run.clock, *arguments)
        first, second = jax.device_get(made(*arguments))
        fixed = {
            "lags": first.positions[:, 0],
            "placed": first.placed,
            "upper_lags": second.positions[:, 0],
            "upper_placed": second.placed,
        }
    return forward, run.train(work, state, fixed, 1.0), fixed


def dense(run: Run) -> tuple[Forward, State, dict[str, Any]]:
    """Train two dense kernels."""
    state, _ = begin(run, (REACH, REACH))
    params = dict(state.params)
    params["kernel"] = params.pop("taps")
    forward = stacked_dense()
    state = run.start(**params)
    return forward, run.train(Work(forward, ("dense", 2), False, 4), state, {}, 1.0), {}


ONE = (EACH, EACH)
METHODS: dict[str, Callable[[Run], tuple[Forward, State, dict[str, Any]]]] = {
    "both layers, oracle": at_lags,
    "alternating pursuit": lambda run: by_pursuit(run, ["first", "second"] * EACH, ONE),
    "joint pursuit": lambda run: by_pursuit(run, ["both"] * EACH, ONE),
    "one layer, 8 taps": lambda run: by_pursuit(run, ["one"] * 4, (2 * EACH, 1), 2),
    "one layer, 16 taps": lambda run: by_pursuit(run, ["one"] * 8, (4 * EACH, 1), 2),
    "two dense layers": dense,
}


def measure(facts: Facts, tiny: bool) -> Line:
    """Train by one method, and compare its pattern with the true one."""
    task = draw_stack(facts["seed"], tiny)
    run = Run(task, facts)
    forward, state, fixed = METHODS[facts["method"]](run)
    line: Line = measured(forward, state, fixed, task)
    line |= {"steps": run.steps, "temporary_bytes": run.bytes, "floor": task.floor}
    if fixed:
        first = fixed["lags"][fixed["placed"]].tolist()
        second = fixed["upper_lags"][fixed["upper_placed"]].tolist()
        line |= {"lags": sorted(first), "upper_lags": sorted(second)}
        line |= {"true": task.lags.tolist(), **compared(first, second, task.lags)}
    return line


def compared(first: list[int], second: list[int], true: np.ndarray) -> Line:
    """Count true lags that were found, at the best shift, and lags of the inputs that are read."""
    pattern = max(
        len(set(true[0] + shift) & set(first)) + len(set(true[1] - shift) & set(second))
        for shift in range(-REACH, REACH)
    )
    sums = {int(u + v) for u in true[0] for v in true[1]}
    read = {u + v for u in first for v in second}
    return {"found": pattern, "sums": len(sums), "sums_found": len(sums & read)}
