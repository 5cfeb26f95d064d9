"""Small modules, and values that are wrong for each kind of their options."""

from functools import partial

import jax.numpy as jnp
import numpy as np
from flax import nnx

from sparse_hyper_jax import nn
from sparse_hyper_jax.nn.glimpse_classifiers import Head
from sparse_hyper_jax.ops import ContinuousTuples

THREE_PARTS = "(?s)found .*; expected .*; "
SMALL = {"channels": (2,), "strides": (2,), "features": 3}
COUNTS = (0, -1, 2.5, "2", None, True)
FLAGS = ("no", 1, None)
NUMBERS = ("1", np.nan, np.inf, None, 1j, [1.0, 2.0])
RNGS = (None, 0, nnx.Rngs, partial(nnx.Rngs, sample=0))
SEED = partial(nnx.Rngs, 0)
"""Streams are made where they are used, inside of the trace."""


def made(options):
    return {
        name: value() if isinstance(value, partial) else value for name, value in options.items()
    }


def shapes(*wrong):
    return (8, "ab", None, (0,), (2.5,), *wrong)


def source(x):
    return ContinuousTuples(jnp.zeros((4, 2)), jnp.ones((4, 2)), jnp.ones(4))


def attention(**options):
    options = {"rngs": nnx.Rngs(0)} | SMALL | options
    return nn.GlimpseAttention(
        **({"height": 6, "width": 6, "window": (4, 4), "grid": "scale"} | options)
    )


def head(**options):
    options = {"window": (4, 4), "inputs": 1, "classes": 2, "kind": "mlp"} | options
    return Head(**({"rngs": nnx.Rngs(0)} | options))
