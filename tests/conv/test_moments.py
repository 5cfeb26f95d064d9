import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sparse_hyper_jax import conv
from tests.ops.examples import assert_names_itself_and_its_cure

PARAMETERS = {"taps": jnp.ones((3, 2, 2)), "head": {"bias": jnp.ones(2)}}
FRESH = {"taps": jnp.array([False, True, False]), "head": {"bias": False}}
LABELS = {"taps": "fast", "head": {"bias": "slow"}}
OPTIMIZERS = {
    "adam": optax.adam(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "chain": optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1), optax.ema(0.9)),
    "masked": optax.masked(optax.adam(0.1), {"taps": True, "head": {"bias": False}}),
    "partition": optax.partition({"fast": optax.adam(0.1), "slow": optax.sgd(0.1)}, LABELS),
    "schedule": optax.inject_hyperparams(optax.adam)(optax.constant_schedule(0.1)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_moments_of_fresh_taps_alone_are_zero(name):
    optimizer = OPTIMIZERS[name]

    @jax.jit
    def stepped():
        state = optimizer.init(PARAMETERS)
        for _ in range(2):
            _, state = optimizer.update(PARAMETERS, state, PARAMETERS)
        return state, conv.clear_moments(optimizer, state, FRESH)

    before, after = stepped()
    assert jax.tree.structure(before) == jax.tree.structure(after)
    cleared = 0
    for one, two in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        if one.shape == (3, 2, 2):
            cleared += 1
            np.testing.assert_array_equal(two[1], 0)
            assert np.all(one[1] != 0)
            one, two = one[::2], two[::2]  # noqa: PLW2901
        np.testing.assert_array_equal(one, two)
    assert cleared >= 1


def test_states_of_nnx_are_trees_too():
    layer = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    parameters, optimizer = nnx.state(layer, nnx.Param), optax.adam(0.1)

    @jax.jit
    def moments_of(parameters):
        _, state = optimizer.update(parameters, optimizer.init(parameters), parameters)
        fresh = jax.tree.map(lambda leaf: leaf.ndim == 2, parameters)
        return conv.clear_moments(optimizer, state, fresh)[0].nu

    moments = moments_of(parameters)
    np.testing.assert_array_equal(moments["kernel"][...], 0)


ADAM = OPTIMIZERS["adam"]
STATE = ADAM.init(PARAMETERS)
# The call, then a fragment of each part: what was found, what was expected, what to change.
MISTAKES = {
    "optimizer": (lambda: conv.clear_moments(0.1, STATE, FRESH), "0.1", "optax", "pass what"),
    "tree": (lambda: conv.clear_moments(ADAM, STATE, True), "structure", "of the param", "pass"),
    "flags": (
        lambda: conv.clear_moments(ADAM, STATE, FRESH | {"taps": jnp.zeros(2, bool)}),
        "fresh of shape (2,)",
        "first axes",
        "bool (k,)",
    ),
    "kind": (
        lambda: conv.clear_moments(ADAM, STATE, FRESH | {"taps": jnp.zeros(3)}),
        "float32",
        "flags",
        "bool (k,)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_name_themselves_and_their_cure(mistake):
    assert_names_itself_and_its_cure(*MISTAKES[mistake])
