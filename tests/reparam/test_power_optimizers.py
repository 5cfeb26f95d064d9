import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_hyper_jax.reparam import (
    Reparametrization,
    add_power_decay,
    power,
    powerprop,
    scale_by_power_jacobian,
)
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure


def array(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("f")


THETA = {"kernel": array(4, 3), "bias": array(3, seed=1)}
TARGET = array(5, 3, seed=2)
X = array(5, 4, seed=3)


def loss(weights):
    return 0.5 * jnp.mean((jnp.tanh(X @ weights["kernel"] + weights["bias"]) - TARGET) ** 2)


def move(optimizer, gradient, theta, steps=1):
    """Take steps with the same gradient."""
    state, update = optimizer.init(theta), jax.jit(optimizer.update)
    for _ in range(steps):
        updates, state = update(gradient, state, theta)
        theta = optax.apply_updates(theta, updates)
    return theta


def train(optimizer, reparam, steps, *, by_theta=False):
    def weights_of(theta):
        return reparam.to_weights(theta)

    def step(carry, _):
        theta, state = carry
        if by_theta:
            gradient = jax.grad(lambda theta: loss(weights_of(theta)))(theta)
        else:
            gradient = jax.grad(loss)(weights_of(theta))
        updates, state = optimizer.update(gradient, state, theta)
        return (optax.apply_updates(theta, updates), state), None

    start = (jax.tree.map(jnp.asarray, THETA), optimizer.init(THETA))
    return jax.jit(lambda start: jax.lax.scan(step, start, length=steps)[0][0])(start)


def test_a_step_by_hand():
    theta, slope = {"kernel": np.full((1, 1), 0.5, "f")}, {"kernel": np.full((1, 1), 0.2, "f")}
    after = move(optax.chain(scale_by_power_jacobian(2.0), optax.sgd(0.1)), slope, theta)
    np.testing.assert_allclose(after["kernel"], 0.48, rtol=1e-6)
    np.testing.assert_allclose(power(after["kernel"], 2.0), 0.2304, rtol=1e-6)


@pytest.mark.parametrize("axes", [None, (0,)])
@pytest.mark.parametrize("alpha", [1, 1.5, 2.3, 3])
def test_mode_a_differentiates_with_respect_to_theta(alpha, axes):
    reparam = powerprop(alpha, axes=axes)
    slope = scale_by_power_jacobian(alpha, axes=axes)
    expected = jax.grad(lambda theta: loss(reparam.to_weights(theta)))(THETA)
    gradient = jax.grad(loss)(reparam.to_weights(THETA))
    updates, _ = slope.update(gradient, slope.init(THETA), THETA)
    assert_close(updates, expected, rtol=1e-4, atol=1e-6)
    assert updates["bias"].tobytes() == gradient["bias"].tobytes()


def test_modes_are_one_for_sgd():
    slope, reparam = scale_by_power_jacobian(2.0), powerprop(2.0)
    expected = train(optax.sgd(0.1), reparam, 30, by_theta=True)
    assert np.abs(expected["kernel"] - THETA["kernel"]).max() > 0.05
    for chain in [(slope, optax.sgd(0.1)), (optax.sgd(0.1), slope)]:
        assert_close(train(optax.chain(*chain), reparam, 30), expected, rtol=1e-4, atol=1e-5)


def test_modes_differ_for_adam():
    slope, reparam = scale_by_power_jacobian(2.0), powerprop(2.0)
    expected = train(optax.adam(0.01), reparam, 10, by_theta=True)
    one = train(optax.chain(slope, optax.adam(0.01)), reparam, 10)
    two = train(optax.chain(optax.adam(0.01), slope), reparam, 10)
    assert_close(one, expected, rtol=1e-3, atol=1e-5)
    assert np.abs(one["kernel"] - two["kernel"]).max() > 0.01


@pytest.mark.parametrize("alpha", [1, 2, 2.3])
def test_the_first_step_of_adam_ignores_the_slope_before_it_and_not_after_it(alpha):
    gradient = jax.tree.map(np.ones_like, THETA)
    slope, adam = scale_by_power_jacobian(alpha), optax.adam(0.01)
    sizes = alpha * np.abs(THETA["kernel"]) ** (alpha - 1)
    before = move(optax.chain(slope, adam), gradient, THETA)
    after = move(optax.chain(adam, slope), gradient, THETA)
    np.testing.assert_allclose(before["kernel"], THETA["kernel"] - 0.01, atol=1e-5)
    np.testing.assert_allclose(after["kernel"], THETA["kernel"] - 0.01 * sizes, atol=1e-5)


@pytest.mark.parametrize("alpha", [1, 1.5, 2, 3])
def test_decay_is_the_gradient_of_a_penalty(alpha):
    penalties = {
        "theta": lambda theta: 0.15 * jnp.sum(theta["kernel"] ** 2),
        "w": lambda theta: 0.15 * jnp.sum(jnp.abs(theta["kernel"]) ** (2 * alpha)),
    }
    nothing = jax.tree.map(np.zeros_like, THETA)
    for decay_on, penalty in penalties.items():
        decay = add_power_decay(0.3, alpha, decay_on=decay_on)
        updates, _ = decay.update(nothing, decay.init(THETA), THETA)
        assert_close(updates, jax.grad(penalty)(THETA), rtol=1e-5)
        assert not updates["bias"].any()
        twice, _ = decay.update(THETA, decay.init(THETA), THETA)
        assert_close(twice, jax.tree.map(jnp.add, updates, THETA), rtol=1e-5)


@pytest.mark.parametrize("alpha", [1, 1.5, 2, 3])
def test_decay_of_theta_is_a_power_of_the_weights(alpha):
    kernel = THETA["kernel"]
    weights = np.asarray(power(kernel, alpha), np.float64)
    # In value, and as a gradient: of |w|^(2/alpha), multiplied with dw/dtheta.
    np.testing.assert_allclose(
        0.15 * np.sum(np.abs(weights) ** (2 / alpha)), 0.15 * np.sum(kernel**2), rtol=1e-5
    )
    by_weights = 0.15 * (2 / alpha) * np.sign(weights) * np.abs(weights) ** (2 / alpha - 1)
    decay, nothing = add_power_decay(0.3, alpha), {"kernel": np.zeros_like(kernel)}
    updates, _ = decay.update(nothing, optax.EmptyState(), {"kernel": kernel})
    slope = alpha * np.abs(kernel) ** (alpha - 1)
    np.testing.assert_allclose(updates["kernel"], by_weights * slope, rtol=1e-4)


def test_alpha_two_with_decay_finds_the_lasso_solution():
    target = np.array([[1.0, -0.8, 0.3, -0.05, 0.02, 0.3]], "f")
    scales = np.array([[1.0, 2.0, 0.5, 1.0, 3.0, 0.2]], "f")
    strength = 0.2
    optimizer = optax.chain(
        scale_by_power_jacobian(2.0), add_power_decay(strength, 2.0), optax.sgd(0.1)
    )

    def step(_, theta):
        gradient = scales * (power(theta["kernel"], 2.0) - target)
        updates, _ = optimizer.update({"kernel": gradient}, state, theta)
        return optax.apply_updates(theta, updates)

    theta = {"kernel": jnp.asarray(0.5 * np.sign(target))}
    state = optimizer.init(theta)
    theta = jax.jit(lambda theta: jax.lax.fori_loop(0, 3000, step, theta))(theta)
    lasso = np.sign(target) * np.maximum(np.abs(target) - 0.5 * strength / scales, 0)
    assert np.count_nonzero(lasso) == 3
    np.testing.assert_allclose(power(theta["kernel"], 2.0), lasso, atol=1e-4)


def test_small_steps_keep_every_sign():
    theta = {"kernel": 0.9 * np.random.default_rng(0).uniform(-1, 1, (50, 40)).astype("f")}
    slope = np.random.default_rng(1).uniform(-1, 1, (50, 40)).astype("f")

    def flips(alpha, rate):
        chain = optax.chain(scale_by_power_jacobian(alpha), optax.sgd(rate))
        after = np.asarray(move(chain, {"kernel": slope}, theta)["kernel"])
        return after * theta["kernel"] < 0

    # 2 * rate * max|dL/dw| < 1; a size below 2/3 is enough for alpha = 3.
    assert not flips(2, 0.49).any()
    assert not flips(3, 0.3).any()
    assert flips(1, 0.49).any()
    assert flips(1.25, 0.49).any()
    # A flip needs rate * alpha * |theta|^(alpha - 2) * dL/dw * sign(theta) > 1.
    for alpha, rate in [(1.5, 0.3), (2, 2.0), (3, 1.0)]:
        sizes, pushes = np.abs(theta["kernel"]), slope * np.sign(theta["kernel"])
        margin = rate * alpha * sizes ** (alpha - 2) * pushes - 1
        clear = np.abs(margin) > 1e-4
        assert (flips(alpha, rate) == (margin > 0))[clear].all()
        assert 0 < np.mean(margin > 0) < 0.5


@pytest.mark.parametrize("alpha", [1.25, 2, 3])
@pytest.mark.parametrize("mode", ["A", "B"])
def test_zero_never_moves(alpha, mode):
    theta = {"kernel": np.array([[0.0, -0.0, 0.1]], "f")}
    slope = {"kernel": np.array([[1.0, -5.0, 1.0]], "f")}
    links = [scale_by_power_jacobian(alpha), optax.sgd(0.1, momentum=0.9)]
    after = move(optax.chain(*links[:: 1 if mode == "A" else -1]), slope, theta, steps=3)
    assert after["kernel"][0, :2].tolist() == [0, 0]
    assert after["kernel"][0, 2] < 0.1 - 1e-3


def test_16_bit_gradients_stay_16_bit():
    theta = {"kernel": array(3, 2)}
    gradient = {"kernel": jnp.asarray(array(3, 2, seed=1), jnp.bfloat16)}
    slope = scale_by_power_jacobian(2.0)
    updates, _ = slope.update(gradient, slope.init(theta), theta)
    assert updates["kernel"].dtype == jnp.bfloat16
    exact = 2 * np.abs(theta["kernel"]) * np.asarray(gradient["kernel"], np.float32)
    np.testing.assert_allclose(np.asarray(updates["kernel"], np.float32), exact, rtol=2**-7)


def test_decay_may_follow_a_schedule():
    make = optax.inject_hyperparams(add_power_decay, static_args=("alpha", "select"))
    decay = make(weight_decay=optax.linear_schedule(0.0, 0.5, 2), alpha=2.0)
    nothing = jax.tree.map(jnp.zeros_like, THETA)

    def step(state, _):
        updates, state = decay.update(nothing, state, THETA)
        return state, updates["kernel"]

    _, kernels = jax.lax.scan(step, decay.init(THETA), length=3)
    expected = np.array([0, 0.25, 0.5], "f")[:, None, None] * THETA["kernel"]
    np.testing.assert_allclose(kernels, expected, rtol=1e-6)


@pytest.mark.parametrize("adapt_to", ["theta", "weights"])
@pytest.mark.parametrize("axes", [None, (0,)])
def test_a_reparametrisation_gives_the_optimizer(adapt_to, axes):
    reparam = powerprop(2.5, axes=axes, adapt_to=adapt_to)
    links = [scale_by_power_jacobian(2.5, axes=axes), optax.adam(0.01)]
    chain = optax.chain(*links[:: 1 if adapt_to == "theta" else -1])
    gradient = jax.grad(loss)(reparam.to_weights(THETA))
    assert_close(
        move(reparam.optimizer(optax.adam(0.01)), gradient, THETA, 3),
        move(chain, gradient, THETA, 3),
        rtol=1e-6,
    )


def test_any_reparametrisation_has_a_jacobian():
    """By its transpose, also where it is not symmetric."""
    reparam = Reparametrization(lambda leaf: jnp.cumsum(leaf, 0), lambda leaf: leaf)
    gradient = jax.grad(loss)(reparam.to_weights(THETA))
    expected = jax.grad(lambda theta: loss(reparam.to_weights(theta)))(THETA)
    updates, _ = reparam.scale_by_jacobian().update(gradient, None, THETA)
    assert_close(updates, expected, rtol=1e-5)


def test_tree_map_params_works_on_every_state():
    links = [scale_by_power_jacobian(2.0), add_power_decay(0.1, 2.0)]
    for one in (*links, powerprop(2.0).optimizer(optax.adam(0.1))):
        state = one.init(THETA)
        mapped = optax.tree_utils.tree_map_params(one, lambda leaf: leaf, state)
        assert jax.tree.structure(mapped) == jax.tree.structure(state)


def without_params(transformation):
    return lambda: transformation.update(THETA, transformation.init(THETA))


def nothing_selected():
    return scale_by_power_jacobian(2.0).update({"a": THETA["bias"]}, None, {"a": THETA["bias"]})


MISTAKES = {
    "no params": (
        without_params(scale_by_power_jacobian(2.0)),
        "without params",
        "theta",
        "update(",
    ),
    "none either": (
        without_params(add_power_decay(0.1, 2.0)),
        "without params",
        "theta",
        "update(",
    ),
    "a root": (lambda: scale_by_power_jacobian(0.5), "alpha=0.5", "at least 1", "alpha=2.0"),
    "no alpha": (lambda: add_power_decay(0.1, 0), "alpha=0", "at least 1", "alpha=2.0"),
    "growth": (
        lambda: add_power_decay(-1, 2.0),
        "weight_decay=-1",
        "at least 0",
        "change weight_decay",
    ),
    "nan": (
        lambda: add_power_decay(np.nan, 2.0),
        "weight_decay=nan",
        "at least 0",
        "change weight_decay",
    ),
    "known decay": (
        lambda: add_power_decay(jnp.array(-1.0), 2.0),
        "weight_decay=Array(-1.",
        "at least 0",
        "change weight_decay",
    ),
    "another shape": (
        lambda: scale_by_power_jacobian(2.0).update(
            {"kernel": jnp.ones((4, 1))}, None, {"kernel": jnp.ones((4, 3))}
        ),
        "params of shape (4, 3), updates of shape (4, 1)",
        "the same shape",
        "reshape",
    ),
    "another tree": (
        lambda: add_power_decay(0.1, 2.0).update({"bias": THETA["bias"]}, None, THETA),
        "structure {'bias': *}",
        "'kernel': *",
        "make both",
    ),
    "axes in words": (
        lambda: scale_by_power_jacobian(2.0, axes="all"),
        "axes='all'",
        "a tuple of axes",
        "axes=(0,)",
    ),
    "a name": (
        lambda: add_power_decay(0.1, 2.0, select="kernel"),
        "select='kernel'",
        "a function",
        "pass select=",
    ),
    "on what": (
        lambda: add_power_decay(0.1, 2.0, decay_on="weights"),
        "decay_on='weights'",
        "'theta', 'w'",
        "choose decay_on",
    ),
    "nothing": (nothing_selected, "no selected leaf among a", "at least one", "pass select="),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.5])
def test_decay_of_grouped_weights_is_the_gradient_of_their_squares(alpha):
    theta = {"kernel": jax.random.normal(jax.random.key(3), (5, 4))}
    options = {"select": lambda path, leaf: True, "axes": (0,)}
    decay = add_power_decay(0.3, alpha, decay_on="w", **options)
    zeros = jax.tree.map(jnp.zeros_like, theta)
    got, _ = decay.update(zeros, decay.init(theta), theta)

    def penalty(theta):
        kernel = theta["kernel"]
        norms = jnp.sqrt(jnp.sum(kernel**2, axis=0))
        return 0.15 * jnp.sum((norms ** (alpha - 1) * kernel) ** 2)

    np.testing.assert_allclose(got["kernel"], jax.grad(penalty)(theta)["kernel"], rtol=1e-4)
