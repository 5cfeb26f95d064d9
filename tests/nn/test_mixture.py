import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparse_hyper_jax.estimators.balance import balance_loss
from sparse_hyper_jax.estimators.routing import RULES, sparse_mixer
from sparse_hyper_jax.nn import DefaultVectors, Mixture
from sparse_hyper_jax.nn.expert_options import ROUTERS
from tests.nn.mixtures import (
    EXPERTS,
    KEY,
    OUT,
    D,
    X,
    logits_of,
    make,
    of_expert,
    probabilities,
)
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure


def naive(mixture, x, *, training):
    """One token and one expert at a time."""
    pi = probabilities(mixture, x).reshape(*x.shape[:-1], -1)
    index, gate = pi.argmax(axis=-1), pi.max(axis=-1)
    if training and mixture.method in RULES:
        options = {"exact_at_argmax": mixture.exact_at_argmax, "jitter": mixture.jitter}
        logits = jnp.asarray(logits_of(mixture, x))
        route = sparse_mixer(KEY, logits, method=mixture.method, **options)
        index, gate = (np.asarray(part).reshape(index.shape) for part in route)
    y = np.zeros((*x.shape[:-1], OUT))
    for token in np.ndindex(index.shape):
        own = of_expert(mixture, index[token], x[token])
        if mixture.method == "dense":
            for expert in range(pi.shape[-1]):
                y[token] += pi[(*token, expert)] * of_expert(mixture, expert, x[token])
            continue
        y[token] = gate[token] * own
        if mixture.method == "default":
            for expert in set(range(pi.shape[-1])) - {index[token]}:
                y[token] += pi[(*token, expert)] * np.asarray(mixture.defaults[...])[expert]
    return y, index


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("router", ROUTERS)
def test_output_is_that_of_a_loop_over_tokens_and_experts(router, training):
    mixture = make(router)
    mixed = mixture(X, deterministic=not training, rngs=KEY)
    all_of_them = make(router, product="all")(X, deterministic=not training, rngs=KEY)
    assert_close(mixed, all_of_them, rtol=1e-4, atol=1e-5)
    y, index = naive(mixture, X, training=training)
    assert mixed.y.shape == (2, 8, OUT)
    assert_close(mixed.y, y, rtol=1e-4, atol=1e-5)
    assert np.array_equal(mixed.expert, index)
    assert len(np.unique(index)) > 1  # else sorting would be no test
    loss = balance_loss(jnp.asarray(logits_of(mixture, X)), mixed.expert.reshape(-1))
    assert_close(mixed.balance_loss, loss)


def test_random_routers_draw_in_training_and_not_in_evaluation():
    mixture = make("midpoint")

    def call(**options):
        return jax.tree.map(np.asarray, mixture(X, **options))

    one, two = (call(rngs=key).expert for key in jax.random.split(KEY))
    assert np.any(one != two)
    stored = call().expert, call().expert
    assert np.any(stored[0] != stored[1])
    mixture.eval()
    hard = call()
    assert_close(call(rngs=KEY).y, hard.y)
    assert np.array_equal(hard.expert.reshape(-1), probabilities(mixture, X).argmax(axis=-1))
    assert np.any(call(deterministic=False).expert != hard.expert)


@pytest.mark.parametrize("router", ["top", "heun", "default", "dense"])
def test_gradient_reaches_all_parameters_and_is_that_of_the_other_product(router):
    def gradient(product):
        mixture = make(router, product=product)
        graph, parameters, rest = nnx.split(mixture, nnx.Param, ...)

        def loss(parameters):
            mixed = nnx.merge(graph, parameters, rest)(X, rngs=KEY)
            return jnp.mean((mixed.y - 1) ** 2) + 0.01 * mixed.balance_loss

        return jax.jit(jax.grad(loss))(parameters)

    ragged = gradient("ragged")
    assert len(jax.tree.leaves(ragged)) == 5
    assert all(np.abs(leaf).max() > 1e-6 for leaf in jax.tree.leaves(ragged))
    assert_close(ragged, gradient("all"), rtol=1e-3, atol=1e-5)


def test_expected_gradient_of_the_router_is_exact_for_a_quadratic_loss():
    """The whole layer, not only the gate: mean over draws against the expectation, by autodiff."""
    token, mixture = np.asarray(X)[0, :1], make("midpoint", exact_at_argmax=False)
    outputs = np.stack([of_expert(mixture, expert, token[0]) for expert in range(EXPERTS)])
    graph, parameters, rest = nnx.split(mixture, nnx.Param, ...)

    def expectation(kernel):
        pi = jax.nn.softmax(token[0] @ kernel)
        return pi @ jnp.sum((pi[:, None] * outputs - 1) ** 2, axis=-1)

    def sampled(parameters, key):
        y = nnx.merge(graph, parameters, rest)(jnp.tile(token, (100, 1)), rngs=key).y
        return jnp.sum((y - 1) ** 2) / 100

    def of_router(key):
        return jax.grad(sampled)(parameters, key)["router"]["kernel"][...]

    @jax.jit
    def both(keys, kernel):
        return jax.lax.map(of_router, keys), jax.grad(expectation)(kernel)

    keys = jax.random.split(KEY, 100)
    draws, expected = map(np.asarray, both(keys, mixture.router.kernel[...]))
    errors = draws.std(axis=0) / 10
    assert np.all(np.abs(draws.mean(axis=0) - expected) < 4 * errors)
    assert np.any(np.abs(expected) > 8 * errors)


def test_default_vectors_come_back_and_are_not_stored():
    mixture = make("default", decay=0.75)
    before = np.asarray(mixture.defaults[...])
    tokens = np.tile(np.asarray(X)[:, :2], (1, 4, 1))  # too few for all experts
    x = jnp.asarray(tokens)
    mixed = jax.tree.map(np.asarray, mixture(x))
    assert np.array_equal(mixture.defaults[...], before)
    index, rows = mixed.expert.reshape(-1), tokens.reshape(-1, D)
    assert len(np.unique(index)) < EXPERTS
    for expert in range(EXPERTS):
        own = [of_expert(mixture, expert, row) for row in rows[index == expert]]
        if own:
            moved = 0.75 * before[expert] + 0.25 * np.mean(own, axis=0)
            assert_close(mixed.defaults[expert], moved, rtol=1e-4, atol=1e-5)
        else:
            assert np.array_equal(mixed.defaults[expert], before[expert])
    assert np.array_equal(mixture(x, deterministic=True).defaults, before)
    mixture.defaults[...] = jnp.asarray(mixed.defaults)
    assert np.any(np.asarray(mixture(x).y) != mixed.y)


@pytest.mark.parametrize("router", ROUTERS)
def test_only_the_default_router_has_vectors(router):
    mixture = make(router)
    found = jax.tree.leaves(nnx.state(mixture, DefaultVectors))
    assert len(found) == (router == "default")
    assert (mixture(X).defaults is not None) == (router == "default")


@pytest.mark.parametrize("router", ["heun", "default", "dense"])
def test_one_expert_and_one_token(router):
    mixture, token = make(router, num_experts=1), np.asarray(X)[0, 0]
    mixed = nnx.jit(lambda mixture, x: mixture(x))(mixture, token)
    assert mixed.y.shape == (OUT,)
    assert mixed.expert.shape == ()
    assert_close(mixed.y, of_expert(mixture, 0, token), rtol=1e-5)
    assert_close(mixed.balance_loss, 1.0)


@pytest.mark.parametrize("router", ["top", "midpoint", "default", "dense"])
def test_short_floats(router):
    wide, short = make(router), make(router, dtype=jnp.bfloat16)
    mixed = short(X, rngs=KEY)
    assert mixed.y.dtype == jnp.bfloat16
    assert mixed.balance_loss.dtype == jnp.float32
    reference = wide(X, rngs=KEY)
    assert np.array_equal(mixed.expert, reference.expert)
    assert_close(np.float32(mixed.y), reference.y, rtol=0.05, atol=0.05)
    if router == "default":
        assert mixed.defaults.dtype == jnp.float32


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradient_of_a_bias_counts_every_token(dtype):
    # A plain bfloat16 sum of 4096 ones ends at 256.
    mixture = make("top", num_experts=1, dtype=dtype)
    graph, parameters, rest = nnx.split(mixture, nnx.Param, ...)

    def total(parameters):
        x = jnp.ones((4096, D), dtype)
        return jnp.sum(nnx.merge(graph, parameters, rest)(x).y.astype(jnp.float32))

    assert_close(jax.jit(jax.grad(total))(parameters)["biases"][1][...], np.full((1, OUT), 4096.0))


@pytest.mark.parametrize("router", ["midpoint", "default", "dense"])
def test_all_experts_work_under_vmap(router):
    mixture = make(router, product="all")
    keys = jax.random.split(KEY, 2)
    graph, state = nnx.split(mixture)

    def call(x, key):
        return nnx.merge(graph, state)(x, rngs=key)

    together = jax.jit(jax.vmap(call))(X, keys)
    one_by_one = jax.jit(lambda *given: jax.lax.map(lambda its: call(*its), given))(X, keys)
    assert_close(together, one_by_one, 1e-4)


def test_ragged_products_work_under_vmap_over_an_ensemble():
    members = [make("top", seed=seed) for seed in range(2)]
    graph, _ = nnx.split(members[0])
    states = [nnx.split(member)[1] for member in members]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *states)
    together = jax.jit(jax.vmap(lambda state, x: nnx.merge(graph, state)(x).y))(stacked, X)
    for row, member in enumerate(members):
        assert_close(together[row], naive(member, np.asarray(X)[row], training=False)[0], 1e-4)


def test_experts_begin_as_linear_layers_do():
    mixture = nnx.jit(lambda: Mixture(400, 300, 2, 3, rngs=nnx.Rngs(0)))()
    deviations = np.asarray(mixture.kernels[0][...]).std(axis=(1, 2))
    assert_close(deviations, np.full(3, 400**-0.5), rtol=0.02)
    assert not np.any(mixture.biases[0][...])
    assert mixture.defaults is None


def test_banned_experts_leave_gradients_finite():
    mixture = make("heun")
    banned = np.arange(EXPERTS) == 1
    mixture.router.kernel[...] = jnp.asarray(np.where(banned, -np.inf, mixture.router.kernel[...]))
    graph, parameters, rest = nnx.split(mixture, nnx.Param, ...)
    x = jnp.abs(X)

    def loss(experts):
        whole = nnx.State(parameters | experts)
        return jnp.sum(nnx.merge(graph, whole, rest)(x, rngs=KEY).y ** 2)

    experts = {name: parameters[name] for name in ("kernels", "biases")}
    gradient = jax.jit(jax.grad(loss))(experts)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert not np.any(np.asarray(mixture(x).expert) == 1)


MISTAKES = {
    "more experts than there are": (
        lambda: make("top", num_chosen=6),
        "num_chosen=6",
        "an int from 1 to 5",
        "num_chosen",
    ),
    "several experts of a router that draws": (
        lambda: make("midpoint", num_chosen=2),
        "num_chosen for router 'midpoint'",
        "router 'top'",
        "leave num_chosen out",
    ),
    "a gate that is always 1": (
        lambda: make("top", renormalise=True),
        "renormalise=True with num_chosen=None",
        "two experts or more",
        "raise num_chosen",
    ),
    "no room": (
        lambda: make("top", capacity_factor=0.0),
        "capacity_factor=0.0",
        "above 0",
        "change capacity_factor",
    ),
    "a dense router that drops": (
        lambda: make("dense", capacity_factor=1.0),
        "capacity_factor=1.0 for router 'dense'",
        "a router that drops tokens",
        "leave capacity_factor out",
    ),
    "slots without a number": (
        lambda: make("top", product="slots"),
        "product='slots' without capacity_factor",
        "how many slots",
        "capacity_factor=1.25",
    ),
    "a negative rate": (lambda: make("top", bias_rate=-1.0), "bias_rate=-1.0", "at least 0", ""),
    "no experts": (
        lambda: make(num_experts=0),
        "num_experts=0",
        "an int of at least 1",
        "num_experts",
    ),
    "an unknown router": (lambda: make("best"), "router='best'", "'top', 'gate'", "choose router"),
    "an unknown product": (
        lambda: make(product="sparse"),
        "product='sparse'",
        "'ragged', 'slots', 'all'",
        "choose product",
    ),
    "a negative jitter": (lambda: make(jitter=-1.0), "jitter=-1.0", "at least 0", ""),
    "a decay above 1": (lambda: make("default", decay=2.0), "decay=2.0", "1", "decay"),
    "tokens of another length": (
        lambda: make()(jnp.ones((2, D + 1))),
        "x of shape (2, 5)",
        "(..., 4), at least one token",
        "change x or in_features",
    ),
    "no tokens": (
        lambda: make()(jnp.ones((0, D))),
        "x of shape (0, 4)",
        "at least one token",
        "change x",
    ),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
