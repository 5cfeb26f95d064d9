"""Rows of the module ``diagnostics``."""

import jax
import jax.numpy as jnp

from sparse_hyper_jax import diagnostics
from tests.table.columns import Table
from tests.table.examples import eighths
from tests.table.row import Room, Row

ONE = eighths(3, 2)
TWO = eighths(3, 2, seed=1)
IN_NUMBERS = {
    "x64": "a measure of gradients is a float32 scalar, its documentation says",
    "lists": "in a tree of gradients a list is a tree",
}
MEASURED = IN_NUMBERS | {"slopes": "differences of float32 numbers are too coarse"}
KEYS = {"key": "of many keys, batch by batch, which looks to the check like reuse"}


def report(key, exact):
    def estimate(key):
        return exact.astype(jnp.float32) + jax.random.normal(key, exact.shape, jnp.float32)

    keys = jax.random.split(key, 4)
    return tuple(diagnostics.gradient_report(exact, estimate, keys, batch_size=2))


ROWS = [
    Row("gradient_cosine", diagnostics.gradient_cosine, (ONE, TWO), skips=MEASURED),
    Row("norm_ratio", diagnostics.norm_ratio, (ONE, TWO), skips=MEASURED),
    Row("gradient_report", report, (ONE,), keyed=True, exact=None, skips=IN_NUMBERS | KEYS),
]

EXCEPTIONS = {
    "GradientReport": "a type",
    "check_same": "a check of shapes",
}


class TestDiagnostics(Table):
    room = Room(diagnostics, ROWS, EXCEPTIONS)
