import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.spiking import (
    ErbpLayer,
    ErbpParameters,
    ErbpRule,
    ErbpState,
    erbp_parameters,
    erbp_state,
    erbp_step,
)
from sparse_hyper_jax.spiking.erbp import passing_synapses
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

SIZES, STEPS, RATE = (7, 5, 3), 25, 0.02
PARAMETERS = erbp_parameters(jax.random.key(0), SIZES)
# Exact in binary: whether a sum of spikes reaches the threshold does not hang on rounding.
RULE = ErbpRule(keep=0.75, refractory=1.9, threshold=0.125, error_weight=0.109375)


def make_events(seed=0):
    """Events of every step: doubles, padding on both sides of the inputs."""
    random = np.random.default_rng(seed)
    return random.integers(-3, 10, (STEPS, 6)).astype(np.int32)


LABELS = np.tile(np.array([[0, 1, 0], [0, 0, 0]], np.float32), (STEPS, 1))[:STEPS]


def run(parameters, events, *, rate=RATE, rule=RULE, key=7):
    def step(carry, now):
        one = erbp_step(now[0], *carry, now[1], now[2], learning_rate=rate, rule=rule)
        return (one.parameters, one.state), (one.spikes, one.state, one.parameters.weights)

    keys = jax.random.split(jax.random.key(key), STEPS)
    start = parameters, erbp_state(parameters)
    return jax.lax.scan(step, start, (keys, jnp.asarray(events), jnp.asarray(LABELS)))


@pytest.fixture(scope="module")
def ran():
    return jax.device_get(jax.jit(lambda: run(PARAMETERS, make_events()))())


def dense(events, rule=RULE, key=7):
    """All in matrices, with NumPy in float64; only which synapses pass is drawn by the library."""
    weights = [np.asarray(w, np.float64) for w in PARAMETERS.weights]
    feedback = [np.asarray(g, np.float64) for g in PARAMETERS.feedback]
    rows = [jnp.arange(len(w)) for w in weights]
    masks_of = jax.jit(
        lambda key: [
            passing_synapses(jax.random.fold_in(key, n), rows[n], w.shape[1], rule.keep)
            for n, w in enumerate(weights)
        ]
    )
    zeros = [np.zeros(w.shape[1]) for w in weights]
    current, v, silent, heard = ([one.copy() for one in zeros] for _ in range(4))
    errors, seen = np.zeros((2, SIZES[-1])), []
    for own, now, label in zip(
        jax.random.split(jax.random.key(key), STEPS), events, LABELS, strict=True
    ):
        counts = np.bincount(now[(now >= 0) & (now < SIZES[0])], minlength=SIZES[0]).astype(float)
        fired = [counts]
        for n, (w, mask) in enumerate(zip(weights, masks_of(own), strict=True)):
            current[n] = np.exp(-rule.dt / rule.tau_synapse) * current[n]
            current[n] = current[n] + fired[-1] @ (w * np.asarray(mask))
            awake = silent[n] <= 0
            v[n] = np.where(awake, v[n] + rule.dt / rule.tau_membrane * (current[n] - v[n]), 0)
            spikes = awake & (v[n] >= rule.threshold)
            silent[n] = np.where(spikes, rule.refractory, np.maximum(silent[n] - rule.dt, 0))
            v[n] = np.where(spikes, 0, v[n])
            fired.append(spikes.astype(float))
        missing = label - fired[-1]
        errors = np.maximum(0, errors + rule.error_weight * np.stack([missing, -missing]))
        out = (errors >= rule.threshold).astype(float)
        errors = errors - rule.threshold * out
        for n in range(len(weights)):
            heard[n] = np.exp(-rule.dt / rule.tau_dendrite) * heard[n]
            heard[n] = heard[n] + (out[0] - out[1]) @ feedback[n]
            gate = np.abs(current[n]) < rule.gate
            weights[n] = weights[n] + RATE * np.outer(fired[n], heard[n] * gate)
        seen.append((fired[1:], [w.copy() for w in weights]))
    return seen


def test_the_form_by_events_is_that_by_matrices(ran):
    _, (spikes, _, weights) = ran
    wanted = dense(make_events())
    for t, (fired, learned) in enumerate(wanted):
        for n in range(2):
            np.testing.assert_array_equal(spikes[n][t], fired[n])
            assert_close(weights[n][t], learned[n], rtol=1e-4, atol=1e-5)
    for n in range(2):
        assert 0 < spikes[n].sum() < spikes[n].size
        assert np.abs(weights[n][-1] - PARAMETERS.weights[n]).max() > 1e-3


def test_order_and_padding_of_events_change_nothing(ran):
    events = make_events()
    shuffled = np.where((events < 0) | (events >= SIZES[0]), 99, events)[:, ::-1]
    (other, _), _ = jax.jit(lambda: run(PARAMETERS, shuffled))()
    assert_close(other.weights, ran[0][0].weights, rtol=1e-5)


@pytest.mark.parametrize("kind", ["no events", "closed gate", "no rate"])
def test_nothing_is_learned(kind):
    """Without events, with a gate that is closed, or at a rate of 0: bit for bit."""
    events = np.full((STEPS, 6), -1, np.int32) if kind == "no events" else make_events()
    rule = ErbpRule(gate=0.0) if kind == "closed gate" else RULE
    rate = 0.0 if kind == "no rate" else RATE
    (after, _), _ = jax.jit(lambda: run(PARAMETERS, events, rate=rate, rule=rule))()
    jax.tree.map(np.testing.assert_array_equal, after, PARAMETERS)


def test_feedback_is_constant_and_drives_no_layer_as_a_whole(ran):
    (after, _), _ = ran
    jax.tree.map(np.testing.assert_array_equal, after.feedback, PARAMETERS.feedback)
    np.testing.assert_allclose(PARAMETERS.feedback[0].mean(axis=1), 0, atol=1e-6)
    assert (np.asarray(PARAMETERS.feedback[0]) != 0).all()


def test_the_output_learns_along_the_gradient_of_its_rates():
    """The update of the last layer points downhill in the squared error of its counts.

    On a version in rates: ``counts = inputs W``, so that minus the gradient is
    ``outer(inputs, label - counts)``; with labels at rates that the output does not reach.
    """
    random = np.random.default_rng(1)
    rates, label = np.array([0.6, 0.1, 0.3, 0.5, 0.05, 0.4]), np.array([0.5, 0.0, 0.0])
    inputs = random.random((400, 6)) < rates
    events = np.where(inputs, np.arange(6), -1).astype(np.int32)
    labels = (random.random((400, 3)) < label).astype(np.float32)
    parameters = erbp_parameters(jax.random.key(2), (6, 3))

    @jax.jit
    def learned(parameters):
        def step(carry, now):
            one = erbp_step(now[0], *carry, now[1], now[2], learning_rate=1e-6)
            return (one.parameters, one.state), one.spikes[0]

        keys = jax.random.split(jax.random.key(3), 400)
        start = parameters, erbp_state(parameters)
        (after, _), out = jax.lax.scan(step, start, (keys, events, labels))
        return after.weights[0] - parameters.weights[0], out

    change, out = learned(parameters)
    downhill = np.outer(rates, label - np.asarray(out).mean(axis=0))
    cosine = np.sum(change * downhill) / np.linalg.norm(change) / np.linalg.norm(downhill)
    assert cosine > 0.5


def test_changes_of_16_bits_are_rounded_once():
    """256 events, each of less than half of what bfloat16 tells apart near 1."""
    weights = [jnp.ones((4, 3), jnp.bfloat16)]
    parameters = ErbpParameters(weights, [jnp.eye(3)])
    state = erbp_state(parameters)
    state = state._replace(layers=[state.layers[0]._replace(error=jnp.ones(3))])
    given = jax.random.key(0), parameters, state, jnp.full(256, 2), jnp.zeros(3)
    one = erbp_step(*given, learning_rate=1e-3, rule=ErbpRule(gate=1e6))
    (after,) = one.parameters.weights
    assert after.dtype == jnp.bfloat16
    change = 256e-3 * np.exp(-1 / 5)
    np.testing.assert_allclose(after[2].astype(jnp.float32), 1 + change, rtol=2**-8)
    assert (after[:2] == 1).all()


@pytest.mark.parametrize(("dt", "steps"), [(0.1, 3), (0.1, 5), (0.2, 3), (0.5, 4), (1.0, 4)])
def test_a_neuron_is_silent_for_as_many_steps_as_it_is_told(dt, steps):
    rule = ErbpRule(dt=dt, refractory=round(dt * steps, 6), threshold=1e-3)
    parameters = ErbpParameters([jnp.full((1, 1), 100.0)], [jnp.ones((1, 1))])

    def step(state, key):
        one = erbp_step(
            *(key, parameters, state, jnp.zeros(1, int), jnp.zeros(1)), learning_rate=0.0, rule=rule
        )
        return one.state, one.spikes[0][0]

    keys = jax.random.split(jax.random.key(0), 2 * steps + 3)
    fired = jax.jit(lambda: jax.lax.scan(step, erbp_state(parameters), keys)[1])()
    assert np.flatnonzero(fired).tolist() == [0, steps + 1, 2 * steps + 2]


@pytest.mark.parametrize("where", ["weight", "hidden weight", "label"])
def test_nan_is_no_silence(where):
    weights, label = list(PARAMETERS.weights), jnp.zeros(3)
    if where == "label":
        label = label.at[1].set(jnp.nan)
    else:
        layer = 0 if where == "hidden weight" else 1
        weights[layer] = jnp.full_like(weights[layer], jnp.nan)
    parameters = ErbpParameters(weights, PARAMETERS.feedback)
    state = erbp_state(parameters)
    # All hidden neurons are about to fire.
    state.layers[0] = state.layers[0]._replace(current=jnp.ones(5))
    one = erbp_step(
        jax.random.key(0), parameters, state, jnp.arange(7), label, learning_rate=0.1, rule=RULE
    )
    if where == "label":
        assert jnp.isnan(one.state.errors[:, 1]).all()
        assert jnp.isnan(one.parameters.weights[0]).any()
    else:
        assert jnp.isnan(one.spikes[1]).all()
        assert jnp.isnan(one.spikes[0]).all() == (where == "hidden weight")
        assert jnp.isnan(one.parameters.weights[1]).all()


EVENTS, LABEL, STATE = jnp.array([1, 2]), jnp.zeros(3), erbp_state(PARAMETERS)
ONE = jnp.ones(5)


@pytest.mark.parametrize(
    ("changes", "found", "expected"),
    [
        ({"parameters": None}, "parameters=None", "ErbpParameters"),
        (
            {"parameters": ErbpParameters(PARAMETERS.weights, PARAMETERS.feedback[:1])},
            "feedback of shapes [(3, 5)]",
            "[(3, 5), (3, 3)]",
        ),
        ({"parameters": PARAMETERS._replace(feedback=3)}, "feedback=3", "a list of 2 matrices"),
        ({"state": ErbpState([ErbpLayer(ONE, ONE, ONE, ONE)], LABEL)}, "a state of", "(2, 3)"),
        ({"events": jnp.ones(2)}, "events of dtype", "integers"),
        ({"label": jnp.ones(2)}, "label of shape (2,)", "(3)"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0", "at least 0"),
        ({"rule": None}, "rule=None", "ErbpRule"),
        ({"key": 3}, "key=3", "one random key"),
    ],
)
def test_wrong_arguments_are_told(changes, found, expected):
    given = {"key": jax.random.key(0), "parameters": PARAMETERS, "state": STATE}
    given |= {"events": EVENTS, "label": LABEL, "learning_rate": 0.1} | changes
    assert_names_itself_and_its_cure(
        lambda: jax.eval_shape(lambda: erbp_step(**given)), found, expected, ""
    )


@pytest.mark.parametrize(
    ("call", "found", "expected"),
    [
        (lambda: ErbpRule(tau_synapse=0.0), "tau_synapse=0.0", "at least 1e-06"),
        (
            lambda: jax.eval_shape(lambda tau: ErbpRule(tau_synapse=tau).dt, 1.0),
            "tau_synapse=",
            "known while tracing",
        ),
        (lambda: erbp_parameters(jax.random.key(0), 5), "sizes=5", "a tuple of inputs"),
        (lambda: ErbpRule(keep=1.5), "keep=1.5", "at most 1"),
        (lambda: ErbpRule(dt=2.0), "dt=2.0 with tau_membrane=1.0", "at most the time constant"),
        (lambda: erbp_parameters(jax.random.key(0), (3,)), "sizes=[3]", "inputs and classes"),
        (lambda: erbp_parameters(jax.random.key(0), (3, 0)), "size 1=0", "at least 1"),
    ],
)
def test_wrong_rules_and_sizes_are_told(call, found, expected):
    assert_names_itself_and_its_cure(call, found, expected, "")
