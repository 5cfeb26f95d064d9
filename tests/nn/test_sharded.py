"""Layers with their batch spread over a mesh: what the table does not try, on both axis types."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparse_hyper_jax import nn
from sparse_hyper_jax.nn.image_encoder import ImageEncoder
from sparse_hyper_jax.ops import ContinuousTuples

SAMPLED = {"num_global": 2, "num_local": 1, "region": (2, 2)}
SMALL = {"channels": (2,), "strides": (2,), "features": 3}
X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
IMAGES = np.random.default_rng(1).random((8, 6, 6), np.float32)
SEQUENCES = np.random.default_rng(2).random((8, 2, 6, 12), np.float32)


class Adaptive(nnx.Module):
    """Tuples that depend on the instance."""

    def __init__(self, rngs):
        self.means = nnx.Linear(4, 6, rngs=rngs)

    def __call__(self, x):
        means = 1.0 + jnp.tanh(self.means(x)).reshape(-1, 3, 2)
        return ContinuousTuples(means, jnp.ones_like(means), jnp.ones_like(means[..., 0]))


LAYERS = {
    "samples of its own": (
        lambda rngs: nn.FreeHyperLayer((4,), (3,), 5, share_samples=False, **SAMPLED, rngs=rngs),
        X,
    ),
    "tuples of its own": (
        lambda rngs: nn.HyperLayer(Adaptive(rngs), (3,), bias="dense", **SAMPLED, rngs=rngs),
        X,
    ),
    "ragged": (lambda rngs: nn.Mixture(4, 3, 2, 3, router="top", rngs=rngs), X),
    "slots": (
        lambda rngs: nn.Mixture(
            4, 3, 2, 3, router="top", num_chosen=2, capacity_factor=1.0, product="slots", rngs=rngs
        ),
        X,
    ),
    "sampled": (
        lambda rngs: nn.GlimpseAttention(
            *(6, 6, (2, 2)),
            **{"num_global": 1, "num_local": 1, "region": (2, 2), "soft_argmax": 2.0},
            **SMALL,
            rngs=rngs,
        ),
        IMAGES,
    ),
    "coordinates": (lambda rngs: ImageEncoder(6, 6, 3, coordinates=True, rngs=rngs), IMAGES),
    "sequences": (lambda rngs: nn.NumberKeyNetwork(2, 6, 6, **SMALL, rngs=rngs), SEQUENCES),
}  # fmt: skip
PARTS = {name: nnx.split(make(nnx.Rngs(0)), nnx.Param, ...) for name, (make, _) in LAYERS.items()}
RANDOM = ("samples of its own", "tuples of its own", "ragged", "sampled")


def value_and_slopes(name, parameters, x, key):
    graph, _, rest = PARTS[name]

    def total(parameters):
        layer = nnx.merge(graph, parameters, rest)
        y = layer(x, rngs=key) if name in RANDOM else layer(x)
        y = y.y if isinstance(y, nn.Mixed) else y
        return jnp.sum(jnp.square(y)), y

    (_, y), slopes = jax.value_and_grad(total, has_aux=True)(parameters)
    return y, slopes


@jax.jit
def of_all(parameters, inputs, key):
    return {
        name: value_and_slopes(name, parameters[name], inputs[name], key) for name in parameters
    }


@cache
def on_one_device():
    inputs = {name: x for name, (_, x) in LAYERS.items()}
    parameters = {name: parts[1] for name, parts in PARTS.items()}
    return inputs, parameters, jax.device_get(of_all(parameters, inputs, jax.random.key(3)))


@pytest.mark.parametrize("kind", ["Explicit", "Auto"])
def test_layers_give_the_numbers_and_the_gradients_of_one_device(kind):
    inputs, parameters, expected = on_one_device()
    types = (getattr(jax.sharding.AxisType, kind),)
    mesh = jax.make_mesh((8,), ("batch",), axis_types=types)
    with jax.set_mesh(mesh):
        placed = jax.device_put(inputs, jax.NamedSharding(mesh, jax.P("batch")))
        found = of_all(parameters, placed, jax.random.key(3))
        spread = {name: y.sharding.spec for name, (y, _) in found.items()}
        found = jax.device_get(found)
    if kind == "Explicit":
        assert {name: spec[0] for name, spec in spread.items()} == dict.fromkeys(LAYERS, "batch")
    for name, many in found.items():
        for one, other in zip(jax.tree.leaves(many), jax.tree.leaves(expected[name]), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5, err_msg=name)
