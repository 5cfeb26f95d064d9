"""Calls of ``nn`` and ``dist``: layers are made, and called on a batch."""

import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax import backprop, dist, nn
from tests.fuzz.calls.parts import reals, tuples
from tests.fuzz.wrong import Call, array, choice, count, flag, number, shape, thing


def rngs():
    return thing(lambda: nnx.Rngs(0), lazy=True, family="rngs", number=False)


def batch(rng, *size):
    return array(reals(rng, *size), ranks=False, lengths=False, last=True, complexes=True)


def layer(name, make, arguments, first, x):
    """Make a layer with the arguments, and call it with ``x``."""

    def use(*positional, x, **options):
        return make(*positional, **options)(x)

    return Call(name, use, arguments | {"x": x}, first, unknown={"densty": "gaussian", "biass": 0})


def free_hyper_layer(rng):
    arguments = {
        "in_shape": shape((4,), ranks=False),
        "out_shape": shape((3,), ranks=False),
        "num_tuples": count(4, 1),
    }
    arguments |= {
        "fixed_values": number(1.0, optional=True),
        "mean_method": choice("clamp"),
        "scale": number(0.1, -1.0),
        "boost": number(2.0),
        "floor": number(0.0, -1.0),
    }
    arguments |= {
        "num_global": count(1),
        "num_local": count(1),
        "region": shape((2, 2)),
        "chunk_size": count(2, 1, 4, optional=True),
    }
    arguments |= {
        "sample_probability": number(0.5, -0.1, 2),
        "density": choice("laplace"),
        "wrap": flag(False),
        "deterministic": flag(False),
        "share_samples": flag(True),
    }
    arguments |= {"bias": choice("dense"), "rngs": rngs()}
    return layer("nn.FreeHyperLayer", nn.FreeHyperLayer, arguments, 3, batch(rng, 2, 4))


def hyper_layer(rng):
    bad = [nn.FreeTuples, lambda x: None, lambda x: {"a": x}]
    arguments = {
        "source": thing(
            lambda: nn.FreeTuples((3, 4), 5, rngs=nnx.Rngs(0)), *bad, lazy=True, family="source"
        )
    }
    arguments |= {
        "out_shape": shape((3,), ranks=False),
        "bias": choice("sparse"),
        "num_bias_tuples": count(2, 1),
        "rngs": rngs(),
    }
    return layer(
        "nn.HyperLayer",
        nn.HyperLayer,
        arguments,
        2,
        array(reals(rng, 2, 4), ranks=False, lengths=False, complexes=True),
    )


def free_tuples(rng):
    arguments = {
        "shape": shape((3, 4), ranks=False),
        "num_tuples": count(4, 1),
        "num_values": count(2, 1, 4, optional=True),
    }
    arguments |= {
        "mean_method": choice("modulo"),
        "scale": number(0.1, -1.0),
        "boost": number(2.0),
        "floor": number(0.0, -1.0),
        "rngs": rngs(),
    }
    return Call(
        "nn.FreeTuples", lambda *first, **rest: nn.FreeTuples(*first, **rest)(), arguments, 2
    )


def linear(rng):
    one = thing(backprop.TopK(2), backprop.TopK, backprop.TopK(9), "TopK", 0.5)
    arguments = {
        "in_features": count(4, 1),
        "out_features": count(5, 1),
        "sparsifier": one,
        "memory": choice("shared"),
        "eta": number(0.5, -0.1, 1.5),
    }
    arguments |= {
        "select_on": choice("gradient"),
        "adaptive": flag(False),
        "count": flag(False),
        "dense_bias": flag(True),
        "layout": choice("in_out"),
        "deterministic": flag(False),
        "rngs": rngs(),
    }
    return layer("nn.SparseBackpropLinear", nn.SparseBackpropLinear, arguments, 2, batch(rng, 2, 4))


def mixture(rng):
    arguments = {
        "in_features": count(4, 1),
        "hidden_features": count(3, 1),
        "out_features": count(2, 1),
        "num_experts": count(3, 1),
    }
    arguments |= {
        "router": choice("midpoint"),
        "exact_at_argmax": flag(True),
        "jitter": number(0.1, -1.0, optional=True),
        "decay": number(0.9, -0.1, 1.5),
        "capacity_factor": number(1.0, -1.0, optional=True),
    }
    arguments |= {"product": choice("all"), "deterministic": flag(False), "rngs": rngs()}
    return layer("nn.Mixture", nn.Mixture, arguments, 4, batch(rng, 2, 4))


def attention(rng):
    arguments = {
        "height": count(8, 4, 16),
        "width": count(8, 4, 16),
        "window": shape((2, 2)),
        "grid": choice("scale"),
        "glimpses": count(1, 1),
        "reader": choice("sampled"),
    }
    arguments |= {
        "inputs": count(1, 1),
        "features": count(3, 1),
        "channels": shape((2,), optional=True),
        "strides": shape((2,), optional=True),
        "coordinates": flag(False),
        "soft_argmax": number(2.0, -1.0),
    }
    arguments |= {
        "variance_scale": number(0.1, -1.0),
        "variance_floor": number(0.0, -1.0),
        "num_global": count(1),
        "num_local": count(1),
        "region": shape((3, 3)),
    }
    arguments |= {"draws": choice("pixel"), "deterministic": flag(False), "rngs": rngs()}
    return layer(
        "nn.GlimpseAttention",
        nn.GlimpseAttention,
        arguments,
        3,
        array(jnp.ones((2, 8, 8, 1)), lengths=False, last=True, complexes=True),
    )


def classifier(rng):
    arguments = {
        "model": choice("box"),
        "height": count(8, 4, 16),
        "width": count(8, 4, 16),
        "window": shape((4, 4)),
        "classes": count(2, 1),
        "glimpses": count(1, 1),
    }
    arguments |= {
        "inputs": count(1, 1),
        "head": choice("mlp"),
        "hidden": count(2, 1),
        "features": count(3, 1),
        "coordinates": flag(False),
        "channels": shape((2,), optional=True),
        "strides": shape((2,), optional=True),
        "rngs": rngs(),
    }
    return layer(
        "nn.glimpse_classifier",
        nn.glimpse_classifier,
        arguments,
        4,
        array(jnp.ones((2, 8, 8, 1)), lengths=False, last=True, complexes=True),
    )


def key_network(rng):
    arguments = {
        "digits": count(1, 1),
        "height": count(8, 4, 16),
        "width": count(8, 4, 16),
        "channels": shape((2,), optional=True),
        "strides": shape((2,), optional=True),
        "features": count(3, 1),
        "hidden": count(2, 1),
        "rngs": rngs(),
    }
    return layer(
        "nn.NumberKeyNetwork",
        nn.NumberKeyNetwork,
        arguments,
        3,
        array(jnp.ones((2, 8, 8)), ranks=False, lengths=False, last=True, complexes=True),
    )


def mesh(rng):
    axes = thing(
        "data=1,tuples=1",
        "data=0",
        "data",
        "rows=2",
        "data=2,data=2",
        "data=a",
        {"data": 0},
        {"data": True},
        {"data": 1.5},
        {"rows": 1},
        {0: 1},
        8,
        text=False,
    )
    return Call("dist.make_mesh", dist.make_mesh, {"axes": axes}, 1)


def spread(rng):
    good = dist.make_mesh("data=1,tuples=1")
    arguments = {
        "tuples": tuples(rng, 4),
        "shape": shape((5, 4)),
        "mesh": thing(good, dist.make_mesh),
    }
    arguments["num_global"] = count(0, 0, 0)

    def use(tuples, shape, **options):
        dist.relax(None, tuples, shape, **options)

    return Call("dist.relax", use, arguments, 2)


NN = (
    free_hyper_layer,
    hyper_layer,
    free_tuples,
    linear,
    mixture,
    attention,
    classifier,
    key_network,
)
DIST = (mesh, spread)
