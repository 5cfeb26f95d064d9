"""The columns of the table: what is asked of every public function.

A column is a function of a row and its results that raises where the row does not pass.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.table.examples import BATCH, KINDS
from tests.table.programs import (
    STEP,
    Failed,
    Results,
    batch_of,
    cast,
    directions,
    dot,
    gradient_of,
    is_float,
    results_of,
    tangent_of,
    with_key,
)
from tests.table.row import Room, Row


def got(parts: dict[str, Any], *names: str):
    """The parts, or the error of the first that failed."""
    found = [parts[name] for name in names]
    for part in found:
        if isinstance(part, Failed):
            raise part.error
    return found[0] if len(found) == 1 else found


def close(actual, expected, rtol=1e-4, atol=1e-5):
    def compare(one, two):
        np.testing.assert_allclose(
            np.asarray(one, np.float64), np.asarray(two, np.float64), rtol=rtol, atol=atol
        )

    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(compare, actual, expected)


def assert_finite(tree):
    for leaf in jax.tree.leaves(tree):
        assert np.isfinite(np.asarray(leaf, np.float64)).all()


def float_leaves(tree):
    return list(filter(is_float, jax.tree.leaves(tree)))


def dtypes(tree):
    return jax.tree.map(lambda leaf: leaf.dtype, tree)


def same_inside_and_outside_of_jit(row: Row, results: Results):
    value, concrete = got(results.single, "value", "concrete")
    assert_finite(value)
    assert dtypes(value) == dtypes(concrete)
    close(value, concrete)


def lists_and_numpy_scalars(row: Row, results: Results):
    value, lists = got(results.single, "value", "lists")
    assert dtypes(value) == dtypes(lists)
    close(lists, value)


def used_up_by_donation(row: Row, results: Results):
    twice = got(results.single, "twice")
    assert results.deleted
    close(twice, [2 * leaf for leaf in row.arguments])


def gradients_are_finite(row: Row, results: Results):
    assert_finite(got(results.single, "value", "gradient"))


def forward_mode_agrees_with_reverse_mode(row: Row, results: Results):
    function = with_key(row, jax.random.key(0))
    jax.eval_shape(partial(tangent_of, row, function), row.arguments)
    slopes, (total, tangent) = got(results.single, "gradient", "tangent")
    assert_finite(total)
    close(tangent, dot(slopes, directions(row)))


def second_derivatives_agree_in_both_orders_of_modes(row: Row, results: Results):
    forward, (reverse, _) = got(results.single, "forward", "reverse")
    assert_finite((forward, reverse))
    close(forward[1][1], reverse)


def checkpointing_changes_nothing(row: Row, results: Results):
    value, saved = got(results.single, "value", "saved")
    if row.exact is None:
        close(saved, value)
    else:
        close(saved, (value, got(results.single, "gradient")))


def vmap_gives_a_batch_of_the_same(row: Row, results: Results):
    """By its types; its numbers are those of ``nested`` and of the sharded columns."""
    function = jax.vmap(with_key(row, jax.random.key(0)))
    batch = [leaf.reshape(BATCH, *leaf.shape[2:]) for leaf in batch_of(row)]
    for one, many in zip(
        jax.tree.leaves(got(results.single, "value")),
        jax.tree.leaves(jax.eval_shape(function, *batch)),
        strict=True,
    ):
        assert (BATCH, *one.shape) == many.shape
        assert one.dtype == many.dtype


def vmap_of_vmap_equals_a_loop(row: Row, results: Results):
    nested = got(results.nested, "nested")
    for at, alone in zip(np.ndindex(2, 4), results.alone, strict=True):
        close(jax.tree.map(lambda leaf, at=at: leaf[at], nested), got(alone, "value"))


def double_precision_stays_double(row: Row, results: Results):
    (_, outputs), _ = got(results.in_double(), "gradient")
    assert {leaf.dtype for leaf in float_leaves(outputs)} <= {np.dtype(np.float64)}
    if not row.redraws:
        close(outputs, got(results.single, "value"))


def derivatives_are_those_of_the_values(row: Row, results: Results):
    (low, _), low_slopes = got(results.in_double(-STEP), "gradient")
    (high, _), high_slopes = got(results.in_double(STEP), "gradient")
    _, slopes = got(results.in_double(), "gradient")
    close((high - low) / (2 * STEP), dot(slopes, directions(row)), rtol=1e-5, atol=1e-6)
    if "second" not in row.skips and not row.redraws:
        steps = zip(low_slopes, high_slopes, strict=True)
        curvature = tuple((two - one) / (2 * STEP) for one, two in steps)
        close(curvature, got(results.single, "curvature"), rtol=1e-3, atol=1e-3)


def half_precision(row: Row, results: Results, dtype: str):
    value, outputs = got(results.single, "value", dtype)
    if row.exact is not None and dtype == "bfloat16":
        (_, outputs), slopes = outputs
        assert {leaf.dtype for leaf in slopes} == {jnp.dtype(dtype)}
        close(slopes, got(results.single, "gradient"), rtol=0.05, atol=0.05)
    expected = np.dtype(np.float32) if row.wide else jnp.dtype(dtype)
    assert {leaf.dtype for leaf in float_leaves(outputs)} <= {expected}
    tolerance = 1e-4 if row.wide else float(jnp.finfo(dtype).eps)
    close(outputs, value, rtol=tolerance, atol=tolerance)


def strict_promotion_of_dtypes_and_ranks(row: Row, results: Results):
    function = with_key(row, jax.random.key(0))
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        jax.eval_shape(function, *cast(row, row.arguments, jnp.bfloat16))
        if row.exact is None:
            jax.eval_shape(function, *row.arguments)
        else:
            jax.eval_shape(gradient_of(row, function), *row.arguments)


def sharded_over(row: Row, results: Results, kind: str):
    parts = ("value",) if row.exact is None else ("value", "gradient")
    sharded = got(results.sharded(kind), *parts)
    if row.shared is not None:
        close(sharded, got(results.single, *parts))
        return
    for n, alone in enumerate(results.alone):
        close(jax.tree.map(lambda leaf, n=n: leaf[n], sharded), got(alone, *parts))


def nan_comes_out(row: Row, results: Results):
    """From every argument, unless the row says why not; then from none."""

    def comes_out(number):
        outputs = float_leaves(got(results.changed(number, np.nan), "value"))
        return any(np.isnan(np.asarray(leaf, np.float32)).any() for leaf in outputs)

    seen = {number: comes_out(number) for number in row.floats}
    assert seen == {number: row.why_dropped(number) is None for number in row.floats}, seen


def indices_outside_count_for_nothing(row: Row, results: Results):
    """All numbers outside are treated alike, which neither wrapping nor clipping does."""
    assert set(row.integers) == set(row.outside)
    for number, lengths in row.outside.items():
        entries = (-1, lengths[0], -1000, lengths[0] + 1000)
        seen = [got(results.changed(number, entry), "value") for entry in entries]
        assert_finite(seen)
        for other in seen[1:]:
            close(other, seen[0])


def integers_beyond_32_bits_do_not_wrap(row: Row, results: Results):
    """They are refused, or count as others do that are far outside."""
    function = with_key(row, jax.random.key(0))
    for number in row.whole:
        first = int(row.arguments[number].reshape(-1)[0])
        for entry in (2**32 + first, first - 2**40):
            wide = row.arguments[number].astype(np.int64)
            wide.reshape(-1)[0] = entry
            far = np.clip(wide, -(2**30), 2**30).astype(np.int32)
            given = [
                [one if n == number else leaf for n, leaf in enumerate(row.arguments)]
                for one in (wide, far)
            ]
            try:
                outputs = function(*given[0])
            except ValueError as error:
                refusal = str(error)
            else:
                refusal = None
                close(outputs, function(*given[1]))
            assert refusal is None or "integers that fit into int32" in refusal


def key_is_used_once_and_counts(row: Row, results: Results):
    """A backward pass may be the only one that draws, so it is part of what is tried."""

    def once(key):
        function = with_key(row, key)
        function = function if row.exact is None else gradient_of(row, function)
        return function(*row.arguments)

    with jax.debug_key_reuse(True):
        key = jax.random.key(0)
        jax.eval_shape(once, key)
        with nullcontext() if row.folds else pytest.raises(jax.errors.KeyReuseError):
            jax.eval_shape(lambda key: (once(key), jax.random.split(key)), key)
    parts = ("value",) if row.exact is None else ("value", "gradient")
    first, *others = (
        jax.tree.leaves(got(results.run(row.arguments, key=number), *parts)) for number in range(6)
    )
    pairs = (pair for other in others for pair in zip(first, other, strict=True))
    assert any((one != two).any() for one, two in pairs)


def outside_of_jit(row: Row, results: Results):
    """Operation by operation: dozens of programs for a row, so with ``pytest --full`` alone."""
    outputs = with_key(row, jax.random.key(0))(*map(jnp.asarray, row.arguments))
    close(jax.device_get(outputs), got(results.single, "value"))


COLUMNS: dict[str, Callable[[Row, Results], None]] = {
    "jit": same_inside_and_outside_of_jit,
    "vmap": vmap_gives_a_batch_of_the_same,
    "nested": vmap_of_vmap_equals_a_loop,
    "grad": gradients_are_finite,
    "jvp": forward_mode_agrees_with_reverse_mode,
    "second": second_derivatives_agree_in_both_orders_of_modes,
    "slopes": derivatives_are_those_of_the_values,
    "checkpoint": checkpointing_changes_nothing,
    "donation": used_up_by_donation,
    "x64": double_precision_stays_double,
    "float16": partial(half_precision, dtype="float16"),
    "bfloat16": partial(half_precision, dtype="bfloat16"),
    "strict": strict_promotion_of_dtypes_and_ranks,
    "Explicit": partial(sharded_over, kind="Explicit"),
    "Auto": partial(sharded_over, kind="Auto"),
    "lists": lists_and_numpy_scalars,
    "nan": nan_comes_out,
    "outside": indices_outside_count_for_nothing,
    "int64": integers_beyond_32_bits_do_not_wrap,
    "key": key_is_used_once_and_counts,
}

# The program that a column asks the results for beside the first one, to compare the two;
# "strict" compiles nothing.
PROGRAMS = {
    "nested": "nested",
    "x64": "double",
    "slopes": "double",
    "Explicit": "Explicit",
    "Auto": "Auto",
    "strict": "none",
}

ONLY_WITH_FULL = {"eager": outside_of_jit}


def applies(row: Row, column: str) -> bool:
    """Whether a column says something about a row."""
    if column in row.skips:
        return False
    with_gradient = row.exact is not None
    return {
        "grad": with_gradient,
        "jvp": with_gradient,
        "second": with_gradient,
        "slopes": bool(row.exact),
        "nan": bool(row.floats),
        "outside": bool(row.integers),
        "int64": bool(row.whole),
        "key": row.keyed,
    }.get(column, True)


class Table:
    """The tests of a room: a test class of its file inherits them and sets ``room``."""

    room: Room

    def test_column(self, row: Row, column: str):
        check = (COLUMNS | ONLY_WITH_FULL)[column]
        kind = self.room.kind_of_fault(row, column)
        if kind is None:
            check(row, results_of(row))
            return
        try:
            check(row, results_of(row))
        except Exception:
            return
        pytest.fail(f"{row.name} passes {column}: take away its mark {kind}")

    def test_every_public_name_has_a_row_or_a_reason(self):
        with_row = {name for row in self.room.rows for name in self.room.names(row)}
        excepted = set(self.room.exceptions)
        assert with_row | excepted == self.room.public
        assert not with_row & excepted

    def test_rows_are_about_public_names_and_called_differently(self):
        rows = self.room.rows
        assert len({row.name for row in rows}) == len(rows)
        assert [row.name for row in rows if not self.room.names(row)] == []

    def test_marks_are_of_columns_that_apply(self):
        rows = {row.name: row for row in self.room.rows}
        assert set(self.room.marks) <= KINDS
        for marked in self.room.marks.values():
            for column, names in marked.items():
                assert [name for name in names if not applies(rows[name], column)] == []
        assert [row.name for row in self.room.rows if not set(row.skips) <= set(COLUMNS)] == []
