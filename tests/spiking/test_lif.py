import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.spiking import lif, lif_step, poisson_spikes
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

DECAYS = np.array([0.5, 0.8, 0.9, 0.95], np.float32)
CURRENTS = np.array([0.06, 0.3, 0.45, 0.9], np.float32)
THRESHOLD, STEPS = 0.875, 60


@pytest.fixture(scope="module")
def constant():
    """Neurons (decay, current), each with a constant current."""
    decays = jnp.broadcast_to(DECAYS[:, None], (4, 4))
    currents = jnp.broadcast_to(CURRENTS, (STEPS, 4, 4))
    return jax.device_get(
        jax.jit(lambda: lif(currents, decay=decays, threshold=THRESHOLD).spikes)()
    )


@pytest.mark.parametrize("row", range(4))
@pytest.mark.parametrize("column", range(4))
def test_a_constant_current_fires_with_the_period_of_the_closed_form(row, column, constant):
    decay, current = float(DECAYS[row]), float(CURRENTS[column])
    times = np.flatnonzero(constant[:, row, column])
    if current < THRESHOLD * (1 - decay):
        assert len(times) == 0
        return
    period = math.ceil(math.log(1 - THRESHOLD * (1 - decay) / current) / math.log(decay))
    np.testing.assert_array_equal(times, np.arange(period - 1, STEPS, period))


def test_without_a_leak_spikes_count_the_input():
    """If the reset subtracts: no current is lost, and none is made up."""
    random = np.random.default_rng(0)
    currents = np.asarray(random.integers(0, 9, (200, 5)) / 8, np.float32)  # at most the threshold
    counts = lif(currents, decay=1, threshold=1.125, reset="subtract").spikes.sum(axis=0)
    np.testing.assert_array_equal(counts, np.floor(currents.sum(axis=0) / 1.125))


def test_a_run_is_its_steps_and_potentials_are_before_the_reset():
    currents = jnp.asarray(np.random.default_rng(1).uniform(0, 1, (6, 3)), jnp.float32)
    start = jnp.array([0.5, 0.0, -1.0])

    @jax.jit
    def both(currents):
        options = {"decay": 0.75, "reset": "subtract"}
        whole = lif(currents, v=start, **options)
        v, seen = start, []
        for current in currents:
            one = lif_step(v, current, **options)
            v = one.v
            seen.append(one)
        return whole, v, jax.tree.map(lambda *leaves: jnp.stack(leaves), *seen)

    whole, v, seen = both(currents)
    assert_close((whole.v, whole.spikes, whole.potentials), (v, seen.spikes, seen.potentials))
    np.testing.assert_array_equal(whole.spikes, whole.potentials >= 1)


def test_the_gradient_passes_the_reset_only_if_it_is_asked_to():
    """Two steps, of which the first fires: by hand."""

    @jax.jit
    def gradients(currents):
        def last(currents, detach):
            options = {"decay": 0.5, "surrogate": "boxcar", "scale": 4.0}
            return lif(currents, detach_reset=detach, **options).potentials[-1]

        return [jax.grad(last)(currents, detach) for detach in (True, False)]

    detached, whole = gradients(jnp.array([1.5, 0.25]))
    # v1 = 1.5 fires, 0.5 v1 (1 - s1) + 0.25; psi(0.5) = 1/4.
    assert detached.tolist() == [0.0, 1.0]
    assert whole.tolist() == [-0.5 * 1.5 / 4, 1.0]


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_an_infinite_threshold_never_fires(reset):
    def run(currents, threshold):
        return lif(currents, decay=0.5, threshold=threshold, reset=reset)

    threshold = jnp.array([jnp.inf, 1.25])
    (found, slopes) = jax.jit(
        lambda x: (run(x, threshold), jax.grad(lambda x: run(x, threshold).potentials.sum())(x))
    )(jnp.ones((3, 2)))
    assert found.potentials[:, 0].tolist() == [1, 1.5, 1.75]
    assert found.spikes[:, 0].sum() == 0 < found.spikes[:, 1].sum()
    assert slopes[:, 0].tolist() == [1.75, 1.5, 1]
    assert np.isfinite(slopes).all()


def test_an_infinite_current_is_forgotten_by_a_reset_to_zero():
    seen = lif(jnp.array([jnp.inf, 0.25, 1.0, -jnp.inf, 1.0]), decay=0.5)
    assert seen.spikes.tolist() == [1, 0, 1, 0, 0]
    assert seen.v == -jnp.inf


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_a_neuron_that_keeps_nothing_forgets_infinity_too(reset):
    seen = lif(jnp.array([-jnp.inf, 0.5, jnp.inf, 0.5]), decay=0.0, reset=reset)
    assert seen.potentials.tolist() == [-jnp.inf, 0.5, jnp.inf, 0.5]
    assert seen.spikes.tolist() == [0, 0, 1, 0]


def test_spikes_are_drawn_at_their_rate_and_again_by_the_same_key():
    rates = jnp.array([0.0, 0.1, 0.5, 1.0])
    draw = jax.jit(lambda key: poisson_spikes(key, rates, steps=4000))
    spikes = draw(jax.random.key(3))
    assert set(np.unique(spikes)) == {0.0, 1.0}
    deviation = np.sqrt(rates * (1 - rates) / 4000)
    assert (np.abs(spikes.mean(axis=0) - rates) <= 4 * deviation).all()
    np.testing.assert_array_equal(spikes, poisson_spikes(jax.random.key(3), rates, steps=4000))
    assert (np.asarray(draw(jax.random.key(4))) != spikes).any()


NEURONS = jnp.ones((3, 2))


@pytest.mark.parametrize(
    ("options", "found", "expected"),
    [
        ({"decay": 1.5}, "decay=1.5", "at least 0 and at most 1"),
        ({"decay": [5.0, -2.0]}, "decay with [ 5. -2.]", "at least 0 and at most 1"),
        ({"decay": [[0.5], [0.5, 1]]}, "decay=[[0.5], [0.5, 1]]", "an array of real numbers"),
        ({"decay": 0.5, "threshold": [1.0, jnp.nan]}, "threshold with [nan]", "no NaN"),
        ({"decay": jnp.ones(3)}, "decay of shape (3,)", "() or the last axes of (2,)"),
        ({"decay": 0.5, "threshold": jnp.ones((1, 2))}, "threshold of shape (1, 2)", "()"),
        ({"decay": 0.5, "threshold": float("nan")}, "threshold=nan", "one number"),
        ({"decay": 0.5, "reset": "none"}, "reset='none'", "'zero', 'subtract'"),
        ({"decay": 0.5, "detach_reset": 1}, "detach_reset=1", "True or False"),
        ({"decay": 0.5, "v": jnp.ones(3)}, "v of shape (3,)", "the same shape"),
        ({"decay": 0.5, "surrogate": "relu"}, "surrogate='relu'", "'boxcar'"),
    ],
)
def test_wrong_options_are_told(options, found, expected):
    assert_names_itself_and_its_cure(lambda: lif(NEURONS, **options), found, expected, "")


def test_currents_have_a_time_and_a_key_is_needed():
    assert_names_itself_and_its_cure(lambda: lif(1.0, decay=0.5), "shape ()", "(T, ...)", "")
    assert lif(jnp.ones((0, 2)), decay=0.5).spikes.shape == (0, 2)
    assert_names_itself_and_its_cure(
        lambda: poisson_spikes(None, jnp.ones(2), steps=3), "key=None", "one random key", ""
    )
    assert_names_itself_and_its_cure(
        lambda: poisson_spikes(jax.random.key(0), jnp.ones(2), steps=-1), "steps=-1", "an int", ""
    )
