import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_hyper_jax.local import Component, associated_losses, pipelined_steps
from tests.ops.examples import assert_names_itself_and_its_cure

from .examples import DEPTH, batches, make, parameters_of

ADAM = optax.adam(0.02)
RATES = optax.partition(
    {"association": optax.adam(0.01), "reconstruction": optax.sgd(0.1, momentum=0.5)},
    Component("association", "association", "reconstruction", "reconstruction"),
)


def one_after_another(parameters, states, xs, targets, optimizer):
    """The same by a gradient of the sum per batch."""

    def step(carry, batch):
        parameters, states = carry

        def loss_of(parameters):
            losses = associated_losses([make(one) for one in parameters], *batch)
            return losses.total, (losses.association, losses.reconstruction)

        slopes, losses = jax.grad(loss_of, has_aux=True)(parameters)
        changed = [
            optimizer.update(*parts) for parts in zip(slopes, states, parameters, strict=True)
        ]
        updates, states = (list(part) for part in zip(*changed, strict=True))
        return (optax.apply_updates(parameters, updates), states), losses

    (parameters, states), losses = jax.lax.scan(step, (parameters, states), (xs, targets))
    return parameters, states, *losses


@pytest.mark.parametrize("optimizer", [ADAM, RATES], ids=["adam", "two rates"])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_line_ends_where_steps_in_turn_do(count, optimizer):
    xs, targets = batches(count)
    parameters = parameters_of()
    states = [optimizer.init(one) for one in parameters]

    @jax.jit
    def both(parameters, states):
        line = pipelined_steps([make] * DEPTH, parameters, states, xs, targets, optimizer=optimizer)
        return tuple(line), one_after_another(parameters, states, xs, targets, optimizer)

    line, turns = both(parameters, states)
    assert jax.tree.structure(line) == jax.tree.structure(turns)
    for one, other in zip(jax.tree.leaves(line), jax.tree.leaves(turns), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-7)
    assert line[2].shape == line[3].shape == (count, DEPTH)


def test_a_component_alone_is_plain_training():
    xs, targets = batches(3)
    parameters = parameters_of()[:1]
    states = [ADAM.init(one) for one in parameters]
    line = jax.jit(lambda *given: pipelined_steps([make], *given, xs, targets, optimizer=ADAM))(
        parameters, states
    )
    turns = one_after_another(parameters, states, xs, targets, ADAM)
    for one, other in zip(jax.tree.leaves(tuple(line)), jax.tree.leaves(turns), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"makes": [make]}, "1 makes, 3 parameters"),
        ({"states": []}, "0 states"),
        ({"makes": [], "parameters": [], "states": []}, "0 makes"),
        ({"makes": [make, None, make]}, "make of component 2=None"),
        ({"makes": [make, make, lambda p: p.forward]}, "component 3 of type"),
        ({"xs": jnp.zeros((0, 4, 5)), "targets": jnp.zeros((0, 4, 3))}, "xs of shape (0, 4, 5)"),
        ({"xs": jnp.zeros((2, 4, 5))}, "xs of shape (2, 4, 5) and targets of shape (3, 4, 3)"),
        ({"xs": "no"}, "xs='no'"),
        ({"makes": make}, "makes=<function make"),
        ({"parameters": None}, "parameters=None"),
        ({"parameters": ["no"] * DEPTH}, "a parameter of component 1='no'"),
        ({"states": 3}, "states=3"),
        ({"optimizer": ADAM.init}, "optimizer=<function"),
    ],
)
def test_wrong_lists_are_told(wrong, found):
    xs, targets = batches(3)
    parameters = parameters_of()
    given = {
        "makes": [make] * DEPTH,
        "parameters": parameters,
        "states": [ADAM.init(one) for one in parameters],
        "xs": xs,
        "targets": targets,
        "optimizer": ADAM,
    } | wrong
    assert_names_itself_and_its_cure(lambda: pipelined_steps(**given), found, "", "")
