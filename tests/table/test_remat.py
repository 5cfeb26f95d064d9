"""Rows of the room ``remat``."""

import jax
import jax.numpy as jnp

from sparse_hyper_jax import remat
from sparse_hyper_jax.precision import at_least_float32
from tests.table.columns import Table
from tests.table.examples import eighths
from tests.table.row import Room, Row

X, KERNEL = eighths(3, 4, seed=1), eighths(4, 4, seed=2)
IN_A_TREE = {"lists": "in a tree of arguments a list is a tree"}


def layers(x, kernel):
    x, kernel = at_least_float32(x), at_least_float32(kernel)
    for _ in range(3):
        x = x + 0.25 * jnp.tanh(x @ kernel)
    return x, jnp.sum(jnp.sin(x))


def dropout(key, x, kernel):
    x, kernel = at_least_float32(x), at_least_float32(kernel)
    for one in jax.random.split(key, 2):
        noise = jax.random.uniform(one, x.shape, jnp.float32).astype(x.dtype)
        x = jnp.sin(x @ kernel) * noise
    return x


def lean(fn):
    """Cut as finely as estimates tell: no compiling, and more than one segment."""
    return remat.budgeted_checkpoint(fn, 1.0, objective="memory", measure=False)


ROWS = [
    Row("budgeted_checkpoint", lean(layers), (X, KERNEL), skips=IN_A_TREE),
    Row(
        "budgeted_checkpoint, dropout",
        lean(dropout),
        (X, KERNEL),
        keyed=True,
        skips=IN_A_TREE,
    ),
]

EXCEPTIONS = {
    "Budgeted": "a type: what budgeted_checkpoint returns",
    "Measured": "a type",
    "Plan": "a type",
    "measure": "what a compiler says of shapes",
    "plan": "Python numbers that depend on shapes alone",
}


class TestRemat(Table):
    room = Room(remat, ROWS, EXCEPTIONS)
