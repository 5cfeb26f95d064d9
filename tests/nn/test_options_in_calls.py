"""What a call of a module refuses: attributes set later, inputs, keys, flags, sources."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparse_hyper_jax import nn
from sparse_hyper_jax.backprop import TopK, UnifiedRandomK, init_memory
from sparse_hyper_jax.nn.glimpse_classifiers import (
    ConvClassifier,
    ScoreFunctionClassifier,
)
from sparse_hyper_jax.nn.image_encoder import ImageEncoder
from sparse_hyper_jax.nn.promotion import promote

from .modules import (
    FLAGS,
    SMALL,
    THREE_PARTS,
    attention,
    head,
    made,
)

IMAGES, X = jnp.ones((2, 6, 6)), jnp.ones((2, 4))
LAYERS = {
    "FreeHyperLayer": (lambda: nn.FreeHyperLayer((4,), (3,), 4, rngs=nnx.Rngs(0)), X),
    "FreeTuples": (lambda: nn.FreeTuples((3, 4), 4, rngs=nnx.Rngs(0)), X),
    "Mixture": (lambda: nn.Mixture(4, 3, 2, 3, router="top", rngs=nnx.Rngs(0)), X),
    "SparseBackpropLinear": (lambda: nn.SparseBackpropLinear(4, 5, rngs=nnx.Rngs(0)), X),
    "GlimpseAttention": (attention, IMAGES),
    "Score": (
        lambda: ScoreFunctionClassifier(attention(reader="bilinear"), head()),
        IMAGES,
    ),
}
ATTRIBUTES = [
    *(("FreeHyperLayer", *pair) for pair in [("num_global", -1), ("num_local", 2)]),
    *(("FreeHyperLayer", *pair) for pair in [("density", "foo"), ("chunk_size", 3)]),
    *(("FreeHyperLayer", *pair) for pair in [("share_samples", "no"), ("wrap", "no")]),
    *(("FreeHyperLayer", *pair) for pair in [("deterministic", "no"), ("template", 3)]),
    *(("FreeHyperLayer", *pair) for pair in [("sample_probability", 2), ("locality", 3)]),
    *(("FreeTuples", *pair) for pair in [("mean_method", "foo"), ("scale", -1), ("floor", "a")]),
    *(("FreeTuples", *pair) for pair in [("boost", np.nan), ("fixed_values", "a")]),
    *(("Mixture", *pair) for pair in [("method", "best"), ("method", "default")]),
    *(("Mixture", *pair) for pair in [("product", "some"), ("decay", 2), ("jitter", -1)]),
    *(("Mixture", *pair) for pair in [("exact_at_argmax", "no"), ("deterministic", 1)]),
    *(("Mixture", *pair) for pair in [("num_chosen", 0), ("renormalise", True)]),
    *(("Mixture", *pair) for pair in [("capacity_factor", -1), ("bias_rate", 0.1)]),
    *(("SparseBackpropLinear", *pair) for pair in [("deterministic", "no"), ("dtype", "foo")]),
    ("SparseBackpropLinear", "backward", TopK(2)),
    *(("GlimpseAttention", *pair) for pair in [("reader", "hrad"), ("reader", ["hard"])]),
    *(("GlimpseAttention", *pair) for pair in [("grid", "quad"), ("glimpses", 2)]),
    *(("GlimpseAttention", *pair) for pair in [("window", (2,)), ("draws", "foo")]),
    *(("GlimpseAttention", *pair) for pair in [("num_global", -1), ("region", (2,))]),
    *(("GlimpseAttention", *pair) for pair in [("variance_scale", -1), ("deterministic", "no")]),
]


@pytest.mark.parametrize(("name", "attribute", "value"), ATTRIBUTES)
def test_attributes_set_later_are_refused_in_the_call(name, attribute, value):
    make, x = LAYERS[name]

    def call(x):
        layer = make()
        setattr(layer, attribute, value)
        return layer(x, **({} if name == "FreeTuples" else {"rngs": jax.random.key(0)}))

    with pytest.raises(ValueError, match=THREE_PARTS):
        jax.eval_shape(call, x)


def test_a_grid_that_turns_is_not_read_upright():
    def call(images, grid, reader):
        network = attention(grid="affine", reader="sampled", num_global=0, num_local=0)
        network.grid, network.reader = grid, reader
        return network(images, rngs=jax.random.key(0))

    with pytest.raises(ValueError, match="found reader='upright' with grid='quad'; expected one"):
        jax.eval_shape(lambda images: call(images, "quad", "upright"), IMAGES)
    with pytest.raises(ValueError, match="found reader='upright' with grid='affine'"):
        jax.eval_shape(lambda images: call(images, "affine", "upright"), IMAGES)
    with pytest.raises(ValueError, match="grid='box' and glimpses=1 in a network that gives 6"):
        jax.eval_shape(lambda images: call(images, "box", "sampled"), IMAGES)


NO_ARRAYS = (None, "x", {"a": 1}, 1j * X, [[1.0], [2.0, 3.0]], nn.Mixture)
CALLS = {
    name: (lambda x, make=make: make()(x, rngs=jax.random.key(0)), shape)
    for name, (make, shape) in LAYERS.items()
    if name != "FreeTuples"
} | {
    "encoder": (ImageEncoder(6, 6, 3, channels=(2,), rngs=nnx.Rngs(0)), IMAGES),
    "keys": (nn.NumberKeyNetwork(1, 6, 6, **SMALL, rngs=nnx.Rngs(0)), IMAGES),
    "conv": (ConvClassifier(6, 6, 2, **SMALL, rngs=nnx.Rngs(0)), IMAGES),
    "head": (head(), jnp.ones((2, 1, 4, 4, 1))),
    "read": (lambda x: attention().read(x, jnp.ones((2, 1, 4, 2))), IMAGES),
    "corners": (lambda x: attention().corners(x), jnp.ones((2, 1, 3))),
    "numbers": (lambda x: attention().numbers(x), IMAGES),
}


@pytest.mark.parametrize("name", CALLS)
def test_inputs_that_are_no_arrays_or_of_another_shape_are_refused(name):
    call, right = CALLS[name]
    other = jnp.ones((*right.shape[:-1], right.shape[-1] + 1))
    for wrong in (*NO_ARRAYS, other):
        with pytest.raises(ValueError, match=THREE_PARTS):
            jax.eval_shape(lambda wrong=wrong: call(wrong))


@pytest.mark.parametrize("shape", [(2, 7, 6), (2, 6, 7), (2, 6, 6, 2), (6, 6), (3, 6, 6)])
def test_images_of_another_size_are_not_read(shape):
    with pytest.raises(ValueError, match=THREE_PARTS):
        jax.eval_shape(lambda: attention().read(jnp.ones(shape), jnp.ones((2, 1, 4, 2))))


@pytest.mark.parametrize(
    "rngs", [0, "key", None, partial(nnx.Rngs, params=0), jax.random.split(jax.random.key(0))]
)
def test_randomness_of_a_call_is_a_key_or_a_stream(rngs):
    def call():
        network = attention(rngs=nnx.Rngs(params=0))
        return network(IMAGES, **made({"rngs": rngs}))

    with pytest.raises(ValueError, match=THREE_PARTS):
        jax.eval_shape(call)


@pytest.mark.parametrize("flag", FLAGS[:2])
@pytest.mark.parametrize("name", ["FreeHyperLayer", "Mixture", "GlimpseAttention", "Score"])
def test_the_mode_of_a_call_is_a_flag(name, flag):
    make, x = LAYERS[name]
    with pytest.raises(ValueError, match="found deterministic="):
        jax.eval_shape(lambda x: make()(x, deterministic=flag), x)


@pytest.mark.parametrize(
    "given",
    [
        *(None, 3, jnp.ones((4, 2)), (jnp.ones((4, 2)), jnp.ones((4, 2)))),
        (jnp.ones(4), jnp.ones(4), jnp.ones(4)),
        (jnp.ones((4, 2)), jnp.ones((4, 1)), jnp.ones(4)),
        (jnp.ones((4, 2)), jnp.ones((4, 2)), jnp.ones(3)),
        (jnp.ones((3, 4, 2)), jnp.ones((3, 4, 2)), jnp.ones((3, 4))),
        (jnp.ones((2, 4, 2)), jnp.ones((2, 4, 2)), jnp.ones(4)),
        ("x", "y", "z"),
    ],
)
def test_a_source_gives_tuples(given):
    def call():
        return nn.HyperLayer(lambda x: given, (3,), rngs=nnx.Rngs(0))(X)

    with pytest.raises(ValueError, match=THREE_PARTS):
        jax.eval_shape(call)


def test_a_source_may_give_lists():
    layer = nn.HyperLayer(lambda x: ([[1, 2]], [[1, 1]], [3]), (3,), rngs=nnx.Rngs(0))
    y = layer([[1, 2, 3, 4]], deterministic=True)
    np.testing.assert_array_equal(y, [[0, 9, 0]])


def test_memories_of_models():
    def slot():
        return nn.SparseBackpropLinear(
            4, 5, sparsifier=TopK(2), memory="slot", batch_shape=(2,), rngs=nnx.Rngs(0)
        )

    model, plain = slot(), nn.SparseBackpropLinear(4, 5, rngs=nnx.Rngs(0))
    memory = init_memory("shared", (5,))
    for call in (
        lambda: nn.reset_memory(plain, batch_shape=(3,)),
        lambda: nn.reset_memory(model, batch_shape=3),
        lambda: nn.reset_memory({}),
        lambda: nn.carry_memory({}, nnx.state(model)),
        lambda: nn.carry_memory(model, {}),
        lambda: nn.next_memories({"a": memory}, {"b": memory}),
        lambda: nn.next_memories({"a": memory}, memory),
        lambda: nn.parameter_labels(None),
        lambda: nn.parameter_labels(model),
    ):
        with pytest.raises(ValueError, match=THREE_PARTS):
            call()
    nn.reset_memory(model, batch_shape=np.array([3]))
    assert model.memory.get_value().residue.shape == (3, 5)


def test_random_layers_want_a_stream_for_their_samples():
    params = partial(nnx.Rngs, params=0)
    for make in (
        lambda: nn.Mixture(4, 3, 2, 3, router="midpoint", rngs=params()),
        lambda: nn.SparseBackpropLinear(4, 5, sparsifier=UnifiedRandomK(2), rngs=params()),
        lambda: nn.FreeHyperLayer((4,), (3,), 4, rngs=params()),
    ):
        with pytest.raises(ValueError, match="found rngs without a stream 'sample'"):
            nnx.eval_shape(make)
    nnx.eval_shape(lambda: nn.Mixture(4, 3, 2, 3, router="top", rngs=params()))


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (("bfloat16", "bfloat16"), "bfloat16"),
        (("bfloat16", "float16"), "float32"),
        (("int32", "bfloat16"), "float32"),
        (("uint8", "uint8"), "float32"),
        (("float32", "bfloat16"), "float32"),
    ],
)
def test_inputs_and_parameters_meet(kinds, expected):
    arrays = [jnp.ones(2, kind) for kind in kinds]
    with jax.numpy_dtype_promotion("strict"):
        one, two, none = promote((*arrays, None))
        half, _ = promote(tuple(arrays), dtype="float16")
    assert one.dtype == two.dtype == expected
    assert none is None
    assert half.dtype == jnp.float16
