"""Limits, reports and balance of a router's load, against loops over tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.estimators import (
    balance_loss,
    load_report,
    router_z_loss,
    top_route,
    update_router_bias,
    within_capacity,
)
from tests.folding import folded
from tests.ops.examples import all_finite, assert_close, assert_names_itself_and_its_cure

EXPERTS, TOKENS = 4, 23
RNG = np.random.default_rng(3)
LOGITS = RNG.normal(size=(TOKENS, EXPERTS)).astype(np.float32)
INDICES = {
    "one choice": RNG.integers(-1, EXPERTS + 1, TOKENS),
    "two choices": RNG.integers(-1, EXPERTS + 1, (TOKENS, 2)),
    "one expert": np.zeros((TOKENS, 2), int),
    "padding": np.full(TOKENS, -1),
}
PRIORITY = RNG.permutation(2 * TOKENS).reshape(TOKENS, 2).astype(np.float32)


def placed_one_by_one(index, capacity, priority):
    """First choices, then second ones; or in falling order of the priority."""
    rows = index.reshape(TOKENS, -1)
    order = [(rank, token) for rank in range(rows.shape[1]) for token in range(TOKENS)]
    if priority is not None:
        order.sort(key=lambda entry: -priority.reshape(rows.shape)[entry[1], entry[0]])
    expert, place, dropped = np.full(rows.shape, -1), np.full(rows.shape, -1), 0
    taken = np.zeros(EXPERTS, int)
    for rank, token in order:
        wanted = rows[token, rank]
        if not 0 <= wanted < EXPERTS:
            continue
        if taken[wanted] == capacity:
            dropped += 1
            continue
        expert[token, rank], place[token, rank] = wanted, taken[wanted]
        taken[wanted] += 1
    return expert.reshape(index.shape), place.reshape(index.shape), dropped


CASES = [
    (name, capacity, by) for name in INDICES for capacity in (1, 5, 60) for by in (False, True)
]


def priority_of(name, by):
    return PRIORITY.T[: INDICES[name].ndim].T.reshape(INDICES[name].shape) if by else None


@folded
def placed():
    def place(capacity):
        return lambda index, priority: within_capacity(
            index, num_experts=EXPERTS, capacity=capacity, priority=priority
        )

    return {
        (name, capacity, by): (place(capacity), np.int32(INDICES[name]), priority_of(name, by))
        for name, capacity, by in CASES
    }


@pytest.mark.parametrize(("name", "capacity", "by"), CASES)
def test_places_are_given_in_turn(name, capacity, by):
    expert, place, dropped = placed_one_by_one(INDICES[name], capacity, priority_of(name, by))
    found = placed(name, capacity, by)
    assert np.array_equal(found.expert, expert)
    assert np.array_equal(found.place, place)
    assert int(found.dropped) == dropped
    assert (dropped > 0) == (capacity < 60 and name != "padding")


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
def test_experts_may_be_counted_in_few_bits(dtype):
    index = np.array([0, 200, 0, 3], np.int64).astype(dtype)
    found = within_capacity(index, num_experts=300, capacity=1)
    owner = [0, 200 if dtype != np.int8 else -1, -1, 3]
    assert found.expert.tolist() == owner
    assert int(found.dropped) == 1


def test_a_report_counts():
    index = INDICES["two choices"]
    report = load_report(np.int32(index), EXPERTS)
    counts = np.array([(index == expert).sum() for expert in range(EXPERTS)])
    assert np.array_equal(report.load, counts)
    shares = counts / counts.sum()
    assert_close(report.share, shares)
    assert float(report.violation) == pytest.approx(counts.max() / counts.mean() - 1, rel=1e-5)
    entropy = -np.sum(shares * np.log(shares))
    assert float(report.experts_used) == pytest.approx(np.exp(entropy), rel=1e-5)
    assert int(report.outside) == index.size - counts.sum()


def test_a_report_of_nothing_is_finite():
    report = load_report(np.int32(INDICES["padding"]), EXPERTS)
    assert int(report.outside) == TOKENS
    assert float(report.violation) == 0
    assert not np.any(report.share)
    assert all_finite(report)
    even = load_report(jnp.arange(EXPERTS), EXPERTS)
    assert float(even.violation) == 0
    assert float(even.experts_used) == pytest.approx(EXPERTS)


def softmax(rows):
    powers = np.exp(np.float64(rows) - rows.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize("k", [None, 1, 3, EXPERTS])
def test_the_k_most_probable_in_falling_order(k, renormalise):
    route = top_route(LOGITS, k=k, renormalise=renormalise)
    chosen = np.argsort(-LOGITS, axis=-1)[:, : k or 1]
    gates = np.take_along_axis(softmax(LOGITS), chosen, axis=-1)
    gates = gates / gates.sum(axis=-1, keepdims=True) if renormalise else gates
    if k is None:
        chosen, gates = chosen[:, 0], gates[:, 0]
    assert np.array_equal(route.expert, chosen)
    assert route.expert.dtype == jnp.int32
    assert_close(route.gate, gates, rtol=1e-5)


def test_a_bias_chooses_and_does_nothing_else():
    bias = np.float32([0.0, 0.3, -0.2, 0.1])

    def gates(logits, bias):
        route = top_route(logits, k=2, bias=bias)
        return jnp.sum(route.gate**2), route

    (slope, slope_of_bias), route = jax.grad(gates, (0, 1), has_aux=True)(LOGITS, bias)
    chosen = np.argsort(-(softmax(LOGITS) + bias), axis=-1)[:, :2]
    assert np.array_equal(route.expert, chosen)
    assert np.any(chosen != np.argsort(-LOGITS, axis=-1)[:, :2])
    assert_close(route.gate, np.take_along_axis(softmax(LOGITS), chosen, axis=-1), rtol=1e-5)
    assert not np.any(slope_of_bias)

    def fixed(logits):
        pi = jax.nn.softmax(logits)
        return jnp.sum(jnp.take_along_axis(pi, jnp.asarray(chosen), axis=-1) ** 2)

    assert_close(slope, jax.grad(fixed)(LOGITS), atol=1e-6)


def test_a_banned_expert_is_chosen_last_whatever_its_bias():
    logits = jnp.array([0.0, -jnp.inf, 1.0])
    bias = jnp.array([0.0, 9.0, 0.0])
    route = top_route(logits, k=3, bias=bias, renormalise=True)
    assert route.expert.tolist() == [2, 0, 1]
    assert route.gate[2] == 0
    assert all_finite(jax.grad(lambda s: top_route(s, k=3, bias=bias).gate[0])(logits))


def test_the_balance_loss_of_several_choices_is_the_formula():
    index = INDICES["two choices"]
    inside = (index >= 0) & (index < EXPERTS)
    counts = np.array([(index == expert).sum() for expert in range(EXPERTS)])
    alive = inside.any(axis=-1)
    expected = EXPERTS * np.sum(counts / counts.sum() * softmax(LOGITS)[alive].mean(axis=0))
    spoilt = np.where(alive[:, None], LOGITS, np.nan)
    value, slope = jax.value_and_grad(balance_loss)(spoilt, jnp.asarray(index))
    assert 0 < alive.sum() < TOKENS
    assert float(value) == pytest.approx(expected, rel=1e-5)
    assert all_finite(slope)


def test_the_z_loss_is_the_formula_and_padding_counts_for_nothing():
    index = jnp.asarray(INDICES["one choice"])
    alive = np.asarray((index >= 0) & (index < EXPERTS))
    logs = np.log(np.exp(np.float64(LOGITS)).sum(axis=-1))
    assert float(router_z_loss(LOGITS)) == pytest.approx(np.mean(logs**2), rel=1e-5)
    spoilt = np.where(alive[:, None], LOGITS, np.nan)
    value, slope = jax.value_and_grad(router_z_loss)(spoilt, index)
    assert float(value) == pytest.approx(np.mean(logs[alive] ** 2), rel=1e-5)
    wanted = 2 * logs[:, None] * softmax(LOGITS) * alive[:, None] / alive.sum()
    assert_close(slope, wanted, rtol=1e-4, atol=1e-6)
    assert router_z_loss(spoilt, jnp.full((TOKENS, 2), -1)) == 0


def test_the_bias_moves_by_the_sign_of_the_error():
    bias, load = np.float32([0.1, -0.2, 0.0, 0.3]), np.int32([9, 1, 2, 0])
    moved = bias + 0.01 * np.sign(load.mean() - load)
    found = update_router_bias(bias, load, rate=0.01)
    assert_close(found, moved - moved.mean(), atol=1e-6)
    even = update_router_bias(bias, np.full(4, 3), rate=0.01)
    assert_close(even, bias - bias.mean(), atol=1e-6)
    slope = jax.grad(lambda b: jnp.sum(update_router_bias(b, load) ** 2))(bias)
    assert not np.any(slope)


def test_the_bias_evens_a_load_that_no_loss_touches():
    """Tokens that nearly all prefer expert 0; after the updates no expert has twice the mean."""
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(400, 8)) + 2 * (np.arange(8) == 0))

    @jax.jit
    def settle(logits):
        def step(bias, _):
            load = load_report(top_route(logits, k=2, bias=bias).expert, 8)
            return update_router_bias(bias, load.load, rate=0.003), load.violation

        return jax.lax.scan(step, jnp.zeros(8), None, length=300)[1]

    violations = settle(logits)
    assert violations[0] > 1.5
    assert violations[-1] < 0.1


PAIR = jnp.zeros((2, EXPERTS))
MISTAKES = {
    "more experts than there are": (
        lambda: top_route(PAIR, k=5),
        "k=5",
        "an int from 1 to 4",
        "pass a static int as k",
    ),
    "a bias of another length": (
        lambda: top_route(PAIR, bias=jnp.zeros(3)),
        "bias of shape (3,)",
        "(4), (E,): one number per expert",
        "reshape bias",
    ),
    "a flag that is none": (
        lambda: top_route(PAIR, renormalise="yes"),
        "renormalise='yes'",
        "True or False",
        "change renormalise",
    ),
    "no capacity": (
        lambda: within_capacity([0], num_experts=2, capacity=0),
        "capacity=0",
        "an int of at least 1",
        "pass a static int as capacity",
    ),
    "batches of tokens": (
        lambda: within_capacity(jnp.zeros((2, 3, 1), int), num_experts=2, capacity=1),
        "index of shape (2, 3, 1)",
        "(n,) or (n, k)",
        "tokens first",
    ),
    "a priority of tokens": (
        lambda: within_capacity([[0, 1]], num_experts=2, capacity=1, priority=[1.0]),
        "priority of shape (1,)",
        "the shape of index",
        "reshape priority",
    ),
    "experts as floats": (
        lambda: load_report([0.0], 2),
        "index of dtype float32",
        "integers",
        "convert index",
    ),
    "no tokens": (
        lambda: router_z_loss(PAIR[:0]),
        "logits of shape (0, 4)",
        "at least one token",
        "leave out the loss",
    ),
    "an index of other tokens": (
        lambda: router_z_loss(PAIR, jnp.zeros((3, 2), int)),
        "index of shape (3, 2)",
        "integers of shape (2, 2)",
        "the expert of the Route",
    ),
    "a load of other experts": (
        lambda: update_router_bias(jnp.zeros(4), jnp.zeros(3)),
        "load of shape (3,)",
        "the shape of bias",
        "reshape load",
    ),
    "a negative rate": (
        lambda: update_router_bias(jnp.zeros(4), jnp.zeros(4), rate=-1),
        "rate=-1",
        "at least 0",
        "change rate",
    ),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
