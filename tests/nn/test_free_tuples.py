import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sparse_hyper_jax.nn import FreeHyperLayer, FreeTuples, RawMeans, RawVariances, TupleValues
from sparse_hyper_jax.ops import bound_means, bound_variances
from tests.ops.examples import assert_close


def free_tuples(shape=(6, 9), count=5, **options):
    return FreeTuples(shape, count, rngs=nnx.Rngs(0), **options)


def never_run(*words, **options):
    """Tuples without numbers in them."""
    return nnx.eval_shape(lambda: free_tuples(*words, **options))


def parameter_count(module):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


@pytest.mark.parametrize("shape", [(7,), (6, 9), (3, 4, 5)])
@pytest.mark.parametrize(
    ("options", "values"), [({}, 5), ({"num_values": 2}, 2), ({"fixed_values": 1.0}, 0)]
)
def test_number_of_parameters(shape, options, values):
    source = never_run(shape, **options)
    assert parameter_count(source) == 5 * len(shape) + 5 + values
    layer = nnx.eval_shape(lambda: FreeHyperLayer((2,), shape, 5, rngs=nnx.Rngs(0), **options))
    assert parameter_count(layer) == 5 * (len(shape) + 1) + 5 + values


def test_parameters_have_types_of_their_own():
    state = nnx.state(never_run(), nnx.Param)
    assert {name: type(variable) for name, variable in state.items()} == {
        "raw_means": RawMeans,
        "raw_variances": RawVariances,
        "values": TupleValues,
    }
    assert not nnx.state(never_run(fixed_values=1.0), TupleValues)


@pytest.mark.parametrize("value", [1.0, -0.25, 0.0])
def test_fixed_values_are_constant(value):
    values = jax.jit(lambda: free_tuples(fixed_values=value)().values)()
    assert_close(values, np.full(5, value))


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_values_are_shared_in_turn(number):

    @jax.jit
    def values_and_gradient(values):
        source = free_tuples(num_values=number)
        source.values[...] = values
        gradient = nnx.grad(lambda source: source().values.sum())(source)
        return source().values, gradient["values"][...]

    values, gradient = values_and_gradient(np.arange(1, number + 1, dtype=np.float32))
    assert_close(values, 1.0 + np.arange(5) % number)
    assert_close(gradient, np.bincount(np.arange(5) % number).astype(np.float32))


@pytest.mark.parametrize("method", ["sigmoid", "clamp", "modulo"])
def test_tuples_are_the_bounded_parameters(method):

    @jax.jit
    def found_and_expected():
        options = {"scale": 0.3, "boost": 1.0, "floor": 0.5}
        source = free_tuples(mean_method=method, **options)
        tuples = source(jnp.ones((2, 9)))
        means = bound_means(source.raw_means[...], (6, 9), method=method)
        variances = bound_variances(source.raw_variances[...], (6, 9), **options)
        return tuples, type(tuples)(means, variances, source.values[...])

    tuples, expected = found_and_expected()
    assert_close(tuples, expected)
    assert np.asarray(tuples.variances).min() > 0.5


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"shape": ()}, "at least one axis"),
        ({"shape": (6, 0)}, "shape"),
        ({"count": 0}, "num_tuples=0"),
        ({"num_values": 0}, "num_values=0"),
        ({"num_values": 6}, "num_values=6 for 5 tuples"),
        ({"num_values": 2, "fixed_values": 1.0}, "num_values=2 beside fixed_values=1.0"),
    ],
)
def test_wrong_options_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        never_run(**options)


def test_an_unknown_method_is_refused():
    def call():
        return free_tuples(mean_method="tanh")()

    with pytest.raises(ValueError, match="method='tanh'"):
        nnx.eval_shape(call)


SIZE, BATCH, STEPS = 8, 64, 4000


def identity_layer(rngs):
    return FreeHyperLayer(
        (SIZE,),
        (SIZE,),
        SIZE,
        fixed_values=1.0,
        num_global=4,
        num_local=4,
        region=(4, 4),
        rngs=rngs,
    )


def learn_identity(seed):
    """Train by the settings of the paper's code; give the means at the end and the losses."""
    layer = identity_layer(nnx.Rngs(0))
    graph, _, rest = nnx.split(layer, nnx.Param, ...)
    optimizer = optax.adam(0.005)

    def loss(parameters, key):
        data_key, sample_key = jax.random.split(key)
        x = jax.random.normal(data_key, (BATCH, SIZE))
        y = nnx.merge(graph, parameters, rest)(x, rngs=sample_key)
        return jnp.mean(jnp.square(y - x))

    def step(state, key):
        parameters, moments = state
        value, gradient = jax.value_and_grad(loss)(parameters, key)
        updates, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(parameters, updates), moments), value

    start_key, key = jax.random.split(jax.random.key(seed))
    parameters = nnx.state(identity_layer(nnx.Rngs(start_key)), nnx.Param)
    state = parameters, optimizer.init(parameters)
    (parameters, _), losses = jax.lax.scan(step, state, jax.random.split(key, STEPS))
    return nnx.merge(graph, parameters, rest).source().means, losses


def test_free_layers_learn_the_identity():
    means, losses = jax.device_get(jax.jit(jax.vmap(learn_identity))(jnp.arange(3)))
    cells = np.round(means).astype(int)
    diagonal = {(place, place) for place in range(SIZE)}
    assert [set(map(tuple, found.tolist())) for found in cells] == [diagonal] * 3
    assert (losses[:, -100:].mean(axis=1) < 0.02 * losses[:, :100].mean(axis=1)).all()
