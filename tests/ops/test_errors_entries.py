import jax
import jax.numpy as jnp
import pytest

from sparse_hyper_jax import ops
from sparse_hyper_jax.types import SparseEntries
from tests.ops.examples import assert_names_itself_and_its_cure

X = jnp.ones(3)
INDICES = jnp.zeros((5, 2), jnp.int32)
HUGE = (2**16, 2**16)


def multiply(indices=INDICES, values=None, x=X, out_shape=(4,), **options):
    values = jnp.ones(len(indices)) if values is None else values
    return ops.sparse_multiply(indices, values, x, out_shape, **options)


# The call, then a fragment of each part: what was found, what was expected, what to change.
MISTAKES = {
    "float indices": (
        lambda: multiply(jnp.ones((5, 2))),
        "indices of dtype float32",
        "integers",
        "round means with round_means",
    ),
    "flat indices": (
        lambda: multiply(jnp.zeros(5, jnp.int32)),
        "indices of shape (5,)",
        "one row per entry",
        "reshape indices",
    ),
    "values of another length than indices": (
        lambda: multiply(values=jnp.ones(4)),
        "values of shape (4,)",
        "one value per row of indices",
        "reshape values",
    ),
    "too few columns": (
        lambda: multiply(out_shape=(2, 2, 2)),
        "indices with 2 columns, out_shape (2, 2, 2)",
        "one column per output axis",
        "add the missing columns",
    ),
    "too many columns": (
        lambda: multiply(x=jnp.float32(1)),
        "x of shape ()",
        "one per contracted axis of x",
        "or change out_shape",
    ),
    "too many output cells": (
        lambda: multiply(jnp.zeros((5, 3), jnp.int32), out_shape=HUGE),
        "out_shape (65536, 65536) with 4294967296 cells",
        "fewer than 2**31 cells on one side",
        "split the tensor",
    ),
    "too many input cells": (
        lambda: jax.eval_shape(
            lambda x: multiply(jnp.zeros((5, 3), jnp.int32), x=x),
            jax.ShapeDtypeStruct(HUGE, jnp.float32),
        ),
        "input shape (65536, 65536) with 4294967296 cells",
        "fewer than 2**31 cells",
        "split the tensor",
    ),
    "rows of different lengths": (
        lambda: multiply(row_layout=True),
        "5 entries for 4 output cells in row layout",
        "the same number of entries",
        "pad the rows",
    ),
    "too many dense cells": (
        lambda: ops.to_dense(SparseEntries(INDICES, jnp.ones(5)), HUGE),
        "shape (65536, 65536)",
        "fewer than 2**31 cells",
        "make it smaller",
    ),
    "entries of another rank": (
        lambda: ops.to_bcoo(SparseEntries(INDICES, jnp.ones(5)), (4, 3, 2)),
        "indices of shape (5, 2)",
        "one column per axis of shape",
        "reshape indices",
    ),
    "float entries": (
        lambda: ops.to_dense(SparseEntries(jnp.ones((5, 2)), jnp.ones(5)), (4, 3)),
        "indices of dtype float32",
        "integers",
        "sample_tuples",
    ),
    "logits without an axis": (
        lambda: ops.segment_softmax(jnp.float32(1), jnp.int32(0), 2),
        "an array of shape ()",
        "(n, *features)",
        "add an axis",
    ),
    "segments of another length": (
        lambda: ops.segment_softmax(jnp.ones(5), INDICES[:3, 0], 2),
        "segment_ids of shape (3,)",
        "(5), one segment per entry",
        "reshape segment_ids",
    ),
    "float segments": (
        lambda: ops.segment_normalize(jnp.ones(5), jnp.zeros(5), 2),
        "segment_ids of dtype float32",
        "integers",
        "round means",
    ),
    "segment mask of another length": (
        lambda: ops.segment_normalize(jnp.ones(5), INDICES[:, 0], 2, mask=jnp.ones(4, bool)),
        "mask of shape (4,)",
        "(5), one flag per entry",
        "reshape mask",
    ),
    "no segments": (
        lambda: ops.segment_softmax(jnp.ones(5), INDICES[:, 0], 0),
        "num_segments=0",
        "an int from 1 to",
        "static int as num_segments",
    ),
    "unknown normaliser": (
        lambda: ops.segment_normalize(jnp.ones(5), INDICES[:, 0], 2, method="exp"),
        "method='exp'",
        "'softplus', 'abs', 'relu'",
        "choose method from these",
    ),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
