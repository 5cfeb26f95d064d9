import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_hyper_jax.continual import freeze_entries, freeze_updates
from tests.ops.examples import assert_names_itself_and_its_cure

PARAMS = {"kernel": jnp.array([[1.5, -0.0, 0.0], [2.0, -3.0, 1e-30]]), "bias": jnp.ones(3)}
FROZEN = {
    "kernel": jnp.array([[True, True, True], [False, False, True]]),
    "bias": optax.MaskedNode(),
}
OPTIMIZERS = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": optax.adam(0.1),
    "decay": optax.adamw(0.1, weight_decay=0.5),
    "clipping": optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.1, momentum=0.9)),
}


def bits(array):
    return np.asarray(array).view(np.uint32)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_entries_keep_every_bit_and_the_others_move(name):
    optimizer = freeze_entries(OPTIMIZERS[name])
    params, state = PARAMS, optimizer.init(PARAMS)
    update = jax.jit(optimizer.update)
    for number in range(5):
        gradient = jax.tree.map(lambda leaf, n=number: jnp.cos(leaf + n), PARAMS)
        updates, state = update(gradient, state, params, frozen=FROZEN)
        params = optax.apply_updates(params, updates)
    frozen = np.asarray(FROZEN["kernel"])
    np.testing.assert_array_equal(bits(params["kernel"])[frozen], bits(PARAMS["kernel"])[frozen])
    assert (np.asarray(params["kernel"]) != np.asarray(PARAMS["kernel"]))[~frozen].all()
    assert (params["bias"] != PARAMS["bias"]).all()


def test_clipping_measures_free_entries_alone():
    optimizer = freeze_entries(optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0)))
    gradient = {"kernel": jnp.where(FROZEN["kernel"], 100.0, 0.3), "bias": jnp.zeros(3)}
    updates, _ = optimizer.update(gradient, optimizer.init(PARAMS), PARAMS, frozen=FROZEN)
    np.testing.assert_allclose(updates["kernel"][~FROZEN["kernel"]], -0.3)


def test_a_mask_of_another_shape():
    frozen = {"kernel": jnp.ones(3, bool), "bias": optax.MaskedNode()}
    assert_names_itself_and_its_cure(
        lambda: freeze_updates(PARAMS, frozen), "bool[3] for kernel", "bool[2, 3]", "make masks"
    )


def test_a_mask_of_numbers():
    frozen = {"kernel": jnp.ones((2, 3)), "bias": optax.MaskedNode()}
    assert_names_itself_and_its_cure(
        lambda: freeze_updates(PARAMS, frozen), "float32[2, 3]", "bool[2, 3]", "make masks"
    )


def test_undefined_updates_do_not_reach_frozen_entries():
    updates = {"kernel": jnp.full((2, 3), jnp.nan), "bias": jnp.zeros(3)}
    frozen = freeze_updates(updates, FROZEN)["kernel"]
    np.testing.assert_array_equal(jnp.isnan(frozen), ~FROZEN["kernel"])


def test_other_masks_need_no_new_compilation():
    optimizer = freeze_entries(optax.sgd(0.1))
    traces = []

    @jax.jit
    def step(params, state, frozen):
        traces.append(1)
        return optimizer.update(params, state, params, frozen=frozen)

    state = optimizer.init(PARAMS)
    for value in (True, False):
        step(PARAMS, state, {"kernel": jnp.full((2, 3), value), "bias": optax.MaskedNode()})
    assert len(traces) == 1


def test_extra_arguments_reach_the_inner_optimizer():
    seen = {}

    def update(updates, state, params=None, **extra):
        seen.update(extra)
        return updates, state

    inner = optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
    freeze_entries(inner).update(PARAMS, optax.EmptyState(), frozen=FROZEN, value=3)
    assert seen == {"value": 3}


def test_update_without_masks():
    optimizer = freeze_entries(optax.sgd(0.1))
    assert_names_itself_and_its_cure(
        lambda: optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS),
        "without frozen",
        "masks",
        "frozen=masks",
    )


def test_what_is_no_optimizer():
    assert_names_itself_and_its_cure(
        lambda: freeze_entries(0.1), "inner=0.1", "GradientTransformation", "change inner"
    )


def test_tree_map_params_works_on_the_state():
    optimizer = freeze_entries(optax.adam(0.1))
    mapped = optax.tree_utils.tree_map_params(
        optimizer, lambda leaf: leaf + 1, optimizer.init(PARAMS)
    )
    assert (mapped[0].mu["kernel"] == 1).all()
