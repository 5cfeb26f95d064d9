"""Networks that cost little to make and to run: what takes time is compiling each operation."""

from collections.abc import Callable, Collection
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sparse_hyper_jax.nn import FreeHyperLayer

SAMPLING = {"num_global": 2, "num_local": 2, "region": (2, 2)}
BIASES = {
    "none": {"bias": "none"},
    "dense": {"bias": "dense"},
    "sparse": {"bias": "sparse", "num_bias_tuples": 3},
}
X = np.random.default_rng(100).normal(size=(3, 5)).astype(np.float32)


def drawn(make: Callable[[], Any], *, zeros: Collection[str] = (), seed: int = 0) -> Any:
    """Make a network without running its initializers.

    Its parameters are normal, with the deviation of ``nnx.Linear``, and 0 where the name of a part
    on their path is one of ``zeros``; its streams of random numbers begin from the seed.
    """
    graph, state = nnx.split(nnx.eval_shape(make))
    generator = np.random.default_rng(seed)

    def fill(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key(seed)
        names = {str(getattr(step, "key", step)) for step in path}
        if leaf.ndim < 2 or names & set(zeros):
            return jnp.asarray(np.zeros(leaf.shape, leaf.dtype))
        return jnp.asarray(generator.normal(size=leaf.shape) / np.sqrt(leaf.shape[0]), leaf.dtype)

    return nnx.merge(graph, jax.tree.map_with_path(fill, state))


def at_once(function: Callable[[], Any]) -> Any:
    """Compute in one compiled program what a function gives; used as its decorator."""
    return jax.device_get(jax.jit(function)())


def new_layer(in_shape=(5,), out_shape=(4,), count=6, *, seed=0, **options):
    options = SAMPLING | options
    return FreeHyperLayer(in_shape, out_shape, count, rngs=nnx.Rngs(seed), **options)


@cache
def maker(words, options):
    return nnx.jit(lambda: new_layer(*words, **dict(options)))


def free_layer(*words, **options):
    """A layer made in one compiled program, as are those of equal options."""
    return maker(words, tuple(options.items()))()


def never_run(*words, **options):
    """A layer without numbers in it."""
    return nnx.eval_shape(lambda: new_layer(*words, **options))


@nnx.jit(static_argnames="deterministic")
def call(layer, x, deterministic=None):
    return layer(x, deterministic=deterministic)


def shape_of(layer, x):
    return nnx.eval_shape(lambda layer, x: layer(x, rngs=jax.random.key(0)), layer, x).shape
