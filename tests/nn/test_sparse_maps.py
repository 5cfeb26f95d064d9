import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparse_hyper_jax.nn import FreeHyperLayer, HyperLayer
from sparse_hyper_jax.ops import (
    ContinuousTuples,
    hyperlayer_hard,
    settle,
)
from tests.ops.examples import assert_close, scatter

from .examples import BIASES, SAMPLING, X, call, free_layer, never_run, shape_of


def corners(shape):
    return (0,) * len(shape), tuple(size - 1 for size in shape)


def test_evaluation_repeats_and_is_the_settled_tensor():
    @nnx.jit
    def settled(layer):
        tuples = layer.source()
        return settle(tuples, (4, 5)), hyperlayer_hard(tuples, X.T, (4,)).T

    layer = free_layer()
    layer.eval()
    y = call(layer, X)
    np.testing.assert_array_equal(call(layer, X), y)
    entries, expected = settled(layer)
    assert_close(y, X @ scatter(entries, (4, 5)).T)
    assert_close(y, expected)


def test_mode_of_a_call_beats_that_of_the_layer():
    layer = free_layer()
    hard = call(layer, X, deterministic=True)
    layer.eval()
    np.testing.assert_array_equal(call(layer, X), hard)
    assert not np.allclose(call(layer, X, deterministic=False), hard)
    layer.train()
    assert not np.allclose(call(layer, X), hard)


def test_layer_may_start_in_evaluation_mode():
    layer = free_layer(deterministic=True)
    np.testing.assert_array_equal(call(layer, X), call(layer, X))


def test_training_is_random():
    layer = free_layer()
    assert not np.allclose(call(layer, X), call(layer, X))


def test_layers_made_from_one_stream_have_streams_of_their_own():
    @nnx.jit
    def layers():
        rngs = nnx.Rngs(0)
        return [FreeHyperLayer((5,), (4,), 6, rngs=rngs, **SAMPLING) for _ in range(2)]

    one, two = layers()
    nnx.update(two, nnx.state(one, nnx.Param))
    assert_close(call(one, X, deterministic=True), call(two, X, deterministic=True))
    y = call(one, X)
    assert int(two.rngs.count[...]) == 0
    assert not np.allclose(call(two, X), y)


@pytest.mark.parametrize(
    "source",
    [
        lambda: jax.random.key(5),
        lambda: nnx.Rngs(sample=5),
        lambda: nnx.Rngs(5),
        lambda: nnx.Rngs(sample=5)["sample"],
    ],
    ids=["key", "sample", "default", "stream"],
)
def test_randomness_of_a_call_beats_that_of_the_layer(source):
    layer = free_layer()
    given = nnx.jit(lambda layer, x: layer(x, rngs=source()))
    y = given(layer, X)
    assert int(layer.rngs.count[...]) == 0
    call(layer, X)
    assert int(layer.rngs.count[...]) == 1
    np.testing.assert_array_equal(given(layer, X), y)


def test_same_seed_gives_the_same_layer_and_draws():
    one, two = free_layer(seed=4), free_layer(seed=4)
    for _ in range(2):
        np.testing.assert_array_equal(call(one, X), call(two, X))


def keep(leaf):
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.array(jax.random.key_data(leaf) if is_key else leaf)


def test_a_call_changes_nothing_but_the_count_of_its_stream():
    layer = free_layer(**BIASES["sparse"])
    graph, before = nnx.split(layer)
    before = jax.tree.map(keep, before)
    call(layer, X)
    after_graph, after = nnx.split(layer)
    assert after_graph == graph
    changed = [
        jax.tree_util.keystr(path)
        for (path, old), new in zip(
            jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True
        )
        if not np.array_equal(old, keep(new))
    ]
    assert len(changed) == 1
    assert "rngs" in changed[0]
    assert "count" in changed[0]
    call(layer, X, deterministic=True)
    nnx.jit(lambda layer, x: layer(x, rngs=jax.random.key(0)))(layer, X)
    assert int(layer.rngs.count[...]) == 1


def test_nnx_jit_and_split_merge_give_the_numbers_of_eager():
    eager, jitted = free_layer(), free_layer()
    graph, state = nnx.split(free_layer())

    @jax.jit
    def pure(state, x):
        layer = nnx.merge(graph, state)
        y = layer(x)
        return y, nnx.state(layer)

    for _ in range(2):
        y = eager(X)
        assert_close(call(jitted, X), y)
        merged, state = pure(state, X)
        assert_close(merged, y)


def test_seeds_run_side_by_side_under_vmap():
    @nnx.jit
    @nnx.split_rngs(splits=3)
    @nnx.vmap
    def make(rngs):
        return FreeHyperLayer((5,), (4,), 6, rngs=rngs, **SAMPLING)

    layers = make(nnx.Rngs(0))

    @nnx.jit
    @nnx.vmap(in_axes=(0, None))
    def side_by_side(layer, x):
        return layer(x), layer(x, deterministic=True)

    y, hard = side_by_side(layers, X)
    assert y.shape == (3, 3, 4)
    assert not np.allclose(y[0], y[1])
    graph, state = nnx.split(layers)
    for number in range(3):
        single = nnx.merge(graph, jax.tree.map(lambda leaf, number=number: leaf[number], state))
        assert_close(call(single, X, deterministic=True), hard[number])


@pytest.mark.parametrize("share_samples", [True, False])
def test_shared_samples_are_one_matrix_for_the_batch(share_samples):
    layer = free_layer(share_samples=share_samples)
    spread = np.asarray(call(layer, np.tile(X[0], (3, 1)))).std(axis=0).max()
    assert spread < 1e-6 if share_samples else spread > 1e-2


def test_shared_and_separate_samples_have_the_same_expectation():
    draws, batch = 400, 4
    x = np.tile(X[0], (batch, 1))
    keys = jax.random.split(jax.random.key(1), draws)
    outcomes = []
    for share_samples in (True, False):
        layer = free_layer(share_samples=share_samples)
        many = nnx.vmap(lambda layer, x, key: layer(x, rngs=key), in_axes=(None, None, 0))
        y = np.asarray(nnx.jit(many)(layer, x, keys))
        outcomes.append(y.mean(axis=1))
    means = [outcome.mean(axis=0) for outcome in outcomes]
    errors = [outcome.std(axis=0) / np.sqrt(draws) for outcome in outcomes]
    # Averaging over a batch with its own samples helps, averaging equal rows does not.
    assert (errors[1] < 0.75 * errors[0]).all()
    bound = 4 * np.hypot(*errors)
    assert (np.abs(means[0] - means[1]) < bound).all()
    assert (bound < 0.3).all()


@nnx.jit
def with_bias(layer, x):
    layer.bias[...] = jnp.arange(4.0)
    return layer(x, rngs=jax.random.key(0))


@pytest.mark.parametrize("features", [(2,), (2, 3)])
@pytest.mark.parametrize("share_samples", [True, False])
def test_features_are_carried_along(features, share_samples):
    x = np.random.default_rng(2).normal(size=(3, 5, *features)).astype(np.float32)

    layer = free_layer(bias="dense", share_samples=share_samples)
    y = np.asarray(with_bias(layer, x))
    assert y.shape == (3, 4, *features)
    for place in corners(features):
        assert_close(y[..., *place], with_bias(layer, x[..., *place]))


@pytest.mark.parametrize(("in_shape", "out_shape"), [((3, 2), (4,)), ((5,), (2, 3)), ((4,), ())])
def test_any_rank_of_input_and_output(in_shape, out_shape):
    rank = len(in_shape) + len(out_shape)
    layer = free_layer(in_shape, out_shape, region=(2,) * rank, bias="dense")
    x = np.random.default_rng(3).normal(size=(2, *in_shape)).astype(np.float32)
    assert shape_of(layer, x) == (2, *out_shape)
    shape = (*out_shape, *in_shape)
    y, entries = nnx.jit(
        lambda layer, x: (layer(x, deterministic=True), settle(layer.source(), shape))
    )(layer, x)
    expected = x.reshape(2, -1) @ scatter(entries, shape).reshape(math.prod(out_shape), -1).T
    assert_close(np.asarray(y).reshape(2, -1), expected)


@pytest.mark.parametrize("share_samples", [True, False])
def test_batch_of_one_and_of_none(share_samples):
    layer = free_layer(share_samples=share_samples)
    assert shape_of(layer, X[:0]) == (0, 4)
    assert shape_of(layer, X[:1]) == (1, 4)
    hard = np.asarray(call(layer, X, deterministic=True))
    assert_close(call(layer, X[:1], deterministic=True), hard[:1])


@pytest.mark.parametrize("shape", [(5,), (3, 4), (5, 3), (), (3, 1, 5)])
def test_input_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"x of shape .*expected \(batch, 5\)"):
        never_run()(np.zeros(shape, np.float32))


def test_sources_that_do_not_fit_are_refused():
    def source(x):
        return ContinuousTuples(*(np.ones(shape, np.float32) for shape in ((6, 2), (6, 2), 6)))

    with pytest.raises(ValueError, match="add a batch axis"):
        HyperLayer(source, (4,), rngs=nnx.Rngs(0))(np.float32(1))
    with pytest.raises(ValueError, match="add the batch axis"):
        HyperLayer(source, (4,), rngs=nnx.Rngs(0))(np.zeros(5, np.float32))
    with pytest.raises(ValueError, match="tuples of rank 2"):
        HyperLayer(source, (4, 1, 1), rngs=nnx.Rngs(0))(X)


def test_a_batch_of_tuples_must_match_that_of_the_input():
    def source(x):
        shapes = ((2, 6, 2), (2, 6, 2), (2, 6))
        return ContinuousTuples(*(np.ones(shape, np.float32) for shape in shapes))

    with pytest.raises(ValueError, match=r"means of shape \(3, any, any\)"):
        HyperLayer(source, (4,), rngs=nnx.Rngs(0))(X)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"bias": "both"}, "bias='both'"),
        ({"bias": "sparse"}, "num_bias_tuples=0"),
        ({"out_shape": (0,)}, "out_shape"),
        ({"in_shape": 5}, "in_shape"),
        ({"region": (2, 0)}, "region"),
        ({"count": 0}, "num_tuples=0"),
    ],
)
def test_wrong_options_are_refused_at_construction(options, match):
    with pytest.raises(ValueError, match=match):
        never_run(**options)


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_sample_probability_is_the_share_of_sampled_passes(probability):
    layer = free_layer(sample_probability=probability)
    hard = call(layer, X, deterministic=True)
    keys = jax.random.split(jax.random.key(0), 200)
    many = nnx.vmap(lambda layer, x, key: layer(x, rngs=key), in_axes=(None, None, 0))
    y = nnx.jit(many)(layer, X, keys)
    settled = np.isclose(y, hard, rtol=1e-5, atol=1e-6).all(axis=(1, 2))
    # A fair count lies within 4 standard deviations: 4 * sqrt(0.25 / 200) = 0.14.
    assert abs(1 - settled.mean() - probability) < 0.15 * (0 < probability < 1) + 1e-9


def test_sample_probability_follows_a_schedule_without_compiling_again():
    layer, traced = free_layer(), []

    @jax.jit
    def passes(probabilities):
        traced.append(1)
        return jax.lax.map(
            lambda p: layer(X, rngs=jax.random.key(7), sample_probability=p), probabilities
        )

    hard = layer(X, deterministic=True)
    settled, sampled = passes(jnp.array([0.0, 1.0]))
    assert_close(settled, hard)
    assert_close(sampled, jax.jit(lambda x: layer(x, rngs=jax.random.key(7)))(X))
    again, half = passes(jnp.array([1.0, 0.5]))
    assert_close(again, sampled)
    assert np.isclose(half, hard, atol=1e-5).all() or np.isclose(half, sampled, atol=1e-5).all()
    assert len(traced) == 1
    with pytest.raises(ValueError, match="found sample_probability=2"):
        layer(X, rngs=jax.random.key(7), sample_probability=2)


def test_without_sampling_means_get_no_gradient():
    layer = free_layer(sample_probability=0.0)
    loss = nnx.grad(lambda layer: jnp.sum(layer(X, rngs=jax.random.key(0)) ** 2))
    gradient = jax.device_get(nnx.to_pure_dict(nnx.jit(loss)(layer))["source"])
    assert (gradient["raw_means"] == 0).all()
    assert (gradient["raw_variances"] == 0).all()
    assert (gradient["values"] != 0).any()
