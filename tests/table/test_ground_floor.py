"""Rows of modules that lie below all rooms."""

from sparse_hyper_jax import largest, precision
from tests.table.columns import Table
from tests.table.examples import distinct, integers
from tests.table.row import Room, Row

X = distinct(3, 4)

PRECISION = [Row("at_least_float32", precision.at_least_float32, (X,))]


class TestPrecision(Table):
    room = Room(precision, PRECISION, {"wide_dtype": "of dtypes, not of arrays"})


LARGEST = [
    Row("top_k_mask", lambda x: largest.top_k_mask(x, 2), (X,), exact=None),
    Row(
        "top_k_mask, for each row",
        largest.top_k_mask,
        (X, integers(0, 2, 4)),
        exact=None,
        outside={1: (5,)},
    ),
    Row("magnitude_order", lambda x: largest.magnitude_order(x)[0], (X,), exact=None),
]


class TestLargest(Table):
    room = Room(largest, LARGEST, {})
