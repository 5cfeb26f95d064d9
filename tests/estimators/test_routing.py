import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.estimators import (
    balance_loss,
    fill_with_defaults,
    sparse_mixer,
    top_route,
    update_defaults,
)
from sparse_hyper_jax.estimators.routing import RULES
from tests.ops.examples import all_finite, assert_close, assert_names_itself_and_its_cure

EXPERTS, FEATURES = 5, 3
LOGITS = jnp.array([0.3, -1.0, 0.9, 0.0, -0.4])
OUTPUTS = jax.random.normal(jax.random.key(5), (EXPERTS, FEATURES)) * 2 + 0.5
KEY = jax.random.key(0)


def loss_of_degree(degree):
    planes = jax.random.normal(jax.random.key(2), (4, FEATURES))
    shifts = jnp.array([0.3, -0.5, 0.2, 0.7])
    return lambda h: jnp.sum(jnp.array([1.0, -0.5, 2.0, 0.7]) * (planes @ h - shifts) ** degree)


def exact_gradient(logits, loss):
    def expectation(logits):
        probabilities = jax.nn.softmax(logits)
        return probabilities @ jax.vmap(loss)(probabilities[:, None] * OUTPUTS)

    return jax.grad(expectation)(logits)


def enumerated(logits, loss, method, *, exact_at_argmax=False):
    """Sum over experts and coins of what one draw contributes, by the chain rule in numpy.

    Returns the mean and the mean of the squares.
    """
    pi = np.asarray(jax.nn.softmax(logits), np.float64)
    jacobian = pi[:, None] * (np.eye(len(pi)) - pi)
    rule = RULES[method]
    whole = np.full(len(pi), rule.whole)
    if exact_at_argmax:
        whole[np.argmax(pi)] = 1.0
    first, second = 0.0, 0.0
    for chance, scale in ((whole, 1.0), (1 - whole, rule.scale)):
        slopes = jax.vmap(jax.grad(loss))(jnp.float32(scale * pi)[:, None] * OUTPUTS)
        along = np.sum(np.asarray(slopes * OUTPUTS, np.float64), axis=1)
        terms = rule.factor * along[:, None] * jacobian
        first = first + (pi * chance) @ terms
        second = second + (pi * chance) @ terms**2
    return first, second


def sampled_gradient(key, logits, loss, **options):
    def draw(logits):
        route = sparse_mixer(key, logits, **options)
        return loss(route.gate * OUTPUTS[route.expert])

    return jax.grad(draw)(logits)


@pytest.mark.parametrize(
    ("method", "degree", "exact"),
    [
        ("gate", 1, False),
        ("first_order", 1, True),
        ("first_order", 2, False),
        ("midpoint", 1, True),
        ("midpoint", 2, True),
        ("midpoint", 3, False),
        ("heun", 2, True),
        ("heun", 3, True),
        ("heun", 4, False),
    ],
)
def test_methods_are_exact_up_to_their_degree(method, degree, exact):
    loss = loss_of_degree(degree)
    expected = np.asarray(exact_gradient(LOGITS, loss))
    found, _ = enumerated(LOGITS, loss, method)
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert (error < 1e-5) == exact
    assert exact or error > 1e-3


def test_errors_fall_with_the_order():
    loss = loss_of_degree(4)
    expected = np.asarray(exact_gradient(LOGITS, loss))
    methods = ("first_order", "midpoint", "heun")
    errors = [np.linalg.norm(enumerated(LOGITS, loss, method)[0] - expected) for method in methods]
    assert errors[0] > 3 * errors[1] > 9 * errors[2] > 0


def test_gate_is_the_gradient_with_the_draw_held_fixed():
    loss = loss_of_degree(3)
    pi = jax.nn.softmax(LOGITS)

    def without_grad0(logits):
        return pi @ jax.vmap(loss)(jax.nn.softmax(logits)[:, None] * OUTPUTS)

    found, _ = enumerated(LOGITS, loss, "gate")
    assert_close(found, jax.grad(without_grad0)(LOGITS), rtol=1e-4)


@pytest.mark.parametrize("exact_at_argmax", [False, True])
@pytest.mark.parametrize("method", RULES)
def test_draws_have_the_enumerated_mean(method, exact_at_argmax):
    loss, count = loss_of_degree(3), 20_000
    options = {"method": method, "exact_at_argmax": exact_at_argmax}
    keys = jax.random.split(KEY, count)
    draws = jax.jit(jax.vmap(lambda key: sampled_gradient(key, LOGITS, loss, **options)))(keys)
    mean, square = enumerated(LOGITS, loss, method, exact_at_argmax=exact_at_argmax)
    errors = np.sqrt((square - mean**2) / count)
    assert np.all(np.abs(np.asarray(draws, np.float64).mean(axis=0) - mean) < 4 * errors)
    # Not because they are large: the bias of a lower order would show.
    other, _ = enumerated(LOGITS, loss, "gate" if method != "gate" else "midpoint")
    assert np.any(np.abs(other - mean) > 8 * errors)


@pytest.mark.parametrize("exact_at_argmax", [False, True])
@pytest.mark.parametrize("method", RULES)
def test_gates_have_the_values_and_the_chances_of_the_rule(method, exact_at_argmax):
    count, rule = 20_000, RULES[method]
    route = sparse_mixer(
        KEY,
        jnp.broadcast_to(LOGITS, (count, EXPERTS)),
        method=method,
        exact_at_argmax=exact_at_argmax,
    )
    assert route.expert.shape == route.gate.shape == (count,)
    assert route.expert.dtype == jnp.int32
    pi = np.asarray(jax.nn.softmax(LOGITS))
    shares = np.bincount(route.expert, minlength=EXPERTS) / count
    assert np.all(np.abs(shares - pi) < 4 * np.sqrt(pi * (1 - pi) / count))
    scales = np.asarray(route.gate) / pi[np.asarray(route.expert)]
    whole = np.isclose(scales, 1.0, rtol=1e-5)
    assert np.all(whole | np.isclose(scales, rule.scale, rtol=1e-5))
    top = np.asarray(route.expert) == np.argmax(pi)
    free = ~top if exact_at_argmax else np.ones(count, bool)
    assert whole[~free].all()
    deviation = np.sqrt(rule.whole * (1 - rule.whole) / free.sum())
    assert abs(whole[free].mean() - rule.whole) <= 4 * deviation


def naive_mask(row, jitter):
    top = max(row)
    kept = []
    for s in row:
        size = max(abs(s), top)
        kept.append(s == top or not (size > 0 and (top - s) / size > 2 * jitter))
    return np.array(kept)


ROWS = np.float32(
    [
        [0.3, -1.0, 0.9, 0.8, -0.4],
        [-3.0, -3.2, -4.0, -5.5, -6.5],
        [0.0, -1.0, 0.0, -0.1, -0.4],
        [0.0, 0.0, 0.0, 0.0, 0.0],
        [2.0, 1.9, 1.0, 0.5, 0.0],
    ]
)


@pytest.mark.parametrize("jitter", [0.0, 0.1, 0.45, 3.0])
def test_jitter_leaves_out_the_experts_that_the_formula_says(jitter):
    kept = np.stack([naive_mask(row, jitter) for row in ROWS])
    logits = jnp.broadcast_to(ROWS, (2_000, *ROWS.shape))

    def gates(logits):
        route = sparse_mixer(KEY, logits, method="gate", jitter=jitter)
        return jnp.sum(route.gate), route

    slopes, route = jax.jit(jax.grad(gates, has_aux=True))(logits)
    index = np.asarray(route.expert)
    for number, row in enumerate(ROWS):
        assert np.all(np.unique(index[:, number]) == np.flatnonzero(kept[number]))
        weights = np.where(kept[number], np.exp(row - row.max()), 0)
        assert_close(route.gate[:, number], (weights / weights.sum())[index[:, number]])
    assert all_finite(slopes)
    assert np.all(np.asarray(slopes)[:, ~kept] == 0)


def test_jitter_drops_some_and_keeps_some():
    assert naive_mask([0.3, -1.0, 0.9, 0.8, -0.4], 0.1).tolist() == [
        False,
        False,
        True,
        True,
        False,
    ]
    assert naive_mask([-3.0, -3.2, -4.0, -5.5, -30.0], 0.1).tolist() == [
        True,
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize("jitter", [None, 0.1, 10.0])
def test_a_banned_expert_is_never_drawn_and_spoils_nothing(jitter):
    logits = LOGITS.at[2].set(-jnp.inf)
    options = {"jitter": jitter, "exact_at_argmax": False}
    loss = loss_of_degree(2)

    @jax.jit
    @jax.vmap
    def draw(key):
        slope = sampled_gradient(key, logits, loss, **options)
        return sparse_mixer(key, logits, **options), slope

    with jax.debug_nans(True):
        routes, slopes = draw(jax.random.split(KEY, 500))
        balance = jax.grad(balance_loss)(logits, jnp.array(0))
    drawn = {None: {0, 1, 3, 4}, 0.1: {0}, 10.0: {0, 1, 3, 4}}[jitter]
    assert set(routes.expert.tolist()) == drawn
    assert all_finite((routes.gate, slopes, balance))
    assert np.all(np.asarray(slopes)[:, 2] == 0)
    assert int(top_route(logits).expert) == 0


@pytest.mark.parametrize("method", RULES)
def test_a_single_expert_needs_no_choice(method):
    route = sparse_mixer(KEY, jnp.array([[-3.0], [7.0]]), method=method, jitter=0.1)
    assert route.expert.tolist() == [0, 0]
    assert route.gate.tolist() == [1.0, 1.0]
    slope = jax.grad(lambda logits: sparse_mixer(KEY, logits, method=method).gate)(jnp.ones(1))
    assert slope.tolist() == [0.0]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_short_floats_are_computed_in_float32(dtype):
    logits = jnp.asarray(LOGITS, dtype)
    for function in (lambda s: sparse_mixer(KEY, s), top_route):
        short, wide = function(logits), function(logits.astype(jnp.float32))
        assert short.gate.dtype == jnp.float32
        assert_close(short, wide)
        assert jax.grad(lambda s, f=function: f(s).gate)(logits).dtype == dtype
    assert balance_loss(logits, jnp.array(1)).dtype == jnp.float32


@pytest.mark.parametrize("method", RULES)
def test_jit_and_vmap_change_nothing(method):
    keys = jax.random.split(KEY, 10)

    def draw(key):
        return sparse_mixer(key, LOGITS, method=method, jitter=1.0)

    looped = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(draw, keys))
    together = jax.jit(jax.vmap(draw))(keys)
    assert np.array_equal(looped.expert, together.expert)
    assert_close(looped.gate, together.gate)


def test_methods_share_their_draws_and_use_a_key_once():
    logits = jnp.broadcast_to(LOGITS, (100, EXPERTS))
    draws = [sparse_mixer(KEY, logits, method=method).expert for method in RULES]
    assert all(np.array_equal(draws[0], other) for other in draws[1:])
    with jax.debug_key_reuse(True):
        key = jax.random.key(5)
        sparse_mixer(key, logits)
        with pytest.raises(jax.errors.KeyReuseError):
            jax.random.split(key)


def test_top_route_takes_the_most_probable_with_its_ordinary_gradient():
    logits = jnp.stack([LOGITS, -LOGITS])
    route = top_route(logits)
    assert route.expert.tolist() == [2, 1]
    pi = jax.nn.softmax(logits)
    assert_close(route.gate, jnp.array([pi[0, 2], pi[1, 1]]))
    slope = jax.grad(lambda logits: top_route(logits).gate)(LOGITS)
    assert_close(slope, pi[0, 2] * ((jnp.arange(EXPERTS) == 2) - pi[0]))


def test_balance_loss_is_one_if_uniform_and_e_at_worst():
    assert balance_loss(jnp.zeros((4, 2, EXPERTS)), jnp.zeros((4, 2), jnp.int32)) == pytest.approx(
        1
    )
    sure = jnp.full((6, EXPERTS), -jnp.inf).at[:, 3].set(0.0)
    assert balance_loss(sure, jnp.full(6, 3)) == pytest.approx(EXPERTS)


def test_balance_loss_is_the_formula_and_its_gradient_that_of_the_probabilities():
    logits = jax.random.normal(jax.random.key(3), (7, EXPERTS))
    index = jnp.array([0, 0, 3, 1, 0, 3, 0])
    share = np.array([4, 1, 0, 2, 0]) / 7

    def formula(logits):
        return EXPERTS * jnp.sum(share * jax.nn.softmax(logits).mean(axis=0))

    assert_close(balance_loss(logits, index), formula(logits))
    assert_close(jax.grad(balance_loss)(logits, index), jax.grad(formula)(logits))


@pytest.mark.parametrize("outside", [-1, EXPERTS, -1000, 2**31 - 1])
def test_padding_has_no_balance(outside):
    logits = jax.random.normal(jax.random.key(3), (3, EXPERTS))
    spoilt = logits.at[1].set(jnp.nan)
    index = jnp.array([0, outside, 3])
    found = jax.value_and_grad(balance_loss)(spoilt, index)
    value, slope = jax.value_and_grad(balance_loss)(logits[::2], index[::2])
    assert_close(found, (value, jnp.zeros_like(logits).at[::2].set(slope)))
    assert balance_loss(spoilt[1:2], index[1:2]) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_token_without_a_law_has_no_gate(bad):
    logits = jnp.stack([LOGITS, LOGITS.at[1].set(bad)])
    for route in (top_route(logits), sparse_mixer(KEY, logits)):
        assert np.isnan(route.gate).tolist() == [False, True]


PAIR = jnp.zeros((2, EXPERTS))
MISTAKES = {
    "no experts": (lambda: top_route(jnp.ones(())), "logits of shape ()", "(..., E)", "last axis"),
    "an empty axis": (
        lambda: sparse_mixer(KEY, jnp.ones((3, 0))),
        "logits of shape (3, 0)",
        "at least one expert",
        "one number per expert",
    ),
    "an unknown method": (
        lambda: sparse_mixer(KEY, PAIR, method="euler"),
        "method='euler'",
        "one of 'gate', 'first_order', 'midpoint', 'heun'",
        "choose method",
    ),
    "a negative jitter": (
        lambda: sparse_mixer(KEY, PAIR, jitter=-0.1),
        "jitter=-0.1",
        "one number at least 0",
        "change jitter",
    ),
    "an index of another shape": (
        lambda: balance_loss(PAIR, jnp.zeros(3, jnp.int32)),
        "index of shape (3,)",
        "integers of shape (2,)",
        "the expert of the Route",
    ),
    "an index of floats": (
        lambda: fill_with_defaults(PAIR, jnp.ones((2, 1)), jnp.zeros(2), jnp.ones((EXPERTS, 1))),
        "index of dtype float32",
        "integers",
        "convert index",
    ),
    "no tokens": (
        lambda: balance_loss(PAIR[:0], jnp.zeros(0, jnp.int32)),
        "logits of shape (0, 5)",
        "at least one token",
        "leave out the loss",
    ),
    "defaults for other experts": (
        lambda: fill_with_defaults(
            PAIR, jnp.ones((2, 1)), jnp.zeros(2, jnp.int32), jnp.ones((4, 1))
        ),
        "defaults of shape (4, 1)",
        "(5, any), one row for each of the logits",
        "reshape defaults",
    ),
    "outputs of another length": (
        lambda: update_defaults(
            jnp.ones((5, 3)), jnp.ones((2, 4)), jnp.zeros(2, jnp.int32), decay=0.9
        ),
        "outputs of shape (2, 4) with defaults of 3 columns",
        "(2, 3)",
        "before the gate",
    ),
    "a decay above 1": (
        lambda: update_defaults(
            jnp.ones((5, 3)), jnp.ones((2, 3)), jnp.zeros(2, jnp.int32), decay=1.5
        ),
        "decay=1.5",
        "at least 0 and at most 1",
        "change decay",
    ),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
