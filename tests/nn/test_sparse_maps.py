import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparse_hyper_jax.nn import FreeHyperLayer, HyperLayer
from sparse_hyper_jax.ops import (
    ContinuousTuples,
    Locality,
    hyperlayer_hard,
    make_template,
    settle,
)
from tests.ops.examples import all_finite, assert_close, scatter

SAMPLING = {"num_global": 2, "num_local": 2, "region": (2, 2)}
BIASES = {
    "none": {"bias": "none"},
    "dense": {"bias": "dense"},
    "sparse": {"bias": "sparse", "num_bias_tuples": 3},
}
X = jax.random.normal(jax.random.key(100), (3, 5))


def free_layer(in_shape=(5,), out_shape=(4,), count=6, *, seed=0, **options):
    options = SAMPLING | options
    return FreeHyperLayer(in_shape, out_shape, count, rngs=nnx.Rngs(seed), **options)


def shape_of(layer, x):
    return jax.eval_shape(lambda x: layer(x, rngs=jax.random.key(0)), x).shape


def corners(shape):
    return (0,) * len(shape), tuple(size - 1 for size in shape)


def test_evaluation_repeats_and_is_the_settled_tensor():
    layer = free_layer()
    layer.eval()
    y = layer(X)
    np.testing.assert_array_equal(layer(X), y)
    assert_close(y, np.asarray(X) @ scatter(settle(layer.source(), (4, 5)), (4, 5)).T)
    assert_close(y, hyperlayer_hard(layer.source(), X.T, (4,)).T)


def test_mode_of_a_call_beats_that_of_the_layer():
    layer = free_layer()
    hard = layer(X, deterministic=True)
    layer.eval()
    np.testing.assert_array_equal(layer(X), hard)
    assert not np.allclose(layer(X, deterministic=False), hard)
    layer.train()
    assert not np.allclose(layer(X), hard)


def test_layer_may_start_in_evaluation_mode():
    layer = free_layer(deterministic=True)
    np.testing.assert_array_equal(layer(X), layer(X))


def test_training_is_random():
    layer = free_layer()
    assert not np.allclose(layer(X), layer(X))


def test_layers_made_from_one_stream_have_streams_of_their_own():
    rngs = nnx.Rngs(0)
    one, two = (FreeHyperLayer((5,), (4,), 6, rngs=rngs, **SAMPLING) for _ in range(2))
    nnx.update(two, nnx.state(one, nnx.Param))
    assert_close(one(X, deterministic=True), two(X, deterministic=True))
    y = one(X)
    assert int(two.rngs.count[...]) == 0
    assert not np.allclose(two(X), y)


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
    y = layer(X, rngs=source())
    assert int(layer.rngs.count[...]) == 0
    layer(X)
    assert int(layer.rngs.count[...]) == 1
    np.testing.assert_array_equal(layer(X, rngs=source()), y)


def test_same_seed_gives_the_same_layer_and_draws():
    one, two = free_layer(seed=4), free_layer(seed=4)
    for _ in range(2):
        np.testing.assert_array_equal(one(X), two(X))


def test_a_call_changes_nothing_but_the_count_of_its_stream():
    layer = free_layer(**BIASES["sparse"])
    graph, before = nnx.split(layer)
    before = jax.tree.map(jnp.copy, before)
    layer(X)
    after_graph, after = nnx.split(layer)
    assert after_graph == graph
    changed = [
        jax.tree_util.keystr(path)
        for (path, old), new in zip(
            jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True
        )
        if not bool(jnp.all(old == new))
    ]
    assert len(changed) == 1
    assert "rngs" in changed[0]
    assert "count" in changed[0]
    layer(X, deterministic=True)
    layer(X, rngs=jax.random.key(0))
    assert int(layer.rngs.count[...]) == 1


def test_nnx_jit_and_split_merge_give_the_numbers_of_eager():
    eager, jitted = free_layer(), free_layer()
    call = nnx.jit(lambda layer, x: layer(x))
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
    @nnx.split_rngs(splits=3)
    @nnx.vmap
    def make(rngs):
        return FreeHyperLayer((5,), (4,), 6, rngs=rngs, **SAMPLING)

    layers = make(nnx.Rngs(0))

    @nnx.jit
    @nnx.vmap(in_axes=(0, None))
    def call(layer, x):
        return layer(x), layer(x, deterministic=True)

    y, hard = call(layers, X)
    assert y.shape == (3, 3, 4)
    assert not np.allclose(y[0], y[1])
    graph, state = nnx.split(layers)
    for number in range(3):
        single = nnx.merge(graph, jax.tree.map(lambda leaf, number=number: leaf[number], state))
        assert_close(single(X, deterministic=True), hard[number])


@pytest.mark.parametrize("share_samples", [True, False])
def test_shared_samples_are_one_matrix_for_the_batch(share_samples):
    layer = free_layer(share_samples=share_samples)
    y = layer(jnp.broadcast_to(X[0], X.shape))
    spread = float(jnp.max(jnp.std(y, axis=0)))
    assert spread < 1e-6 if share_samples else spread > 1e-2


def test_shared_and_separate_samples_have_the_same_expectation():
    draws, batch = 400, 4
    x = jnp.broadcast_to(X[0], (batch, 5))
    keys = jax.random.split(jax.random.key(1), draws)
    outcomes = []
    for share_samples in (True, False):
        layer = free_layer(share_samples=share_samples)
        y = np.asarray(jax.jit(jax.vmap(lambda key, layer=layer: layer(x, rngs=key)))(keys))
        outcomes.append(y.mean(axis=1))
    means = [outcome.mean(axis=0) for outcome in outcomes]
    errors = [outcome.std(axis=0) / np.sqrt(draws) for outcome in outcomes]
    # Averaging over a batch with its own samples helps, averaging equal rows does not.
    assert (errors[1] < 0.75 * errors[0]).all()
    bound = 4 * np.hypot(*errors)
    assert (np.abs(means[0] - means[1]) < bound).all()
    assert (bound < 0.3).all()


@pytest.mark.parametrize("features", [(2,), (2, 3)])
@pytest.mark.parametrize("share_samples", [True, False])
def test_features_are_carried_along(features, share_samples):
    layer = free_layer(bias="dense", share_samples=share_samples)
    layer.bias[...] = jnp.arange(4.0)
    x = jax.random.normal(jax.random.key(2), (3, 5, *features))
    y = layer(x, rngs=jax.random.key(0))
    assert y.shape == (3, 4, *features)
    first, last = (layer(x[..., *place], rngs=jax.random.key(0)) for place in corners(features))
    assert_close(y[..., *corners(features)[0]], first)
    assert_close(y[..., *corners(features)[1]], last)


@pytest.mark.parametrize(("in_shape", "out_shape"), [((3, 2), (4,)), ((5,), (2, 3)), ((4,), ())])
def test_any_rank_of_input_and_output(in_shape, out_shape):
    rank = len(in_shape) + len(out_shape)
    layer = free_layer(in_shape, out_shape, region=(2,) * rank, bias="dense")
    x = jax.random.normal(jax.random.key(3), (2, *in_shape))
    assert shape_of(layer, x) == (2, *out_shape)
    dense = scatter(settle(layer.source(), (*out_shape, *in_shape)), (*out_shape, *in_shape))
    expected = np.asarray(x).reshape(2, -1) @ dense.reshape(math.prod(out_shape), -1).T
    assert_close(layer(x, deterministic=True).reshape(2, -1), expected)


@pytest.mark.parametrize("share_samples", [True, False])
def test_batch_of_one_and_of_none(share_samples):
    layer = free_layer(share_samples=share_samples)
    assert shape_of(layer, X[:0]) == (0, 4)
    assert shape_of(layer, X[:1]) == (1, 4)
    hard = layer(X, deterministic=True)
    assert_close(layer(X[:1], deterministic=True), hard[:1])


@pytest.mark.parametrize("shape", [(5,), (3, 4), (5, 3), (), (3, 1, 5)])
def test_input_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"x of shape .*expected \(b, \*\(5,\), \*features\)"):
        free_layer()(jnp.zeros(shape))


def test_sources_that_do_not_fit_are_refused():
    def source(x):
        return ContinuousTuples(jnp.zeros((6, 2)), jnp.ones((6, 2)), jnp.ones(6))

    with pytest.raises(ValueError, match="add a batch axis"):
        HyperLayer(source, (4,), rngs=nnx.Rngs(0))(jnp.float32(1))
    with pytest.raises(ValueError, match="add the batch axis"):
        HyperLayer(source, (4,), rngs=nnx.Rngs(0))(jnp.zeros(5))
    with pytest.raises(ValueError, match="tuples of rank 2"):
        HyperLayer(source, (4, 1, 1), rngs=nnx.Rngs(0))(X)


def test_a_batch_of_tuples_must_match_that_of_the_input():
    def source(x):
        return ContinuousTuples(jnp.zeros((2, 6, 2)), jnp.ones((2, 6, 2)), jnp.ones((2, 6)))

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
        free_layer(**options)


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_sample_probability_is_the_share_of_sampled_passes(probability):
    layer = free_layer(sample_probability=probability)
    hard = layer(X, deterministic=True)
    keys = jax.random.split(jax.random.key(0), 200)
    y = jax.jit(jax.vmap(lambda key: layer(X, rngs=key)))(keys)
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
    gradient = nnx.to_pure_dict(nnx.jit(loss)(layer))["source"]
    assert (gradient["raw_means"] == 0).all()
    assert (gradient["raw_variances"] == 0).all()
    assert (gradient["values"] != 0).any()


def test_modulo_wraps_and_other_methods_do_not():
    assert free_layer(mean_method="modulo").wrap
    assert not free_layer().wrap
    assert not free_layer(mean_method="modulo", wrap=False).wrap
    layer = free_layer(count=1, mean_method="modulo", fixed_values=1.0)
    layer.source.raw_means[...] = jnp.array([[3.75, 4.75]])
    layer.source.raw_variances[...] = jnp.array([-20.0])
    for deterministic in (True, False):
        y = layer(X, deterministic=deterministic)
        assert_close(y, jnp.zeros((3, 4)).at[:, 0].set(X[:, 0]), atol=1e-4)


def test_template_of_fixed_outputs_is_a_gather_per_row():
    rows = np.stack([np.repeat(np.arange(4), 2), np.zeros(8, int)], axis=1)
    template = make_template(rows, (1,), chunk_size=2)
    assert template.groups_by_output((4,))
    layer = free_layer(count=8, template=template, num_global=60, num_local=0, region=None)
    means, variances, values = (np.asarray(leaf, np.float64) for leaf in layer.source())
    assert means.shape == (8, 1)
    hard, soft = np.zeros((4, 5)), np.zeros((4, 5))
    np.add.at(hard, (rows[:, 0], np.round(means[:, 0]).astype(int)), values)
    assert_close(layer(X, deterministic=True), np.asarray(X) @ hard.T)
    # With all cells among the points the relaxation is that of the whole row, whatever the key.
    shares = np.exp(-((np.arange(5) - means) ** 2) / (2 * variances))
    shares /= shares.sum(axis=1, keepdims=True)
    np.add.at(soft, rows[:, 0], shares * values[:, None])
    assert_close(nnx.jit(lambda layer: layer(X))(layer), np.asarray(X) @ soft.T, atol=1e-5)


def test_half_precision_comes_out_as_it_went_in():
    layer = free_layer(bias="dense")
    y = layer(X.astype(jnp.bfloat16), rngs=jax.random.key(0))
    assert y.dtype == jnp.bfloat16
    assert_close(y.astype(jnp.float32), layer(X, rngs=jax.random.key(0)), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("bias", BIASES)
def test_bias_has_its_parameters_and_gradients(bias):
    layer = free_layer(out_shape=(2, 3), region=(2, 2, 2), **BIASES[bias])
    target = jax.random.normal(jax.random.key(4), (3, 2, 3))
    gradient = nnx.jit(nnx.grad(lambda layer: jnp.sum((layer(X) - target) ** 2)))(layer)
    gradient = nnx.to_pure_dict(gradient)
    shapes = jax.tree.map(jnp.shape, gradient)
    assert shapes.pop("source") == {"raw_means": (6, 3), "raw_variances": (6,), "values": (6,)}
    expected = {
        "none": {},
        "dense": {"bias": (2, 3)},
        "sparse": {"bias_source": {"raw_means": (3, 2), "raw_variances": (3,), "values": (3,)}},
    }
    assert shapes == expected[bias]
    assert all_finite(gradient)
    assert all((leaf != 0).any() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("deterministic", [True, False])
def test_dense_bias_starts_at_zero_and_is_added_everywhere(deterministic):
    options = {"deterministic": deterministic, "rngs": jax.random.key(0)}
    plain, layer = free_layer(), free_layer(bias="dense")
    assert_close(layer(X, **options), plain(X, **options))
    layer.bias[...] = jnp.arange(4.0)
    assert_close(layer(X, **options), plain(X, **options) + jnp.arange(4.0))
    gradient = nnx.grad(lambda layer: jnp.sum(layer(X, **options)))(layer)
    assert_close(nnx.to_pure_dict(gradient)["bias"], jnp.full(4, 3.0))


def test_sparse_bias_settles_in_evaluation_and_keeps_its_mass_in_training():
    layer = free_layer(**BIASES["sparse"])
    zero = jnp.zeros_like(X)
    bias = jnp.asarray(scatter(settle(layer.bias_source(), (4,)), (4,)), jnp.float32)
    assert (bias != 0).any()
    assert_close(layer(zero, deterministic=True), jnp.broadcast_to(bias, (3, 4)))
    sampled = layer(zero)
    assert not np.allclose(sampled[0], bias)
    # The values are shared out among cells, none is lost; the batch shares its bias.
    assert_close(sampled.sum(axis=1), jnp.broadcast_to(layer.bias_source.values[...].sum(), 3))
    assert_close(sampled[0], sampled[1])


def test_tuples_that_see_everything_nearby_are_the_same_layer():
    options = {"deterministic": False, "rngs": jax.random.key(0)}
    near = free_layer(locality=Locality(radius=5, capacities=(6 * 8,)))
    assert_close(near(X, **options), free_layer()(X, **options))
    blind = free_layer(locality=Locality(radius=1, capacities=(1,)))
    assert jnp.isnan(blind(X, **options)).any()
