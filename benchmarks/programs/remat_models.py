"""Losses whose gradients are measured: name -> function, arguments, and blocks of it.

Every loss is written as a sequence of blocks, so that one checkpoint per block can be compared. The
first argument holds the parameters, and the loss is a mean of squares.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax import ops, sort

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]
Problem = tuple[Callable[..., Any], tuple[Any, ...]]


def normal(seed: int, *shape: int) -> jax.Array:
    """Give parameters of about unit gain."""
    fan_in = shape[-2] if len(shape) > 1 else 1
    if len(shape) == 4:
        fan_in = shape[0] * shape[1] * shape[2]
    return jax.random.normal(jax.random.key(seed), shape) / jnp.sqrt(fan_in)


def mean_square(y: jax.Array) -> jax.Array:
    """Give the loss."""
    return jnp.mean(jnp.square(y))


def mlp(wrap: Wrap, small: bool) -> Problem:
    """Twelve residual layers of width 128, batch 8,192."""
    width, depth, batch = (16, 3, 8) if small else (128, 12, 8192)
    params = [(normal(2 * n, width, width), normal(2 * n + 1, width, width)) for n in range(depth)]

    def block(layer: Any, x: jax.Array) -> jax.Array:
        inner, outer = layer
        return x + jax.nn.silu(x @ inner) @ outer

    def loss(params: Any, x: jax.Array) -> jax.Array:
        for layer in params:
            x = wrap(block)(layer, x)
        return mean_square(x)

    return loss, (params, normal(99, batch, width))


def convolve(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Convolve images ``(b, h, w, c)``."""
    numbers = ("NHWC", "HWIO", "NHWC")
    strides = (stride, stride)
    return jax.lax.conv_general_dilated(x, kernel, strides, "SAME", dimension_numbers=numbers)


def scaled(x: jax.Array) -> jax.Array:
    """Bring every channel of every image to mean 0 and variance 1."""
    centred = x - jnp.mean(x, (1, 2), keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), (1, 2), keepdims=True) + 1e-5)


def unet(wrap: Wrap, small: bool) -> Problem:
    """Encoder and decoder of four levels, two convolutions each, with skips."""
    side, channels, levels, batch = (8, 4, 2, 1) if small else (64, 16, 4, 16)
    sizes = [channels * 2**level for level in range(levels)]
    params: dict[str, Any] = {"in": normal(0, 3, 3, 3, channels)}
    for n, size in enumerate(sizes):
        before = sizes[max(n - 1, 0)]
        params[f"down{n}"] = (
            normal(4 * n + 1, 3, 3, before, size),
            normal(4 * n + 2, 3, 3, size, size),
        )
        if n < levels - 1:
            both = size + sizes[n + 1]
            params[f"up{n}"] = (
                normal(4 * n + 3, 3, 3, both, size),
                normal(4 * n + 4, 3, 3, size, size),
            )

    def block(kernels: Any, x: jax.Array, stride: int = 1) -> jax.Array:
        x = jax.nn.relu(scaled(convolve(x, kernels[0], stride)))
        return jax.nn.relu(scaled(convolve(x, kernels[1])))

    def up(kernels: Any, x: jax.Array, skip: jax.Array) -> jax.Array:
        wide = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        return block(kernels, jnp.concatenate([wide, skip], axis=-1))

    def loss(params: Any, x: jax.Array) -> jax.Array:
        x, skips = convolve(x, params["in"]), []
        for n in range(levels):
            x = wrap(partial(block, stride=1 if n == 0 else 2))(params[f"down{n}"], x)
            skips.append(x)
        for n in reversed(range(levels - 1)):
            x = wrap(up)(params[f"up{n}"], x, skips[n])
        return mean_square(x)

    return loss, (params, normal(99, batch, side, side, 3))


def residual(wrap: Wrap, small: bool) -> Problem:
    """Ten residual blocks of two convolutions at one resolution."""
    side, channels, depth, batch = (8, 4, 2, 1) if small else (32, 16, 10, 16)
    shape = (3, 3, channels, channels)
    params = [(normal(2 * n, *shape), normal(2 * n + 1, *shape)) for n in range(depth)]

    def block(kernels: Any, x: jax.Array) -> jax.Array:
        inside = jax.nn.relu(scaled(convolve(x, kernels[0])))
        return jax.nn.relu(x + scaled(convolve(inside, kernels[1])))

    def loss(params: Any, x: jax.Array) -> jax.Array:
        for kernels in params:
            x = wrap(block)(kernels, x)
        return mean_square(x)

    return loss, (params, normal(99, batch, side, side, channels))


def layer_norm(affine: Any, x: jax.Array) -> jax.Array:
    """Bring every token to mean 0 and variance 1, then scale and shift it."""
    centred = x - jnp.mean(x, -1, keepdims=True)
    spread = jax.lax.rsqrt(jnp.mean(jnp.square(centred), -1, keepdims=True) + 1e-5)
    return centred * spread * affine[0] + affine[1]


def dense(layer: Any, x: jax.Array) -> jax.Array:
    """Multiply and shift."""
    return x @ layer[0] + layer[1]


def attend(layers: Any, x: jax.Array, heads: int) -> jax.Array:
    """Attend to all tokens before, in several heads."""
    q, k, v = (dense(one, x).reshape(*x.shape[:2], heads, -1) for one in layers[:3])
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / jnp.sqrt(q.shape[-1])
    before = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))
    shares = jax.nn.softmax(jnp.where(before, scores, -1e30))
    return dense(layers[3], jnp.einsum("bhqk,bkhd->bqhd", shares, v).reshape(x.shape))


def transformer(wrap: Wrap, small: bool) -> Problem:
    """Four blocks of width 64, four heads, 64 tokens, batch 32."""
    width, tokens, depth, batch = (8, 4, 2, 2) if small else (64, 64, 4, 32)

    def linear(seed: int, fan_in: int, fan_out: int) -> tuple[jax.Array, jax.Array]:
        return normal(seed, fan_in, fan_out), jnp.zeros(fan_out)

    affine = (jnp.ones(width), jnp.zeros(width))
    params = [
        {
            "norms": (affine, affine),
            "attention": [linear(8 * n + m, width, width) for m in range(4)],
            "inner": linear(8 * n + 4, width, 4 * width),
            "outer": linear(8 * n + 5, 4 * width, width),
        }
        for n in range(depth)
    ]

    def block(layer: Any, x: jax.Array) -> jax.Array:
        x = x + attend(layer["attention"], layer_norm(layer["norms"][0], x), heads=4)
        inside = dense(layer["inner"], layer_norm(layer["norms"][1], x))
        return x + dense(layer["outer"], jax.nn.gelu(inside))

    def loss(params: Any, x: jax.Array) -> jax.Array:
        for layer in params:
            x = wrap(block)(layer, x)
        return mean_square(layer_norm(affine, x))

    return loss, (params, normal(99, batch, tokens, width))


def recurrence(wrap: Wrap, small: bool) -> Problem:
    """A gated recurrence of 32 steps, written out; eight steps are a block."""
    width, steps, batch = (8, 4, 2) if small else (128, 32, 1024)
    params = (normal(0, 2 * width, width), normal(1, 2 * width, width))
    each = max(1, steps // 4)

    def block(params: Any, h: jax.Array, part: jax.Array) -> jax.Array:
        for x in part:
            both = jnp.concatenate([h, x], axis=-1)
            gate = jax.nn.sigmoid(both @ params[0])
            h = gate * h + (1 - gate) * jnp.tanh(both @ params[1])
        return h

    def loss(params: Any, xs: jax.Array) -> jax.Array:
        h = jnp.zeros((batch, width))
        for start in range(0, steps, each):
            h = wrap(block)(params, h, xs[start : start + each])
        return mean_square(h)

    return loss, (params, normal(99, steps, batch, width))


def sorter(wrap: Wrap, small: bool) -> Problem:
    """Four rounds of a residual layer and a soft sort of 256 rows, one after another."""
    width, depth, count = (4, 2, 8) if small else (64, 4, 256)
    params = [(normal(2 * n, width), normal(2 * n + 1, width, width)) for n in range(depth)]

    def block(layer: Any, x: jax.Array) -> jax.Array:
        direction, weights = layer
        x = x + jnp.tanh(x @ weights)
        return sort.soft_sort(x @ direction, x, certainty=4.0)

    def loss(params: Any, batch: jax.Array) -> jax.Array:
        def one(x: jax.Array) -> jax.Array:
            for layer in params:
                x = wrap(block)(layer, x)
            return mean_square(x)

        return jnp.mean(jax.vmap(one)(batch))

    return loss, (params, normal(99, 16, count, width))


def hyperlayers(wrap: Wrap, small: bool) -> Problem:
    """Three hyperlayers of 256 x 256 cells with 256 tuples, batch 64."""
    size, batch = (8, 2) if small else (256, 64)
    params = []
    for n in range(3):
        keys = jax.random.split(jax.random.key(n), 2)
        means = jax.random.uniform(keys[0], (size, 2)) * (size - 1)
        params.append((means, jnp.full((size, 2), size / 8.0), jax.random.normal(keys[1], (size,))))

    def block(layer: Any, key: jax.Array, x: jax.Array) -> jax.Array:
        tuples = ops.ContinuousTuples(*layer)
        sampling = {"num_global": 4, "num_local": 4, "region": (4, 4)}
        return jnp.tanh(ops.hyperlayer(key, tuples, x, (size,), **sampling))

    def loss(params: Any, key: jax.Array, x: jax.Array) -> jax.Array:
        for n, layer in enumerate(params):
            x = wrap(block)(layer, jax.random.fold_in(key, n), x)
        return mean_square(x)

    return loss, (params, jax.random.key(5), normal(99, size, batch))


MODELS: dict[str, Callable[[Wrap, bool], Problem]] = {
    "residual MLP": mlp,
    "U-Net": unet,
    "residual network": residual,
    "transformer": transformer,
    "recurrence": recurrence,
    "soft sorts": sorter,
    "hyperlayers": hyperlayers,
}
