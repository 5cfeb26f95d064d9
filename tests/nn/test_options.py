"""Options of modules: refused in three parts where they are given, and in calls if set later."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparse_hyper_jax import nn
from sparse_hyper_jax.backprop import TopK
from sparse_hyper_jax.nn.glimpse_classifiers import (
    ConvClassifier,
    GlimpseClassifier,
    Head,
    ScoreFunctionClassifier,
)
from sparse_hyper_jax.nn.image_encoder import ImageEncoder
from sparse_hyper_jax.ops import Locality, make_template

from .modules import (
    COUNTS,
    FLAGS,
    NUMBERS,
    RNGS,
    SEED,
    SMALL,
    THREE_PARTS,
    attention,
    head,
    made,
    shapes,
    source,
)


def options_of(make, right, **wrong):
    return make, right, [(name, value) for name, values in wrong.items() for value in values]


TUPLES = {
    "num_tuples": COUNTS,
    "num_values": (0, 5, 1.5, "2"),
    "mean_method": ("foo", None, 1),
    "scale": (-1, *NUMBERS),
    "boost": NUMBERS,
    "floor": (-0.5, *NUMBERS),
    "fixed_values": ("1", np.nan, 1j),
    "rngs": RNGS,
}
HYPER = {
    "out_shape": shapes(),
    "num_global": (-1, 1.5, "2", None),
    "num_local": (-1, 2, 1.5),
    "chunk_size": (0, -1, 1.5),
    "template": (3, "a", [[0, 0]] * 4),
    "bias": ("both", None, True),
    "num_bias_tuples": (1, -1, 1.5),
    "share_samples": FLAGS,
    "sample_probability": (2, -0.1, *NUMBERS),
    "density": ("foo", None),
    "locality": (Locality, 3),
    "wrap": FLAGS,
    "deterministic": FLAGS,
}
MODULES = {
    "FreeTuples": options_of(
        nn.FreeTuples,
        {"shape": (3, 4), "num_tuples": 4, "rngs": SEED},
        shape=shapes(()),
        **TUPLES,
    ),
    "HyperLayer": options_of(
        nn.HyperLayer,
        {"source": source, "out_shape": (3,), "rngs": SEED},
        source=(None, 3, nn.FreeTuples),
        region=(8, "ab", (0,), (2.5,)),
        rngs=(None, 0, partial(nnx.Rngs, params=0)),
        **HYPER,
    ),
    "FreeHyperLayer": options_of(
        nn.FreeHyperLayer,
        {"in_shape": (5,), "out_shape": (4,), "num_tuples": 4, "rngs": SEED},
        in_shape=shapes(),
        region=(8, "ab", (0,), (2,), (2, 2, 2)),
        **TUPLES
        | HYPER
        | {
            "chunk_size": (3, 0, 1.5),
            "template": (
                3,
                make_template([[0, 0, 0]] * 4, (1,), chunk_size=1),
                make_template([[0, 0]] * 2, (1,), chunk_size=1),
                make_template([[9, 0]] * 4, (1,), chunk_size=1),
            ),
        },
    ),
    "Mixture": options_of(
        nn.Mixture,
        {
            "in_features": 4,
            "hidden_features": 3,
            "out_features": 2,
            "num_experts": 3,
            "rngs": SEED,
        },
        in_features=COUNTS,
        hidden_features=COUNTS,
        out_features=COUNTS,
        num_experts=COUNTS,
        router=("best", None, 1),
        exact_at_argmax=FLAGS,
        jitter=(-1, "a", np.nan),
        decay=(2, -1, "a", np.nan),
        num_chosen=(0, 4, "a", True),
        renormalise=(*FLAGS, True),
        capacity_factor=(0, -1, "a", np.nan, np.inf, True),
        bias_rate=(-1, "a", np.nan),
        product=("some", "slots", None),
        dtype=("foo", int, 3),
        param_dtype=("foo", int, None, complex),
        kernel_init=(None, 3, lambda key, shape, dtype: jnp.zeros(3)),
        bias_init=(None, 3, lambda key, shape, dtype: jnp.zeros(3)),
        deterministic=FLAGS,
        rngs=RNGS,
    ),
    "SparseBackpropLinear": options_of(
        nn.SparseBackpropLinear,
        {"in_features": 4, "out_features": 5, "rngs": SEED},
        in_features=COUNTS,
        out_features=COUNTS,
        sparsifier=(TopK, TopK(6), None, 0.5, "top"),
        memory=("slot", "some", None, True),
        eta=(-1, 2, "a", np.nan),
        select_on=("foo", None),
        batch_shape=((3,), 3),
        adaptive=FLAGS,
        count=FLAGS,
        dense_bias=FLAGS,
        layout=("in", None),
        use_bias=FLAGS,
        dtype=("foo", int, 3),
        param_dtype=("foo", int, None),
        precision=("foo", 1.5),
        kernel_init=(None, lambda key, shape, dtype: jnp.zeros(3)),
        bias_init=(None, lambda key, shape, dtype: jnp.zeros(3)),
        kernel_metadata=(3, "a"),
        bias_metadata=(3, None),
        deterministic=FLAGS,
        rngs=RNGS,
    ),
    "ImageEncoder": options_of(
        ImageEncoder,
        {"height": 6, "width": 6, "features": 3, "rngs": SEED},
        height=COUNTS,
        width=COUNTS,
        features=COUNTS,
        channels=((), 2, "ab", (0,), (2.5,)),
        strides=((2,), 2, (0, 2), (7, 7)),
        inputs=COUNTS,
        coordinates=FLAGS,
        shrink=COUNTS,
        rngs=RNGS,
    ),
    "NumberKeyNetwork": options_of(
        nn.NumberKeyNetwork,
        {"digits": 2, "height": 6, "width": 6, "rngs": SEED} | SMALL,
        digits=COUNTS,
        height=COUNTS,
        width=COUNTS,
        channels=((), 2, (0,)),
        features=COUNTS,
        hidden=COUNTS,
        rngs=RNGS,
    ),
    "GlimpseAttention": options_of(
        attention,
        {},
        height=COUNTS,
        width=COUNTS,
        window=shapes((2,), (2, 2, 2)),
        grid=("circle", None),
        glimpses=COUNTS,
        reader=("hrad", None),
        inputs=COUNTS,
        features=COUNTS,
        channels=((), 2, (0,)),
        strides=((2, 2), 2, (9,)),
        coordinates=FLAGS,
        shrink=COUNTS,
        soft_argmax=(-1, *NUMBERS),
        variance_scale=(-1, *NUMBERS),
        variance_floor=(-1, *NUMBERS),
        num_global=(-1, 1.5, None),
        num_local=(-1, 1.5, None),
        region=shapes((2,), (2, 2, 2)),
        draws=("window", None),
        deterministic=FLAGS,
        rngs=RNGS,
    ),
    "Head": options_of(
        head,
        {},
        window=shapes((2,)),
        inputs=COUNTS,
        classes=COUNTS,
        kind=("gru", None),
        hidden=COUNTS,
        channels=((), 2, (0,)),
        rngs=RNGS,
    ),
    "GlimpseClassifier": options_of(
        lambda **options: GlimpseClassifier(
            **({"attention": attention(), "head": head()} | options)
        ),
        {},
        attention=(None, nn.GlimpseAttention, 3),
        head=(None, Head, 3),
    ),
    "ScoreFunctionClassifier": options_of(
        lambda **options: ScoreFunctionClassifier(
            **({"attention": attention(reader="bilinear"), "head": head()} | options)
        ),
        {},
        attention=(None, nn.GlimpseAttention, 3),
        head=(None, Head, 3),
        spread=(0, -1, 1e-40, *NUMBERS),
    ),
    "ConvClassifier": options_of(
        ConvClassifier,
        {"height": 6, "width": 6, "classes": 2, "rngs": SEED} | SMALL,
        height=COUNTS,
        classes=COUNTS,
        inputs=COUNTS,
        features=COUNTS,
        coordinates=FLAGS,
        shrink=COUNTS,
        rngs=RNGS,
    ),
    "glimpse_classifier": options_of(
        nn.glimpse_classifier,
        {"model": "box", "height": 6, "width": 6, "window": (4, 4), "rngs": SEED} | SMALL,
        model=("ram", None, 1),
        height=COUNTS,
        window=shapes(),
        classes=COUNTS,
        glimpses=COUNTS,
        inputs=COUNTS,
        head=("gru", None),
        hidden=COUNTS,
        head_channels=((), 2, (0,)),
        features=COUNTS,
        coordinates=FLAGS,
        shrink=COUNTS,
        reader=("hrad", None),
        rngs=RNGS,
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_every_option_is_checked_where_it_is_given(name):
    make, right, wrong = MODULES[name]
    nnx.eval_shape(lambda: make(**made(right)))
    silent = []
    for option, value in wrong:
        given = right | {option: value}
        try:
            with pytest.raises(ValueError, match=THREE_PARTS):
                nnx.eval_shape(lambda given=given: make(**made(given)))
        except BaseException as error:
            silent.append((option, value, f"{error!r:.100}"))
    assert not silent


@pytest.mark.parametrize("name", ["FreeHyperLayer", "Mixture", "SparseBackpropLinear"])
def test_options_that_do_not_exist_are_no_options(name):
    make, right, _ = MODULES[name]
    with pytest.raises(TypeError, match="num_locals"):
        nnx.eval_shape(lambda: make(**made(right), num_locals=3))


def test_counts_may_come_from_numpy():
    def make():
        options = {
            "num_global": np.prod((1, 2)),
            "num_local": np.int32(1),
            "chunk_size": np.int8(2),
        }
        shape = np.array([3, 4])
        layer = nn.FreeHyperLayer(
            shape[1:], shape[:1], np.int64(4), region=shape, **options, rngs=nnx.Rngs(0)
        )
        glimpses = attention(height=np.int64(6), window=np.array([4, 4]), region=np.array([2, 2]))
        return layer, glimpses

    layer, glimpses = nnx.eval_shape(make)
    assert (layer.num_global, layer.num_local, layer.chunk_size) == (2, 1, 2)
    assert (layer.in_shape, layer.out_shape, layer.region) == ((4,), (3,), (3, 4))
    assert (glimpses.shape, glimpses.window, glimpses.region) == ((6, 6), (4, 4), (2, 2))
    numbers = layer.num_global, *layer.region, *glimpses.window, glimpses.glimpses
    assert {type(number) for number in numbers} == {int}
