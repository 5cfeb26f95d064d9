"""A small causal transformer whose layers of attention read everything, or a few places only."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from sparse_hyper_jax import attention as lagged
from sparse_hyper_jax.nn import LagAttention, PointerAttention

Kind = Literal["pointers", "lags", "window", "dense"]

NARROWEST = 0.4
"""Standard deviation of a pointer at the end of training, in steps: evaluation rounds."""

LEAST_RATE = 0.1
"""Share of the learning rate that is left at the end."""


class Sizes(NamedTuple):
    """What a network is made of."""

    tokens: int
    length: int
    depth: int
    width: int
    heads: int
    kind: Kind
    pointers: int
    """Pointers, or lags, of every head."""

    near: int
    """Nearest steps that are read besides."""

    points: tuple[int, int]
    """Global and local ones of a pointer, in training."""


class Back(nnx.Module):
    """Source of pointers that look back from 0 steps to all of them, never beyond an end.

    ``back = (t + 1) ** sigmoid(raw) - 1``: near places are told more finely than far ones. To begin
    with, pointers of all heads stand at equal ratios of distance, whatever is read.
    """

    def __init__(self, width: int, heads: int, pointers: int, *, rngs: nnx.Rngs):
        first = (np.arange(heads * pointers) + 0.5) / (heads * pointers)
        logit = jnp.asarray(np.log(first / (1 - first)), jnp.float32)
        self.raw = nnx.Linear(
            width,
            heads * pointers,
            kernel_init=nnx.initializers.zeros,
            bias_init=lambda *_: logit,
            rngs=rngs,
        )
        self.shape = heads, pointers

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Give means and variances ``(b, T, heads, pointers)``; variances are 1, to be scaled."""
        raw = self.raw(x).reshape(*x.shape[:2], *self.shape)
        times = jnp.arange(x.shape[1], dtype=raw.dtype)[:, None, None]
        means = times + 1 - jnp.exp(jnp.log1p(times) * jax.nn.sigmoid(raw))
        return means, jnp.ones_like(means)


class DenseAttention(nnx.Module):
    """Causal self-attention to all steps."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads = heads
        self.query, self.key, self.value, self.out = (
            nnx.Linear(width, width, rngs=rngs) for _ in range(4)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Attend, ``(b, T, width)``."""
        rows = (part(x) for part in (self.query, self.key, self.value))
        parts = (part.reshape(*x.shape[:2], self.heads, -1) for part in rows)
        return self.out(jax.nn.dot_product_attention(*parts, is_causal=True).reshape(x.shape))


def make_attention(sizes: Sizes, *, rngs: nnx.Rngs) -> nnx.Module:
    """Make a layer of attention; lags are placed at equal ratios, beyond the nearest steps."""
    width, heads, near = sizes.width, sizes.heads, min(sizes.near, sizes.length)
    if sizes.kind == "dense":
        return DenseAttention(width, heads, rngs=rngs)
    if sizes.kind == "pointers":
        num_global, num_local = sizes.points
        return PointerAttention(
            width,
            heads,
            Back(width, heads, sizes.pointers, rngs=rngs),
            near=near,
            num_global=num_global,
            num_local=num_local,
            rngs=rngs,
        )
    count = sizes.pointers if sizes.kind == "lags" else 0
    layer = LagAttention(width, heads, count, sizes.length, near=near, rngs=rngs)
    if count:
        lags = spaced_lags(sizes.length, near, heads * count).reshape(heads, count)
        taps = lagged.LagTaps(jnp.asarray(lags), jnp.ones(lags.shape, bool))
        layer.taps.set_value(taps)
    return layer


def spaced_lags(length: int, near: int, count: int) -> np.ndarray:
    """Give lags ``(count,)``: middles of as many equal ratios between the nearest and all steps."""
    shares = (np.arange(count) + 0.5) / count
    lags = near * (length / near) ** shares
    return np.minimum(np.rint(lags), length - 1).astype(np.int32)


class Block(nnx.Module):
    """``x + attention(norm(x))``, then ``x + feed_forward(norm(x))``."""

    def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs):
        width = sizes.width
        self.norms = nnx.List(nnx.LayerNorm(width, rngs=rngs) for _ in range(2))
        self.attention = make_attention(sizes, rngs=rngs)
        self.wide = nnx.Linear(width, 4 * width, rngs=rngs)
        self.narrow = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x: jax.Array, *, key: jax.Array | None, spread: Any) -> jax.Array:
        """Apply; pointers draw with a key, and round without."""
        options: dict[str, Any] = {}
        if isinstance(self.attention, PointerAttention):
            options = {"deterministic": key is None, "rngs": key, "variance_scale": spread**2}
        attend: Any = self.attention
        x = x + attend(self.norms[0](x), **options)
        return x + self.narrow(jax.nn.gelu(self.wide(self.norms[1](x))))


class Transformer(nnx.Module):
    """From tokens to logits of the next ones.

    Positions are learned vectors that are added to those of the tokens, so that also the networks
    that point know where they stand; rotations would tell the scores alone.
    """

    def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs):
        draw = nnx.initializers.normal(0.02)
        self.tokens = nnx.Embed(sizes.tokens, sizes.width, embedding_init=draw, rngs=rngs)
        self.positions = nnx.Embed(sizes.length, sizes.width, embedding_init=draw, rngs=rngs)
        self.blocks = nnx.List(Block(sizes, rngs=rngs) for _ in range(sizes.depth))
        self.norm = nnx.LayerNorm(sizes.width, rngs=rngs)
        self.head = nnx.Linear(sizes.width, sizes.tokens, rngs=rngs)

    def __call__(
        self, tokens: jax.Array, *, key: jax.Array | None = None, spread: Any = 1.0
    ) -> jax.Array:
        """Give logits.

        Args:
            tokens: ``(b, T)``.
            key: what pointers draw points with; None rounds them, and nothing is random.
            spread: their standard deviation in steps.

        Returns:
            ``(b, T, tokens)``.
        """
        x = self.tokens(tokens) + self.positions(jnp.arange(tokens.shape[1]))
        for number, block in enumerate(self.blocks):
            own = None if key is None else jax.random.fold_in(key, number)
            x = block(x, key=own, spread=spread)
        return self.head(self.norm(x))


Build = Callable[[nnx.State], Transformer]


def make_transformer(seed: int, sizes: Sizes) -> tuple[Build, nnx.State]:
    """Build a network; give it as a function of its parameters, and these."""
    network = Transformer(sizes, rngs=nnx.Rngs(params=seed, sample=seed))
    graph, parameters, rest = nnx.split(network, nnx.Param, ...)
    return lambda parameters: nnx.merge(graph, parameters, rest), parameters


def bits_of(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Give the mean bits of a target."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return jnp.mean(losses) / math.log(2)


def make_rate(rate: float, *, warmup: int, steps: int) -> optax.Schedule:
    """Make the learning rate of step t, counted from 0.

    ``rate (t + 1) / warmup`` for ``t < warmup``, then half a cosine from ``rate`` down to a tenth
    of it at the last step.
    """
    rising = optax.linear_schedule(rate / max(warmup, 1), rate, max(warmup - 1, 1))
    falling = optax.cosine_decay_schedule(rate, max(steps - warmup, 1), LEAST_RATE)
    return optax.join_schedules([rising, falling], [warmup])


def spread_at(first: float, step: jax.Array, steps: int) -> jax.Array:
    """Give the standard deviation of pointers: it falls by the same factor in every step."""
    return first * (NARROWEST / first) ** (step / steps)


def windows_of(text: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut a text into inputs and targets ``(n, length)`` side by side; a rest is left out."""
    count = (len(text) - 1) // length
    places = np.arange(count * length).reshape(count, length)
    return text[places], text[places + 1]
