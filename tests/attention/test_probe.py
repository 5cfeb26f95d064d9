from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import attention
from tests.ops.examples import assert_names_itself_and_its_cure

HIDDEN, REACH = (9, 30), 48
# As if no projection had learned anything: what has to come out are values times this.
TURN = np.array([[0, -1, 0], [0, 0, 1], [-1, 0, 0]], np.float32)
AS_THEY_ARE = np.eye(3, dtype=np.float32)


def told(values, projection):
    """Heads that should each tell what they read at a lag of their own, through a projection."""
    zeros = jnp.zeros_like(values)
    lags = np.array([[lag] for lag in HIDDEN])
    out = attention.lag_attention(jnp.repeat(zeros, 2, axis=-2), zeros, values, lags)
    return out @ projection


@partial(jax.jit, static_argnames="directions")
def probed(key, projection, *, directions):
    values = 1 + jax.random.normal(key, (4, 200, 1, 3))  # two heads share them
    zeros = jnp.zeros_like(values)
    error = -told(values, projection)
    return attention.probe_attention(
        jnp.repeat(zeros, 2, axis=-2),
        zeros,
        values,
        error,
        attention.empty_lags(2, 2),
        reach=REACH,
        count=2,
        directions=directions,
    )


probe_attention = jax.jit(
    attention.probe_attention,
    static_argnames=("reach", "near", "count", "min_z", "directions"),
)


def lags_of(taps):
    return [row[on].tolist() for row, on in zip(*map(np.array, taps), strict=True)]


@pytest.mark.parametrize("seed", range(3))
def test_every_head_gets_its_lag_whatever_projections_have_learned(seed):
    key = jax.random.key(seed)
    assert lags_of(probed(key, AS_THEY_ARE, directions=3)) == [[lag] for lag in HIDDEN]
    assert lags_of(probed(key, TURN, directions=3)) == [[lag] for lag in HIDDEN]
    assert lags_of(probed(key, AS_THEY_ARE, directions=None)) == [[lag] for lag in HIDDEN]


def test_values_as_they_are_tell_nothing_through_a_turn():
    """The trace of a turn is 0: why gains of matrices are the default."""
    taps = probed(jax.random.key(0), TURN, directions=None)
    assert not any(lag in found for lag, found in zip(HIDDEN, lags_of(taps), strict=True))


def test_what_every_lag_gains_is_no_gain_of_one():
    """The present is in the way, so that any tap is welcome: only the right one is placed."""
    draw = partial(jax.random.normal, shape=(8, 200, 1, 4))
    query, key, value = (draw(jax.random.key(seed)) for seed in range(3))
    taps = attention.empty_lags(1, 2)
    out = jax.jit(partial(attention.lag_attention, near=1))(query, key, value, *taps)
    # The loss wants less of the present, and more of 25 steps ago.
    error = 3 * out - jnp.roll(value, 25, axis=1)
    taps = probe_attention(query, key, value, error, taps, reach=60, near=1)
    assert lags_of(taps) == [[25]]


def test_noise_places_nothing():
    draw = partial(jax.random.normal, shape=(4, 200, 1, 3))
    rows = [draw(jax.random.key(seed)) for seed in range(4)]
    taps = probe_attention(*rows, attention.empty_lags(1, 2), reach=REACH)
    assert lags_of(taps) == [[]]


def test_a_batch_that_is_spread_gives_the_taps_of_one_device():
    draw = partial(jax.random.normal, shape=(8, 40, 1, 3))
    rows = [draw(jax.random.key(seed)) for seed in range(4)]
    probe = jax.jit(
        lambda *rows: attention.probe_attention(
            *rows, attention.empty_lags(1, 2), reach=REACH, count=2, min_z=None
        )
    )
    expected = lags_of(probe(*rows))
    for kind in (jax.sharding.AxisType.Explicit, jax.sharding.AxisType.Auto):
        mesh = jax.make_mesh((len(jax.devices()),), ("b",), axis_types=(kind,))
        with jax.set_mesh(mesh):
            spread = [jax.device_put(row, jax.NamedSharding(mesh, jax.P("b"))) for row in rows]
            assert lags_of(probe(*spread)) == expected


@pytest.mark.parametrize(
    ("change", "found", "expected"),
    [
        ({"taps": None}, "taps=None", "LagTaps(lags, placed)"),
        ({"taps": attention.empty_lags(2, 1)}, "lags of shape", "(1, any)"),
        ({"cotangent": np.zeros((4, 9, 2, 3))}, "cotangent", "(4, 9, 1, any)"),
        ({"directions": 0}, "count=0", "at least 1"),
        ({"reach": 0}, "reach=0", "at least 1"),
    ],
)
def test_wrong_arguments_are_told(change, found, expected):
    rows = np.zeros((4, 9, 1, 3), np.float32)
    right = {"cotangent": rows, "taps": attention.empty_lags(1, 1), "reach": 4}

    def call():
        jax.eval_shape(lambda: attention.probe_attention(rows, rows, rows, **(right | change)))

    assert_names_itself_and_its_cure(call, found, expected, "")
