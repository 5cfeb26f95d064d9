"""Rows of the module ``diagnostics``."""

import jax
import numpy as np

from sparse_hyper_jax import diagnostics
from sparse_hyper_jax.precision import at_least_float32
from tests.table.columns import Table
from tests.table.examples import eighths
from tests.table.row import Room, Row

ONE = eighths(3, 2)
TWO = eighths(3, 2, seed=1)
LISTS = {"lists": "in a tree of gradients a list is a tree"}
KEYS = {"key": "of many keys, batch by batch, which looks to the check like reuse"}


def report(key, exact):
    def estimate(key):
        wide = at_least_float32(exact)
        # The same numbers in every precision.
        return wide + jax.random.normal(key, wide.shape, np.float32).astype(wide.dtype)

    keys = jax.random.split(key, 4)
    return tuple(diagnostics.gradient_report(exact, estimate, keys, batch_size=2))


ROWS = [
    Row("gradient_cosine", diagnostics.gradient_cosine, (ONE, TWO)),
    Row("norm_ratio", diagnostics.norm_ratio, (ONE, TWO)),
    Row("gradient_report", report, (ONE,), keyed=True, exact=None, skips=LISTS | KEYS),
]

EXCEPTIONS = {
    "GradientReport": "a type",
    "check_same": "a check of shapes",
}

MARKS = {}


class TestDiagnostics(Table):
    room = Room(diagnostics, ROWS, EXCEPTIONS, MARKS)
