import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparse_hyper_jax import attention, nn
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

LAGS = np.array([[3, 7, 0], [5, 2, 9], [1, 1, 4], [8, 0, 0]], np.int32)
PLACED = np.array([[1, 1, 0], [1, 1, 1], [1, 0, 1], [1, 0, 0]], bool)


def layer_of(**options):
    options = {"key_heads": 2, "near": 2, "rngs": nnx.Rngs(0)} | options
    layer = nn.LagAttention(8, 4, 3, 12, **options)
    layer.taps.set_value(attention.LagTaps(jnp.asarray(LAGS), jnp.asarray(PLACED)))
    return layer


def inputs(length=20):
    return jax.random.normal(jax.random.key(1), (3, length, 8))


def test_it_is_the_function_between_projections():
    @jax.jit
    def run(x):
        layer = layer_of()
        query, key, value = (
            projection(x).reshape(3, 20, heads, 2)
            for projection, heads in ((layer.query, 4), (layer.key, 2), (layer.value, 2))
        )
        heads = attention.lag_attention(query, key, value, LAGS, PLACED, near=2)
        return layer(x), layer.out(heads.reshape(3, 20, 8))

    assert_close(*run(inputs()), rtol=1e-6, atol=1e-6)


def test_steps_are_the_call():
    @jax.jit
    def run(x):
        layer = layer_of()

        def step(cache, x):
            return layer.step(cache, x)

        _, y = jax.lax.scan(step, layer.init_cache((3,)), jnp.moveaxis(x, 1, 0))
        return jnp.moveaxis(y, 0, 1), layer(x)

    assert_close(*run(inputs()), rtol=1e-5, atol=1e-5)


def test_a_lag_beyond_the_reach_counts_for_nothing_in_steps_and_calls():
    layer = layer_of()
    far = attention.LagTaps(jnp.asarray(LAGS) + 12 * ~PLACED, jnp.ones_like(PLACED))
    expected = layer(inputs())
    layer.taps.set_value(far)
    assert_close(layer(inputs()), expected)


def test_lags_are_no_parameters():
    layer = nnx.eval_shape(layer_of)
    names = {path[0] for path, _ in nnx.to_flat_state(nnx.state(layer, nnx.Param))}
    assert names == {"query", "key", "value", "out"}
    assert [path for path, _ in nnx.to_flat_state(nnx.state(layer, nn.TapSlots))] == [("taps",)]


class Block(nnx.Module):
    """Two layers with residuals, and what follows of them."""

    def __init__(self, rngs):
        self.layers = nnx.List([nn.LagAttention(8, 2, 2, 60, near=1, rngs=rngs) for _ in range(2)])

    def __call__(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return x


def test_a_probe_finds_what_is_missing_before_anything_is_learned():
    model = nnx.jit(Block)(nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (8, 200, 8))
    target = jnp.roll(x, 25, axis=1).at[:, :25].set(0)

    def loss(model, x):
        return jnp.mean((model(x) - target) ** 2)

    fresh = nnx.jit(lambda model, x: nn.place_taps(model, loss, x))(model, x)
    for layer in model.layers:
        taps = layer.taps.get_value()
        assert taps.placed.tolist() == [[True, False]] * 2
        assert taps.lags.tolist() == [[25, 0]] * 2
    assert not any(leaf.any() for leaf in jax.tree.leaves(fresh))
    # The loss of the model with the lag has a slope to all of its parameters.
    slopes = nnx.jit(nnx.grad(loss))(model, x)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(slopes.layers[1].value))


def test_types_follow_input_and_parameters():
    x = np.zeros((3, 20, 8), jnp.bfloat16)

    def dtype_of(**options):
        return jax.eval_shape(lambda: layer_of(**options)(x)).dtype

    assert dtype_of() == jnp.float32
    assert dtype_of(dtype=jnp.bfloat16) == jnp.bfloat16
    cache = jax.eval_shape(lambda: layer_of(param_dtype=jnp.bfloat16).init_cache())
    assert cache.keys.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("change", "found", "expected"),
    [
        ({"num_heads": 3}, "8 features for 3 heads", "divides in_features"),
        ({"num_heads": 0}, "num_heads=0", "at least 1"),
        ({"num_lags": -1}, "num_lags=-1", "at least 0"),
        ({"reach": 0}, "reach=0", "at least 1"),
        ({"near": 13}, "near=13", "from 0 to 12"),
        ({"key_heads": 3}, "key_heads=3 of 4 heads", "divides"),
        ({"head_features": 0}, "head_features=0", "at least 1"),
        ({"out_features": 0}, "out_features=0", "at least 1"),
        ({"directions": 0}, "directions=0", "at least 1"),
        ({"use_bias": 1}, "use_bias=1", "True or False"),
        ({"dtype": int}, "dtype", "floats"),
        ({"param_dtype": None}, "param_dtype", "floats"),
        ({"rngs": None}, "rngs=None", "Rngs"),
    ],
)
def test_wrong_options_are_told(change, found, expected):
    options = {"in_features": 8, "num_heads": 4, "num_lags": 3, "reach": 12}

    def call():
        nnx.eval_shape(lambda: nn.LagAttention(**({"rngs": nnx.Rngs(0)} | options | change)))

    assert_names_itself_and_its_cure(call, found, expected, "")


def test_wrong_inputs_are_told():
    def refuse(call, *words):
        assert_names_itself_and_its_cure(lambda: jax.eval_shape(lambda: call(layer_of())), *words)

    refuse(lambda layer: layer(np.ones((3, 20, 7))), "x of shape", "a last axis of length 8", "")
    refuse(lambda layer: layer(np.ones(8)), "x of shape (8,)", "(..., T, in_features)", "")

    def step(layer):
        none = np.ones((0, 4, 2), np.float32)
        return layer.step(attention.lag_attention_cache(none, none, reach=12), np.ones(8))

    refuse(step, "cache.keys", "(12, 2, 2)", "")
