"""A lag layer and a perceptron on it, shared by all times; its lags come by pursuit.

    inputs (n, C) --lags, weights--> (n, H) --perceptron--> outputs (n, O)
                                      |  cotangent
    next taps <-- ops.pursue <-- conv.lag_gains, of every lag and by chance

A window begins with ``reach`` rows that are read only: every row that counts has all of its past.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparse_hyper_jax import conv, ops

Parameters = dict[str, Any]

START = 0.02
"""Size of what a new tap gives, where inputs have variance 1: small, or it disturbs the others."""

LEAK = 0.1

PROBED = 2**15
"""Most rows that count in a probe."""

FAR = 4
"""Reaches away nothing is left of an effect, nor of what resembles it."""

CHANCES = 19
"""How often it is tried what gains are by chance: one in 20 probes of noise places a lag."""


class LagFit(NamedTuple):
    """One model in training."""

    parameters: Parameters
    """``lags (k, C, H)``, ``bias (H,)`` and ``layers``, pairs of a matrix and a bias."""

    taps: ops.Taps
    """Of rank 1: lags beyond the least, which is that of the newest input."""

    optimizer: Any
    """State of the optimizer."""


class Windows(NamedTuple):
    """Rows next to each other, a batch of them."""

    inputs: jax.Array
    """``(b, reach + n, C)``."""

    targets: jax.Array
    """``(b, reach + n, O)``."""

    counted: jax.Array
    """``(b, reach + n)``, 1 where the loss counts."""


def init_parameters(
    key: jax.Array, *, slots: int, channels: int, hidden: Sequence[int], outputs: int
) -> Parameters:
    """Draw parameters; those of taps are small, placed or not, and the same for every method."""
    lag_key, *keys = jax.random.split(key, 1 + len(hidden))
    draw = jax.nn.initializers.he_normal()
    sizes = [*hidden, outputs]
    layers = [
        (draw(one, (before, after)), jnp.zeros(after))
        for one, before, after in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]
    scale = START / channels**0.5
    lags = scale * jax.random.normal(lag_key, (slots, channels, hidden[0]))
    return {"lags": lags, "bias": jnp.zeros(hidden[0]), "layers": layers}


def pre_activations(parameters: Parameters, taps: ops.Taps, inputs: jax.Array) -> jax.Array:
    """Read at the lags: ``(..., n, C)`` to ``(..., n, H)``."""
    lags = taps.positions[:, 0]
    return conv.lag_conv(inputs, parameters["lags"], lags, taps.placed) + parameters["bias"]


def head(parameters: Parameters, before: jax.Array) -> jax.Array:
    """Give outputs ``(..., n, O)`` of what the lag layer gives."""
    for matrix, bias in parameters["layers"]:
        # Leaky: behind units that are silent everywhere, no lag would have a gain.
        before = jax.nn.leaky_relu(before, LEAK) @ matrix + bias
    return before


@dataclass(frozen=True)
class LagModel:
    """What is fixed while a model trains."""

    reach: int
    """Lags from 0 to ``reach - 1`` behind the newest input are candidates."""

    binary: bool
    """Targets are 0 or 1 and outputs logits; else the loss is the mean squared error."""

    def loss(self, outputs: jax.Array, windows: Windows) -> jax.Array:
        """Give the mean over the rows that count: squared error, or cross entropy in nats."""
        if self.binary:
            each = optax.sigmoid_binary_cross_entropy(outputs, windows.targets)
        else:
            each = jnp.square(outputs - windows.targets)
        rows = jnp.mean(each, axis=-1) * windows.counted
        return jnp.sum(rows) / jnp.sum(windows.counted)

    def loss_of(self, parameters: Parameters, taps: ops.Taps, windows: Windows) -> jax.Array:
        """Give the loss of a model."""
        before = pre_activations(parameters, taps, windows.inputs)
        return self.loss(head(parameters, before), windows)

    def gains(self, parameters: Parameters, taps: ops.Taps, windows: Windows) -> jax.Array:
        """Give gains ``(1 + S, reach, C, m)`` of all lags, then what they are by chance, S times.

        By chance means: from inputs of the same series at another time, which resemble their past
        as much, but have nothing to do with the targets. So the cotangents of windows that follow
        each other are turned around in time, by several times the reach if there are enough rows.
        """
        before = pre_activations(parameters, taps, windows.inputs)
        slope = jax.grad(lambda before: self.loss(head(parameters, before), windows))(before)
        white = ops.whiten_cotangent(slope[:, self.reach :])
        count, length, directions = white.shape
        rows = count * length
        margin = min(FAR * self.reach, rows // 4)
        turns = [0, *np.linspace(margin, rows - margin, CHANCES, dtype=int).tolist()]
        turned = [jnp.roll(white.reshape(rows, directions), turn, axis=0) for turn in turns]
        stacked = jnp.concatenate(turned, axis=1).reshape(count, length, -1)
        stacked = jnp.pad(stacked, ((0, 0), (self.reach, 0), (0, 0)))
        gains = conv.lag_gains(windows.inputs, stacked, self.reach)
        gains = ops.decorrelated_gains(gains, channel_covariance(windows.inputs))
        return jnp.moveaxis(gains.reshape(*gains.shape[:2], len(turns), directions), 2, 0)

    def ratios(self, gains: jax.Array, taps: ops.Taps, autocorrelation: jax.Array) -> jax.Array:
        """Score all lags beyond the taps, in units of the largest score by chance; -inf on taps."""
        scores = jax.vmap(
            lambda each: ops.residual_scores(each, taps, autocorrelation=autocorrelation)
        )(gains)
        chance = jnp.max(scores[1:])
        return jnp.where(chance > 0, scores[0] / jnp.where(chance > 0, chance, 1), -jnp.inf)

    def autocorrelation(self, windows: Windows) -> jax.Array:
        """Give ``(reach,)``, by which neighbouring lags are told apart."""
        return conv.autocovariance(windows.inputs, self.reach)

    def windows_at(self, part: Any, starts: jax.Array, length: int) -> Windows:
        """Cut windows of ``length`` counted rows out of a part, each with its past."""
        rows = self.reach + length

        def cut(array: jax.Array) -> jax.Array:
            return jax.vmap(lambda at: jax.lax.dynamic_slice_in_dim(array, at, rows))(starts)

        counted = jnp.arange(rows) >= self.reach
        shape = (len(starts), rows)
        return Windows(
            cut(part.inputs),
            cut(part.targets),
            jnp.broadcast_to(counted.astype(part.inputs.dtype), shape),
        )

    def draw_windows(self, key: jax.Array, part: Any, count: int, length: int) -> Windows:
        """Cut windows at random."""
        last = len(part.inputs) - self.reach - length
        return self.windows_at(part, jax.random.randint(key, (count,), 0, last + 1), length)

    def probed_windows(self, key: jax.Array, part: Any, length: int) -> Windows:
        """Cut windows that follow each other, for a probe; they begin anywhere."""
        rows = len(part.inputs) - self.reach
        count = max(1, min(rows, PROBED) // length)
        first = jax.random.randint(key, (), 0, rows - count * length + 1)
        return self.windows_at(part, first + jnp.arange(count) * length, length)

    def all_windows(self, part: Any, length: int) -> Windows:
        """Cut windows that count every row once; the last one overlaps the one before."""
        rows = len(part.inputs) - self.reach
        length = min(length, rows)
        first = jnp.arange(-(-rows // length)) * length
        starts = jnp.minimum(first, rows - length)
        windows = self.windows_at(part, starts, length)
        fresh = jnp.arange(self.reach + length)[None] >= self.reach + (first - starts)[:, None]
        return windows._replace(counted=windows.counted * fresh)


def channel_covariance(inputs: jax.Array) -> jax.Array:
    """Give ``(C, C)`` over all rows of windows."""
    flat = inputs.reshape(-1, inputs.shape[-1])
    flat = flat - flat.mean(axis=0, keepdims=True)
    return flat.T @ flat / len(flat)


class Probing(NamedTuple):
    """When taps are placed, and how."""

    first: int
    """Step of the first probe."""

    every: int
    """Steps between probes."""

    probes: int
    """How many; 0 where all taps are placed from the beginning."""

    per_probe: int
    """Most taps of a probe."""

    min_gain: float | None
    """Least gain, where 1 is the largest by chance; None places whatever gains most."""

    apart: int
    """Steps around a placed tap in which no other one is placed."""

    def due(self, count: jax.Array) -> jax.Array:
        """Say whether a probe comes before this step, counted from 0."""
        since = count - self.first
        return (since >= 0) & (since % self.every == 0) & (since < self.probes * self.every)


def make_fit_step(
    model: LagModel,
    optimizer: optax.GradientTransformation,
    probing: Probing,
    *,
    batch: int,
    length: int,
) -> Callable[[LagFit, jax.Array, jax.Array, Any], tuple[LagFit, jax.Array]]:
    """Make ``step(fit, key, count, part) -> fit, loss``, after a probe if one is due."""

    def probe(fit: LagFit, key: jax.Array, part: Any) -> ops.Taps:
        windows = model.probed_windows(key, part, length)
        gains = model.gains(fit.parameters, fit.taps, windows)
        correlation = model.autocorrelation(windows)

        def place(_: Any, taps: ops.Taps) -> ops.Taps:
            ratios = model.ratios(gains, taps, correlation)
            return ops.pursue(ratios, taps, apart=probing.apart, threshold=probing.min_gain)

        return jax.lax.fori_loop(0, probing.per_probe, place, fit.taps)

    def step(fit: LagFit, key: jax.Array, count: jax.Array, part: Any) -> tuple[LagFit, jax.Array]:
        probe_key, batch_key = jax.random.split(key)
        taps = fit.taps
        if probing.probes:
            taps = jax.lax.cond(
                probing.due(count), lambda: probe(fit, probe_key, part), lambda: taps
            )
        windows = model.draw_windows(batch_key, part, batch, length)
        loss, gradient = jax.value_and_grad(model.loss_of)(fit.parameters, taps, windows)
        updates, moments = optimizer.update(gradient, fit.optimizer, fit.parameters)
        moved: Any = optax.apply_updates(fit.parameters, updates)
        # What is not placed does not move, whatever the optimizer adds to a gradient of 0.
        placed = taps.placed[:, None, None]
        lags = jnp.where(placed, moved["lags"], fit.parameters["lags"])
        return LagFit(moved | {"lags": lags}, taps, moments), loss

    return step
