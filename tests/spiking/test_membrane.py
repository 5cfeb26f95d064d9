import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_hyper_jax.spiking import (
    MembraneRule,
    membrane_loss,
    membrane_loss_scan,
    membrane_loss_step,
    membrane_state,
    poisson_spikes,
)
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

SIZES, STEPS, BATCH = (5, 4, 3), 6, 2
RULE = MembraneRule(decay=0.75)
BARE = MembraneRule(decay=1.0, reset_traces=False)


def make_weights(seed=0):
    random = np.random.default_rng(seed)
    return [
        jnp.asarray(random.uniform(-0.3, 0.9, pair), jnp.float32)
        for pair in itertools.pairwise(SIZES)
    ]


def make_spikes(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 2, shape), jnp.float32)


SPIKES, TARGETS = make_spikes(1, STEPS, BATCH, 5), make_spikes(2, STEPS, BATCH, 3)


def by_hand(weights, spikes, targets, rule):
    """The rule with NumPy in float64: losses, gradients and last traces."""
    weights = [np.asarray(w, np.float64) for w in weights]
    v = [np.zeros((BATCH, w.shape[1])) for w in weights]
    traces = [np.zeros((BATCH, w.shape[0])) for w in weights]
    losses, gradients = [], []
    for s, y in zip(np.asarray(spikes, np.float64), np.asarray(targets, np.float64), strict=True):
        fired = [s]
        for n, w in enumerate(weights):
            v[n] = np.minimum(rule.decay * v[n] + fired[-1] @ w, rule.threshold)
            traces[n] = rule.decay * traces[n] + fired[-1]
            fired.append((v[n] >= rule.threshold).astype(float))
        error = rule.threshold * y - v[-1]
        if rule.mask == "xor":
            error = error * np.logical_xor(y, fired[-1])
        losses.append(np.sum(error**2) / 2 / BATCH)
        away = 4 * (v[0] - rule.threshold)
        slope = 4 / (1 + np.exp(-away)) / (1 + np.exp(away))
        hidden = (error @ weights[1].T) * slope
        gradients.append([-traces[0].T @ hidden / BATCH, -traces[1].T @ error / BATCH])
        for n in range(2):
            v[n] = v[n] * (1 - fired[n + 1])
            if rule.reset_traces:
                units = rule.trace_units or SIZES[n + 1]
                traces[n] = traces[n] * (1 - fired[n + 1].sum(axis=-1, keepdims=True) / units)
    return losses, gradients, traces


def steps_of(rule, weights):
    state, seen = membrane_state(weights, batch=(BATCH,)), []
    for s, y in zip(SPIKES, TARGETS, strict=True):
        one = membrane_loss_step(weights, state, s, y, rule=rule)
        state = one.state
        seen.append((one.loss, one.gradient))
    return seen, state.traces


RULES = {
    "as it is": RULE,
    "no mask": replace(RULE, mask="none"),
    "traces of more units": replace(RULE, trace_units=7),
    "nothing forgotten": BARE,
}


@pytest.fixture(scope="module")
def stepped():
    weights = make_weights()
    run = jax.jit(lambda: {name: steps_of(rule, weights) for name, rule in RULES.items()})
    return jax.device_get(run())


@pytest.mark.parametrize("name", RULES)
def test_steps_are_those_of_numpy(name, stepped):
    seen, traces = stepped[name]
    losses, gradients, last = by_hand(make_weights(), SPIKES, TARGETS, RULES[name])
    for (loss, gradient), wanted, slopes in zip(seen, losses, gradients, strict=True):
        assert_close(loss, wanted, rtol=1e-4)
        assert_close(gradient, slopes, rtol=1e-4, atol=1e-5)
    assert_close(traces, tuple(last), rtol=1e-4)
    assert max(np.abs(slope).max() for slope in gradients[-1]) > 1e-3


def test_without_forgetting_a_trace_is_the_sum_of_all_inputs(stepped):
    _, traces = stepped["nothing forgotten"]
    np.testing.assert_array_equal(traces[0], SPIKES.sum(axis=0))


@pytest.mark.parametrize("mask", ["xor", "none"])
def test_the_gradient_of_one_step_is_that_of_its_loss(mask):
    """Exactly: by ``jax.grad`` of the loss that backpropagation through time uses."""
    rule = MembraneRule(decay=1.0, mask=mask, reset_traces=False)
    weights, s, y = make_weights(3), SPIKES[0], TARGETS[0]

    @jax.jit
    def both(weights):
        one = membrane_loss_step(weights, membrane_state(weights, batch=(BATCH,)), s, y, rule=rule)
        loss = lambda weights: membrane_loss(weights, s[None], y[None], rule=rule)[0]  # noqa: E731
        return (one.loss, one.gradient), jax.value_and_grad(loss)(weights)

    one, whole = both(weights)
    assert_close(one, whole, rtol=1e-6, atol=1e-8)
    assert max(float(jnp.abs(slope).max()) for slope in one[1]) > 1e-2


def test_outputs_that_fire_as_they_should_teach_nothing():
    weights = make_weights()

    @jax.jit
    def taught(weights):
        out = membrane_loss(weights, SPIKES, TARGETS, rule=RULE)[1][-1]
        sgd = optax.sgd(1.0)
        state = sgd.init(weights)
        done = membrane_loss_scan(weights, state, SPIKES, out, optimizer=sgd, rule=RULE)
        return out, done.weights, done.losses

    out, after, losses = taught(weights)
    assert 0 < out.sum() < out.size
    jax.tree.map(np.testing.assert_array_equal, after, weights)
    assert not losses.any()


def test_a_scan_is_its_steps_with_an_update_after_each():
    adam, weights = optax.adam(0.1), make_weights()

    @jax.jit
    def both(weights):
        done = membrane_loss_scan(
            weights, adam.init(weights), SPIKES, TARGETS, optimizer=adam, rule=RULE
        )
        moments, state, losses = adam.init(weights), membrane_state(weights, batch=(BATCH,)), []
        for s, y in zip(SPIKES, TARGETS, strict=True):
            one = membrane_loss_step(weights, state, s, y, rule=RULE)
            state = one.state
            updates, moments = adam.update(one.gradient, moments, weights)
            weights = optax.apply_updates(weights, updates)
            losses.append(one.loss)
        return (done.weights, done.losses), (weights, jnp.stack(losses))

    scanned, stepped = both(weights)
    assert_close(scanned, stepped, rtol=1e-4, atol=1e-5)


def test_learning_lowers_the_error_and_the_same_key_gives_the_same():
    image = jnp.array([[1.0, 0.0, 1.0, 0.0, 1.0]])
    adam = optax.adam(0.02)

    @jax.jit
    def learn(key):
        random = np.random.default_rng(5)
        weights = [jnp.asarray(random.uniform(-0.3, 0.4, shape), jnp.float32) for shape in SHAPES]
        spikes = poisson_spikes(key, 0.5 * image, steps=800)
        return membrane_loss_scan(weights, adam.init(weights), spikes, spikes, optimizer=adam)

    one, again = learn(jax.random.key(0)), learn(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, one.spikes, again.spikes)
    assert one.losses[-200:].mean() < 0.7 * one.losses[:200].mean()


SHAPES = ((5, 8), (8, 5))
W = [jnp.ones((5, 4)), jnp.ones((4, 3))]
S, Y = jnp.ones((2, 5)), jnp.ones((2, 3))
STATE = membrane_state(W, batch=(2,))


@pytest.mark.parametrize(
    ("arguments", "found", "expected"),
    [
        (([], STATE, S, Y), "weights []", "at least one matrix"),
        ((W[:1] * 2, STATE, S, Y), "(5, 4), (5, 4)", "(inputs, outputs)"),
        (([jnp.ones(3)], STATE, S, Y), "shapes [(3,)]", "(inputs, outputs)"),
        (([jnp.ones((5, 3), int)], STATE, S, Y), "weights of layer 1", "floats"),
        ((W, STATE, S[:, :2], Y), "spikes of shape (2, 2)", "(..., 5)"),
        ((W, STATE, S, Y[:1]), "targets of shape (1, 3)", "the same with 3"),
        ((W, STATE, S[0], Y[0]), "a state of shapes", "(4,)"),
        ((W, None, S, Y), "state=None", "MembraneState"),
    ],
)
def test_wrong_arguments_are_told(arguments, found, expected):
    assert_names_itself_and_its_cure(
        lambda: jax.eval_shape(lambda: membrane_loss_step(*arguments)), found, expected, ""
    )


@pytest.mark.parametrize(
    ("options", "found", "expected"),
    [
        ({"decay": 1.5}, "decay=1.5", "at most 1"),
        ({"threshold": None}, "threshold=None", "one number"),
        ({"threshold": 0.0}, "threshold=0.0", "one number above 0"),
        ({"threshold": float("inf")}, "threshold=inf", "at most"),
        ({"mask": "or"}, "mask='or'", "'xor', 'none'"),
        ({"reset_traces": "no"}, "reset_traces='no'", "True or False"),
        ({"trace_units": 0}, "trace_units=0", "at least 1"),
        ({"surrogate": "step"}, "surrogate='step'", "'sigmoid'"),
    ],
)
def test_a_wrong_rule_is_told(options, found, expected):
    assert_names_itself_and_its_cure(lambda: MembraneRule(**options), found, expected, "")


def test_an_empty_batch_teaches_nothing():
    empty = membrane_state(W, batch=(0,))
    one = membrane_loss_step(W, empty, S[:0], Y[:0])
    assert one.loss == 0
    assert not any(slope.any() for slope in one.gradient)
    slopes = jax.grad(lambda w: membrane_loss(w, S[None, :0], Y[None, :0])[0])(W)
    assert not any(slope.any() for slope in slopes)


@pytest.mark.parametrize("dtype", [np.int32, np.float16])
def test_a_state_of_another_dtype_rounds_no_weight(dtype):
    weights = [jnp.full((2, 1), 0.75), jnp.full((1, 1), 1e-8)]
    given = jax.tree.map(lambda leaf: leaf.astype(dtype), membrane_state(weights))
    one, other = (
        membrane_loss_step(weights, state, jnp.ones(2), jnp.ones(1))
        for state in (given, membrane_state(weights))
    )
    for found, expected in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    assert other.state.v[1] == np.float32(1e-8)


def test_a_potential_whose_input_overflows_is_at_its_ceiling():
    found = jax.jit(
        lambda w: membrane_loss_step([w], membrane_state([w]), jnp.ones(2), jnp.zeros(1))
    )(jnp.full((2, 1), 3e38))
    assert (found.loss, found.spikes[0][0]) == (0.5, 1)
    assert np.isfinite(jax.tree.leaves(found.gradient)).all()


def test_a_trace_never_turns_negative():
    one = membrane_loss_step(W, STATE, S, Y, rule=MembraneRule(trace_units=1))
    assert one.spikes[0].sum() > 2
    assert not any(trace.any() for trace in one.state.traces)


@pytest.mark.parametrize(
    ("call", "found", "expected"),
    [
        (lambda: membrane_state(W, batch=3), "batch=3", "a tuple of lengths"),
        (lambda: membrane_state(W, batch=(-1,)), "batch axis 0=-1", "at least 0"),
        (
            lambda: membrane_loss_scan(W, (), S[None], Y[None], optimizer=None),
            "optimizer=None",
            "GradientTransformation",
        ),
    ],
)
def test_wrong_batches_and_optimizers_are_told(call, found, expected):
    assert_names_itself_and_its_cure(call, found, expected, "")


def test_sequences_have_a_time_and_a_rule_is_one():
    assert_names_itself_and_its_cure(
        lambda: membrane_loss(W, S[0], Y[0]), "spikes of shape (5,)", "(T, ..., 5)", ""
    )
    assert_names_itself_and_its_cure(
        lambda: membrane_loss(W, S, Y, rule=MembraneRule), "rule=<class", "MembraneRule", ""
    )
