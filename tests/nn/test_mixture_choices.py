"""Several experts of a token, room for so many, and a bias that evens their load."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparse_hyper_jax.estimators import router_z_loss, update_router_bias, within_capacity
from sparse_hyper_jax.estimators.balance import balance_loss
from sparse_hyper_jax.nn import RouterBias
from tests.nn.mixtures import (
    EXPERTS,
    KEY,
    OUT,
    D,
    X,
    logits_of,
    make,
    of_expert,
    probabilities,
)
from tests.ops.examples import assert_close

CHOSEN = 2


def several(product, **options):
    return make("top", num_chosen=CHOSEN, product=product, **options)


def over_choices(mixture, expert, gates):
    """One token and one of its experts at a time; -1 adds nothing."""
    tokens, y = np.asarray(X).reshape(-1, D), np.zeros((expert.shape[0], OUT))
    for token, choice in zip(*np.nonzero(expert >= 0), strict=True):
        y[token] += gates[token, choice] * of_expert(mixture, expert[token, choice], tokens[token])
    return y


@pytest.mark.parametrize("product", ["ragged", "all"])
def test_several_experts_are_summed(product):
    mixture = several(product, renormalise=True)
    mixed = mixture(X)
    pi = probabilities(mixture, X)
    expert = np.argsort(-pi, axis=-1)[:, :CHOSEN]
    gates = np.take_along_axis(pi, expert, axis=-1)
    y = over_choices(mixture, expert, gates / gates.sum(axis=-1, keepdims=True))
    assert np.array_equal(mixed.expert, expert.reshape(2, 8, CHOSEN))
    assert_close(mixed.y, y.reshape(2, 8, OUT), rtol=1e-4, atol=1e-5)
    assert np.array_equal(mixed.load.load, np.bincount(expert.reshape(-1), minlength=EXPERTS))
    assert_close(mixed.balance_loss, balance_loss(jnp.asarray(logits_of(mixture, X)), expert))
    assert_close(mixed.z_loss, router_z_loss(jnp.asarray(logits_of(mixture, X))))
    assert int(mixed.dropped) == 0


@pytest.mark.parametrize("product", ["ragged", "slots", "all"])
def test_what_finds_no_place_adds_nothing(product):
    mixture = several(product, capacity_factor=0.8)
    mixed = mixture(X)
    pi = probabilities(mixture, X)
    wanted = np.argsort(-pi, axis=-1)[:, :CHOSEN]
    capacity = int(np.ceil(0.8 * wanted.size / EXPERTS))
    placed = within_capacity(jnp.asarray(wanted), num_experts=EXPERTS, capacity=capacity)
    expert = np.asarray(placed.expert)
    assert np.array_equal(mixed.expert.reshape(expert.shape), expert)
    assert int(mixed.dropped) == int(placed.dropped) == np.sum(expert < 0) > 0
    y = over_choices(mixture, expert, np.take_along_axis(pi, wanted, axis=-1))
    assert_close(mixed.y.reshape(-1, OUT), y, rtol=1e-4, atol=1e-5)
    assert np.array_equal(mixed.load.load, np.bincount(wanted.reshape(-1), minlength=EXPERTS))


def test_three_products_have_one_gradient():
    def gradient(product):
        graph, parameters, rest = nnx.split(several(product, capacity_factor=0.8), nnx.Param, ...)

        def loss(parameters, x):
            mixed = nnx.merge(graph, parameters, rest)(x)
            return jnp.mean((mixed.y - 1) ** 2) + 0.01 * mixed.z_loss

        return jax.jit(jax.grad(loss, (0, 1)))(parameters, X)

    slots = gradient("slots")
    assert all(np.abs(leaf).max() > 1e-6 for leaf in jax.tree.leaves(slots))
    for other in ("ragged", "all"):
        assert_close(slots, gradient(other), rtol=1e-3, atol=1e-5)


def test_one_expert_with_room_for_few_tokens():
    mixture = make("midpoint", capacity_factor=0.5, product="slots")
    mixed = mixture(X, rngs=KEY)
    assert mixed.expert.shape == (2, 8)
    assert np.bincount(np.asarray(mixed.expert).reshape(-1) + 1)[1:].max() <= 2
    assert int(mixed.dropped) == np.sum(np.asarray(mixed.expert) < 0) >= 16 - 2 * EXPERTS
    assert not np.any(np.asarray(mixed.y)[np.asarray(mixed.expert) < 0])


def test_the_bias_comes_back_and_moves_the_choice():
    mixture = make("top", bias_rate=0.05)
    mixed = mixture(X)
    assert_close(mixed.router_bias, update_router_bias(jnp.zeros(5), mixed.load.load, rate=0.05))
    assert not np.any(mixture.router_bias[...])
    assert np.array_equal(mixture(X, deterministic=True).router_bias, mixture.router_bias[...])
    assert len(jax.tree.leaves(nnx.state(mixture, RouterBias))) == 1
    mixture.router_bias[...] = jnp.eye(5)[3] * 2
    biased = mixture(X)
    assert np.all(np.asarray(biased.expert) == 3)
    assert_close(
        biased.y.reshape(-1, OUT),
        over_choices(mixture, np.full((16, 1), 3), probabilities(mixture, X)[:, 3:4]),
        rtol=1e-4,
        atol=1e-5,
    )
    assert make("top")(X).router_bias is None
