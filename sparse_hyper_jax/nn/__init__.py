"""Flax NNX modules: parameters plus one call into the functions.

``FreeHyperLayer`` learns a fixed sparse map; ``HyperLayer`` takes its tuples from a source network
that may look at the input. Key networks give images a number to sort by. ``parameter_labels`` tells
the parameters of sparse layers apart for optax.

In Linen use ``flax.nnx.bridge.to_linen(FreeHyperLayer, ...)``. Parameters then lie in collections
named after their types (``RawMeans``, ``RawVariances``, ``TupleValues``, and ``params`` for a dense
bias): differentiate all of them, and pass ``rngs={"sample": key}``, without which every call draws
the same points.
"""

from sparse_hyper_jax.nn.free_tuples import FreeTuples
from sparse_hyper_jax.nn.hyper_layer import FreeHyperLayer, HyperLayer
from sparse_hyper_jax.nn.key_networks import DigitKeyNetwork, NumberKeyNetwork
from sparse_hyper_jax.nn.parameters import RawMeans, RawVariances, TupleValues, parameter_labels

__all__ = [
    "DigitKeyNetwork",
    "FreeHyperLayer",
    "FreeTuples",
    "HyperLayer",
    "NumberKeyNetwork",
    "RawMeans",
    "RawVariances",
    "TupleValues",
    "parameter_labels",
]
