"""Meshes of 1, 2, 4 and 8 devices, and what to compute on them."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import dist
from tests import folding
from tests.ops.examples import make_tuples

MESHES = (
    *("data=1", "data=2", "tuples=2", "data=2,tuples=2", "tuples=4"),
    *("data=8", "data=4,tuples=2", "data=2,tuples=4", "tuples=8"),
)
FEW = ("data=2", "tuples=4", "data=2,tuples=4")
# One device; each axis alone; both. The same program for other lengths of them.
KINDS = MESHES if folding.apart else ("data=1", "data=8", "tuples=4", "data=2,tuples=4")
SHAPE, COUNT, BATCH = (6, 10), 16, 8
SAMPLING = {"num_global": 3, "num_local": 2, "region": (3, 4)}
POINTS = COUNT * (4 + 3 + 2)
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
COMMON = {"rtol": 1e-5, "atol": 1e-5}


def key():
    return jax.random.key(5)


def inputs(shape=SHAPE, features=(), batch=BATCH):
    x = np.random.default_rng(6).normal(size=(SHAPE[1], *features, batch))
    return make_tuples(COUNT, shape, variance=3.0), jnp.asarray(x, jnp.float32)


def placed(mesh, tuples, x):
    return dist.shard_tuples(tuples, mesh), dist.shard_batch(x, mesh)


def value_and_gradients(function, **options):
    """Outputs and gradients with respect to tuples and input, compiled."""

    def loss(tuples, x, key):
        y = function(key, tuples, x, SHAPE[:1], **options)
        weights = jnp.sin(1.0 + jnp.arange(y.size)).reshape(y.shape)
        return jnp.sum(weights * jnp.sin(y)), y

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))


def on_mesh(function, mesh):
    return partial(function, mesh=mesh)


def collectives(compiled):
    """List what devices exchange in a compiled program, as pairs of an operation and a type."""
    pattern = rf"= (.+?) ({'|'.join(COLLECTIVES)})(?:-start)?\("
    found = re.findall(pattern, compiled.as_text())
    return [
        (name, kind) for types, name in found for kind in re.findall(r"[a-z]+\d*\[[\d,]*\]", types)
    ]
