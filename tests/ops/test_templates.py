import timeit

import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.ops import Template, make_template, sparse_multiply, stitch
from tests.ops.examples import (
    assert_close,
    hyperlayer,
    hyperlayer_hard,
    make_tuples,
    relax,
    settle,
)

SHAPE = (4, 3, 6)
ROWS = np.array([[cell, cell % 3, 0] for cell in range(4) for _ in range(2)])


def in_order(out_cells=4, per_cell=2):
    rows = [[cell, 0] for cell in range(out_cells) for _ in range(per_cell)]
    return make_template(rows, [1], chunk_size=per_cell)


def test_stitch_keeps_fixed_columns_and_sets_learned_ones():
    points = jnp.arange(8 * 5 * 2).reshape(8, 5, 2)
    rows = ROWS[:, [2, 1, 0]]
    indices = np.asarray(stitch(make_template(rows, [2, 0], chunk_size=1), points))
    assert indices.shape == (40, 3)
    assert (indices[:, 1] == np.repeat(rows[:, 1], 5)).all()
    assert (indices[:, [2, 0]] == np.asarray(points).reshape(40, 2)).all()


@pytest.mark.parametrize("columns", [(2,), (1, 2), (2, 0), (0, 1, 2)])
@pytest.mark.parametrize("chunk_size", [1, 2])
def test_fixed_columns_come_through_unchanged(columns, chunk_size):
    template = make_template(ROWS, columns, chunk_size=chunk_size)
    tuples = make_tuples(8, template.learned_shape(SHAPE))
    fixed = [column for column in range(3) if column not in columns]
    entries = relax(None, tuples, SHAPE, template=template)
    points_each = 2 ** len(columns)
    assert entries.indices.shape == (8 * points_each, 3)
    repeated = np.repeat(ROWS[:, fixed], points_each, axis=0)
    assert (np.asarray(entries.indices)[:, fixed] == repeated).all()
    assert (entries.indices >= 0).all()
    assert (entries.indices < np.asarray(SHAPE)).all()
    hard = settle(tuples, SHAPE, template=template)
    assert (np.asarray(hard.indices)[:, fixed] == ROWS[:, fixed]).all()


def test_learned_columns_relax_like_tuples_of_their_own():
    template = make_template(ROWS, [2], chunk_size=2)
    tuples = make_tuples(8, (6,))
    stitched = relax(None, tuples, SHAPE, template=template)
    alone = relax(None, tuples, (6,), chunk_size=2)
    assert_close(stitched.values, alone.values)
    assert (stitched.indices[:, 2] == alone.indices[:, 0]).all()


def test_value_stays_on_its_own_fixed_cell():
    template = in_order()
    tuples = make_tuples(8, (6,), variance=100.0)
    y = hyperlayer(None, tuples, jnp.ones(6), (4,), template=template)
    assert_close(y, tuples.values.reshape(4, 2).sum(axis=1))


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("features", [(), (3,)])
def test_rows_in_output_order_take_the_path_without_scatter(hard, features):
    template = in_order()
    tuples = make_tuples(8, (6,))
    x = jnp.cos(jnp.arange(6.0 * max(1, len(features) * 3))).reshape(6, *features)
    layer = hyperlayer_hard if hard else lambda *args, **kw: hyperlayer(None, *args, **kw)
    tensor = settle if hard else lambda *args, **kw: relax(None, *args, **kw)
    assert template.groups_by_output((4,))
    entries = tensor(tuples, (4, 6), template=template)
    scattered = sparse_multiply(*entries, x, (4,), row_layout=False)
    assert_close(layer(tuples, x, (4,), template=template), scattered)


@pytest.mark.parametrize(
    ("rows", "columns", "out_shape", "groups"),
    [
        ([[0, 0], [1, 0]], [1], (2,), True),
        ([[1, 0], [0, 0]], [1], (2,), False),
        ([[0, 0], [0, 0]], [1], (2,), False),
        ([[0, 0], [0, 0], [1, 0]], [1], (2,), False),
        ([[0, 0], [1, 0]], [0], (2,), False),
        ([[0, 0], [9, 0]], [1], (2,), False),
        ([[0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0]], [2], (2, 2), True),
        ([[5], [5]], [0], (), True),
    ],
)
def test_rows_are_recognised_as_grouped_by_output(rows, columns, out_shape, groups):
    assert make_template(rows, columns, chunk_size=1).groups_by_output(out_shape) == groups


def test_rows_out_of_order_still_give_the_right_output():
    ordered, tuples = in_order(), make_tuples(8, (6,))
    order = np.array([6, 7, 2, 3, 0, 1, 4, 5])
    shuffled = make_template(ordered.rows[order], [1], chunk_size=2)
    moved = type(tuples)(*(part[order] for part in tuples))
    x = jnp.arange(6.0)
    assert not shuffled.groups_by_output((4,))
    assert_close(
        hyperlayer(None, moved, x, (4,), template=shuffled),
        hyperlayer(None, tuples, x, (4,), template=ordered),
    )


@pytest.mark.parametrize(
    ("rows", "columns", "chunk_size", "message"),
    [
        ([[0, 0], [1, 0]], [1], 2, "different fixed columns within chunk 0"),
        ([[0, 0], [0, 0], [1, 0], [2, 0]], [1], 2, "different fixed columns within chunk 1"),
        ([[0, 0]] * 3, [1], 2, "3 tuples in chunks of 2"),
        ([[0, 0]] * 3, [1], 0, "chunk_size=0"),
        ([0, 0], [1], 1, r"rows of shape \(2,\)"),
        ([[0.5, 0]], [1], 1, "rows of dtype float64"),
        ([[0, 0]], [2], 1, "column=2"),
        ([[0, 0]], [1, 1], 1, r"columns=\(1, 1\)"),
        ([[-1, 0]], [1], 1, "the fixed index -1"),
    ],
)
def test_misuse_is_an_error(rows, columns, chunk_size, message):
    with pytest.raises(ValueError, match=f"found .*{message}"):
        make_template(rows, columns, chunk_size=chunk_size)


def test_rows_cannot_be_changed_afterwards():
    with pytest.raises(ValueError, match="read-only"):
        in_order().rows[0, 0] = 3


def test_learned_columns_are_placeholders():
    rows = [[2, 7], [2, -9]]
    assert make_template(rows, [1], chunk_size=2).rows.tolist() == [[2, 0], [2, 0]]


def test_a_template_made_by_hand_is_the_same():
    made = make_template(ROWS, [2], chunk_size=2)
    by_hand = Template(ROWS.tolist(), np.array([2]), np.int64(2))
    assert made == by_hand
    assert hash(made) == hash(by_hand)
    assert made.rows.dtype == np.int32
    assert made != make_template(ROWS, [2], chunk_size=1)
    assert made != ROWS


def test_the_hash_of_a_million_rows_is_computed_once():
    template = make_template(np.zeros((10**6, 2), int), [1], chunk_size=1)
    first = timeit.timeit(lambda: hash(template), number=1)
    assert min(timeit.repeat(lambda: hash(template), number=1, repeat=5)) < first / 20
