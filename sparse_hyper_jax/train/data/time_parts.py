"""A series cut in time: to learn from what came first, and be judged by what came later.

    rows 0 ........................................................ T - 1
         |history| counted, for training |history| validation |history| test |

Every part begins with rows that are read only, as many as a model looks back: so far apart are the
last target of a part and the first of the next.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sparse_hyper_jax.checks import check_count, check_shape, is_real, require

SHARES = (60, 20, 20)
"""Per cent of the counted rows for training, validation and test."""

LEAST_ROWS = 10
"""Counted rows of the shortest part."""


class SeriesPart(NamedTuple):
    """Rows next to each other: the target of a row is predicted from it and the rows before.

    Attributes:
        inputs: ``(history + n, C)``.
        targets: ``(history + n, O)``; the first ``history`` of them do not count.

    Example:
        >>> from sparse_hyper_jax.train.data import SeriesPart
        >>> SeriesPart(np.zeros((9, 3)), np.zeros((9, 1))).inputs.shape
        (9, 3)
    """

    inputs: Any
    targets: Any


class SeriesParts(NamedTuple):
    """Three parts of a series, in the order of time.

    Attributes:
        train: what the model learns from, and what scales are measured on.
        validation: what choices are made on, among them those of a report.
        test: what is reported, once.

    Example:
        >>> from sparse_hyper_jax.train.data import cut_in_time
        >>> parts = cut_in_time(np.zeros((110, 2)), np.zeros((110, 1)), history=3)
        >>> [len(part.inputs) for part in parts]
        [63, 23, 24]
    """

    train: SeriesPart
    validation: SeriesPart
    test: SeriesPart


def cut_in_time(
    inputs: np.ndarray, targets: np.ndarray, *, history: int, ahead: int = 0
) -> SeriesParts:
    """Cut a series into 60 % for training and 20 % each for validation and test.

    Args:
        inputs: ``(T, C)``.
        targets: ``(T, O)``.
        history: rows at the beginning of each part that are read only.
        ahead: how many rows a target lies after the newest row that it is predicted from.

    Returns:
        The parts; the last ``ahead`` inputs, and the first ``ahead`` targets, are in none.

    Raises:
        ValueError: another shape, or so few rows that a part would have fewer than 10 to count.

    Example:
        >>> from sparse_hyper_jax.train.data import cut_in_time
        >>> time = np.arange(60.0)[:, None]
        >>> test = cut_in_time(time, time, history=2, ahead=4).test
        >>> test.inputs[:, 0].tolist()
        [44.0, 45.0, 46.0, 47.0, 48.0, 49.0, 50.0, 51.0, 52.0, 53.0, 54.0, 55.0]
        >>> test.targets[2].item() - test.inputs[2].item()
        4.0
    """
    check_shape("inputs", inputs, (None, None), "(T, C): one row per time")
    check_shape("targets", targets, (len(inputs), None), "one row per row of inputs")
    history, ahead = check_count("history", history), check_count("ahead", ahead)
    rows = len(inputs)
    counted = rows - ahead - 3 * history
    least = LEAST_ROWS * 100 // min(SHARES)
    require(
        counted >= least,
        f"{rows} rows, to look {history} back and {ahead} ahead in three parts",
        f"at least {3 * history + ahead + least}",
        "lower --reach or --ahead, or bring a longer series",
    )
    inputs, targets = inputs[: rows - ahead], targets[ahead:]
    lengths = [history + counted * share // 100 for share in SHARES]
    first, second = np.cumsum(lengths)[:2]
    cuts = (slice(0, first), slice(first, second), slice(second, None))
    return SeriesParts(*(SeriesPart(inputs[cut], targets[cut]) for cut in cuts))


def standardise(
    values: np.ndarray, rows: int, names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bring columns to mean 0 and variance 1, as measured on the first rows alone.

    Args:
        values: ``(T, n)`` float64; NaN after the first rows stays NaN.
        rows: how many of the first rows, those of training; at most T.
        names: of the n columns.

    Returns:
        the scaled columns, and their ``(n,)`` means and standard deviations.

    Raises:
        ValueError: no array of real numbers, another shape, no rows or more than there are, or a
            column that in them is constant, not finite, or of a spread that is not.

    Example:
        >>> from sparse_hyper_jax.train.data import standardise
        >>> scaled, mean, spread = standardise(np.array([[1.0], [3.0], [9.0]]), 2, ["flow"])
        >>> scaled[:, 0].tolist(), mean.item(), spread.item()
        ([-1.0, 1.0, 7.0], 2.0, 1.0)
    """
    require(
        is_real(values),
        f"values={values!r:.80}",
        "an array of real numbers",
        "pass values as a NumPy array of floats",
    )
    check_shape("values", values, (None, len(names)), "(T, n): one column per name")
    rows = check_count("rows", rows, 1, len(values))
    first = values[:rows].astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, spread = first.mean(axis=0), first.std(axis=0)
    for name, column, size in zip(names, first.T, spread, strict=True):
        row = int(np.isfinite(column).argmin())  # the first that is not finite, if one is not
        require(
            bool(np.isfinite(column[row])),
            f"column {name!r} with {column[row]:g} in row {row} of the {rows} rows of training",
            "finite numbers in them",
            "correct that row, or leave the column out",
        )
        require(
            np.ptp(column) > 0 and size > 0,
            f"column {name!r} with the same value {column[0]:g} in all {rows} rows of training",
            "a column that varies",
            "leave it out, or bring rows in which it varies",
        )
        require(
            bool(np.isfinite(size)),
            f"column {name!r} with values up to {np.abs(column).max():g}, of spread {size:g}",
            "a column whose variance is finite",
            "scale it down",
        )
    return (values - mean) / spread, mean, spread
