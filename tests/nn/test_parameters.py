from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sparse_hyper_jax.nn import FreeHyperLayer, parameter_labels
from tests.ops.examples import assert_close

LABELS = ("means", "variances", "values", "other")
X = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)


class Model(nnx.Module):
    def __init__(self, rngs):
        self.sparse = FreeHyperLayer(
            (5,), (4,), 6, bias="sparse", num_bias_tuples=2, num_global=2, rngs=rngs
        )
        self.dense = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.dense(self.sparse(x))


def never_run():
    """The model without numbers in it: labels do not look at them."""
    return nnx.eval_shape(lambda: Model(nnx.Rngs(0)))


made = nnx.jit(lambda: Model(nnx.Rngs(0)))


def parameters(model):
    return jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Param)))


def loss(model):
    return jnp.sum(jnp.square(model(X)))


@cache
def gradient():
    return nnx.jit(nnx.grad(loss))(made())


@nnx.jit
def update(model, optimizer, gradient):
    optimizer.update(model, gradient)


def change(optimizer_of):
    """Make one step by an optimizer; give the parameters before and after and their labels."""
    model = made()
    labels = parameter_labels(nnx.state(model, nnx.Param))
    before = parameters(model)
    update(model, nnx.Optimizer(model, optimizer_of(labels), wrt=nnx.Param), gradient())
    return before, parameters(model), nnx.to_pure_dict(labels)


def test_every_parameter_has_its_label():
    labels = nnx.to_pure_dict(parameter_labels(nnx.state(never_run(), nnx.Param)))
    tuples = {"raw_means": "means", "raw_variances": "variances", "values": "values"}
    assert labels == {
        "sparse": {"source": tuples, "bias_source": tuples},
        "dense": {"kernel": "other", "bias": "other"},
    }


def test_a_dense_bias_is_other():
    options = {"bias": "dense", "fixed_values": 1.0}
    layer = nnx.eval_shape(lambda: FreeHyperLayer((5,), (4,), 6, rngs=nnx.Rngs(0), **options))
    labels = nnx.to_pure_dict(parameter_labels(nnx.state(layer, nnx.Param)))
    assert labels == {
        "source": {"raw_means": "means", "raw_variances": "variances"},
        "bias": "other",
    }


@pytest.mark.parametrize("moving", LABELS)
def test_only_the_labelled_group_moves(moving):
    rules = {label: optax.sgd(0.1) if label == moving else optax.set_to_zero() for label in LABELS}
    before, after, labels = change(lambda labels: optax.partition(rules, labels))
    moved = jax.tree.map(lambda old, new: bool((old != new).any()), before, after)
    assert moved == jax.tree.map(lambda label: label == moving, labels)
    assert any(jax.tree.leaves(moved))


def test_every_group_has_its_learning_rate():
    state = nnx.state(never_run(), nnx.Param)
    labels = parameter_labels(state)
    rates = dict(zip(LABELS, (1.0, 2.0, 3.0, 4.0), strict=True))
    optimizer = optax.partition({name: optax.sgd(rate) for name, rate in rates.items()}, labels)
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), state)
    updates, _ = optimizer.update(ones, optimizer.init(ones), ones)
    expected = jax.tree.map(
        lambda label, leaf: np.full(leaf.shape, -rates[label]),
        nnx.to_pure_dict(labels),
        nnx.to_pure_dict(state),
    )
    assert_close(nnx.to_pure_dict(updates), expected)


def test_recipe_with_clipping_limits_the_step():
    rules = {name: optax.sgd(1.0) for name in LABELS} | {"means": optax.sgd(0.5)}
    before, after, labels = change(
        lambda labels: optax.chain(optax.clip_by_global_norm(1e-2), optax.partition(rules, labels))
    )
    unscaled = jax.tree.map(
        lambda label, old, new: (new - old) * (2 if label == "means" else 1), labels, before, after
    )
    norm = np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(unscaled)))
    np.testing.assert_allclose(norm, 1e-2, rtol=1e-3)


def test_training_with_groups_lowers_the_loss():
    model = made()
    labels = parameter_labels(nnx.state(model, nnx.Param))
    rules = {
        "means": optax.adam(5e-3),
        "variances": optax.adam(1e-3),
        "values": optax.adam(1e-2),
        "other": optax.adam(1e-3),
    }
    recipe = optax.chain(optax.clip_by_global_norm(1.0), optax.partition(rules, labels))

    @nnx.jit
    def train(model):
        @nnx.scan(in_axes=nnx.Carry, length=100)
        def steps(state):
            model, optimizer = state
            value, gradient = nnx.value_and_grad(loss)(model)
            optimizer.update(model, gradient)
            return state, value

        return steps((model, nnx.Optimizer(model, recipe, wrt=nnx.Param)))[1]

    losses = np.asarray(train(model))
    assert losses[-20:].sum() < 0.5 * losses[:20].sum()


def test_the_function_in_place_of_its_result_is_refused():
    model = made()
    rules = {label: optax.sgd(0.1) for label in LABELS}
    optimizer = nnx.Optimizer(model, optax.partition(rules, parameter_labels), wrt=nnx.Param)
    with pytest.raises(ValueError, match=r"pass parameter_labels\(nnx\.state\(model"):
        update(model, optimizer, gradient())


def test_plain_arrays_are_refused():
    with pytest.raises(ValueError, match=r"expected an nnx\.Variable"):
        parameter_labels({"means": np.zeros((2, 2))})
