from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sparse_hyper_jax.pruning import (
    SET,
    Kept,
    Method,
    Prune,
    RigL,
    TopKAST,
    apply_masks,
    erk,
    gradual,
    one_shot,
    periodic,
    sparse_training,
)
from sparse_hyper_jax.reparam import powerprop
from tests.ops.examples import assert_close
from tests.pruning.examples import (
    KEY,
    NAMES,
    PARAMS,
    SIZES,
    array,
    at,
    gradients,
    kernels_of,
    largest,
    same,
    train,
    unchanged,
)

METHODS = {
    "prune": Prune(gradual(0, 6, every=2)),
    "rigl": RigL(20, every=3, drop_fraction=0.5),
    "top_kast": TopKAST(every=2),
}
BUSY = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(0.1, weight_decay=0.1))


@pytest.mark.parametrize(
    ("method", "inner"),
    [
        (Prune(periodic(2)), optax.sgd(0.1, momentum=0.9, nesterov=True)),
        (Prune(periodic(2)), optax.adam(0.1)),
        (Prune(periodic(2)), BUSY),
        (RigL(20, every=3, drop_fraction=0.5), BUSY),
        (SET(20, every=3, grown_size=0.5), BUSY),
        (TopKAST(every=2), BUSY),
    ],
)
def test_dropped_entries_keep_every_bit(method, inner):
    history = train(inner, method, 7)
    frozen = 0
    for step in range(7):
        grows = method.grows and (step + 1) % 3 == 0
        for before, after, now, then in zip(
            history.kernels(step),
            history.kernels(step + 1),
            history.updated(step),
            history.updated(step + 1),
            strict=True,
        ):
            still = unchanged(before, after)
            # Entries that grow get their first value in the same step.
            dropped = ~now & ~then if grows else ~now
            assert still[dropped].all()
            assert grows or not still[now].any()
            frozen += int((dropped & np.signbit(before) & (before == 0)).sum())
    assert frozen > 0  # -0.0 was among them


def test_momentum_sees_masked_gradients():
    history = train(optax.sgd(0.1, momentum=0.9), Prune(), 5)
    kernels, traces = history.kernels(0), [0, 0]
    for step in range(1, 6):
        for layer, (slope, mask) in enumerate(
            zip(history.slopes(step), history.masks(0), strict=True)
        ):
            traces[layer] = 0.9 * traces[layer] + slope * mask
            kernels[layer] = kernels[layer] - 0.1 * traces[layer] * mask
        assert_close(history.kernels(step), kernels, rtol=1e-4, atol=1e-5)


def test_clipping_measures_masked_gradients():
    history = train(optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(1.0)), Prune(), 1)
    first = at(history.gradients, 0)
    masked = [slope * mask for slope, mask in zip(history.slopes(1), history.masks(0), strict=True)]
    parts = [*masked, *(first[name]["bias"] for name in NAMES)]
    norm = np.sqrt(sum(np.sum(part**2) for part in parts))
    expected = [
        kernel - slope * 0.5 / norm
        for kernel, slope in zip(history.kernels(0), masked, strict=True)
    ]
    assert_close(history.kernels(1), expected, rtol=1e-4)
    bias = PARAMS["two"]["bias"] - first["two"]["bias"] * 0.5 / norm
    assert_close(history.params["two"]["bias"][1], bias, rtol=1e-4)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_one_program_serves_every_step(method):
    traces, given = [], gradients(7)
    optimizer = sparse_training(BUSY, method, density=0.3, key=KEY)

    @jax.jit
    def step(params, state, gradient):
        traces.append(None)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.asarray, PARAMS)
    state = optimizer.init(params)
    expected = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)
    for number in range(7):
        params, state = step(params, state, at(given, number))
        assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) == expected
    assert len(traces) == 1
    assert state.steps == 7
    if method is not METHODS["prune"]:
        return
    # Under scan it comes to the same.
    scanned = train(BUSY, method, 7)
    assert same(jax.tree.leaves(at(scanned.state.masks, 7)), jax.tree.leaves(state.masks))
    assert_close(at(scanned.params, 7), params, rtol=1e-4, atol=1e-5)


def test_a_state_may_be_donated_after_a_step():
    optimizer = sparse_training(BUSY, METHODS["prune"], density=0.3)
    params = jax.tree.map(jnp.array, PARAMS)
    gradient = at(gradients(1), 0)
    _, state = jax.jit(optimizer.update)(gradient, optimizer.init(params), params)
    update = jax.jit(optimizer.update, donate_argnums=1)
    for _ in range(2):
        _, state = update(gradient, state, params)
    assert state.steps == 3


def test_the_first_state_may_be_donated():
    optimizer = sparse_training(BUSY, METHODS["prune"], density=0.3)
    params = jax.tree.map(jnp.array, PARAMS)
    update = jax.jit(optimizer.update, donate_argnums=1)
    _, state = update(at(gradients(1), 0), optimizer.init(params), params)
    assert state.steps == 1


class Model(nnx.Module):
    def __init__(self, rngs):
        self.one, self.two = nnx.Linear(4, 16, rngs=rngs), nnx.Linear(16, 2, rngs=rngs)

    def __call__(self, x):
        return self.two(nnx.relu(self.one(x)))


def test_a_network_of_nnx_learns_with_few_weights():
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("f")
    y = np.stack([x[:, 0] + 0.5 * x[:, 1], np.abs(x[:, 2])], axis=1)
    definition, params = nnx.split(Model(nnx.Rngs(0)), nnx.Param)
    optimizer = sparse_training(optax.adam(0.03), RigL(60, every=10), density=0.3, key=KEY)

    def loss(weights):
        return jnp.mean((nnx.merge(definition, weights)(x) - y) ** 2)

    def step(carry, _):
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(apply_masks(params, state.masks))
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), value

    run = jax.jit(partial(jax.lax.scan, step, length=120))
    (params, state), losses = run((params, optimizer.init(params)))
    assert [int(mask.sum()) for mask in jax.tree.leaves(state.masks)] == [19, 9]
    assert jax.tree.structure(state.inner[0].mu) == jax.tree.structure(params)
    assert loss(apply_masks(params, state.masks)) < 0.35 * losses[0]


def test_a_distribution_may_leave_arrays_whole():
    def first(path, leaf):
        return path.startswith("one")

    distribution = partial(erk, dense=first)
    history = train(optax.sgd(0.1), Prune(), 2, distribution=distribution)
    one, two = history.masks(2)
    assert one.all()
    assert same([two], largest(history.kernels(0)[1:], int(0.3 * SIZES[1])))


def test_what_the_optimizer_wants_besides_is_passed_on():
    def update(updates, state, params=None, *, value):
        return jax.tree.map(lambda leaf: -value * leaf, updates), state

    inner = optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
    optimizer = sparse_training(inner, Prune(), density=0.3)
    state, gradient = optimizer.init(PARAMS), at(gradients(1), 0)
    updates, _ = optimizer.update(gradient, state, PARAMS, value=2.0)
    np.testing.assert_allclose(updates["one"]["bias"], -2 * gradient["one"]["bias"])
    mask = np.asarray(state.masks["one"]["kernel"])
    np.testing.assert_allclose(
        updates["one"]["kernel"], np.where(mask, -2 * gradient["one"]["kernel"], 0)
    )


def test_it_is_a_link_of_a_chain():
    chain = optax.chain(
        optax.scale(2.0), sparse_training(optax.sgd(0.1), Prune(one_shot(0)), density=0.3)
    )
    state, gradient = chain.init(PARAMS), at(gradients(1), 0)
    updates, (_, state) = jax.jit(chain.update)(gradient, state, PARAMS)
    expected = [
        np.where(mask, -0.2 * slope, 0)
        for mask, slope in zip(kernels_of(state.masks), kernels_of(gradient), strict=True)
    ]
    assert_close(kernels_of(updates), expected)


@pytest.mark.parametrize("method", [SET(9, every=1), RigL(9, every=1), Prune(score="random")])
def test_every_key_is_used_once(method):
    with jax.debug_key_reuse(True):
        optimizer = sparse_training(optax.sgd(0.1), method, density=0.3, key=jax.random.key(1))
        params = jax.tree.map(jnp.asarray, PARAMS)
        state = optimizer.init(params)
        updates, _ = jax.jit(optimizer.update)(params, state, params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)


def test_a_method_of_one_s_own():
    class EveryThird(Method):
        schedule = periodic(2)

        def change(self, key, seen):
            masks = [(jnp.arange(leaf.size) % 3 == 0).reshape(leaf.shape) for leaf in seen.weights]
            return Kept(masks, masks)

    history = train(optax.sgd(0.1), EveryThird(), 2)
    for mask in history.masks(2):
        assert np.array_equal(np.flatnonzero(mask), np.arange(0, mask.size, 3))
    with pytest.raises(TypeError, match="abstract"):
        type("Incomplete", (Method,), {"schedule": periodic(2)})()


def test_an_nnx_optimizer_trains_masked_weights():
    model = nnx.Linear(8, 16, rngs=nnx.Rngs(0))
    method = RigL(100, every=2)
    sparse = sparse_training(optax.adam(1e-2), method, density=0.25, key=KEY)
    optimizer = nnx.Optimizer(model, sparse, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x):
        graph, params = nnx.split(model, nnx.Param)
        masks = nnx.as_pure(optimizer.opt_state.masks)
        masked = nnx.merge(graph, apply_masks(nnx.as_pure(params), masks))
        loss, gradient = nnx.value_and_grad(lambda model: jnp.mean((model(x) - 1) ** 2))(masked)
        optimizer.update(model, gradient)
        return loss

    before = np.asarray(model.kernel[...])
    losses = [float(step(model, optimizer, jnp.ones((4, 8)))) for _ in range(5)]
    assert losses[-1] < losses[0]
    mask = np.asarray(nnx.as_pure(optimizer.opt_state.masks)["kernel"])
    assert mask.sum() == 32
    assert (before != np.asarray(model.kernel[...])).sum() < 3 * 32


def test_tree_map_params_reaches_masks_and_moments():
    """The usual way to give a state its shardings."""
    optimizer = sparse_training(optax.adam(0.1), RigL(9, every=2), density=0.3, key=KEY)
    params = jax.eval_shape(lambda: PARAMS)
    state = jax.eval_shape(optimizer.init, params)
    mapped = optax.tree_utils.tree_map_params(
        optimizer, lambda leaf: leaf.shape, state, transform_non_params=lambda leaf: "no"
    )
    kernels = {"one": {"kernel": (6, 7)}, "two": {"kernel": (7, 5)}}
    for masks in (mapped.masks, mapped.updated):
        assert {name: {"kernel": masks[name]["kernel"]} for name in NAMES} == kernels
    assert mapped.inner[0].mu["one"] == {"kernel": (6, 7), "bias": (7,)}
    assert mapped.steps == mapped.inner[0].count == "no"
    named = optax.tree_utils.tree_map_params(
        optimizer,
        lambda leaf, param: param.shape,
        state,
        params,
        is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode),
    )
    assert named.masks["two"] == {"kernel": (7, 5), "bias": (5,)}


def test_a_reparametrisation_brings_its_jacobian():
    """With plain SGD it makes no difference whether it comes first or last."""
    theta = {"kernel": jnp.asarray(PARAMS["one"]["kernel"])}
    slope = {"kernel": jnp.asarray(array(6, 7, seed=4))}
    steps = {}
    for adapt_to in ("theta", "weights"):
        reparam = powerprop(2.0, adapt_to=adapt_to)
        optimizer = sparse_training(optax.sgd(0.1), Prune(), density=0.5, reparam=reparam)
        state = optimizer.init(theta)
        steps[adapt_to] = optimizer.update(slope, state, theta)[0]["kernel"]
    mask = np.asarray(state.masks["kernel"])
    expected = -0.1 * 2 * np.abs(theta["kernel"]) * slope["kernel"] * mask
    for step in steps.values():
        np.testing.assert_allclose(step, expected, rtol=1e-6)


def test_a_penalty_may_follow_a_schedule():
    def make(penalty):
        return sparse_training(optax.sgd(1.0), TopKAST(penalty=penalty), density=0.5)

    optimizer = optax.inject_hyperparams(make)(penalty=optax.linear_schedule(0.0, 0.5, 2))
    params = {"kernel": jnp.ones((2, 4))}

    def step(state, _):
        updates, state = optimizer.update(jax.tree.map(jnp.zeros_like, params), state, params)
        return state, updates["kernel"].min()

    _, steps = jax.lax.scan(step, optimizer.init(params), length=3)
    np.testing.assert_allclose(steps, [0, -0.25, -0.5])


def test_a_kernel_may_be_empty():
    params = {"kernel": jnp.zeros((0, 4)), "bias": jnp.ones(4)}
    for method in (TopKAST(penalty=1.0), RigL(9, every=2, grown_size=0.5), Prune()):
        optimizer = sparse_training(optax.sgd(0.1), method, density=0.5, key=KEY)
        updates, _ = optimizer.update(params, optimizer.init(params), params)
        assert updates["kernel"].shape == (0, 4)
