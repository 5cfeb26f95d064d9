"""What learning one task after the other refuses."""

import jax.numpy as jnp
import optax
import pytest

from sparse_hyper_jax.continual import (
    add_task,
    empty_network,
    packnet,
    redraw_free,
    share_used,
    task_weights,
)
from tests.ops.examples import assert_names_itself_and_its_cure


def never(*arguments):
    raise AssertionError("trained before the options were checked")


TWO = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
WRONG = {
    "one row": (
        lambda: redraw_free(empty_network(TWO), {"kernel": jnp.ones((1, 3)), "bias": jnp.ones(3)}),
        "fresh parameters with kernel of shape (1, 3)",
        "shape (2, 3)",
        "same initialiser",
    ),
    "another tree": (
        lambda: redraw_free(empty_network(TWO), {"kernel": jnp.ones((2, 3))}),
        "fresh parameters of structure {'kernel': *}",
        "'bias': *",
        "make both",
    ),
    "another bias": (
        lambda: add_task(
            empty_network(TWO), {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(1)}, ONES
        ),
        "parameters with bias of shape (1,)",
        "shape (3,)",
        "same initialiser",
    ),
    "a mask too many": (
        lambda: add_task(empty_network(TWO), TWO, ONES | {"bias": jnp.ones(3, bool)}),
        "masks for 2 leaves of a network that shares 1",
        "the shared leaves and no others",
        "the network's select",
    ),
    "a flag in words": (
        lambda: add_task(empty_network(TWO), TWO, ONES, freeze="no"),
        "freeze='no'",
        "True or False",
        "change freeze",
    ),
    "no network": (
        lambda: share_used(TWO),
        "network={",
        "an instance of PackedNetwork",
        "change network",
    ),
    "half a task": (
        lambda: task_weights(empty_network(TWO), 0.5),
        "number=0.5",
        "an int",
        "pass a static int",
    ),
    "no function": (
        lambda: packnet(empty_network(TWO), TWO, None, keep=0.5),
        "train=None",
        "a function",
        "pass a function as train",
    ),
    "a percentage": (
        lambda: packnet(empty_network(TWO), TWO, never, keep=50),
        "keep=50",
        "from 0 to 1",
        "change keep",
    ),
    "no reparametrisation": (
        lambda: packnet(empty_network(TWO), TWO, never, keep=0.5, reparam=2.0),
        "reparam=2.0",
        "an instance of Reparametrization",
        "change reparam",
    ),
}
ONES = {"kernel": jnp.ones((2, 3), bool), "bias": optax.MaskedNode()}


@pytest.mark.parametrize(("call", "found", "expected", "change"), WRONG.values(), ids=WRONG)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
