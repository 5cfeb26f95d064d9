"""Numbers outside of their shape are padding, without value or slope; in debug mode an error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

from sparse_hyper_jax import ops
from sparse_hyper_jax.types import ContinuousTuples
from tests.ops.examples import assert_close, make_tuples

# The second and later entries are outside, in every way.
INDICES = [[1, 2], [-1, 0], [0, 3], [2, -1], [2**31 - 1, 0], [0, -(2**31)]]
VALUES = np.array([2.0, np.nan, 3.0, 4.0, 5.0, 6.0], np.float32)
X = np.array([1.0, 2.0, 4.0], np.float32)
TUPLES = make_tuples(3, (3, 3))
MASK = [True] * 6
NEAR = {"shape": (3, 3), "locality": ops.Locality(3, (6,), None)}


@pytest.mark.parametrize("layout", [{}, {"row_layout": True}])
def test_entries_outside_do_not_multiply(layout):
    def multiply(values):
        y = ops.sparse_multiply(INDICES, values, X, (3,), **layout)
        return y.sum(), y

    slopes, y = jax.grad(multiply, has_aux=True)(VALUES)
    row = 0 if layout else 1
    assert_close(y, 8.0 * np.eye(3)[row])
    assert_close(slopes, [4.0, 0, 0, 0, 0, 0])


def test_sorted_entries_may_be_filled_up_with_the_number_of_rows():
    y = ops.sparse_multiply([[0, 1], [2, 0], [3, 0]], [1, 2, 9], X, (3,), indices_are_sorted=True)
    assert_close(y, [2.0, 0.0, 2.0])


@pytest.mark.parametrize("write", [ops.to_dense, lambda *args: ops.to_bcoo(*args).todense()])
def test_entries_outside_are_not_written(write):
    dense, slopes = jax.value_and_grad(lambda values: write((INDICES, values), (3, 3))[1, 2])(
        VALUES
    )
    assert dense == 2
    assert_close(slopes, [1.0, 0, 0, 0, 0, 0])
    assert_close(write((INDICES, VALUES), (3, 3)).sum(), 2.0)


def test_bcoo_has_its_own_padding():
    matrix = ops.to_bcoo((INDICES, VALUES), (3, 3))
    assert (matrix.indices[1:] == 3).all()
    assert_close(ops.from_bcoo(matrix).values, [2.0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("shape", [(2, 3), (2**16, 2**16), (1, 2**31 - 1)])
def test_points_outside_are_never_the_first(shape):
    # (-1, last + 1) has the flat number of (0, 0), and (0, last + 1) that of (1, 0).
    outside = [[-1, shape[1]], [0, shape[1]], [shape[0], -shape[1]]]
    points = np.array([*outside, [0, 0], [0, 0], *outside], np.int64).astype(np.int32)
    assert ops.first_occurrence(points, shape).tolist() == [False] * 3 + [True] + [False] * 4


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint32])
def test_indices_of_any_width(dtype):
    points = np.array([[3], [200], [3]]).astype(dtype)
    expected = [True, dtype != np.int8, False]
    assert ops.first_occurrence(points, (201,)).tolist() == expected
    assert ops.to_dense((points, np.ones(3)), (201,)).sum() == sum(expected) + 1


def test_points_outside_take_no_share():
    points = np.array([[0, 0], [1, 2], [-1, 0], [2, 2], [0, -5], [1, 1]])
    inside = (points >= 0).all(1)
    kept = ops.mix_values(points[inside], MASK[:4], *TUPLES)
    for mixed in (
        ops.mix_values(points, MASK, *TUPLES),
        ops.mix_nearby(points, MASK, *TUPLES, **NEAR).values,
        ops.proportions(points, MASK, *TUPLES[:2]) @ TUPLES.values,
    ):
        assert_close(mixed[inside], kept)
        assert (mixed[~inside] == 0).all()


def test_points_beyond_their_period_take_no_share():
    points, period = np.array([[0, 0], [1, 2], [0, 3], [3, 0]]), (3, 3)
    mixed = ops.mix_values(points, MASK[:4], *TUPLES, period=period)
    assert_close(mixed[:2], ops.mix_values(points[:2], MASK[:2], *TUPLES, period=period))
    assert (mixed[2:] == 0).all()
    logs = ops.log_densities(points, *TUPLES[:2], period=period)
    assert jnp.isneginf(logs[2:]).all()
    assert jnp.isfinite(logs[:2]).all()


def test_where_no_point_is_kept_nobody_receives_anything():
    def mixed(values):
        return ops.mix_values(INDICES[:2], [False, True], *TUPLES[:2], values).sum()

    value, slopes = jax.value_and_grad(mixed)(TUPLES.values)
    assert value == 0
    assert (slopes == 0).all()
    assert (ops.proportions(INDICES[:2], [False, True], *TUPLES[:2]) == 0).all()


def relocate(points):
    return ops.relocate(TUPLES, (points, VALUES), VALUES, (3, 3), limit=1, debug=True)


CHECKED = {
    "sparse_multiply": lambda points: ops.sparse_multiply(points, VALUES, X, (3,), debug=True),
    "to_dense": lambda points: ops.to_dense((points, VALUES), (3, 3), debug=True),
    "to_bcoo": lambda points: ops.to_bcoo((points, VALUES), (3, 3), debug=True).indices,
    "first_occurrence": lambda points: ops.first_occurrence(points, (3, 3), debug=True),
    "log_densities": lambda points: ops.log_densities(points, *TUPLES[:2], debug=True),
    "proportions": lambda points: ops.proportions(points, MASK, *TUPLES[:2], debug=True),
    "mix_values": lambda points: ops.mix_values(points, MASK, *TUPLES, debug=True),
    "mix_nearby": lambda points: ops.mix_nearby(points, MASK, *TUPLES, debug=True, **NEAR).values,
    "relocate": relocate,
    "segment_softmax": lambda points: ops.segment_softmax(VALUES, points[:, 0], 3, debug=True),
    "segment_normalize": lambda points: ops.segment_normalize(VALUES, points[:, 0], 3, debug=True),
}


@pytest.mark.parametrize("call", CHECKED.values(), ids=CHECKED)
def test_debug_tells_of_numbers_outside(call):
    checked = jax.jit(checkify.checkify(call))
    bad, good = np.array(INDICES, np.int32), np.array([[1, 2]] * 6, np.int32)
    with pytest.raises(checkify.JaxRuntimeError, match="found indices from"):
        checked(bad)[0].throw()
    checked(good)[0].throw()


def test_debug_tells_of_active_tuples_outside():
    @jax.jit
    @checkify.checkify
    def checked(start):
        return ops.relax(None, ContinuousTuples(*TUPLES), (3, 3), active=(start, 2), debug=True)

    checked(1)[0].throw()
    with pytest.raises(checkify.JaxRuntimeError, match="found active tuples from 2 on"):
        checked(2)[0].throw()
