"""Steps towards 2:4: proximal ones, and m of m falling to n of m."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_hyper_jax.pruning import (
    Fixed,
    NofM,
    Prune,
    apply_masks,
    gradual,
    magnitude_masks,
    penalty_2_to_4,
    prox_2_to_4,
    proximal_training,
    sparse_training,
)
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

RNG = np.random.default_rng(0)
PARAMS = {
    "kernel": RNG.normal(size=(8, 3)).astype(np.float32),
    "bias": RNG.normal(size=3).astype(np.float32),
}
GRADIENT = jax.tree.map(lambda leaf: np.float32(RNG.normal(size=leaf.shape)), PARAMS)


def test_a_step_is_that_of_the_optimizer_and_then_the_proximal_one():
    optimizer = proximal_training(optax.sgd(0.1, momentum=0.9), lambda steps: 0.05 * (steps + 1))
    plain = optax.sgd(0.1, momentum=0.9)
    params, state, plain_state = PARAMS, optimizer.init(PARAMS), plain.init(PARAMS)
    expected = PARAMS
    for step in range(3):
        updates, state = optimizer.update(GRADIENT, state, params)
        params = optax.apply_updates(params, updates)
        updates, plain_state = plain.update(GRADIENT, plain_state, expected)
        expected = optax.apply_updates(expected, updates)
        expected |= {"kernel": prox_2_to_4(expected["kernel"], 0.05 * (step + 1), axis=0)}
        assert_close(params, expected, rtol=1e-5, atol=1e-6)
    assert int(state.steps) == 3


def test_a_rising_strength_ends_in_two_of_four_near_the_best():
    """A regression whose true kernel is 2:4 is found, pattern and all."""
    truth = np.array([[2.0], [0.0], [-1.5], [0.0], [0.0], [1.0], [0.0], [-2.0]], np.float32)
    x = RNG.normal(size=(256, 8)).astype(np.float32)
    optimizer = proximal_training(optax.sgd(0.1), lambda steps: 0.002 * steps)

    @jax.jit
    def run(params):
        def loss(params):
            return jnp.mean((x @ (params["kernel"] - truth)) ** 2)

        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), None, length=300)[0][0]

    kernel = np.asarray(
        run({"kernel": jnp.asarray(RNG.normal(size=(8, 1)), jnp.float32)})["kernel"]
    )
    assert float(penalty_2_to_4(kernel, axis=0)) == 0
    assert np.array_equal(kernel != 0, truth != 0)
    assert_close(kernel, truth, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("density", "each"), [(1.0, 4), (0.9, 4), (0.75, 3), (0.7, 3), (0.5, 2)])
@pytest.mark.parametrize("axis", [0, 1])
def test_stepwise_keeps_as_many_of_every_m_as_are_asked_for(density, each, axis):
    scores = np.abs(RNG.permutation(8 * 12)).reshape(8, 12).astype(np.float32)
    masks = magnitude_masks(scores, density, pattern=NofM(2, 4, axis=axis, stepwise=True))
    groups = np.moveaxis(scores, axis, -1).reshape(-1, 4)
    expected = groups >= np.sort(groups, axis=1)[:, [4 - each]]
    assert np.array_equal(np.moveaxis(np.asarray(masks), axis, -1).reshape(-1, 4), expected)


def test_stepwise_keeps_n_of_every_m_even_if_fewer_are_asked_for():
    mask = magnitude_masks(np.arange(8.0), 0.1, pattern=NofM(2, 4, stepwise=True))
    assert mask.tolist() == [False, False, True, True] * 2


def test_under_a_gradual_schedule_the_pattern_falls_step_by_step():
    method = Prune(gradual(0, 8, every=1, power=1), pattern=NofM(1, 4, axis=0, stepwise=True))
    optimizer = sparse_training(optax.sgd(0.1), method, density=0.25)
    state = optimizer.init(PARAMS)
    seen = []
    for _ in range(9):
        _, state = optimizer.update(GRADIENT, state, PARAMS)
        counts = np.asarray(state.masks["kernel"]).reshape(2, 4, 3).sum(axis=1)
        assert len(np.unique(counts)) == 1
        seen.append(int(counts[0, 0]))
    assert seen == sorted(seen, reverse=True)
    assert set(seen) == {1, 2, 3, 4}
    assert seen[-1] == 1


def test_masks_of_a_checkpoint_train_on(tmp_path):
    from sparse_hyper_jax.train.checkpoint import Checkpoints

    method = Prune(gradual(0, 1, every=1), pattern=NofM(2, 4, axis=0))
    optimizer = sparse_training(optax.adam(0.1), method, density=0.5)
    start = jax.tree.map(jnp.asarray, PARAMS)
    state = optimizer.init(start)
    for _ in range(2):
        _, state = optimizer.update(GRADIENT, state, start)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, (start, state), {})
        restored = checkpoints.restore((start, optimizer.init(start)))
    params, old = restored.state
    tuning = sparse_training(optax.sgd(0.1), Fixed(old.masks))
    found, new = tuning.update(GRADIENT, tuning.init(params), params)
    assert np.array_equal(new.masks["kernel"], state.masks["kernel"])
    assert_close(found, apply_masks(jax.tree.map(lambda g: -0.1 * g, GRADIENT), state.masks))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_gradients_of_16_bits_leave_two_of_four(dtype):
    optimizer = proximal_training(optax.set_to_zero(), 50.0)
    updates, _ = optimizer.update(
        jax.tree.map(lambda leaf: leaf.astype(dtype), GRADIENT), optimizer.init(PARAMS), PARAMS
    )
    kernel = optax.apply_updates(PARAMS, updates)["kernel"]
    assert (np.count_nonzero(kernel.reshape(2, 4, 3), axis=1) == 2).all()


MISTAKES = {
    "a negative strength": (
        lambda: proximal_training(optax.sgd(0.1), -1.0),
        "strength=-1.0",
        "at least 0",
        "change strength",
    ),
    "no optimizer": (
        lambda: proximal_training(0.1, 1.0),
        "inner=0.1",
        "an instance of GradientTransformation",
        "change inner",
    ),
    "an axis that does not fit": (
        lambda: proximal_training(optax.sgd(0.1), 1.0, axis=-1).init(PARAMS),
        "shape (8, 3)",
        "multiple of 4",
        "",
    ),
    "no parameters": (
        lambda: proximal_training(optax.sgd(0.1), 1.0).update(
            GRADIENT, proximal_training(optax.sgd(0.1), 1.0).init(PARAMS)
        ),
        "params=None",
        "the parameters",
        "call update(gradient, state, params)",
    ),
    "a flag that is none": (
        lambda: NofM(stepwise="yes"),
        "stepwise='yes'",
        "True or False",
        "change stepwise",
    ),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
