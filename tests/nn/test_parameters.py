import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from sparse_hyper_jax.nn import FreeHyperLayer, parameter_labels
from tests.ops.examples import assert_close

LABELS = ("means", "variances", "values", "other")
X = jax.random.normal(jax.random.key(1), (3, 5))


class Model(nnx.Module):
    def __init__(self, rngs):
        self.sparse = FreeHyperLayer(
            (5,), (4,), 6, bias="sparse", num_bias_tuples=2, num_global=2, rngs=rngs
        )
        self.dense = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.dense(self.sparse(x))


def parameters(model):
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def loss(model):
    return jnp.sum(jnp.square(model(X)))


@nnx.jit
def train(model, optimizer):
    value, gradient = nnx.value_and_grad(loss)(model)
    optimizer.update(model, gradient)
    return value


def test_every_parameter_has_its_label():
    model = Model(nnx.Rngs(0))
    labels = nnx.to_pure_dict(parameter_labels(nnx.state(model, nnx.Param)))
    tuples = {"raw_means": "means", "raw_variances": "variances", "values": "values"}
    assert labels == {
        "sparse": {"source": tuples, "bias_source": tuples},
        "dense": {"kernel": "other", "bias": "other"},
    }


def test_a_dense_bias_is_other():
    layer = FreeHyperLayer((5,), (4,), 6, bias="dense", fixed_values=1.0, rngs=nnx.Rngs(0))
    labels = nnx.to_pure_dict(parameter_labels(nnx.state(layer, nnx.Param)))
    assert labels == {
        "source": {"raw_means": "means", "raw_variances": "variances"},
        "bias": "other",
    }


@pytest.mark.parametrize("moving", LABELS)
def test_only_the_labelled_group_moves(moving):
    model = Model(nnx.Rngs(0))
    labels = parameter_labels(nnx.state(model, nnx.Param))
    rules = {label: optax.sgd(0.1) if label == moving else optax.set_to_zero() for label in LABELS}
    optimizer = nnx.Optimizer(model, optax.partition(rules, labels), wrt=nnx.Param)
    before = jax.tree.map(jnp.copy, parameters(model))
    train(model, optimizer)
    moved = jax.tree.map(lambda old, new: bool((old != new).any()), before, parameters(model))
    expected = jax.tree.map(lambda label: label == moving, nnx.to_pure_dict(labels))
    assert moved == expected
    assert any(jax.tree.leaves(moved))


def test_every_group_has_its_learning_rate():
    model = Model(nnx.Rngs(0))
    state = nnx.state(model, nnx.Param)
    labels = parameter_labels(state)
    rates = dict(zip(LABELS, (1.0, 2.0, 3.0, 4.0), strict=True))
    optimizer = optax.partition({name: optax.sgd(rate) for name, rate in rates.items()}, labels)
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, state), optimizer.init(state), state)
    expected = jax.tree.map(
        lambda label, leaf: jnp.full(leaf.shape, -rates[label]),
        nnx.to_pure_dict(labels),
        nnx.to_pure_dict(state),
    )
    assert_close(nnx.to_pure_dict(updates), expected)


def test_recipe_with_clipping_limits_the_step():
    model = Model(nnx.Rngs(0))
    labels = parameter_labels(nnx.state(model, nnx.Param))
    rules = {name: optax.sgd(1.0) for name in LABELS} | {"means": optax.sgd(0.5)}
    recipe = optax.chain(optax.clip_by_global_norm(1e-2), optax.partition(rules, labels))
    optimizer = nnx.Optimizer(model, recipe, wrt=nnx.Param)
    before = jax.tree.map(jnp.copy, parameters(model))
    train(model, optimizer)
    steps = jax.tree.map(jnp.subtract, parameters(model), before)
    unscaled = jax.tree.map(
        lambda label, step: step * 2 if label == "means" else step, nnx.to_pure_dict(labels), steps
    )
    assert_close(optax.tree.norm(unscaled), 1e-2, rtol=1e-3)


def test_training_with_groups_lowers_the_loss():
    model = Model(nnx.Rngs(0))
    labels = parameter_labels(nnx.state(model, nnx.Param))
    rules = {
        "means": optax.adam(5e-3),
        "variances": optax.adam(1e-3),
        "values": optax.adam(1e-2),
        "other": optax.adam(1e-3),
    }
    recipe = optax.chain(optax.clip_by_global_norm(1.0), optax.partition(rules, labels))
    optimizer = nnx.Optimizer(model, recipe, wrt=nnx.Param)
    losses = [float(train(model, optimizer)) for _ in range(100)]
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])


def test_the_function_in_place_of_its_result_is_refused():
    model = Model(nnx.Rngs(0))
    rules = {label: optax.sgd(0.1) for label in LABELS}
    optimizer = nnx.Optimizer(model, optax.partition(rules, parameter_labels), wrt=nnx.Param)
    with pytest.raises(ValueError, match=r"pass parameter_labels\(nnx\.state\(model"):
        train(model, optimizer)


def test_plain_arrays_are_refused():
    with pytest.raises(ValueError, match=r"expected an nnx\.Variable"):
        parameter_labels({"means": jnp.zeros((2, 2))})
