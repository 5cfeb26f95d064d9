from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import conv
from sparse_hyper_jax.conv.shift import shift
from tests.conv.examples import naive_lag_conv, normal
from tests.folding import folded
from tests.ops.examples import assert_names_itself_and_its_cure

STEPS, CHANNELS, OUT = 12, 3, 2
LAGS = {
    "any": [0, 5, 2, 11],
    "equal": [3, 3, 0, 3],
    "beyond the past": [12, 40, 2**31 - 1, 1],
    "outside": [-1, -(2**31), 7, 0],
}
OWN = np.random.default_rng(1).integers(0, STEPS, (4, CHANNELS)).astype(np.int32)
SHARED = [False, True]
# Name of lags, whether channels mix, options.
CASES = [
    *((name, mixed, ()) for name in (*LAGS, "own") for mixed in SHARED),
    ("any", True, (("reach", 6),)),
    ("any", True, (("reach", 1),)),
    ("own", False, (("reach", 6), ("strict", True))),
    ("any", True, (("strict", True),)),
    ("equal", False, (("reach", 100), ("strict", True))),
]
X = normal(2, STEPS, CHANNELS)
PLACED = np.array([True, True, False, True])


def arguments(name, mixed):
    weights = normal(4, CHANNELS, OUT, seed=2) if mixed else normal(4, CHANNELS, seed=2)
    return X, weights, OWN if name == "own" else np.array(LAGS[name], np.int32)


@folded
def convolved():
    def everything(options):
        def both(x, weights, lags):
            own = np.broadcast_to(PLACED.reshape(4, *[1] * (lags.ndim - 1)), lags.shape)
            some = conv.lag_conv(x, weights, lags, own, **options)
            return conv.lag_conv(x, weights, lags, **options), some

        return both

    return {
        (name, mixed, options): (everything(dict(options)), *arguments(name, mixed))
        for name, mixed, options in CASES
    }


@pytest.mark.parametrize(("name", "mixed", "options"), CASES)
def test_every_tap_reads_its_lag(name, mixed, options):
    every, some = convolved(name, mixed, options)
    its = arguments(name, mixed)
    np.testing.assert_allclose(every, naive_lag_conv(*its, **dict(options)), atol=1e-5)
    expected = naive_lag_conv(*its, PLACED, **dict(options))
    np.testing.assert_allclose(some, expected, atol=1e-5)


@pytest.mark.parametrize("dilation", [1, 3])
def test_arithmetic_lags_are_a_dilated_convolution(dilation):
    weights = normal(4, CHANNELS, OUT, seed=2)

    def ours(x, weights):
        return conv.lag_conv(x, weights, dilation * np.arange(4))

    def theirs(x, weights):
        return jax.lax.conv_general_dilated(
            x,
            weights[::-1],
            (1,),
            [(3 * dilation, 0)],
            rhs_dilation=(dilation,),
            dimension_numbers=("NWC", "WIO", "NWC"),
        )

    @jax.jit
    def both(cotangent):
        pulled = [jax.vjp(one, X, weights) for one in (ours, theirs)]
        return [(y, *back(cotangent)) for y, back in pulled]

    found, expected = both(normal(2, STEPS, OUT, seed=3))
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


ORDERS = {"fewer outputs": 2, "as many": 3, "more outputs": 5, "each channel": None}


@folded
def derivatives():
    """Value, gradient, tangent and product with the Hessian: all at once, one by one, many lags."""

    def everything(x, weights, by_x, by_weights):
        placed = np.array([True, True, False, True])
        by = by_x, by_weights.at[2].set(0)

        def found(one_by_one, lags):
            def loss(x, weights):
                y = conv.lag_conv(x, weights, lags, placed, reach=8, one_by_one=one_by_one)
                return jnp.sum(jnp.sin(y)), y

            slope = jax.grad(loss, (0, 1), has_aux=True)
            return (
                *slope(x, weights),
                jax.jvp(loss, (x, weights), by),
                jax.jvp(slope, (x, weights), by),
            )

        lags = jnp.array([0, 2, 1, 7]), jnp.array([3, 3, 0, 12])
        apart = [found(False, one) for one in lags]
        return apart, jax.vmap(partial(found, True))(jnp.stack(lags))

    x, by_x = normal(2, 3, STEPS, CHANNELS), normal(2, 3, STEPS, CHANNELS, seed=4)
    cases = {}
    for name, outputs in ORDERS.items():
        shape = (4, CHANNELS) if outputs is None else (4, CHANNELS, outputs)
        weights = normal(*shape, seed=2)
        weights[2] = np.nan  # an empty slot
        cases[name,] = everything, x, weights, by_x, normal(*shape, seed=3)
    return cases


@pytest.mark.parametrize("order", ORDERS)
def test_one_by_one_gives_the_numbers_of_all_at_once(order):
    apart, together = derivatives(order)
    for number, one in enumerate(apart):
        for expected, stacked in zip(*map(jax.tree.leaves, (one, together)), strict=True):
            assert np.isfinite(expected).all()
            np.testing.assert_allclose(stacked[number], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("outputs", [2, 3, 5])
def test_steps_that_no_tap_reads_may_hold_anything(outputs):
    x, weights = normal(2, STEPS, CHANNELS), normal(3, CHANNELS, outputs, seed=2)
    x[:, -1] = np.nan  # which only lag 0 would read

    @jax.jit
    def slopes(x, weights):
        def loss(weights):
            return jnp.sum(conv.lag_conv(x, weights, [1, 2, STEPS], one_by_one=True) ** 2)

        return jax.value_and_grad(loss)(weights)

    value, slope = slopes(x, weights)
    assert np.isfinite(value)
    assert np.isfinite(slope).all()
    np.testing.assert_array_equal(slope[2], 0)


def test_a_shift_of_each_direction_is_the_transpose_of_the_other():
    x, y = normal(2, STEPS, CHANNELS), normal(2, STEPS, CHANNELS, seed=5)

    @jax.jit
    def both(lag):
        late, back = jax.vjp(lambda x: shift(x, lag), x)
        (early,) = back(y)
        (again,) = jax.linear_transpose(lambda y: back(y)[0], y)(x)
        return late, early, again

    for lag in (0, 1, 5, STEPS - 1, STEPS, STEPS + 4):
        late, early, again = both(lag)
        padded = np.pad(x, ((0, 0), (STEPS + 4, 0), (0, 0)))
        np.testing.assert_array_equal(late, padded[:, STEPS + 4 - lag :][:, :STEPS])
        np.testing.assert_array_equal(again, late)
        np.testing.assert_allclose(np.vdot(late, y), np.vdot(x, early), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strict", [False, True])
def test_jacobian_is_triangular_and_ends_at_the_reach(strict):
    weights, lags = normal(5, CHANNELS, OUT, seed=2), np.array([0, 1, 4, 5, 11])
    convolve = partial(conv.lag_conv, weights=weights, lags=lags, reach=5, strict=strict)
    jacobian = jax.jit(jax.jacobian(convolve))(X[0])
    # Lag of output step (axis 0) behind input step (axis 2).
    lag = np.arange(STEPS)[:, None] - np.arange(STEPS)[None]
    nonzero = np.any(np.asarray(jacobian) != 0, axis=(1, 3))
    read = np.isin(lag, [1, 4] if strict else [0, 1, 4])
    np.testing.assert_array_equal(nonzero, read)


def test_empty_slots_hold_and_read_nothing_whatever_lies_there():
    x, weights, lags = X.copy(), normal(3, CHANNELS, OUT, seed=2), np.array([1, 0, 4])
    x[:, -1] = np.nan  # which only lag 0, an empty slot, would read
    weights[1] = np.nan
    placed = np.array([True, False, True])

    def loss(x, weights):
        return jnp.sum(conv.lag_conv(x, weights, lags, placed) ** 2)

    value, (of_x, of_weights) = jax.jit(jax.value_and_grad(loss, (0, 1)))(x, weights)
    assert np.isfinite(value)
    assert np.isfinite(of_x).all()
    np.testing.assert_array_equal(of_weights[1], 0)
    assert np.all(of_weights[::2] != 0)


def test_devices_may_have_lags_of_their_own_for_a_sequence_that_they_share():
    mesh = jax.make_mesh((4,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
    x, weights, y = normal(STEPS, 1), normal(4, 1, 1, 1), normal(4, STEPS, 1, seed=6)
    lags = np.arange(4, dtype=np.int32)[:, None]

    def loss(x, weights, lags, y):
        return jnp.sum(y[0] * conv.lag_conv(x, weights[0], lags[0]))[None]

    spread = jax.P("devices")
    apart = jax.shard_map(
        loss, mesh=mesh, in_specs=(jax.P(), spread, spread, spread), out_specs=spread
    )

    @jax.jit
    def both(x):
        found = jax.grad(lambda x: apart(x, weights, lags, y).sum())(x)
        return found, jax.grad(
            lambda x: jax.vmap(partial(loss, x))(
                *(part[:, None] for part in (weights, lags, y))
            ).sum()
        )(x)

    np.testing.assert_allclose(*both(x), rtol=1e-5, atol=1e-6)


def test_steps_before_a_step_do_not_hang_on_it_not_even_by_rounding():
    weights, lags = normal(3, CHANNELS, OUT, seed=2), np.array([0, 2, 5])
    later = X.copy()
    later[:, 7:] = 1e30
    convolve = jax.jit(partial(conv.lag_conv, weights=weights, lags=lags))
    one, two = (np.asarray(convolve(x)) for x in (X, later))
    np.testing.assert_array_equal(one[:, :7], two[:, :7])


def test_sums_of_16_bits_are_wide():
    ones = [
        jnp.asarray(np.ones(shape), jnp.bfloat16) for shape in ((400, 64), (8, 64, 1), (400, 1))
    ]

    @jax.jit
    def both(x, weights, cotangent):
        return conv.lag_conv(x, weights, np.arange(8)), conv.lag_gains(x, cotangent, 3)

    y, gains = both(*ones)
    assert y.dtype == jnp.float32
    assert y[-1, 0] == 512
    np.testing.assert_allclose(gains[:, 0, 0], [400, 399, 398], rtol=1e-5)


W = np.ones((2, CHANNELS, OUT))
# The call, then a fragment of each part: what was found, what was expected, what to change.
MISTAKES = {
    "x": (lambda: conv.lag_conv(np.ones(3), W, [0, 1]), "x of shape (3,)", "(..., T, C)", "axis"),
    "no step": (lambda: conv.lag_conv(X[:, :0], W, [0, 1]), "(2, 0, 3)", "one step", "give x"),
    "lags": (lambda: conv.lag_conv(X, W, [0.0, 1]), "float32", "integers", "convert lags"),
    "no lags": (lambda: conv.lag_conv(X, W, np.zeros(0, int)), "(0,)", "at least 1", "taps"),
    "own": (lambda: conv.lag_conv(X, W, np.ones((2, 4), int)), "(2, 4)", "(k, 3)", "pass"),
    "weights": (lambda: conv.lag_conv(X, W, [1]), "weights of shape", "(1, 3, O)", "change"),
    "placed": (lambda: conv.lag_conv(X, W, [0, 1], [True]), "placed of shape", "(2)", "reshape"),
    "flags": (lambda: conv.lag_conv(X, W, [0, 1], [1, 1]), "int32", "flags", "placed"),
    "reach": (lambda: conv.lag_conv(X, W, [0, 1], reach=0), "reach=0", "from 1 to", "reach"),
    "strict": (lambda: conv.lag_conv(X, W, [0, 1], strict="no"), "strict", "True", "strict"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_name_themselves_and_their_cure(mistake):
    assert_names_itself_and_its_cure(*MISTAKES[mistake])
