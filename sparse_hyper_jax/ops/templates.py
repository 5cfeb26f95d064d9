"""Templates: index tuples of which some columns are fixed and the others learned."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_int32, check_instance


@jax.tree_util.register_static
@dataclass(frozen=True, eq=False)
class Template:
    """Fixed columns of ``k`` index tuples; a static fact, see :func:`make_template`.

    Attributes:
        rows: int32 ``(k, R)`` numpy array; its learned columns are placeholders.
        columns: the learned columns, in the order of the means' axes.
        chunk_size: tuples per context; the fixed columns are equal within a chunk.

    Raises:
        ValueError: as :func:`make_template`.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> template = ops.make_template([[0, 0], [0, 0], [1, 0], [1, 0]], (1,), chunk_size=2)
        >>> template.columns, template.chunk_size, template.learned_shape((2, 5))
        ((1,), 2, (5,))
    """

    rows: np.ndarray
    columns: tuple[int, ...]
    chunk_size: int

    def __post_init__(self):
        rows = _as_rows(self.rows)
        columns = _as_columns(self.columns, rows.shape[1])
        chunk_size = check_chunks(len(rows), self.chunk_size)
        rows[:, list(columns)] = 0
        _check_fixed_columns(rows, chunk_size)
        rows = rows.astype(np.int32)
        rows.setflags(write=False)
        for name, value in (("rows", rows), ("columns", columns), ("chunk_size", chunk_size)):
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        # By content, so that equal templates share one compiled program.
        return self is other or (
            isinstance(other, Template)
            and (self.columns, self.chunk_size) == (other.columns, other.chunk_size)
            and np.array_equal(self.rows, other.rows)
        )

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        # Of a million rows, and asked for at every call of what takes the template.
        return hash((self.rows.shape, self.rows.tobytes(), self.columns, self.chunk_size))

    def learned_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Give the lengths of the learned axes of a tensor of ``shape``."""
        return tuple(shape[column] for column in self.columns)

    def groups_by_output(self, out_shape: Sequence[int]) -> bool:
        """Tell whether the rows go through the output cells in order, the same number for each.

        Then the multiply is a gather and a reshaped sum (``row_layout``).
        """
        rank = len(out_shape)
        cells = int(np.prod(out_shape, dtype=np.int64))
        fixed = self.rows[:, :rank]
        if any(column < rank for column in self.columns) or len(self.rows) % cells:
            return False
        if (fixed >= np.asarray(out_shape, int)).any():
            return False
        flat = np.ravel_multi_index(tuple(fixed.T), tuple(out_shape)) if rank else 0
        return bool(np.all(flat == np.repeat(np.arange(cells), len(self.rows) // cells)))


def make_template(
    rows: np.ndarray | Sequence[Sequence[int]], columns: Sequence[int], *, chunk_size: int
) -> Template:
    """Make a template after checking that its chunks make sense.

    Tuples of one chunk share their points, so value flows between them: were their fixed columns to
    differ, value would land on a fixed cell that is not theirs.

    Args:
        rows: ints ``(k, R)``; entries of learned columns are ignored.
        columns: distinct numbers of the learned columns.
        chunk_size: tuples per context; divides ``k``.

    Returns:
        the template.

    Raises:
        ValueError: wrong rank, unknown or repeated columns, negative fixed indices, a chunk size
            that does not divide ``k``, or a chunk whose fixed columns differ.

    Reference: Bloem 2018, arXiv 1810.09184.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> rows = [[0, 0], [0, 0], [1, 0], [1, 0]]  # two tuples per output; column 1 is learned
        >>> template = ops.make_template(rows, columns=(1,), chunk_size=2)
        >>> means = jnp.array([[4.0], [2.0], [1.0], [3.0]])
        >>> tuples = ops.ContinuousTuples(means, jnp.ones((4, 1)), jnp.ones(4))
        >>> ops.settle(tuples, (2, 5), template=template).indices.tolist()
        [[0, 4], [0, 2], [1, 1], [1, 3]]
    """
    return Template(rows, columns, chunk_size)  # type: ignore[arg-type]


def stitch(template: Template, points: jax.Array) -> jax.Array:
    """Put points into the learned columns of their tuples' template rows.

    Args:
        template: ``k`` rows of rank ``R`` with ``r`` learned columns.
        points: int ``(k, q, r)``. They are written as they are: what reads the tuples knows the
            shape, and drops those outside.

    Returns:
        int32 ``(k * q, R)``, tuple by tuple.

    Raises:
        ValueError: shapes that do not agree.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> template = ops.make_template([[0, 0], [1, 0]], columns=(1,), chunk_size=1)
        >>> points = jnp.array([[[7], [8]], [[3], [4]]])
        >>> ops.stitch(template, points).tolist()
        [[0, 7], [0, 8], [1, 3], [1, 4]]
    """
    meaning = "(k, q, r): k rows and r learned columns, as in the template"
    check_instance("template", template, Template)
    size = (len(template.rows), None, len(template.columns))
    points = as_int32("points", points)
    checks.check_shape("points", points, size, meaning)
    return with_template(points, template)


def with_template(points: jax.Array, template: Template | None) -> jax.Array:
    """Do what :func:`stitch` says, without checks; without a template the points are all there is.

    Args:
        points: int32 ``(k, q, r)``.
        template: fixed columns.

    Returns:
        int32 ``(k * q, R)``, tuple by tuple.
    """
    if template is None:
        return jax.lax.collapse(points, 0, 2)
    count, columns = len(template.rows), np.asarray(template.columns, int)
    # Repeated on the device: as a constant of the program it would be q times as large.
    rows = jnp.asarray(template.rows, jnp.int32)[:, None]
    rows = jnp.broadcast_to(rows, (count, points.shape[1], rows.shape[2]))
    return jax.lax.collapse(rows.at[..., columns].set(points, unique_indices=True), 0, 2)


def check_chunks(num_tuples: int, chunk_size: int) -> int:
    """Return the chunk size after checking that so many tuples fall into whole chunks.

    Raises:
        ValueError: the chunk size does not divide the number of tuples.
    """
    chunk_size = checks.check_count("chunk_size", chunk_size, least=1)
    checks.require(
        num_tuples % chunk_size == 0,
        f"{num_tuples} tuples in chunks of {chunk_size}",
        "a chunk size that divides the number of tuples",
        "change the number of tuples or chunk_size",
    )
    return chunk_size


def _as_rows(rows: Any) -> np.ndarray:
    """Copy rows into an array that can be written to."""
    try:
        array = np.array(rows)
    except (TypeError, ValueError, jax.errors.JAXTypeError):
        array = None
    checks.require(
        array is not None and np.issubdtype(array.dtype, np.integer),
        f"rows={rows!r:.80}" if array is None else f"rows of dtype {array.dtype}",
        "integers known while tracing",
        "give the fixed columns as whole numbers",
    )
    assert array is not None
    checks.check_shape("rows", array, (None, None), "(k, R): one row per tuple")
    checks.require(len(array) >= 1, "a template without rows", "at least one", "add a row")
    return array


def _as_columns(columns: Any, rank: int) -> tuple[int, ...]:
    listed = isinstance(columns, Sequence | np.ndarray) and not isinstance(columns, str | bytes)
    checks.require(
        listed and len(columns) > 0,
        f"columns={columns!r:.80}",
        "a list of at least one column",
        "name the learned columns, as in (1, 2)",
    )
    numbers = tuple(checks.check_count("column", n, most=rank - 1) for n in columns)
    checks.require(
        len(set(numbers)) == len(numbers),
        f"columns={numbers} for rows with {rank} columns",
        f"distinct numbers from 0 to {rank - 1}",
        "name each learned column once",
    )
    return numbers


def _check_fixed_columns(rows: np.ndarray, chunk_size: int) -> None:
    chunks = rows.reshape(-1, chunk_size, rows.shape[1])
    mixed = np.flatnonzero((chunks != chunks[:, :1]).any(axis=(1, 2)))
    first = int(mixed[0]) if len(mixed) else -1
    checks.require(
        not len(mixed),
        f"different fixed columns within chunk {first}: {chunks[first].tolist()}",
        "equal fixed columns within a chunk, because its tuples share their points",
        "order the rows by their fixed columns or choose a smaller chunk_size (1 always fits)",
    )
    checks.require(
        bool((rows >= 0).all()),
        f"the fixed index {rows.min(initial=0)}",
        "indices of at least 0",
        "count cells from 0",
    )
    checks.require(
        bool((rows < checks.INT32_CELLS).all()),
        f"the fixed index {rows.max(initial=0)}",
        "indices below 2**31",
        "split the tensor along that axis",
    )
