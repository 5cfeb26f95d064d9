"""Channels that each have one delay, and what reads them: tasks, the model, how delays are placed.

x (b, T, C) --delays--> x[t - delay_c, c] --kernel (C, U)--> y (b, T, U) --.
               ^                                              |            |
               `-- conv.probe_delays, group by group <-- cotangent         |
targets (b, T, U)         squared error  <---------------------------------|
labels (b,)               cross entropy  <-- head <-- largest over time <--'
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparse_hyper_jax import conv, ops
from sparse_hyper_jax.train.data.spoken import DIGITS, Spoken, load_spoken, split_spoken

Part = tuple[jax.Array, jax.Array]
"""Sequences ``(n, T, C)``, and targets ``(n, T, U)`` or labels ``(n,)``."""

SEQUENCES = (96, 16, 16)
"""Generated to train, validate and test on."""

LEAK = 0.1
WIDEST, NARROWEST = 4.0, 0.2
"""Deviation of a Gaussian delay at first, as one part of the reach, and at last, in steps."""


class DelayTask(NamedTuple):
    """What is to be read off delayed channels."""

    train: Part
    validation: Part | None
    test: Part
    delays: tuple[int, ...]
    """The true ones; none if nobody knows them."""


def delayed_sums(seed: int, channels: int, reach: int, noise: float) -> DelayTask:
    """Draw white channels, a delay for each, and noisy mixtures of the delayed channels.

    ``y[t] = sum_c x[t - delay_c, c] mixing[c] + noise``, in sequences three times as long as the
    reach.
    """
    generator = np.random.default_rng(seed)
    delays = generator.integers(0, reach, channels)
    mixing = generator.normal(size=(channels, channels)) / channels**0.5

    def drawn(count: int) -> Part:
        x = generator.normal(size=(count, 3 * reach, channels))
        delayed = np.zeros_like(x)
        for channel, delay in enumerate(delays):
            delayed[:, delay:, channel] = x[:, : 3 * reach - delay, channel]
        y = delayed @ mixing + noise * generator.normal(size=x.shape)
        return jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)

    train, validation, test = map(drawn, SEQUENCES)
    return DelayTask(train, validation, test, tuple(delays.tolist()))


def spoken_bands(folder: Path, held_out: int, reach: int, *, validate: bool) -> DelayTask:
    """Read the bands of spoken digits, a speaker left out: scaled, and then silence of a reach.

    Each band has mean 0 and variance 1 on what is trained on. The silence, of the mean, is as long
    as the largest delay, so that no delay loses the end of a sound.
    """
    parts = split_spoken(load_spoken(folder), held_out=held_out, validate=validate)
    heard = parts[0]
    assert heard, "not empty"
    mean = heard.bands.mean(axis=(0, 2))
    deviation = np.maximum(heard.bands.std(axis=(0, 2)), 1e-3)

    def scaled(part: Spoken) -> Part:
        x = (part.bands.transpose(0, 2, 1) - mean) / deviation
        x = np.pad(x, ((0, 0), (0, reach - 1), (0, 0)))
        return jnp.asarray(x, jnp.float32), jnp.asarray(part.digits)

    train, validation, test = (part and scaled(part) for part in parts)
    assert train, "not empty"
    assert test, "not empty"
    return DelayTask(train, validation, test, ())


class DelayModel(NamedTuple):
    """What is fixed while delays are learned."""

    reach: int
    """Delays are 0 to ``reach - 1``."""

    drawn: tuple[int, int] = (0, 0)
    """Lags that a Gaussian delay reads besides its two neighbours: from all, and from near."""

    def start(self, key: jax.Array, channels: int, units: int, *, labelled: bool) -> dict[str, Any]:
        """Draw parameters, the same for every way to choose delays."""
        keys = jax.random.split(key)
        parameters = {
            "kernel": jax.random.normal(keys[0], (1, channels, units)) / channels**0.5,
            "bias": jnp.zeros(units),
        }
        if labelled:
            head = jax.random.normal(keys[1], (units, DIGITS)) / units**0.5
            parameters |= {"head": head, "head_bias": jnp.zeros(DIGITS)}
        return parameters

    def mixed(self, parameters: Any, taps: ops.Taps, x: jax.Array) -> jax.Array:
        """Read every channel at its delay: ``(b, T, C)`` to ``(b, T, U)``."""
        lags, placed = taps.positions[..., 0].T, taps.placed.T
        y = conv.lag_conv(x, parameters["kernel"], lags, placed, reach=self.reach)
        return y + parameters["bias"]

    def blurred(self, key: jax.Array, parameters: Any, share: Any, x: jax.Array) -> jax.Array:
        """Read every channel at lags around its delay, the nearer the larger the share trained."""
        widest = self.reach / WIDEST
        deviation = widest * (NARROWEST / widest) ** share
        means = self.means(parameters)
        lags, shares = conv.gaussian_shares(
            key,
            means,
            jnp.full_like(means, 1) * deviation**2,
            self.reach,
            num_global=self.drawn[0],
            num_local=self.drawn[1],
        )
        own = conv.LagShares(lags[:, None], shares[:, None])
        y = conv.soft_lag_conv(x, parameters["kernel"], own, reach=self.reach)
        return y + parameters["bias"]

    def means(self, parameters: Any) -> jax.Array:
        """Give Gaussian delays ``(C,)`` in steps."""
        return ops.bound_means(parameters["means"][:, None], (self.reach,))[:, 0]

    def loss(self, parameters: Any, y: jax.Array, wanted: jax.Array) -> jax.Array:
        """Give the mean squared error, or the mean cross entropy of labels."""
        if wanted.ndim == 1:
            scores = optax.softmax_cross_entropy_with_integer_labels(
                scores_of(parameters, y), wanted
            )
            return jnp.mean(scores)
        return jnp.mean(jnp.square(y - wanted))

    def figure(self, parameters: Any, taps: ops.Taps, part: Part) -> jax.Array:
        """Give what a part is judged by: the share of right labels, or the squared error."""
        y = self.mixed(parameters, taps, part[0])
        if part[1].ndim == 1:
            return jnp.mean(jnp.argmax(scores_of(parameters, y), axis=-1) == part[1])
        return self.loss(parameters, y, part[1])

    def replaced(self, parameters: Any, taps: ops.Taps, group: jax.Array, part: Part) -> ops.Taps:
        """Take the delays of a group of channels away, and place them where they are missed most.

        Args:
            parameters: of the model.
            taps: ``(C, 1, 1)`` and ``(C, 1)``.
            group: flags ``(C,)``.
            part: sequences to look at.
        """
        emptied = ops.Taps(taps.positions, taps.placed & ~group[:, None])
        y = self.mixed(parameters, emptied, part[0])
        cotangent = jax.grad(lambda y: self.loss(parameters, y, part[1]))(y)
        found = conv.probe_delays(
            part[0], cotangent, emptied, reach=self.reach, mixed=True, min_z=None
        )
        # Channels that were never placed wait for the turn of their group.
        placed = found.placed & (group | taps.placed[:, 0])[:, None]
        return ops.Taps(jnp.where(placed[..., None], found.positions, 0), placed)


def scores_of(parameters: Any, y: jax.Array) -> jax.Array:
    """Give scores of classes ``(b, classes)``: of the most that each unit was active."""
    most = jnp.max(y, axis=1)
    return jax.nn.leaky_relu(most, LEAK) @ parameters["head"] + parameters["head_bias"]
