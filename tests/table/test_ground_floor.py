"""Rows of modules that lie below all rooms."""

from sparse_hyper_jax import largest, precision
from tests.table.columns import Table
from tests.table.examples import distinct, integers
from tests.table.row import Room, Row

X = distinct(3, 4)

FLAGS = "the outputs are flags, and NaN comes before everything"

PRECISION = [Row("at_least_float32", precision.at_least_float32, (X,))]


class TestPrecision(Table):
    room = Room(
        precision,
        PRECISION,
        dict.fromkeys(("wide_dtype", "sum_dtype", "float_dtype"), "of dtypes, not of arrays"),
    )


LARGEST = [
    Row("top_k_mask", lambda x: largest.top_k_mask(x, 2), (X,), exact=None, dropped=FLAGS),
    Row(
        "top_k_mask, for each row",
        largest.top_k_mask,
        (X, integers(0, 2, 4)),
        exact=None,
        dropped=FLAGS,
        skips={"outside": "a budget is no index: it counts as none or all"},
    ),
]


class TestLargest(Table):
    room = Room(
        largest,
        LARGEST,
        {
            "count_array": "a check of numbers",
            "magnitude_order": "the bits of floats, whose order is all they mean",
        },
    )
