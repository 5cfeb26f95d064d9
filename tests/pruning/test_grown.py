import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_hyper_jax.pruning import RigL, sparse_training
from sparse_hyper_jax.reparam import powerprop
from tests.pruning.examples import KEY, array

# Optimizers whose state does not begin at zero everywhere.
OPTIMIZERS = {
    "schedule_free": optax.contrib.schedule_free_sgd(1e-2),
    "rmsprop": optax.rmsprop(1e-2, initial_scale=0.5),
    "adagrad": optax.adagrad(1e-2),
    "prodigy": optax.contrib.prodigy(),
    "dog": optax.contrib.dog(),
    "rprop": optax.rprop(1e-2),
}
METHOD = RigL(100, every=2, drop_fraction=0.6, grown_size=0.5)


@pytest.fixture(scope="module")
def histories():
    """For each optimizer, parameters and states after 0, 1, ... steps; one program for all."""
    start = {"kernel": jnp.asarray(10 * array(4, 6)), "bias": jnp.asarray(array(6, seed=1))}
    slopes = [jax.tree.map(lambda leaf, n=n: array(*leaf.shape, seed=n), start) for n in (5, 6, 7)]

    @jax.jit
    def run(params):
        histories = {}
        for name, inner in OPTIMIZERS.items():
            optimizer = sparse_training(inner, METHOD, density=0.5, key=KEY)
            history, now, state = [], params, optimizer.init(params)
            for slope in slopes:
                history.append((now, state, inner.init(now)))
                updates, state = optimizer.update(slope, state, now)
                now = optax.apply_updates(now, updates)
            histories[name] = [*history, (now, state, inner.init(now))]
        return histories

    return jax.device_get(run(start))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_grown_entries_have_the_state_that_init_gives_them(histories, name):
    (_, before, _), (_, after, fresh) = histories[name][1:3]
    new = after.masks["kernel"] & ~before.masks["kernel"]
    assert new.sum() == 7
    kernels = 0
    pairs = zip(*(jax.tree.leaves(one) for one in (before.inner, after.inner, fresh)), strict=True)
    for old, now, first in pairs:
        if np.shape(now) == new.shape:
            np.testing.assert_array_equal(now[new], first[new])
            np.testing.assert_array_equal(now[~new], old[~new])
            kernels += 1
        else:
            np.testing.assert_array_equal(now, old)
    assert kernels > 0


def test_the_step_after_growth_is_as_large_for_grown_entries_as_for_others(histories):
    """With z = 0 where y is -10, the average would be pulled there."""
    (_, before, _), (params, after, _), (later, _, _) = histories["schedule_free"][1:]
    new = after.masks["kernel"] & ~before.masks["kernel"]
    moved = np.abs(later["kernel"] - params["kernel"])
    assert 0 < moved[new].max() < 0.1
    assert 0 < moved[after.masks["kernel"] & ~new].max() < 0.1


@pytest.mark.parametrize("reparam", [None, powerprop(2.0)])
def test_a_grown_weight_of_16_bits_is_exact(reparam):
    """A difference of 16 bits would miss it by a rounding error of the weight that was there."""
    params = {"kernel": jnp.asarray(array(6, 8), jnp.bfloat16)}
    slope = {"kernel": jnp.asarray(array(6, 8, seed=1), jnp.bfloat16)}
    method = RigL(10, every=1, drop_fraction=0.5, grown_size=0.3)
    optimizer = sparse_training(optax.sgd(0.1), method, density=0.5, key=KEY, reparam=reparam)
    state = optimizer.init(params)
    updates, after = jax.jit(optimizer.update)(slope, state, params)
    new = np.asarray(after.masks["kernel"] & ~state.masks["kernel"])
    theta = optax.apply_updates(params, updates)["kernel"]
    assert theta.dtype == jnp.bfloat16
    weights, kept = np.asarray(params["kernel"], np.float32), np.asarray(state.masks["kernel"])
    power = 1 if reparam is None else 2
    size = 0.3 * np.mean(np.abs(weights[kept]) ** power)
    first = np.float32(jnp.asarray(size, jnp.bfloat16))
    first = np.float32(jnp.asarray(first ** (1 / power), jnp.bfloat16))
    assert new.any()
    np.testing.assert_array_equal(np.abs(np.asarray(theta, np.float32)[new]), first)
