"""What sparse training refuses, and what it says."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_hyper_jax.pruning import (
    SET,
    Prune,
    RigL,
    TopKAST,
    periodic,
    sparse_training,
)
from sparse_hyper_jax.reparam import powerprop, scale_by_power_jacobian
from tests.ops.examples import assert_names_itself_and_its_cure
from tests.pruning.examples import (
    KEY,
    PARAMS,
)


def start(**options):
    options = {"density": 0.3, **options}
    return sparse_training(optax.sgd(0.1), options.pop("method", Prune()), **options)


def without_params():
    optimizer = start()
    optimizer.update(PARAMS, optimizer.init(PARAMS))


def regrow_from_zero(make):
    return lambda: start(method=make(500), key=KEY, reparam=powerprop(2.0))


MISTAKES = {
    "rigl without a key": (lambda: start(method=RigL(500)), "DropAndGrow without", "a key", "key="),
    "set without a key": (
        lambda: start(method=SET(500)),
        "without a key",
        "a key",
        "jax.random.key",
    ),
    "chance without a key": (
        lambda: start(method=Prune(periodic(1), score="random")),
        "Prune without a key",
        "it draws random numbers",
        "pass key=",
    ),
    "rigl from zero": (regrow_from_zero(RigL), "grown_size=0.0", "more than 0", "grown_size=0.5"),
    "set from zero": (
        regrow_from_zero(SET),
        "with a reparametrisation",
        "for ever",
        "grown_size=0.5",
    ),
    "no density": (
        lambda: sparse_training(optax.sgd(0.1), Prune()),
        "Prune without a density",
        "the share to keep",
        "pass density=0.1",
    ),
    "no params": (without_params, "update called without params", "the parameters", "update("),
    "a percentage": (lambda: start(density=30).init(PARAMS), "density=30", "from 0 to 1", "pass 1"),
    "no kernel": (lambda: start().init({"b": np.ones(3)}), "leaf among b", "at least", "select="),
}


def update_with(gradient, **options):
    optimizer = start(**options)
    params = {"kernel": jnp.ones((2, 4)), "bias": jnp.ones(4)}
    return lambda: jax.eval_shape(optimizer.update, gradient, optimizer.init(params), params)


def with_slope(place, **options):
    """The old way: a Jacobian in the optimizer."""
    links = [scale_by_power_jacobian(2.0), optax.sgd(0.1)]
    inner = optax.chain(*links[::place])
    return lambda: sparse_training(inner, Prune(), density=0.3, **options).init(PARAMS)


TWICE = "1 transformations in inner that multiply with the Jacobian"
MISTAKES |= {
    "swapped": (
        lambda: sparse_training(Prune(), optax.sgd(0.1), density=0.3),
        "inner=Prune(",
        "an instance of GradientTransformation",
        "change inner",
    ),
    "a class": (
        lambda: start(method=TopKAST),
        "method=<class",
        "an instance of Method",
        "write TopKAST(...)",
    ),
    "late percentage": (lambda: start(density=50), "density=50", "from 0 to 1", "1 - sparsity"),
    "a name": (lambda: start(select="kernel"), "select='kernel'", "a function", "pass select="),
    "a share": (lambda: start(distribution=0.5), "distribution=0.5", "a function", "erk"),
    "a number": (lambda: start(reparam=2.0), "reparam=2.0", "Reparametrization", "change reparam"),
    "a seed": (lambda: start(key=3), "key=3", "one random key", "jax.random.key(seed)"),
    "a pattern": (lambda: Prune(pattern="2:4"), "pattern='2:4'", "a pattern", "NofM"),
    "a period": (lambda: Prune(100), "schedule=100", "an instance of Schedule", "change schedule"),
    "a flag": (
        lambda: Prune(straight_through="no"),
        "straight_through='no'",
        "True or False",
        "change straight_through",
    ),
    "another bias": (
        update_with({"kernel": jnp.ones((2, 4)), "bias": jnp.ones((4, 1))}),
        "a gradient of shape (4, 1) for bias of shape (4,)",
        "the same shape",
        "masked weights",
    ),
    "another kernel": (
        update_with({"kernel": jnp.ones((4, 2)), "bias": jnp.ones(4)}),
        "a gradient of shape (4, 2) for kernel",
        "the same shape",
        "masked weights",
    ),
    "no bias": (
        update_with({"kernel": jnp.ones((2, 4))}),
        "a gradient of structure {'kernel': *}",
        "'bias': *",
        "make both",
    ),
    "slope without reparam": (with_slope(1), TWICE, "none", "take it out of inner"),
    "slope behind, without reparam": (with_slope(-1), TWICE, "none", "reparam=powerprop(alpha)"),
    "slope twice": (with_slope(1, reparam=powerprop(2.0)), TWICE, "none", "take it out of inner"),
    "reparam twice": (
        lambda: sparse_training(
            powerprop(2.0).optimizer(optax.sgd(0.1)), Prune(), density=0.3, reparam=powerprop(2.0)
        ).init(PARAMS),
        TWICE,
        "none",
        "take it out of inner",
    ),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)


def test_growing_needs_weights_of_single_entries():
    grouped = powerprop(2.0, axes=(0,))
    assert_names_itself_and_its_cure(
        lambda: sparse_training(
            optax.sgd(0.1),
            RigL(500, grown_size=0.5),
            density=0.5,
            reparam=grouped,
            key=jax.random.key(0),
        ),
        "reparametrisation of groups",
        "single entries",
        "without axes",
    )
