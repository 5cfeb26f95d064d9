import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.spiking import decolle_state, decolle_step
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

SIZES, CLASSES, BATCH, STEPS = (6, 5, 4), 3, 2, 12
RANDOM = np.random.default_rng(0)
WEIGHTS = [
    jnp.asarray(RANDOM.normal(0.3, 1, pair), jnp.float32) for pair in itertools.pairwise(SIZES)
]
READOUTS = [jnp.asarray(RANDOM.normal(0, 1, (n, CLASSES)), jnp.float32) for n in SIZES[1:]]
SPIKES = jnp.asarray(RANDOM.integers(0, 2, (STEPS, BATCH, SIZES[0])), jnp.float32)
TARGET = jax.nn.one_hot(jnp.array([0, 2]), CLASSES)


def step_of(weights, state, s):
    return decolle_step(weights, READOUTS, state, s, TARGET)


@pytest.fixture(scope="module")
def ran():
    """Losses, gradients of their sum and of each of them, scores and states of all steps."""

    def one_step(state, s):
        def total(weights):
            one = step_of(weights, state, s)
            return jnp.sum(one.losses), one

        gradient, one = jax.grad(total, has_aux=True)(WEIGHTS)
        alone = [
            jax.grad(lambda weights, n=n: step_of(weights, state, s).losses[n])(WEIGHTS)
            for n in range(2)
        ]
        return one.state, (one, gradient, alone)

    scanned = jax.jit(
        lambda: jax.lax.scan(one_step, decolle_state(WEIGHTS, batch=(BATCH,)), SPIKES)
    )
    return jax.device_get(scanned()[1])


def by_hand():
    """With NumPy in float64: losses, gradients and spikes of every step."""
    weights, readouts = ([np.asarray(m, np.float64) for m in ms] for ms in (WEIGHTS, READOUTS))
    q, p = ([np.zeros((BATCH, len(w))) for w in weights] for _ in range(2))
    r, before = ([np.zeros((BATCH, w.shape[1])) for w in weights] for _ in range(2))
    target, seen = np.asarray(TARGET, np.float64), []
    for spikes in np.asarray(SPIKES, np.float64):
        s, losses, gradients, fired = spikes, [], [], []
        for n, (w, g) in enumerate(zip(weights, readouts, strict=True)):
            p[n] = 0.97 * p[n] + 0.03 * q[n]
            q[n] = 0.92 * q[n] + 0.08 * s
            r[n] = 0.65 * r[n] - before[n]
            u = p[n] @ w + r[n]
            s = before[n] = (u >= 0).astype(float)
            error = s @ g - target
            small = np.abs(error) < 1
            losses.append(np.where(small, error**2 / 2, np.abs(error) - 0.5).sum() / BATCH)
            slope = np.where(small, error, np.sign(error)) / BATCH
            gradients.append(p[n].T @ ((slope @ g.T) * (np.abs(u) < 0.5)))
            fired.append(s)
        seen.append((losses, gradients, fired))
    return seen


def test_steps_and_gradients_are_those_of_numpy(ran):
    one, gradient, _ = ran
    for t, (losses, slopes, fired) in enumerate(by_hand()):
        assert_close(one.losses[t], losses, rtol=1e-4)
        for n in range(2):
            np.testing.assert_array_equal(one.state[n].spikes[t], fired[n])
            assert_close(gradient[n][t], slopes[n], rtol=1e-4, atol=1e-6)
    assert all(0 < one.state[n].spikes.mean() < 1 for n in range(2))


def test_a_loss_has_a_gradient_for_its_own_layer_alone(ran):
    """And the gradient of the sum is these, bit for bit."""
    _, gradient, alone = ran
    for n in range(2):
        np.testing.assert_array_equal(alone[n][n], gradient[n])
        assert np.abs(gradient[n]).max() > 1e-4
        assert not alone[n][1 - n].any()


def test_no_gradient_reaches_the_shares_or_the_state_that_is_returned(ran):
    state = jax.tree.map(lambda leaf: leaf[-1], ran[0].state)

    def total(shares, weights):
        one = decolle_step(weights, READOUTS, state, SPIKES[0], TARGET, **shares)
        return one.losses.sum() + sum(leaf.sum() for leaf in jax.tree.leaves(one.state))

    shares, weights = jax.jit(jax.grad(total, (0, 1)))(
        {"alpha": 0.97, "beta": 0.92, "gamma": 0.65}, WEIGHTS
    )
    assert not any(shares.values())
    assert all(np.abs(slope).max() > 0 for slope in weights)


def test_no_gradient_reaches_the_past_the_input_or_a_readout():
    state = decolle_state(WEIGHTS, batch=(BATCH,))
    state = jax.tree.map(lambda leaf: leaf + 0.125, state)

    def loss(state, s, readouts):
        return jnp.sum(decolle_step(WEIGHTS, readouts, state, s, TARGET).losses)

    slopes = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(state, SPIKES[0], READOUTS)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(slopes))


S, STATE = SPIKES[0], decolle_state(WEIGHTS, batch=(BATCH,))


@pytest.mark.parametrize(
    ("arguments", "options", "found", "expected"),
    [
        ((WEIGHTS, READOUTS[:1], STATE, S, TARGET), {}, "readouts [", "a list of 2"),
        ((WEIGHTS, READOUTS[::-1], STATE, S, TARGET), {}, "readout 1 of shape (4, 3)", "(5, 3)"),
        ((WEIGHTS, READOUTS, STATE[:1], S, TARGET), {}, "state=[", "a list of 2"),
        ((WEIGHTS, READOUTS, [None, None], S, TARGET), {}, "state of a layer=None", "DecolleLayer"),
        ((WEIGHTS, READOUTS, STATE, S[0], TARGET[0]), {}, "a state of shapes", "(6,)"),
        ((WEIGHTS, READOUTS, STATE, S[:, :2], TARGET), {}, "spikes of shape (2, 2)", "(2, 6)"),
        ((WEIGHTS, READOUTS, STATE, S, TARGET[:1]), {}, "target of shape (1, 3)", "(2, 3)"),
        ((WEIGHTS, READOUTS, STATE, S, 1.0), {}, "target of shape ()", "(..., classes)"),
        ((WEIGHTS, READOUTS, STATE, S, TARGET), {"alpha": 1.5}, "alpha=1.5", "at most 1"),
        ((WEIGHTS, READOUTS, STATE, S, TARGET), {"surrogate": "no"}, "surrogate='no'", "'boxcar'"),
    ],
)
def test_wrong_arguments_are_told(arguments, options, found, expected):
    assert_names_itself_and_its_cure(
        lambda: jax.eval_shape(lambda: decolle_step(*arguments, **options)), found, expected, ""
    )


def test_a_batch_is_lengths_and_may_be_empty():
    assert_names_itself_and_its_cure(
        lambda: decolle_state(WEIGHTS, batch=(1.5,)), "batch axis 0=1.5", "an int", ""
    )
    empty = decolle_state(WEIGHTS, batch=(0,))
    assert not decolle_step(WEIGHTS, READOUTS, empty, S[:0], TARGET[:0]).losses.any()
