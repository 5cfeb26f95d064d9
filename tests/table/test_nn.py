"""Rows of the room ``nn``.

A layer is made anew in each call, inside of all transforms, and its parameters are replaced by
arguments, which the batch shares.
"""

from functools import partial

import jax
import numpy as np
from flax import nnx

from sparse_hyper_jax import nn
from sparse_hyper_jax.attention import LagTaps
from sparse_hyper_jax.backprop import TopK, UnifiedRandomK
from sparse_hyper_jax.graph import InEdges
from sparse_hyper_jax.precision import wide_dtype
from tests.table.columns import Table
from tests.table.examples import BATCH, SAMPLED, eighths
from tests.table.row import Room, Row

IMAGES = eighths(BATCH, 8, 8, 1, low=0.0, high=1.0)
TOKENS = eighths(BATCH, 4, seed=1)
SMALL = {"channels": (2, 2), "strides": (2, 2), "features": 3}
SECOND = {"second": "of the functions a layer is made of, which have rows"}
IN_A_TREE = {"lists": "in a tree of parameters a list is a tree"}
REVERSE = {"jvp": "the documentation of sparse_dense says: reverse mode only"} | SECOND


def with_parameters(make, *parameters, rngs):
    """The layer that ``make`` makes, with other parameters."""
    graph, state, rest = nnx.split(make(rngs), nnx.Param, ...)
    return nnx.merge(graph, jax.tree.unflatten(jax.tree.structure(state), parameters), rest)


def shapes(make):
    layer = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    return [leaf.shape for leaf in jax.tree.leaves(nnx.state(layer, nnx.Param))]


def first(output):
    """The output proper, where a layer returns more: that is not of the same precision."""
    return output[0] if isinstance(output, tuple) else output


def call(make, key, x, *parameters):
    layer = with_parameters(make, *parameters, rngs=nnx.Rngs(params=0, sample=key))
    return first(layer(x, rngs=key))


def row(name, make, x, function=call, **options):
    parameters = [
        eighths(*shape, low=-0.375, high=0.5, seed=n) for n, shape in enumerate(shapes(make))
    ]
    shared = tuple(range(1, 1 + len(parameters)))
    skips = IN_A_TREE | options.pop("skips", {})
    arguments = (x, *parameters)
    return Row(name, partial(function, make), arguments, shared=shared, skips=skips, **options)


def hyper(rngs):
    source = nn.FreeTuples((3, 4), 5, rngs=rngs)
    return nn.HyperLayer(source, (3,), bias="dense", **SAMPLED, rngs=rngs)


def mixture(router):
    return lambda rngs: nn.Mixture(4, 3, 2, 3, router=router, product="all", rngs=rngs)


def crowded(rngs):
    return nn.Mixture(
        4,
        3,
        2,
        3,
        router="top",
        num_chosen=2,
        capacity_factor=1.0,
        bias_rate=0.125,
        product="slots",
        rngs=rngs,
    )


def attention(reader):
    return lambda rngs: nn.GlimpseAttention(
        8, 8, (2, 2), grid="scale", reader=reader, soft_argmax=2.0, **SMALL, rngs=rngs
    )


def key_network(rngs):
    return nn.NumberKeyNetwork(1, 8, 8, **SMALL, hidden=2, rngs=rngs)


def classifier(rngs):
    return nn.glimpse_classifier(
        "reinforce", 8, 8, (4, 4), head="mlp", hidden=2, classes=2, **SMALL, rngs=rngs
    )


def lag_attention(rngs):
    layer = nn.LagAttention(4, 2, 2, 3, near=1, rngs=rngs)
    placed = np.array([[True, False], [True, True]])
    layer.taps.set_value(LagTaps(np.array([[2, 0], [1, 2]], np.int32), placed))
    return layer


def linear(rngs):
    sparsifier = UnifiedRandomK(2)
    return nn.SparseBackpropLinear(4, 5, sparsifier=sparsifier, rngs=rngs)


def remembering(rngs):
    return nn.SparseBackpropLinear(4, 5, sparsifier=TopK(2), memory="shared", rngs=rngs)


def without_key(make, x, *parameters):
    return first(with_parameters(make, *parameters, rngs=nnx.Rngs(params=0))(x))


def linear_loss(y):
    return (y * eighths(BATCH, 5).astype(y.dtype)).sum(dtype=wide_dtype(y))


def remember(make, x, *parameters):
    """The gradient that is left for the optimizer when the memories are taken out."""
    layer = with_parameters(make, *parameters, rngs=nnx.Rngs(params=0))
    trained = nnx.DiffState(0, nn.TRAINED)
    differentiate = nnx.grad(lambda layer: linear_loss(layer(x)), argnums=trained)
    rest = nn.carry_memory(layer, differentiate(layer))
    nn.reset_memory(layer)
    return jax.tree.leaves(rest)


def memories_after(make, x, *parameters):
    layer = with_parameters(make, *parameters, rngs=nnx.Rngs(params=0))
    graph, memories, rest = nnx.split(layer, nn.BackpropMemory, ...)
    memories = nnx.to_pure_dict(memories)

    def loss(memories):
        return linear_loss(nnx.merge(graph, nnx.State(memories), rest)(x))

    return nn.next_memories(memories, jax.grad(loss)(memories))


def lag_conv(rngs):
    return nn.LagConv(3, 2, 3, 6, lags=[0, 4], rngs=rngs)


def learned_edges(rngs):
    layer = nn.LearnedEdges(5, 2, in_features=2, out_features=3, rngs=rngs)
    senders = np.array([[1, 0], [2, 3], [0, 0], [4, 2], [0, 1]], np.int32)
    placed = np.array([[True, False], [True, True], [False, False], [True, True], [True, True]])
    layer.taps.set_value(InEdges(senders, placed))
    return layer


def sparse_embedding(table, values):
    """Of words that are known, since a batch of them has no floats."""
    layer = with_parameters(embedding, table, values, rngs=nnx.Rngs(0))
    return layer(np.array([0, 3, -1, 3], np.int32))


def embedding(rngs):
    layer = nn.SparseEmbedding(4, 3, 2, 2, rngs=rngs)
    layer.rows.set_value(np.array([[0, 1], [2, 0], [1, 2], [2, 1]], np.int32))
    return layer


def after_relocation(table, values):
    layer = with_parameters(embedding, table, values, rngs=nnx.Rngs(0))
    fresh = nn.relocate_rows(layer, lambda one: (one(np.arange(4, dtype=np.int32)) ** 2).sum())
    return layer.words, jax.tree.leaves(fresh)


def graph_conv(h, bias, kernel):
    layer = with_parameters(
        lambda rngs: nn.GraphConv(4, 3, rngs=rngs), bias, kernel, rngs=nnx.Rngs(0)
    )
    return layer(h, np.array([0, 1, 1, 2], np.int32), np.array([1, 0, 2, 1], np.int32))


def taps_after(layer, x):
    fresh = nn.place_taps(layer, lambda layer: (layer(x) ** 2).sum(dtype=wide_dtype(x)))
    return layer.taps.get_value(), jax.tree.leaves(fresh)


LINEAR = dict.fromkeys((1, 2), "the loss is linear in the output")
SAMPLING = {"keyed": True, "exact": False, "skips": SECOND}

ROWS = [
    row(
        "FreeHyperLayer",
        lambda rngs: nn.FreeHyperLayer((4,), (3,), 5, **SAMPLED, rngs=rngs),
        TOKENS,
        wide=False,
        **SAMPLING,
    ),
    row(
        "HyperLayer, FreeTuples, RawMeans, RawVariances, TupleValues",
        hyper,
        TOKENS,
        wide=False,
        **SAMPLING,
    ),
    row(
        "Mixture, midpoint, Mixed",
        mixture("midpoint"),
        TOKENS,
        wide=False,
        redraws=True,
        **SAMPLING,
    ),
    row(
        "Mixture, top, RouterBias",
        crowded,
        TOKENS,
        function=without_key,
        wide=False,
        exact=False,
        skips=SECOND,
    ),
    row(
        "Mixture, default, DefaultVectors",
        mixture("default"),
        TOKENS,
        function=without_key,
        wide=False,
        exact=False,
        skips=SECOND,
    ),
    row(
        "GlimpseAttention",
        attention("upright"),
        IMAGES,
        function=without_key,
        exact=False,
        skips=SECOND,
    ),
    row("glimpse_classifier, Classified", classifier, IMAGES, redraws=True, **SAMPLING),
    row(
        "NumberKeyNetwork",
        key_network,
        IMAGES[..., 0],
        function=without_key,
        wide=False,
        exact=False,
        skips=SECOND,
    ),
    row(
        "LagAttention",
        lag_attention,
        eighths(BATCH, 3, 4, seed=2),
        function=without_key,
        wide=False,
    ),
    row(
        "SparseBackpropLinear",
        linear,
        TOKENS,
        wide=False,
        keyed=True,
        exact=False,
        skips=REVERSE,
    ),
    row(
        "carry_memory, reset_memory, BackpropMemory, TRAINED",
        remembering,
        TOKENS,
        function=remember,
        wide=False,
        exact=None,
        dropped=LINEAR,
    ),
    row(
        "next_memories",
        remembering,
        TOKENS,
        function=memories_after,
        exact=None,
        dropped={0: "a residue is in units of the cotangent"} | LINEAR,
        skips={"x64": "a memory of this layer is one of float32"},
    ),
]

SEQUENCES = eighths(BATCH, 6, 3)


def pointer_attention(rngs):
    def source(x):
        return abs(x[..., :2, None]), 1 + 0 * x[..., :2, None]

    return nn.PointerAttention(4, 2, source, near=1, num_local=2, rngs=rngs)


def adaptive_conv(rngs):
    return nn.AdaptiveConv(3, 2, 2, lambda x: (x[..., :2], 1 + 0 * x[..., 1:]), rngs=rngs)


ROWS += [
    row(
        "PointerAttention",
        pointer_attention,
        eighths(BATCH, 3, 4, seed=2),
        wide=False,
        **SAMPLING,
    ),
    row("AdaptiveConv", adaptive_conv, SEQUENCES, wide=False, **SAMPLING),
]
ROWS += [
    row("LagConv, TapSlots", lag_conv, SEQUENCES, function=without_key, wide=False),
    row(
        "OffsetConv",
        lambda rngs: nn.OffsetConv(2, 2, 2, (3, 3), offsets=[[0, 1], [-1, 0]], rngs=rngs),
        eighths(BATCH, 4, 3, 2),
        function=without_key,
        wide=False,
    ),
    row(
        "AxonalDelay",
        lambda rngs: nn.AxonalDelay(3, 5, delays=[0, 1, 4], out_features=2, rngs=rngs),
        SEQUENCES,
        function=without_key,
        wide=False,
    ),
    row("LearnedEdges", learned_edges, eighths(BATCH, 5, 2), function=without_key, wide=False),
    Row(
        "GraphConv",
        graph_conv,
        (eighths(5, 4), eighths(3, seed=1), eighths(4, 3, seed=2)),
        wide=False,
        skips=IN_A_TREE,
    ),
    row(
        "place_taps",
        lag_conv,
        SEQUENCES,
        function=lambda make, x, *parameters: taps_after(
            with_parameters(make, *parameters, rngs=nnx.Rngs(params=0)), x
        ),
        exact=None,
        dropped="taps are integers and flags; a gain of NaN places none",
    ),
]

ROWS += [
    row(
        "GridMemory",
        lambda rngs: nn.GridMemory((4, 3), 2, num_heads=2, **SAMPLED, rngs=rngs),
        eighths(BATCH, 2, 3, seed=3),
        **SAMPLING,
    ),
    Row(
        "SparseEmbedding, TableRows, RowSlots",
        sparse_embedding,
        (eighths(3, 2), eighths(4, 2, seed=1)),
        wide=False,
        skips=IN_A_TREE,
    ),
    Row(
        "relocate_rows",
        after_relocation,
        (eighths(3, 2), eighths(4, 2, seed=1)),
        wide=False,
        dropped={0: "rows are integers; what is NaN moves nothing"},
        exact=None,
        skips=IN_A_TREE,
    ),
]

EXCEPTIONS = {"parameter_labels": "strings"}


class TestNN(Table):
    room = Room(nn, ROWS, EXCEPTIONS)
