"""Tuples and entries at the entrance of a public function: cast and checked here, and only here.

What lies behind trusts them. So does it trust the options of a :class:`~.plan.Plan`.
"""

from typing import Any

import jax

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.precision import wide_dtype
from sparse_hyper_jax.types import ContinuousTuples, SparseEntries


def enter_tuples(tuples: Any) -> ContinuousTuples:
    """Bring the parts of continuous tuples to one dtype, float32 or wider, and check them.

    Args:
        tuples: means ``(k, r)``, variances ``(k, r)``, values ``(k,)``: continuous tuples, or a
            plain tuple of three; arrays or lists.

    Returns:
        the same numbers.

    Raises:
        ValueError: not three parts, or as :func:`~sparse_hyper_jax.checks.check_tuples`.
    """
    parts = _parts("tuples", tuples, ContinuousTuples)
    dtype = wide_dtype(*parts)
    tuples = ContinuousTuples(*(part.astype(dtype) for part in parts))
    checks.check_tuples(*tuples)
    return tuples


def enter_entries(entries: Any, rank: int | None = None) -> SparseEntries:
    """Check the parts of sparse entries, whose values may be numbers of any kind.

    Args:
        entries: indices ``(n, R)`` and values ``(n,)``: sparse entries, or a plain tuple of two.
        rank: ``R``; None for any.

    Returns:
        the same numbers.

    Raises:
        ValueError: not two parts, another shape, or indices that are no integers.
    """
    indices, values = _parts("entries", entries, SparseEntries, values="numbers")
    meaning = "one row per entry" if rank is None else "one column per axis of shape"
    checks.check_shape("indices", indices, (None, rank), f"(n, R): {meaning}")
    checks.check_integers("indices", indices)
    checks.check_shape("values", values, indices.shape[:1], "one value per row of indices")
    return SparseEntries(indices, values)


def enter_points(points: Any, rank: int, shape_of: str = "means") -> jax.Array:
    """Return points as an array of integers of any width.

    Args:
        points: ``(P, r)``.
        rank: ``r``.
        shape_of: what has that rank.

    Raises:
        ValueError: another shape or dtype.
    """
    points = as_array("points", points)
    meaning = f"(P, r): one row per point, r as in {shape_of}"
    checks.check_shape("points", points, (None, rank), meaning)
    checks.check_integers("points", points)
    return points


def enter_mask(mask: Any, points: jax.Array) -> jax.Array:
    """Return a mask as flags, one per point.

    Args:
        mask: bool ``(P,)``.
        points: ``(P, r)``.

    Raises:
        ValueError: another shape, or no flags.
    """
    mask = as_array("mask", mask, "flags")
    checks.check_shape("mask", mask, points.shape[:1], "one flag per point")
    return mask


def _parts(name: str, given: Any, kind: type, **kinds: str) -> list[jax.Array]:
    fields = kind._fields  # type: ignore[attr-defined]
    checks.require(
        isinstance(given, tuple | list) and len(given) == len(fields),
        f"{name}={given!r:.80}",
        f"{kind.__name__}({', '.join(fields)}), or a plain tuple of these",
        f"pass {kind.__name__}",
    )
    return [
        as_array(field, part, kinds.get(field, "real numbers"))
        for field, part in zip(fields, given, strict=True)
    ]
