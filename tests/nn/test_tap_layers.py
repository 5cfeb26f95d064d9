from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sparse_hyper_jax import conv, nn, ops
from tests.conv.examples import naive_lag_conv, normal
from tests.ops.examples import assert_names_itself_and_its_cure

STEPS, CHANNELS, OUT, REACH = 20, 3, 2, 9
X = normal(2, STEPS, CHANNELS)


def lag_layer(**options):
    options = {"num_taps": 4, "reach": REACH, "lags": [8, 2], "rngs": nnx.Rngs(0)} | options
    return nn.LagConv(CHANNELS, OUT, **options)


@pytest.mark.parametrize("strict", [False, True])
def test_a_layer_is_its_convolution_and_steps_are_the_whole(strict):
    layer = lag_layer(lags=[0, 8, 2][strict:], strict=strict)
    positions, placed = layer.taps.get_value()

    @nnx.jit
    def both(layer, x):
        def step(stream, now):
            return layer.step(stream, now)

        _, steps = jax.lax.scan(step, layer.init_stream((2,)), jnp.moveaxis(x, 1, 0))
        return layer(x), jnp.moveaxis(steps, 0, 1)

    y, steps = both(layer, X)
    kernel = np.asarray(layer.kernel.get_value())
    expected = naive_lag_conv(X, kernel, positions[:, 0], placed, strict=strict) + 0.1
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(steps, y, atol=1e-6)


def test_dtypes_follow_the_input_the_parameters_or_the_option():
    x = jnp.asarray(X, jnp.bfloat16)

    def dtype_of(make, x):
        return jax.eval_shape(lambda: make()(x)).dtype

    assert dtype_of(lag_layer, x) == jnp.float32
    assert dtype_of(lambda: lag_layer(param_dtype=jnp.bfloat16), x) == jnp.bfloat16
    assert dtype_of(lambda: lag_layer(dtype=jnp.bfloat16), X) == jnp.bfloat16
    delay = partial(nn.AxonalDelay, CHANNELS, REACH, delays=[0, 1, 2])
    assert dtype_of(delay, x) == jnp.bfloat16
    assert dtype_of(delay, [[1, 2, 3]]) == jnp.float32
    assert nnx.eval_shape(lambda: lag_layer(use_bias=False)).bias is None


def test_the_first_bias_has_a_slope_behind_a_rectifier():
    """Else nothing that is not placed yet would gain anything."""
    layer = lag_layer(lags=())
    slope = nnx.jit(nnx.grad(lambda layer: jnp.sum(jax.nn.relu(layer(X)))))(layer)
    assert np.all(slope["bias"].get_value() > 0)
    np.testing.assert_array_equal(slope["kernel"].get_value(), 0)


class Network(nnx.Module):
    """Lags, then a perceptron shared by all steps."""

    def __init__(self, rngs):
        self.read = nn.LagConv(2, 8, num_taps=4, reach=40, rngs=rngs)
        self.out = nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x):
        return self.out(jax.nn.relu(self.read(x)))


LAGS = [5, 12, 30]


@jax.jit
def series(key):
    """What a rectified and a squared lag give, and a linear one."""
    x = jax.random.normal(key, (8, 200, 2))
    weights = jnp.array([[[1.0], [-1.0]], [[1.0], [0.5]], [[0.7], [0.7]]])
    one, two, three = (
        conv.lag_conv(x, weights[n : n + 1], [lag])[..., 0] for n, lag in enumerate(LAGS)
    )
    return x, (jnp.maximum(one, 0) + two + jnp.tanh(three))[..., None]


def loss_of(network, x, y):
    return jnp.mean((network(x) - y) ** 2)


OPTIMIZER = optax.adam(0.02)


@nnx.jit
def trained(network, state, x, y, min_z):
    """Probe, clear moments, and train on: a training loop as users have it."""
    fresh = nn.place_taps(network, loss_of, x, y, min_z=min_z)
    state = conv.clear_moments(OPTIMIZER, state, fresh)
    graph, parameters, rest = nnx.split(network, nnx.Param, ...)

    def step(_, both):
        parameters, state = both
        gradient = jax.grad(lambda its: loss_of(nnx.merge(graph, its, rest), x, y))(parameters)
        updates, state = OPTIMIZER.update(gradient, state, parameters)
        return optax.apply_updates(parameters, updates), state

    parameters, state = jax.lax.fori_loop(0, 100, step, (parameters, state))
    nnx.update(network, parameters)
    return fresh, state, loss_of(network, x, y)


def test_a_network_finds_its_lags_and_what_is_empty_does_not_move():
    network, (x, y) = Network(nnx.Rngs(0)), series(jax.random.key(1))
    state = OPTIMIZER.init(nnx.state(network, nnx.Param))
    first, losses = np.asarray(network.read.kernel.get_value()), []
    for slot in range(3):
        fresh, state, loss = trained(network, state, x, y, 5.0)
        losses.append(float(loss))
        flags = np.asarray(fresh["read"]["kernel"].get_value())
        assert np.all(flags[slot])
        assert flags.sum() == flags[slot].size
        assert not np.any(fresh["out"]["kernel"].get_value())
        np.testing.assert_array_equal(
            network.read.kernel.get_value()[slot + 1 :], first[slot + 1 :]
        )
        np.testing.assert_array_equal(state[0].nu["read"]["kernel"].get_value()[slot + 1 :], 0)
    positions, placed = network.read.taps.get_value()
    assert sorted(positions[:3, 0].tolist()) == LAGS
    assert placed.tolist() == [True, True, True, False]
    assert losses[2] < 0.1 < losses[0]
    # Nothing is left that stands out, so the last slot stays empty.
    trained(network, state, x, y, 12.0)
    assert network.read.taps.get_value().placed.tolist() == [True, True, True, False]


def test_a_probe_sees_what_zeros_added_to_the_output_would_tell():
    """The gradient with respect to zeros before the non-linearity, with no model made for it."""
    network, (x, y) = Network(nnx.Rngs(2)), series(jax.random.key(3))

    def loss(added):
        return jnp.mean((network.out(jax.nn.relu(network.read(x) + added)) - y) ** 2)

    @jax.jit
    def probed():
        cotangent = jax.grad(loss)(jnp.zeros((8, 200, 8)))
        return conv.probe_lags(x, cotangent, ops.empty_taps(4), 2, reach=40, min_z=None)

    expected, before = probed(), nnx.state(network)
    nnx.jit(lambda network: nn.place_taps(network, loss_of, x, y, count=2, min_z=None))(network)
    found = network.read.taps.get_value()
    np.testing.assert_array_equal(found.positions, expected.positions)
    # Of all else nothing has changed, and no part of the probe is left.
    after = nnx.state(network)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    np.testing.assert_array_equal(
        after["read"]["kernel"].get_value(), before["read"]["kernel"].get_value()
    )


@pytest.mark.parametrize("causal", [False, True])
def test_planes_find_offsets_among_their_candidates(causal):
    x = normal(6, 16, 16, 2)
    weights = np.float32([[[2.0], [2.0]], [[1.0], [-1.0]]])
    layer = nn.OffsetConv(2, 1, 3, (7, 7), causal=causal, offsets=[[0, -1]], rngs=nnx.Rngs(0))
    expected = [[0, -1], [-3, 2] if causal else [2, 1]]

    @nnx.jit
    def run(layer, x):
        target = conv.offset_conv(x, weights, [[2, 1], [-3, 2]])
        nn.place_taps(layer, lambda layer: jnp.mean((layer(x) - target) ** 2))
        offsets = conv.window_offsets(layer.taps.get_value().positions, (7, 7))
        return offsets, layer(x), conv.offset_conv(x, layer.kernel.get_value()[:2], expected) + 0.1

    offsets, *both = run(layer, x)
    placed = np.asarray(layer.taps.get_value().placed)
    assert np.asarray(offsets)[placed].tolist() == expected
    np.testing.assert_allclose(*both, atol=1e-5)


class Delayed(nnx.Module):
    """Delays of channels, and a readout that is not known either."""

    def __init__(self, channels, reach, rngs):
        self.delay = nn.AxonalDelay(channels, reach, out_features=channels, rngs=rngs)

    def __call__(self, x):
        return self.delay(x)


@partial(jax.jit, static_argnames=("channels", "reach"))
def delayed(key, channels, reach):
    """Inputs, their delays, and what is mixed of the delayed."""
    keys = jax.random.split(key, 3)
    x = jax.random.normal(keys[0], (8, 500, channels))
    truth = jax.random.randint(keys[1], (channels,), 0, reach)
    mixing = jax.random.normal(keys[2], (channels, channels))
    return x, truth, nn.AxonalDelay(channels, reach, delays=truth)(x) @ mixing


@pytest.mark.parametrize("seed", range(2))
def test_delays_are_recovered_with_the_readout_unknown(seed):
    channels, reach = 12, 150
    x, truth, y = delayed(jax.random.key(seed), channels, reach)
    network = Delayed(channels, reach, nnx.Rngs(seed))
    state = OPTIMIZER.init(nnx.state(network, nnx.Param))
    for _ in range(2):
        _, state, _ = trained(network, state, x, y, 5.0)
    positions, placed = network.delay.taps.get_value()
    np.testing.assert_array_equal(placed, True)
    np.testing.assert_array_equal(positions[:, 0, 0], truth)


def test_delays_step_as_they_delay_a_whole():
    @jax.jit
    def run(x):
        delay = nn.AxonalDelay(CHANNELS, REACH, delays=[8, 0, 3])
        _, steps = jax.lax.scan(delay.step, delay.init_stream((2,)), jnp.moveaxis(x, 1, 0))
        silent = nn.AxonalDelay(CHANNELS, REACH)
        mixing = nn.AxonalDelay(
            CHANNELS, REACH, delays=[8, 0, 3], out_features=OUT, rngs=nnx.Rngs(0)
        )
        mixed = mixing(x), delay(x) @ mixing.kernel.get_value()[0]
        return delay(x), jnp.moveaxis(steps, 0, 1), silent(x), mixed

    whole, steps, silent, mixed = run(X)
    np.testing.assert_array_equal(steps, whole)
    expected = naive_lag_conv(X, np.ones((1, CHANNELS)), [[8, 0, 3]])
    np.testing.assert_array_equal(whole, expected)
    np.testing.assert_array_equal(silent, 0)
    np.testing.assert_allclose(*mixed, atol=1e-6)


def test_delays_are_placed_without_weights_of_their_own_where_the_readout_is_known():
    x, mixing = normal(8, 400, 4), normal(4, 4, seed=1)
    layer = nn.AxonalDelay(4, 100)

    @nnx.jit
    def placed_by(layer, x):
        target = nn.AxonalDelay(4, 100, delays=[99, 0, 20, 55])(x) @ mixing
        return nn.place_taps(layer, lambda layer: jnp.mean((layer(x) @ mixing - target) ** 2))

    fresh = placed_by(layer, x)
    positions, placed = layer.taps.get_value()
    np.testing.assert_array_equal(placed, True)
    assert positions.ravel().tolist() == [99, 0, 20, 55]
    assert jax.tree.leaves(fresh) == []


def test_linen_users_get_them_too():
    layer = nnx.bridge.to_linen(nn.LagConv, CHANNELS, OUT, 2, REACH, lags=(4, 0))
    variables = jax.jit(layer.init)(jax.random.key(0), X)
    y = jax.jit(layer.apply)(variables, X)
    kernel, bias = (variables["params"][name] for name in ("kernel", "bias"))
    np.testing.assert_allclose(y, naive_lag_conv(X, kernel, [4, 0]) + bias, atol=1e-5)


LAG, PLANE = partial(lag_layer), partial(nn.OffsetConv, 2, 2, rngs=nnx.Rngs(0))
# The call, then a fragment of each part: what was found, what was expected, what to change.
MISTAKES = {
    "taps": (lambda: lag_layer(num_taps=0), "num_taps=0", "at least 1", "num_taps"),
    "reach": (lambda: lag_layer(reach=None), "reach=None", "at least 1", "reach"),
    "lags": (lambda: lag_layer(lags=[1.5]), "float32", "integers", "convert lags"),
    "many": (lambda: lag_layer(lags=[1] * 5), "5 lags for 4 taps", "a slot", "num_taps"),
    "far": (lambda: lag_layer(lags=[9]), "9 with reach=9", "from 0 to 8", "raise reach"),
    "present": (lambda: lag_layer(lags=[0], strict=True), "strict=True", "from 1", "drop"),
    "strict": (lambda: lag_layer(strict=1), "strict=1", "True", "strict"),
    "directions": (lambda: lag_layer(directions=0), "directions=0", "at least 1", "directions"),
    "bias": (lambda: lag_layer(use_bias="no"), "use_bias='no'", "True", "use_bias"),
    "dtype": (lambda: lag_layer(dtype=int), "dtype", "floats", "dtype"),
    "kernel": (lambda: lag_layer(kernel_init=3), "kernel_init=3", "a function", "pass"),
    "rngs": (lambda: lag_layer(rngs=0), "rngs=0", "Rngs", "rngs"),
    "channels": (lambda: lag_layer()(X[..., :2]), "(2, 20, 2)", "length 3", "last axis"),
    "window": (lambda: PLANE(1, (3,)), "window=(3,)", "a height", "(9, 9)"),
    "offsets": (lambda: PLANE(1, (3, 3), offsets=[0, 1]), "(2,)", "(any, 2)", "reshape"),
    "slots": (lambda: PLANE(1, (3, 3), offsets=[[0, 1]] * 2), "2 offsets", "slot", "num_taps"),
    "outside": (lambda: PLANE(1, (3, 3), offsets=[[0, 2]]), "[[0, 2]]", "(3, 3)", "enlarge"),
    "causal": (
        lambda: PLANE(1, (3, 3), offsets=[[0, 1]], causal=True),
        "[[0, 1]]",
        "before the middle",
        "drop",
    ),
    "delays": (lambda: nn.AxonalDelay(3, 9, delays=[1, 2]), "(2,)", "each channel", "reshape"),
    "late": (lambda: nn.AxonalDelay(1, 9, delays=[9]), "9 with reach=9", "from 0", "raise"),
    "out": (lambda: nn.AxonalDelay(1, 9, out_features=2), "without rngs", "params", "nnx.Rngs"),
    "features": (lambda: nn.AxonalDelay(0, 9), "features=0", "at least 1", "features"),
    "none": (
        lambda: nn.place_taps(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), loss_of),
        "a Linear without taps",
        "layers that have taps",
        "LagConv",
    ),
    "loss": (lambda: nn.place_taps(lag_layer(), 3), "loss=3", "a function", "loss"),
    "model": (lambda: nn.place_taps(3, loss_of), "model=3", "Module", "change model"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_name_themselves_and_their_cure(mistake):
    assert_names_itself_and_its_cure(*MISTAKES[mistake])
