import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

from sparse_hyper_jax import ops
from sparse_hyper_jax.types import ContinuousTuples
from tests.ops.examples import (
    assert_close,
    hyperlayer,
    hyperlayer_hard,
    make_tuples,
    relax,
    scatter,
    settle,
)

KEY = jax.random.key(2)


@pytest.mark.parametrize(
    ("out_shape", "in_shape", "features"),
    [((4,), (3,), (2,)), ((2, 3), (3,), ()), ((), (3, 2), ()), ((4,), (), ())],
)
def test_equals_the_dense_product_with_its_entries(out_shape, in_shape, features):
    shape = (*out_shape, *in_shape)
    tuples, options = make_tuples(3, shape), {"num_global": 3}
    x = jnp.cos(jnp.arange(np.prod((*in_shape, *features)))).reshape(*in_shape, *features)
    matrix = scatter(relax(KEY, tuples, shape, **options), shape)
    y = hyperlayer(KEY, tuples, x, out_shape, **options)
    assert_close(y, np.tensordot(matrix, x, axes=len(in_shape)), rtol=1e-4)
    hard = scatter(settle(tuples, shape), shape)
    expected = np.tensordot(hard, x, axes=len(in_shape))
    assert_close(hyperlayer_hard(tuples, x, out_shape), expected, rtol=1e-4)


def test_hard_is_deterministic_and_the_limit_of_training():
    tuples = make_tuples(6, (4, 3), variance=1e-12)
    x = jnp.array([1.0, -2.0, 0.5])
    soft = hyperlayer(KEY, tuples, x, (4,), num_global=4)
    assert_close(hyperlayer_hard(tuples, x, (4,)), soft, atol=1e-5)


@pytest.mark.parametrize("wrap", [False, True])
def test_wrap_reaches_points_distances_and_rounding(wrap):
    tuples = ContinuousTuples(jnp.array([[7.75]]), jnp.array([[0.5]]), jnp.ones(1))
    soft = hyperlayer(None, tuples, jnp.float32(1), (8,), wrap=wrap)
    hard = hyperlayer_hard(tuples, jnp.float32(1), (8,), wrap=wrap)
    assert hard.tolist() == ([1.0] + [0.0] * 7 if wrap else [0.0] * 7 + [1.0])
    # Densities exp(-0.25^2) and exp(-0.75^2) at cells 0 and 7, a quarter and three off.
    share = 1 / (1 + np.exp(-0.5)) if wrap else 0.0
    assert_close(soft[jnp.array([0, 7])], [share, 1 - share])


def test_a_shared_batch_on_the_last_axis_equals_one_by_one():
    tuples, x = make_tuples(4, (5, 3)), jnp.sin(jnp.arange(12.0)).reshape(3, 4)
    y = hyperlayer(KEY, tuples, x, (5,), num_global=3)
    alone = [hyperlayer(KEY, tuples, column, (5,), num_global=3) for column in x.T]
    assert_close(y, jnp.stack(alone, axis=1))


def test_shared_samples_and_samples_of_their_own_have_the_same_expectation():
    tuples, x = make_tuples(3, (4, 3), variance=4.0), jnp.sin(jnp.arange(6.0)).reshape(3, 2)
    draws = 2000

    def shared(key):
        return ops.hyperlayer(key, tuples, x, (4,), num_global=1)

    def separate(key):
        keys = jax.random.split(key, 2)
        run = jax.vmap(lambda key, x: ops.hyperlayer(key, tuples, x, (4,), num_global=1), (0, 1), 1)
        return run(keys, x)

    first, second = (
        jax.jit(jax.vmap(sample))(jax.random.split(jax.random.key(seed), draws))
        for seed, sample in enumerate((shared, separate))
    )
    spread = np.sqrt((first.var(axis=0) + second.var(axis=0)) / draws)
    assert (spread > 0).all()
    # Eight comparisons at 4 standard errors: a false alarm once in 2,000 keys.
    assert (np.abs(first.mean(axis=0) - second.mean(axis=0)) < 4 * spread).all()


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_sample_probability_is_the_fraction_of_sampled_passes(probability):
    tuples, x = make_tuples(3, (4, 3), variance=4.0), jnp.array([1.0, 2.0, 3.0])

    @jax.jit
    @jax.vmap
    def mixture(key):
        return ops.hyperlayer(key, tuples, x, (4,), sample_probability=probability)

    keys = jax.random.split(KEY, 1000)
    outputs = mixture(keys)
    soft, hard = hyperlayer(None, tuples, x, (4,)), hyperlayer_hard(tuples, x, (4,))
    is_soft, is_hard = (
        jnp.isclose(outputs, kind, rtol=1e-4, atol=1e-4).all(axis=1) for kind in (soft, hard)
    )
    assert (is_soft != is_hard).all()
    tolerance = 4 * np.sqrt(probability * (1 - probability) / 1000)
    assert abs(is_soft.mean() - probability) <= tolerance
    assert (mixture(keys) == outputs).all()


def test_a_hard_pass_gives_no_gradient_to_means_and_variances():
    x = jnp.array([1.0, 2.0, 3.0])

    def total(tuples, probability):
        y = ops.hyperlayer(KEY, tuples, x, (4,), num_global=2, sample_probability=probability)
        return (y**2).sum()

    grads = jax.jit(jax.grad(total), static_argnums=1)
    tuples = make_tuples(3, (4, 3))
    hard, soft = grads(tuples, 0.0), grads(tuples, 1.0)
    assert (hard.means == 0).all()
    assert (hard.variances == 0).all()
    assert (hard.values != 0).any()
    assert all((leaf != 0).any() for leaf in soft)


def test_the_gradient_moves_a_mean_towards_the_sampled_cell_it_lacks():
    target = jnp.zeros(8).at[5].set(1.0)
    tuples = ContinuousTuples(jnp.array([[3.3]]), jnp.array([[4.0]]), jnp.ones(1))

    @jax.jit
    def loss(tuples):
        y = ops.hyperlayer(KEY, tuples, jnp.float32(1), (8,), num_global=20)
        return ((y - target) ** 2).sum()

    assert jax.grad(loss)(tuples).means[0, 0] < 0


@pytest.mark.parametrize("wild", [-0.5, 3.5, jnp.nan])
def test_debug_finds_means_outside(wild):
    good = make_tuples(2, (4, 3))
    tuples = good._replace(means=good.means.at[1, 0].set(wild))

    def layer(tuples):
        return ops.hyperlayer(None, tuples, jnp.ones(3), (4,), debug=True)

    with pytest.raises(checkify.JaxRuntimeError, match=r"found means from .* bound_means"):
        layer(tuples)
    checked = jax.jit(checkify.checkify(layer))
    with pytest.raises(checkify.JaxRuntimeError, match=r"found means from .* bound_means"):
        checked(tuples)[0].throw()
    checked(good)[0].throw()


@pytest.mark.parametrize("options", [{"chunk_size": 1}, {"sample_probability": 0.5}])
def test_debug_works_in_chunks_and_in_mixed_passes(options):
    @jax.jit
    @checkify.checkify
    def layer(tuples):
        return ops.hyperlayer(jax.random.key(1), tuples, jnp.ones(3), (4,), debug=True, **options)

    good = make_tuples(2, (4, 3))
    error, y = layer(good)
    error.throw()
    assert y.shape == (4,)


def test_debug_on_a_circle_allows_the_last_stretch():
    tuples = make_tuples(1, (4, 3))._replace(means=jnp.array([[3.5, 2.9]]))
    ops.hyperlayer(None, tuples, jnp.ones(3), (4,), debug=True, wrap=True)
    with pytest.raises(checkify.JaxRuntimeError, match="found means"):
        ops.hyperlayer(None, tuples, jnp.ones(3), (4,), debug=True)


@pytest.mark.parametrize("x_dtype", [jnp.int32, jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_all_kinds_of_pass_agree_on_the_dtype(x_dtype, dtype, probability):
    tuples = jax.tree.map(lambda part: part.astype(dtype), make_tuples(2, (4, 3)))
    y = jax.eval_shape(
        lambda x: ops.hyperlayer(KEY, tuples, x, (4,), sample_probability=probability),
        jnp.ones(3, x_dtype),
    )
    assert y.dtype == (jnp.float32 if x_dtype == jnp.int32 else x_dtype)


def test_a_traced_probability_gives_the_numbers_of_a_static_one():
    tuples, x = make_tuples(3, (4, 3)), jnp.arange(3.0)
    keys = jax.random.split(KEY, 8)

    def layer(probability, key):
        return ops.hyperlayer(key, tuples, x, (4,), num_global=2, sample_probability=probability)

    traced = jax.jit(layer)
    for static in (0.0, 0.4, np.float32(0.4), 1, 1.0):
        for key in keys[:3]:
            assert_close(traced(static, key), jax.jit(layer, static_argnums=0)(static, key))
    assert_close(traced(jnp.bfloat16(1), KEY), hyperlayer(KEY, tuples, x, (4,), num_global=2))


def test_a_probability_follows_a_schedule():
    tuples, x = make_tuples(3, (4, 3)), jnp.arange(3.0)
    hard = hyperlayer_hard(tuples, x, (4,))

    def step(number, _):
        key = jax.random.fold_in(KEY, number)
        probability = (number >= 4).astype(jnp.float32)
        y = ops.hyperlayer(key, tuples, x, (4,), num_global=2, sample_probability=probability)
        return number + 1, jnp.abs(y - hard).sum() < 1e-6

    _, settled = jax.lax.scan(step, jnp.int32(0), length=8)
    assert settled.tolist() == [True] * 4 + [False] * 4


def test_plain_tuples_and_lists_are_continuous_tuples():
    tuples, x = make_tuples(3, (4, 3)), np.arange(3.0)
    plain = tuple(np.asarray(part).tolist() for part in tuples)
    assert_close(
        ops.hyperlayer(KEY, plain, x.tolist(), [4], num_global=1),
        hyperlayer(KEY, tuples, x, (4,), num_global=1),
    )


def test_nothing_needs_jit():
    tuples, x = make_tuples(3, (4, 3)), jnp.arange(3.0)
    with jax.disable_jit():
        y = ops.hyperlayer(KEY, tuples, x, (4,), num_global=1)
    assert_close(y, hyperlayer(KEY, tuples, x, (4,), num_global=1))
