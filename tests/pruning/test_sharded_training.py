from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

from sparse_hyper_jax.pruning import (
    SET,
    Fixed,
    Prune,
    RigL,
    SRigL,
    TopKAST,
    gradual,
    sparse_training,
)
from sparse_hyper_jax.reparam import powerprop
from tests.ops.examples import assert_close
from tests.pruning.examples import KEY, PARAMS, at, gradients, same, sharded

METHODS = {
    "prune": Prune(gradual(0, 6, every=2)),
    "rigl": RigL(20, every=3, drop_fraction=0.5),
    "top_kast": TopKAST(every=2),
}
BUSY = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(0.1, weight_decay=0.1))


def on_devices(method):
    optimizer = sparse_training(BUSY, method, density=0.3, key=KEY)
    params = {"kernel": PARAMS["one"]["kernel"][:4, :6], "bias": PARAMS["one"]["bias"][:6]}
    given = at(gradients(1, params), 0)
    results = []
    for place in (sharded, partial(jax.tree.map, jnp.asarray)):
        there, gradient = place(params), place(given)
        state = optimizer.init(there)
        update = jax.jit(optimizer.update)
        for _ in range(3):
            updates, state = update(gradient, state, there)
        results.append((state, updates))
    return sharded(params)["kernel"].sharding, *results


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_masks_and_moments_are_sharded_like_parameters(method):
    sharding, (state, updates), (alone, expected) = on_devices(method)
    for mask in (*jax.tree.leaves(state.masks), *jax.tree.leaves(state.updated)):
        assert mask.sharding.is_equivalent_to(sharding, 2)
    assert state.inner[1][0].mu["kernel"].sharding.is_equivalent_to(sharding, 2)
    assert same(jax.tree.leaves(state.masks), jax.tree.leaves(alone.masks))
    assert_close(updates, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", [Prune(), TopKAST(), RigL(20, every=5), Prune(score="random")])
def test_the_first_masks_are_sharded_like_parameters(method):
    params = sharded({"kernel": PARAMS["one"]["kernel"][:4, :6]})
    state = sparse_training(BUSY, method, density=0.3, key=KEY).init(params)
    assert state.masks["kernel"].sharding.is_equivalent_to(params["kernel"].sharding, 2)


@pytest.mark.parametrize(
    "method",
    [
        Prune(gradual(0, 4, every=2)),
        RigL(20, every=2, drop_fraction=0.5, grown_size=0.5),
        SET(20, every=2, drop_fraction=0.5, grown_size=0.5),
        TopKAST(every=2, penalty=0.1),
        SRigL(20, every=2, drop_fraction=0.5, grown_size=0.5, momentum=0.5, ablation=1.0),
        Fixed({"kernel": np.arange(16).reshape(4, 4) % 3 > 0, "bias": optax.MaskedNode()}),
    ],
    ids=["prune", "rigl", "set", "top_kast", "srigl", "fixed"],
)
def test_columns_spread_over_any_kind_of_mesh(method):
    """With the numbers of one device, in two steps with a change of masks, under a power."""
    density = 0.5 if method.needs_density else None
    optimizer = sparse_training(
        optax.adam(0.1), method, density=density, key=KEY, reparam=powerprop(2.0)
    )
    params = {"kernel": PARAMS["one"]["kernel"][:4, :4], "bias": PARAMS["one"]["bias"][:4]}
    gradient = at(gradients(1, params), 0)

    @jax.jit
    def steps(params, gradient):
        state = optimizer.init(params)
        for _ in range(2):
            updates, state = optimizer.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    expected = steps(params, gradient)
    for kind in AxisType.Explicit, AxisType.Auto:
        mesh = jax.make_mesh((4,), ("d",), axis_types=(kind,))
        specs = {"kernel": jax.P(None, "d"), "bias": jax.P("d")}
        placed = [
            {
                name: jax.device_put(leaf, jax.NamedSharding(mesh, specs[name]))
                for name, leaf in tree.items()
            }
            for tree in (params, gradient)
        ]
        got, state = steps(*placed)
        assert_close(got, expected[0], rtol=1e-4, atol=1e-6)
        assert same([state.masks["kernel"]], [expected[1].masks["kernel"]])
        assert state.masks["kernel"].sharding.is_equivalent_to(placed[0]["kernel"].sharding, 2)
