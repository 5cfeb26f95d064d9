import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_hyper_jax.backprop import (
    RandomK,
    TopK,
    UnifiedTopK,
    error_feedback,
    init_memory,
    next_memory,
)
from tests.backprop.examples import KEY, N_IN, ROWS, N, largest, layer_gradients, random_array
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

PARAMETERS = {"kernel": np.zeros((N, N_IN), "f"), "bias": np.zeros(N, "f")}


def updates_of(step):
    return {"kernel": random_array(N, N_IN, seed=step), "bias": random_array(N, seed=50 + step)}


def run(transformation, steps=5):
    state, update = transformation.init(PARAMETERS), jax.jit(transformation.update)
    given, got = [], []
    for step in range(steps):
        given.append(updates_of(step))
        sparse, state = update(given[-1], state)
        got.append(sparse)
    return given, got, state


def total(trees):
    return jax.tree.map(lambda *leaves: np.sum(np.stack(leaves), axis=0), *trees)


@pytest.mark.parametrize(
    "sparsifier", [TopK(2), TopK(0.1), RandomK(3, rescale=False), UnifiedTopK(2)]
)
def test_updates_add_up_to_what_was_given(sparsifier):
    given, got, state = run(error_feedback(sparsifier, key=KEY))
    expected = jax.tree.map(np.subtract, total(given), state.residue)
    assert_close(total(got), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(state.residue["kernel"]).max() > 1


@pytest.mark.parametrize("eta", [1.0, 0.3])
def test_each_array_is_one_row(eta):
    given, got, state = run(error_feedback(TopK(2), eta=eta), steps=3)
    for name, start in PARAMETERS.items():
        residue = np.zeros(start.size, np.float32)
        for update, sparse in zip(given, got, strict=True):
            corrected = update[name].ravel() + residue
            expected = np.where(largest(np.abs(corrected), 2), corrected, 0)
            assert_close(np.ravel(sparse[name]), expected)
            residue = eta * (corrected - expected)
        assert_close(np.ravel(state.residue[name]), residue)


def test_eta_zero_forgets():
    given, got, state = run(error_feedback(TopK(2), eta=0.0), steps=3)
    for update, sparse in zip(given, got, strict=True):
        kernel = update["kernel"].ravel()
        assert_close(np.ravel(sparse["kernel"]), np.where(largest(np.abs(kernel), 2), kernel, 0))
    assert not any(leaf.any() for leaf in jax.tree.leaves(state.residue))


def test_random_components_differ_between_steps_and_arrays():
    transformation = error_feedback(RandomK(4, rescale=False), eta=0.0, key=KEY)
    ones = {"one": jnp.ones(40), "two": jnp.ones(40)}
    state, seen = transformation.init(ones), []
    update = jax.jit(transformation.update)
    for _ in range(2):
        sparse, state = update(ones, state)
        seen += [tuple(np.flatnonzero(leaf).tolist()) for leaf in sparse.values()]
    assert [len(one) for one in seen] == [4] * 4
    assert len(set(seen)) == 4


def test_it_is_a_link_of_a_chain():
    optimizer = optax.chain(error_feedback(TopK(0.5)), optax.adam(0.1))
    target = updates_of(0)

    def loss(parameters):
        return optax.tree.norm(optax.tree.sub(parameters, target), squared=True)

    @jax.jit
    def step(parameters, state):
        changes, state = optimizer.update(jax.grad(loss)(parameters), state, parameters)
        return optax.apply_updates(parameters, changes), state

    parameters = jax.tree.map(jnp.asarray, PARAMETERS)
    state, before = optimizer.init(parameters), loss(parameters)
    for _ in range(60):
        parameters, state = step(parameters, state)
    assert loss(parameters) < 0.05 * before


def both(xs, cotangents):
    kernel = np.zeros((N, N_IN), np.float32)
    memory, sums = init_memory("slot", (ROWS, N)), np.zeros_like(kernel)
    feedback = error_feedback(TopK(5))
    state, fed = feedback.init(kernel), np.zeros_like(kernel)
    update = jax.jit(feedback.update)
    dense = np.zeros_like(kernel)
    for x, cotangent in zip(xs, cotangents, strict=True):
        (_, dkernel), following = layer_gradients(
            KEY, (x, kernel), cotangent, memory, sparsifier=TopK(2), eta=1.0
        )
        memory, sums = next_memory(memory, following), sums + dkernel
        exact = cotangent.T @ x
        sparse, state = update(exact, state)
        fed, dense = fed + sparse, dense + exact
    return dense, sums + memory.residue.T @ xs[-1], fed + state.residue


def test_a_memory_telescopes_in_weight_space_only_for_the_same_inputs():
    cotangents = random_array(8, ROWS, N)
    same = np.repeat(random_array(1, ROWS, N_IN, seed=1), 8, axis=0)
    dense, remembered, fed = both(same, cotangents)
    assert_close((remembered, fed), (dense, dense), rtol=1e-4, atol=1e-4)
    dense, remembered, fed = both(random_array(8, ROWS, N_IN, seed=1), cotangents)
    assert_close(fed, dense, rtol=1e-4, atol=1e-4)
    assert np.linalg.norm(remembered - dense) > 0.3 * np.linalg.norm(dense)


def test_what_is_not_finite_is_propagated_and_not_remembered():
    """Infinity minus infinity would be NaN, and stay for good."""
    feedback = error_feedback(TopK(1))
    ones = {"a": jnp.ones(3)}
    sparse, state = feedback.update({"a": jnp.array([1.0, jnp.inf, 2])}, feedback.init(ones))
    assert sparse["a"].tolist() == [0, jnp.inf, 0]
    assert state.residue["a"].tolist() == [1, 0, 2]
    sparse, state = feedback.update({"a": jnp.array([0.0, jnp.nan, 0])}, state)
    assert jnp.isnan(sparse["a"]).tolist() == [False, True, False]
    assert state.residue["a"].tolist() == [1, 0, 2]


def test_what_16_bits_round_off_is_remembered():
    feedback = error_feedback(TopK(1))
    update = {"a": jnp.array([1.0, 0.0], jnp.bfloat16)}
    state = feedback.init(update)._replace(residue={"a": jnp.array([2.0**-10, 0])})
    sparse, state = feedback.update(update, state)
    assert sparse["a"].tolist() == [1, 0]
    assert state.residue["a"].tolist() == [2.0**-10, 0]


def test_eta_may_follow_a_schedule():
    make = optax.inject_hyperparams(error_feedback, static_args=("sparsifier", "key"))
    feedback = make(sparsifier=TopK(1), eta=optax.linear_schedule(0.0, 0.5, 1))
    update = {"a": jnp.array([2.0, 1.0])}

    def step(state, _):
        _, state = feedback.update(update, state)
        return state, state.inner_state.residue["a"]

    _, residues = jax.lax.scan(step, feedback.init(update), length=3)
    assert residues.tolist() == [[0, 0], [0, 0.5], [0, 0.75]]


def test_the_state_may_be_donated_and_the_key_stays():
    key = jax.random.key(3)
    feedback = error_feedback(RandomK(1, rescale=False), key=key)
    update = jax.jit(feedback.update, donate_argnums=1)
    for _ in range(2):
        update(jnp.ones(4), feedback.init(jnp.ones(4)))
    assert not key.is_deleted()


def test_tree_map_params_reaches_the_residue():
    feedback = error_feedback(RandomK(1, rescale=False), key=KEY)
    mapped = optax.tree_utils.tree_map_params(
        feedback, lambda leaf: leaf + 1, feedback.init(PARAMETERS)
    )
    assert (mapped.residue["kernel"] == 1).all()


MISTAKES = {
    "a known eta": (
        lambda: error_feedback(TopK(1), eta=jnp.array(-1.0)),
        "eta=Array(-1.",
        "at least 0 and at most 1",
        "change eta",
    ),
    "a seed": (
        lambda: error_feedback(RandomK(1, rescale=False), key=3),
        "key=3",
        "one random key",
        "jax.random.key(seed)",
    ),
    "another shape": (
        lambda: error_feedback(TopK(1)).update(
            {"a": jnp.ones(3)}, error_feedback(TopK(1)).init({"a": jnp.ones((3, 1))})
        ),
        "updates of shape (3,), residue of shape (3, 1)",
        "the same shape",
        "reshape",
    ),
    "another tree": (
        lambda: error_feedback(TopK(1)).update(
            {"b": jnp.ones(3)}, error_feedback(TopK(1)).init({"a": jnp.ones(3)})
        ),
        "a residue of structure {'a': *}",
        "{'b': *}",
        "make both",
    ),
    "a number": (lambda: error_feedback(0.1), "sparsifier=0.1", "a Sparsifier", "backprop"),
    "no key": (lambda: error_feedback(RandomK(1)), "key=None", "a typed key", "jax.random.key"),
    "a large eta": (lambda: error_feedback(TopK(1), eta=2), "eta=2", "at most 1", "change eta"),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
