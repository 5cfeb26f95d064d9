"""Layers in a program that is exported for any batch, and for any number of tuples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export

from sparse_hyper_jax import nn
from sparse_hyper_jax.backprop import TopK

SAMPLED = {"num_global": 2, "num_local": 1, "region": (2, 2)}
SMALL = {"channels": (2, 2), "strides": (2, 2), "features": 3}


def hyper(count, rngs):
    source = nn.FreeTuples((3, 4), count, rngs=rngs)
    return nn.HyperLayer(source, (3,), bias="dense", share_samples=False, **SAMPLED, rngs=rngs)


LAYERS = {
    "FreeHyperLayer": (
        (4,),
        lambda rngs, k=5: nn.FreeHyperLayer((4,), (3,), k, **SAMPLED, rngs=rngs),
    ),
    "HyperLayer": ((4,), lambda rngs, k=5: hyper(k, rngs)),
    "Mixture": ((4,), lambda rngs: nn.Mixture(4, 3, 2, 3, product="all", rngs=rngs)),
    "SparseBackpropLinear": (
        (4,),
        lambda rngs: nn.SparseBackpropLinear(4, 5, sparsifier=TopK(2), rngs=rngs),
    ),
    "NumberKeyNetwork": (
        (8, 16),
        lambda rngs: nn.NumberKeyNetwork(2, 8, 8, **SMALL, hidden=2, rngs=rngs),
    ),
    "GlimpseAttention": (
        (8, 8),
        lambda rngs: nn.GlimpseAttention(
            8, 8, (2, 2), num_global=1, num_local=1, region=(3, 3), **SMALL, rngs=rngs
        ),
    ),
    "glimpse_classifier": (
        (8, 8),
        lambda rngs: nn.glimpse_classifier(
            "scale", 8, 8, (4, 4), head="mlp", hidden=2, classes=2, reader="upright", **SMALL,
            rngs=rngs,
        ),
    ),
}  # fmt: skip


def forward(make):
    """The layer as a function of the leaves of its parameters, an input and a key."""
    graph, parameters, rest = nnx.split(make(nnx.Rngs(0)), nnx.Param, ...)
    structure = jax.tree.structure(parameters)

    def call(leaves, x, key):
        layer = nnx.merge(graph, jax.tree.unflatten(structure, leaves), rest)
        if isinstance(layer, nn.NumberKeyNetwork):
            return [layer(x)]
        calls = layer(x, deterministic=True), layer(x, rngs=key)
        return [leaf for leaf in jax.tree.leaves(calls) if jnp.issubdtype(leaf.dtype, jnp.floating)]

    return call, jax.tree.leaves(parameters)


def through_bytes(function, *arguments):
    """Export a function, write it to bytes and read it again."""
    exported = export.export(jax.jit(function))(*arguments)
    return export.deserialize(exported.serialize()).call


def like(array, shape=None):
    return jax.ShapeDtypeStruct(array.shape if shape is None else shape, array.dtype)


KEY = jax.random.key(1)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_exported_for_any_batch(name):
    shape, make = LAYERS[name]
    call, leaves = forward(make)
    batch = export.symbolic_shape("b")
    x = jax.random.uniform(jax.random.key(2), (3, *shape))
    # A key is no type that a program of bytes knows; its words are.
    words = jax.random.key_data(KEY)

    def of_words(leaves, x, words):
        return call(leaves, x, jax.random.wrap_key_data(words))

    arguments = [like(leaf) for leaf in leaves], like(x, (*batch, *shape)), like(words)
    read = through_bytes(of_words, *arguments)
    for count in (3, 1):
        found, expected = (f(leaves, x[:count], words) for f in (read, jax.jit(of_words)))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["FreeHyperLayer", "HyperLayer"])
def test_a_layer_is_exported_for_any_number_of_tuples(name):
    shape, make = LAYERS[name]
    batch, count = export.symbolic_shape("b, k")
    call, leaves = forward(make)
    x = jax.random.uniform(jax.random.key(2), (3, *shape))

    def of_tuples(leaves, x):
        return call(leaves, x, KEY)

    sizes = [tuple(count if size == 5 else size for size in leaf.shape) for leaf in leaves]
    read = through_bytes(
        of_tuples,
        [like(leaf, size) for leaf, size in zip(leaves, sizes, strict=True)],
        like(x, (batch, *shape)),
    )
    for k in (5, 2):
        other, leaves = forward(lambda rngs, k=k: make(rngs, k))
        found = read(leaves, x)
        for one, two in zip(found, jax.jit(other)(leaves, x, KEY), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)
