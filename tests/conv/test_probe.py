from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_hyper_jax import conv, ops
from tests.conv.examples import naive_lag_conv, normal
from tests.ops.examples import assert_names_itself_and_its_cure

REACH = 64
# Neighbours can be told apart where inputs are white.
TRUTH = {0.0: np.array([3, 17, 18, 60]), 0.9: np.array([3, 17, 30, 60])}
SEEDS = range(6)


def coloured(key, shape, decay):
    """Autoregressive inputs, along the axis of time, of variance 1."""
    noise = jax.random.normal(key, shape)

    def step(before, now):
        value = decay * before + (1 - decay**2) ** 0.5 * now
        return value, value

    _, x = jax.lax.scan(step, noise[:, 0], jnp.moveaxis(noise, 1, 0))
    return jnp.moveaxis(x, 0, 1)


@partial(jax.jit, static_argnames="probes")
def pursued(key, decay, truth, probes):
    """Pursue the four lags of a linear system; least squares by Adam in between."""
    x_key, w_key, loss_key = jax.random.split(key, 3)
    x = coloured(x_key, (4, 400, 3), decay)
    weights = jax.random.normal(w_key, (4, 3, 2))
    target = conv.lag_conv(x, weights, truth)
    optimizer = optax.adam(0.05)

    def loss(added, weights, taps):
        y = conv.lag_conv(x, weights, taps.positions[:, 0], taps.placed, reach=REACH) + added
        return jnp.mean((y - target) ** 2)

    def learned(weights, state, taps):
        def step(_, both):
            weights, state = both
            gradient = jax.grad(loss, 1)(jnp.zeros_like(target), weights, taps)
            updates, state = optimizer.update(gradient, state)
            return optax.apply_updates(weights, updates), state

        return jax.lax.fori_loop(0, 60, step, (weights, state))

    def probe(carry, key):
        weights, state, taps = carry
        cotangent = jax.grad(loss)(jnp.zeros_like(target), weights, taps)
        found = conv.probe_lags(x, cotangent, taps, reach=REACH, min_z=None)
        weights = conv.start_weights(key, weights, taps.placed, found.placed)
        state = conv.clear_moments(optimizer, state, found.placed & ~taps.placed)
        unmoved = weights
        weights, state = learned(weights, state, found)
        idle = jnp.where(found.placed[:, None, None], 0, weights - unmoved)
        return (weights, state, found), jnp.abs(idle).max()

    start = jnp.ones((4, 3, 2))
    carry = start, optimizer.init(start), ops.empty_taps(4)
    (weights, _, taps), idle = jax.lax.scan(probe, carry, jax.random.split(loss_key, probes))
    return taps, idle, loss(jnp.zeros_like(target), weights, taps)


@pytest.mark.parametrize("decay", TRUTH)
@pytest.mark.parametrize("seed", SEEDS)
def test_pursuit_finds_the_lags_of_every_seed(seed, decay):
    taps, idle, left = pursued(jax.random.key(seed), decay, TRUTH[decay], 4)
    assert sorted(taps.positions.ravel().tolist()) == TRUTH[decay].tolist()
    # Empty taps are not trained by an optimizer that divides by the size of gradients.
    np.testing.assert_array_equal(idle, 0)
    assert left < 0.01


def test_strict_leaves_the_present_out():
    x = normal(2, 200, 2)

    @jax.jit
    def both(x):
        error = -conv.lag_conv(x, np.ones((2, 2, 1)) * [[[3.0]], [[1.0]]], [0, 9])
        empty = ops.empty_taps(1)
        first = conv.probe_lags(x, error, empty, reach=20)
        return first, conv.probe_lags(x, error, empty, reach=20, strict=True)

    first, strict = both(x)
    assert (first.positions.item(), strict.positions.item()) == (0, 9)


def test_offsets_are_found_where_they_are_allowed():
    x, window = normal(3, 24, 24, 2), (7, 7)
    truth = np.array([[-2, 3], [1, 1]])
    weights = normal(2, 2, 3, seed=1) * np.float32([[[1]], [[3]]])
    before = np.arange(49).reshape(window) < 24

    @jax.jit
    def both(x):
        error = -conv.offset_conv(x, weights, truth)
        taps = ops.empty_taps(2, rank=2)
        some = conv.probe_offsets(x, error, taps, 1, window=window, allowed=before)
        found = conv.probe_offsets(x, error, taps, 2, window=window)
        return [conv.window_offsets(taps.positions, window) for taps in (found, some)], some.placed

    (found, some), placed = both(x)
    assert sorted(found.tolist()) == truth.tolist()
    assert some[0].tolist() == [-2, 3]
    assert placed.tolist() == [True, False]


CHANNELS, FAR = 8, 200


@jax.jit
def delayed(key, decay):
    """Probe the delays of channels that are mixed by a known matrix."""
    x_key, d_key, m_key = jax.random.split(key, 3)
    x = coloured(x_key, (4, 800, CHANNELS), decay)
    truth = jax.random.randint(d_key, (1, CHANNELS), 0, FAR)
    ones, mixing = jnp.ones((1, CHANNELS)), jax.random.normal(m_key, (CHANNELS, CHANNELS))
    target = conv.lag_conv(x, ones, truth) @ mixing

    def loss(y):
        return jnp.mean((y @ mixing - target) ** 2)

    empty = ops.Taps(jnp.zeros((CHANNELS, 1, 1), jnp.int32), jnp.zeros((CHANNELS, 1), bool))
    taps = conv.probe_delays(x, jax.grad(loss)(jnp.zeros_like(x)), empty, reach=FAR)
    silent = conv.probe_delays(0 * x, x, empty, reach=FAR)
    noise = jax.random.normal(m_key, x.shape)
    false = [conv.probe_delays(x, noise, empty, reach=FAR, mixed=mixed) for mixed in (False, True)]
    # What the outputs miss, whatever weights are known for the channels.
    all_of_it = conv.probe_delays(x, -target, empty, reach=FAR, mixed=True)
    return truth, (taps, all_of_it), silent.placed, jnp.stack([one.placed for one in false])


@pytest.mark.parametrize("decay", [0.0, 0.8])
@pytest.mark.parametrize("seed", range(3))
def test_every_channel_finds_its_delay(seed, decay):
    truth, found, silent, noise = delayed(jax.random.key(seed), decay)
    for taps in found:
        np.testing.assert_array_equal(taps.placed, True)
        np.testing.assert_array_equal(taps.positions[:, 0, 0], truth[0])
    np.testing.assert_array_equal(silent, False)
    np.testing.assert_array_equal(noise, False)


def test_two_delays_of_a_channel_and_the_present_left_out():
    x = normal(4, 300, 2)
    truth = np.array([[0, 40], [25, 7]])
    empty = ops.Taps(np.zeros((2, 2, 1), np.int32), np.zeros((2, 2), bool))

    @jax.jit
    def both(x):
        error = -conv.lag_conv(x, np.float32([[2, 2], [1, 1]]), truth)
        taps = conv.probe_delays(x, error, empty, 2, reach=50)
        return taps, conv.probe_delays(x, error, empty, reach=50, strict=True)

    taps, strict = map(np.array, (one.positions for one in both(x)))
    assert taps[..., 0].T.tolist() == truth.tolist()
    assert strict[:, 0, 0].tolist() == [25, 40]


@pytest.mark.parametrize("kind", ["Explicit", "Auto"])
def test_probes_of_a_batch_that_is_spread(kind):
    x, truth = normal(8, 60, 2), np.array([3, 11])
    error = -naive_lag_conv(x, normal(2, 2, 3, seed=1), truth).astype(np.float32)
    own = -naive_lag_conv(x, np.ones((1, 2)), [truth]).astype(np.float32)
    mesh = jax.make_mesh((8,), ("b",), axis_types=(getattr(jax.sharding.AxisType, kind),))

    @jax.jit
    def both(x, error, own):
        empty = ops.Taps(jnp.zeros((2, 1, 1), jnp.int32), jnp.zeros((2, 1), bool))
        lags = conv.probe_lags(x, error, ops.empty_taps(2), 2, reach=16, min_z=None)
        return lags, conv.probe_delays(x, own, empty, reach=16)

    with jax.set_mesh(mesh):
        place = jax.NamedSharding(mesh, jax.P("b"))
        lags, delays = both(*(jax.device_put(part, place) for part in (x, error, own)))
    assert sorted(lags.positions.ravel().tolist()) == truth.tolist()
    assert delays.positions.ravel().tolist() == truth.tolist()


X = normal(2, 9, 3)
E = ops.empty_taps(1)
# The call, then a fragment of each part: what was found, what was expected, what to change.
MISTAKES = {
    "cotangent": (
        lambda: conv.probe_lags(X, X[:1], E, reach=4),
        "cotangent of shape (1, 9, 3)",
        "axes of x",
        "reshape cotangent",
    ),
    "taps": (lambda: conv.probe_lags(X, X, 3, reach=4), "taps=3", "Taps(", "pass Taps"),
    "own": (lambda: conv.probe_delays(X, X, E, reach=4), "positions of", "(C, k, 1)", "reshape"),
    "plain": (lambda: conv.probe_delays(X, X, 0, reach=4), "taps=0", "every channel", "pass"),
    "weights": (
        lambda: conv.start_weights(jax.random.key(0), np.ones(2), [True] * 2, [True] * 2),
        "weights of shape (2,)",
        "(k, C)",
        "reshape",
    ),
    "flags": (
        lambda: conv.start_weights(jax.random.key(0), np.ones((2, 1)), [True], [True] * 2),
        "before of shape (1,)",
        "one flag per tap",
        "reshape before",
    ),
    "key": (
        lambda: conv.start_weights(7, np.ones((1, 1)), [True], [True]),
        "key=7",
        "one random key",
        "jax.random.key",
    ),
    "scale": (
        lambda: conv.start_weights(jax.random.key(0), np.ones((1, 1)), [True], [True], scale=-1),
        "scale=-1",
        "at least 0",
        "scale",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_name_themselves_and_their_cure(mistake):
    call, *words = MISTAKES[mistake]
    assert_names_itself_and_its_cure(lambda: jax.eval_shape(call), *words)


@pytest.mark.parametrize("mixed", [True, False])
def test_only_fresh_taps_get_small_weights(mixed):
    shape = (3, 400, 5) if mixed else (3, 400)
    before, after = np.array([True, False, False]), np.array([True, True, False])
    start = jax.jit(partial(conv.start_weights, before=before, after=after, scale=2.0))
    found = np.asarray(start(jax.random.key(0), np.ones(shape)))
    np.testing.assert_array_equal(found[::2], 1)
    assert abs(np.std(found[1]) / 0.1 - 1) < 0.1
