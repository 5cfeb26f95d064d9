"""Checks of static facts while tracing: what was found, what was expected, what to change."""

import math
import operator
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

Value = TypeVar("Value")

INT32_CELLS = 2**31
"""Flat indices are int32: one side of a sparse tensor must have fewer cells than this."""


def require(condition: bool, found: str, expected: str, change: str) -> None:
    """Raise a ``ValueError`` in three parts unless ``condition`` holds.

    Args:
        condition: a Python bool from static facts (shapes, counts, options), never a traced value.
        found: what was passed, with its numbers.
        expected: what would have been right.
        change: what the caller can do about it.

    Raises:
        ValueError: ``condition`` is false.
    """
    if not condition:
        raise ValueError(f"found {found}; expected {expected}; {change}")


def require_given(value: Value | None, found: str, expected: str, change: str) -> Value:
    """Return ``value``, or raise a ``ValueError`` in three parts if it is None.

    Args:
        value: what may have been left out.
        found: see :func:`require`.
        expected: see there.
        change: see there.

    Raises:
        ValueError: ``value`` is None.
    """
    if value is None:
        raise ValueError(f"found {found}; expected {expected}; {change}")
    return value


def check_shape(name: str, array: Any, shape: Sequence[int | None], meaning: str) -> None:
    """Raise unless ``array`` has the given shape, where ``None`` stands for any length.

    Args:
        name: the argument's name.
        array: anything with a shape.
        shape: expected lengths.
        meaning: the expected shape in words, for instance ``"(k, r): one row per tuple"``.

    Raises:
        ValueError: the rank or a length differs.
    """
    actual = jnp.shape(array)
    fits = len(actual) == len(shape) and all(
        want is None or have == want for have, want in zip(actual, shape, strict=True)
    )
    wanted = "(" + ", ".join("any" if want is None else str(want) for want in shape) + ")"
    require(
        fits, f"{name} of shape {actual}", f"{name} of shape {wanted}, {meaning}", f"reshape {name}"
    )


def check_integers(name: str, array: Any) -> None:
    """Raise unless ``array`` holds integers.

    Raises:
        ValueError: another dtype.
    """
    dtype = jnp.result_type(array)
    require(
        jnp.issubdtype(dtype, jnp.integer),
        f"{name} of dtype {dtype}",
        "integers",
        "round means with round_means or sample them with sample_tuples",
    )


def check_count(name: str, count: Any, least: int = 0, most: int | None = None) -> int:
    """Return ``count`` as a Python int: anything that counts, as a size computed by NumPy does.

    Args:
        name: the argument's name.
        count: a static int, of Python or NumPy; no bool, and not traced.
        least: the smallest that is allowed.
        most: the largest; None for any.

    Raises:
        ValueError: ``count`` is no int, too small or too large.
    """
    number = _count_of(count)
    limits = f"of at least {least}" if most is None else f"from {least} to {most}"
    if number is None or number < least or (most is not None and number > most):
        raise ValueError(
            f"found {name}={count!r}; expected an int {limits}; pass a static int as {name}"
        )
    return number


def check_number(
    name: str,
    number: Any,
    *,
    at_least: float = -math.inf,
    above: float = -math.inf,
    at_most: float = math.inf,
    below: float = math.inf,
) -> None:
    """Raise unless ``number`` is one real number between limits, as far as its value is known.

    One that is traced may follow a schedule: then its type and shape alone are checked.

    Args:
        name: the argument's name.
        number: a number of Python or NumPy, or a JAX array of shape (); no bool.
        at_least: the smallest that is allowed; for a divisor the smallest normal number.
        above: what it has to exceed.
        at_most: the largest that is allowed.
        below: what has to exceed it.

    Raises:
        ValueError: no real number, NaN, or beyond a limit.
    """
    limits = {"at least": at_least, "above": above, "at most": at_most, "below": below}
    expected = " and ".join(
        f"{word} {limit:g}" for word, limit in limits.items() if math.isfinite(limit)
    )
    known = None if isinstance(number, Tracer) else _float_of(number)
    fits = known is None or (
        at_least <= known <= at_most
        and (above == -math.inf or known > above)
        and (below == math.inf or known < below)
    )
    require(
        is_real(number) and jnp.shape(number) == () and fits,
        f"{name}={number!r}",
        f"one number {expected}".strip(),
        f"change {name}",
    )


def is_real(number: Any) -> bool:
    """Say whether this is a number or an array of real numbers: no bool, string, list or None."""
    if isinstance(number, int | float):
        return not isinstance(number, bool)
    return isinstance(number, np.ndarray | np.generic | jax.Array) and (
        jnp.issubdtype(number.dtype, jnp.integer) or jnp.issubdtype(number.dtype, jnp.floating)
    )


def check_flag(name: str, flag: Any) -> bool:
    """Return ``flag`` as a Python bool; a string like ``"no"`` would count as true.

    Raises:
        ValueError: anything but True and False.
    """
    require(
        isinstance(flag, bool | np.bool_), f"{name}={flag!r}", "True or False", f"change {name}"
    )
    return bool(flag)


def check_index_shape(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """Return ``shape`` as a tuple of Python ints after checking that every axis has a cell.

    Args:
        name: the argument's name.
        shape: lengths of the axes of an index space.

    Raises:
        ValueError: it is no sequence of ints, or an axis is empty or too long for an int32 index.
    """
    listed = isinstance(shape, Sequence | np.ndarray) and not isinstance(shape, str | bytes)
    flat = listed and (isinstance(shape, Sequence) or shape.ndim == 1)
    sizes = tuple(map(_count_of, shape)) if flat else (None,)
    counted = tuple(size for size in sizes if size is not None)
    require(
        len(counted) == len(sizes) and all(1 <= size < INT32_CELLS for size in counted),
        f"{name}={shape!r}",
        "a tuple of ints from 1 to 2**31 - 1",
        f"pass {name} as static lengths, one per axis, for instance (8, 8)",
    )
    return counted


def check_flat_size(name: str, shape: Sequence[int]) -> int:
    """Return the number of cells of ``shape``, which must be countable by int32.

    Raises:
        ValueError: the product of the lengths reaches 2**31.
    """
    cells = math.prod(shape)
    require(
        cells < INT32_CELLS,
        f"{name} {tuple(shape)} with {cells} cells",
        "fewer than 2**31 cells on one side, so that flat indices fit into int32",
        "split the tensor along one axis or make it smaller",
    )
    return cells


def check_choice(name: str, choice: str, choices: Sequence[str]) -> None:
    """Raise unless ``choice`` is one of ``choices``.

    Raises:
        ValueError: an unknown name.
    """
    names = ", ".join(repr(known) for known in choices)
    known = isinstance(choice, str) and choice in choices
    require(known, f"{name}={choice!r:.80}", f"one of {names}", f"choose {name} from these")


def check_last_axis(name: str, array: Any, rank: int) -> None:
    """Raise unless the last axis of ``array`` has one number per axis of the index space.

    Raises:
        ValueError: ``array`` is a scalar or its last axis has another length.
    """
    actual = jnp.shape(array)
    require(
        len(actual) >= 1 and actual[-1] == rank,
        f"{name} of shape {actual}",
        f"a last axis of length {rank}, one number per axis of the index space",
        f"give {name} a last axis of {rank} or change the shape",
    )


def check_tuples(means: Any, variances: Any, values: Any = None) -> tuple[int, int]:
    """Return ``(k, r)`` after checking that the parts of continuous tuples agree.

    Raises:
        ValueError: means and variances are not both ``(k, r)`` with ``k, r >= 1``, or values are
            not ``(k,)``.
    """
    check_shape("means", means, (None, None), "(k, r): one row per tuple, one column per axis")
    k, r = jnp.shape(means)
    require(r >= 1, f"means of shape {(k, r)}", "at least one column", "learn at least one axis")
    require(k >= 1, f"means of shape {(k, r)}", "at least one row", "pass a tuple of value 0")
    check_shape("variances", variances, (k, r), "the shape of means: one variance per mean")
    if values is not None:
        check_shape("values", values, (k,), "one value per tuple")
    return k, r


def _float_of(number: Any) -> float:
    """The value, NaN where there is none: no limit holds for it."""
    try:
        return float(number) if is_real(number) and jnp.shape(number) == () else math.nan
    except OverflowError:  # a Python int beyond all floats
        return math.nan


def _count_of(count: Any) -> int | None:
    """The int that an object stands for, or None if it is none, or traced."""
    try:
        return None if isinstance(count, bool | np.bool_) else operator.index(count)
    except (TypeError, jax.errors.JAXTypeError):
        return None
