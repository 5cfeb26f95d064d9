"""Functions with every oddity of structure: name -> function and arguments."""

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax.sort import soft_sort


def eighths(*shape, seed=0):
    draw = np.random.default_rng(seed)
    return jnp.asarray(draw.integers(-8, 8, shape) / 8, jnp.float32)


X, Y, W = eighths(4, 4), eighths(4, 4, seed=1), eighths(4, 4, seed=2)
TABLE, LIST = np.arange(4, dtype=np.float32), [X[0], {"b": Y[1]}]
KEY = jax.random.key(3)
# So large that a product is a call of its own: where a compiler fuses small ones, it rounds anew.
KERNELS = [eighths(64, 64, seed=seed) / 8 for seed in (4, 5)]


def elementwise(x):
    for _ in range(5):
        x = jnp.sin(x) * 0.5 + x
    return x


def dots(weights, x):
    for kernel in weights:
        x = x + jnp.tanh(x @ kernel)
    return jnp.sum(x * x)


def trees(tree, pair):
    x, y = pair
    return {"sum": tree[0] + tree[1]["b"], "rest": [jnp.sin(x), (None, y * tree[0])]}


def constants(x):
    return jnp.cos(x * TABLE[None]) @ W + jnp.asarray(TABLE)[None]


@jax.jit
def scaled(x, factor, shift=0.5):
    return jnp.sin(x) * factor + shift


def calls(x):
    return jax.jit(lambda x: scaled(scaled(x, 2.0), x))(scaled(x, 3.0))


def unused(x, y, n):
    jnp.exp(y)
    return jnp.sin(jnp.sin(x)) * n


def whole_numbers(x):
    x = jnp.tanh(x @ x)
    return jnp.argmax(x, axis=1), x > 0, jnp.sum(x), jnp.round(x).astype(jnp.int32)


def rectified(x):
    return jax.nn.relu(jax.nn.relu(x @ W) - 0.25) + jax.nn.softplus(x)


def with_backward_rule(x):
    return soft_sort(jnp.sum(x, axis=1), jnp.tanh(x), certainty=2.0) * x


def scanned(x, xs):
    def body(carry, x):
        carry = jnp.tanh(carry @ W + x)
        return carry, jnp.sum(carry)

    last, sums = jax.lax.scan(body, jnp.sin(x), xs)
    return jnp.sin(last), sums


def branches(x):
    y = jax.lax.cond(x[0, 0] > 0, jnp.sin, lambda x: x * x, jnp.exp(x))
    return jax.lax.switch(1, [jnp.cos, jnp.tanh], y) + y


def loops(x):
    x = jax.lax.fori_loop(0, 3, lambda _, x: jnp.sin(x), x)
    steps = jax.lax.while_loop(lambda n: n < 5, lambda n: n + 1, 0)
    return jnp.tanh(x) * steps


def dropout(key, x):
    for n in range(2):
        kept = jax.random.bernoulli(jax.random.fold_in(key, n), 0.5, x.shape)
        x = jnp.where(kept, jnp.sin(x), 0.0)
    return x


def half(x):
    x = jnp.tanh(x.astype(jnp.bfloat16) @ W.astype(jnp.bfloat16))
    return jnp.sum(x.astype(jnp.float32), axis=0), x


def empty(x, none):
    return jnp.sin(jnp.sin(none)) * 2.0, jnp.concatenate([none, jnp.tanh(x)])


def checkpointed(x):
    return jax.checkpoint(lambda x: jnp.sin(jnp.sin(x)))(jnp.cos(x)) * x


def passed_through(x, n):
    return x, n, 2.0, jnp.ones(3), jnp.sin(x), x.T


def read_twice(x):
    a = jnp.sin(x)
    b = jnp.cos(a)
    return a, b, jnp.tanh(b + a), a + b * x


def views(x):
    row = jnp.sin(jnp.sum(x, axis=0))
    wide = jnp.broadcast_to(row[None].T, (4, 4))
    for _ in range(3):
        x = jnp.tanh(x + wide) * wide.reshape(4, 4).T
    return x


def several_results(x):
    values, places = jax.lax.top_k(jnp.sin(x), 2)
    parts = jnp.split(jnp.cos(x), 2)
    return jnp.sum(values) * parts[0], jnp.take(parts[1], places[0], axis=1)


def gathered(x, rows):
    return jnp.sin(x)[rows].at[rows[0]].add(x[0]) * 2.0


def complex_numbers(x):
    spectrum = jnp.fft.fft(jnp.sin(x))
    return jnp.abs(spectrum * (1 + 2j)) + jnp.real(spectrum)


def mapped(x):
    return jax.vmap(lambda row: jnp.sin(row) @ W * jnp.sum(row))(x)


def python_numbers(x, factor, power):
    return jnp.sin(x * factor) ** 2 + factor * power


def nothing(x):
    return x


EXACT = {
    "elementwise": (elementwise, (X,)),
    "dots": (dots, (KERNELS, KERNELS[0])),
    "trees": (trees, (LIST, (X, Y))),
    "calls": (calls, (X,)),
    "unused": (unused, (X, Y, 3)),
    "passed through": (passed_through, (X, 2)),
    "rectified": (rectified, (X,)),
    "nothing": (nothing, (X,)),
}
"""Elementwise operations and products alone: the same bit for bit."""

OTHERS = {
    # Read by more than two: the slopes that come back are added in another order.
    "read twice": (read_twice, (X,)),
    "constants": (constants, (X,)),
    "whole numbers": (whole_numbers, (X,)),
    "scan": (scanned, (X, jnp.stack([X, Y, W]))),
    "branches": (branches, (X,)),
    "loops": (loops, (X,)),
    "dropout": (dropout, (KEY, X)),
    "half": (half, (X,)),
    "empty": (empty, (X, jnp.zeros((0, 4)))),
    "checkpoint": (checkpointed, (X,)),
    "views": (views, (X,)),
    "several results": (several_results, (X,)),
    "gathered": (gathered, (X, jnp.array([1, 3]))),
    "complex": (complex_numbers, (X,)),
    "mapped": (mapped, (X,)),
    "python numbers": (python_numbers, (X, 0.5, 2)),
}

BACKWARD_ONLY = {"backward rule": (with_backward_rule, (X,))}
"""Rules without forward mode."""

EXAMPLES = EXACT | OTHERS | BACKWARD_ONLY
