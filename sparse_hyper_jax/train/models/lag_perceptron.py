"""A lag layer and a perceptron on it, shared by all times; its lags come by pursuit.

    inputs (n, C) --lags, weights--> (n, H) --perceptron--> outputs (n, O)
                                      |  cotangent
    next taps <-- ops.pursue_gains <-- conv.lag_gains, of every lag

A window begins with ``reach`` rows that are read only: every row that counts has all of its past.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparse_hyper_jax import conv, ops

Parameters = dict[str, Any]

START = 0.02
"""Size of what a new tap gives, where inputs have variance 1: small, or it disturbs the others."""

LEAK = 0.1

PROBED = 2**15
"""Most rows that count in a probe."""


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
        """Give the gains ``(reach, C, m)`` of all lags, whitened and decorrelated."""
        before = pre_activations(parameters, taps, windows.inputs)
        slope = jax.grad(lambda before: self.loss(head(parameters, before), windows))(before)
        counted = slope[:, self.reach :]
        white = ops.whiten_cotangent(counted) * windows.counted[:, self.reach :, None]
        white = jnp.pad(white, ((0, 0), (self.reach, 0), (0, 0)))
        gains = conv.lag_gains(windows.inputs, white, self.reach)
        return ops.decorrelated_gains(gains, channel_covariance(windows.inputs))

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
        """Cut windows for a probe: of all rows, or at random if there are more than needed."""
        if len(part.inputs) - self.reach <= PROBED:
            return self.all_windows(part, length)
        return self.draw_windows(key, part, max(1, PROBED // length), length)

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

    min_z: float | None
    """What a gain has to stand out by; None places whatever gains most."""

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
        return ops.pursue_gains(
            model.gains(fit.parameters, fit.taps, windows),
            fit.taps,
            probing.per_probe,
            autocorrelation=model.autocorrelation(windows),
            apart=probing.apart,
            min_z=probing.min_z,
        )

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
