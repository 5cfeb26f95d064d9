"""Flax NNX modules: parameters plus one call into the functions.

``FreeHyperLayer`` learns a fixed sparse map; ``HyperLayer`` takes its tuples from a source network
that may look at the input. ``SparseBackpropLinear`` is a linear layer with a sparse backward pass;
``TRAINED`` says what to differentiate then, ``carry_memory`` moves its memory on. ``Mixture`` sends
each token to one of many experts, or to a few. Key networks give images a number to sort by.
``GlimpseAttention`` reads windows of an image where it has learned to look; ``glimpse_classifier``
puts a head on top, and names the baselines.
``LagConv``, ``OffsetConv``, ``AxonalDelay`` and ``LagAttention`` read at few places, and
``LearnedEdges`` from few nodes, which ``place_taps`` finds; ``GraphConv`` takes edges as they are.
``GridMemory`` reads a grid of vectors at addresses; words of a ``SparseEmbedding`` share rows of
a small table, which ``relocate_rows`` exchanges. ``PointerAttention`` and ``AdaptiveConv`` read
where a source network points to.
``parameter_labels`` tells the parameters of sparse layers apart for optax.

What modules take, and what NaN, padding and meshes of several devices do, says the page Rules of
the documentation. Attributes may be set after construction; what does not fit is refused in calls.

In Linen use ``flax.nnx.bridge.to_linen(FreeHyperLayer, ...)``. Parameters then lie in collections
named after their types (``RawMeans``, ``RawVariances``, ``TupleValues``, and ``params`` for a dense
bias): differentiate all of them, and pass ``rngs={"sample": key}``, without which every call draws
the same points. The memory of a ``SparseBackpropLinear`` lies in the collection
``_overwrite_with_gradient``, which ``flax.training.train_state.TrainState`` knows how to carry; it
carries zeros if the layer took no part in the loss.
"""

from sparse_hyper_jax.nn.adaptive_conv import AdaptiveConv
from sparse_hyper_jax.nn.backprop_memory import (
    TRAINED,
    BackpropMemory,
    carry_memory,
    next_memories,
    reset_memory,
)
from sparse_hyper_jax.nn.delay_layers import AxonalDelay
from sparse_hyper_jax.nn.expert_results import DefaultVectors, Mixed, RouterBias
from sparse_hyper_jax.nn.free_maps import FreeHyperLayer
from sparse_hyper_jax.nn.free_tuples import FreeTuples
from sparse_hyper_jax.nn.glimpse_attention import GlimpseAttention
from sparse_hyper_jax.nn.glimpse_classifiers import Classified
from sparse_hyper_jax.nn.glimpse_models import glimpse_classifier
from sparse_hyper_jax.nn.graph_layers import GraphConv, LearnedEdges
from sparse_hyper_jax.nn.grid_memory import GridMemory
from sparse_hyper_jax.nn.key_networks import NumberKeyNetwork
from sparse_hyper_jax.nn.lag_attention import LagAttention
from sparse_hyper_jax.nn.lag_layers import LagConv
from sparse_hyper_jax.nn.mixture import Mixture
from sparse_hyper_jax.nn.offset_layers import OffsetConv
from sparse_hyper_jax.nn.parameters import (
    RawMeans,
    RawVariances,
    TableRows,
    TupleValues,
    parameter_labels,
)
from sparse_hyper_jax.nn.pointer_attention import PointerAttention
from sparse_hyper_jax.nn.sparse_backprop import SparseBackpropLinear
from sparse_hyper_jax.nn.sparse_embedding import RowSlots, SparseEmbedding, relocate_rows
from sparse_hyper_jax.nn.sparse_maps import HyperLayer
from sparse_hyper_jax.nn.tap_layers import TapSlots
from sparse_hyper_jax.nn.tap_placing import place_taps

__all__ = [
    "TRAINED",
    "AdaptiveConv",
    "AxonalDelay",
    "BackpropMemory",
    "Classified",
    "DefaultVectors",
    "FreeHyperLayer",
    "FreeTuples",
    "GlimpseAttention",
    "GraphConv",
    "GridMemory",
    "HyperLayer",
    "LagAttention",
    "LagConv",
    "LearnedEdges",
    "Mixed",
    "Mixture",
    "NumberKeyNetwork",
    "OffsetConv",
    "PointerAttention",
    "RawMeans",
    "RawVariances",
    "RouterBias",
    "RowSlots",
    "SparseBackpropLinear",
    "SparseEmbedding",
    "TableRows",
    "TapSlots",
    "TupleValues",
    "carry_memory",
    "glimpse_classifier",
    "next_memories",
    "parameter_labels",
    "place_taps",
    "relocate_rows",
    "reset_memory",
]
