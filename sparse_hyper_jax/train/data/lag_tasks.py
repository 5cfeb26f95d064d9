"""What a search for lags is tried on: a hidden system, canvases of unknown width, your table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import numpy as np

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.train.data.series import make_canvas, make_series
from sparse_hyper_jax.train.data.splits import load_splits
from sparse_hyper_jax.train.data.table_file import Table, read_table
from sparse_hyper_jax.train.data.time_parts import (
    SHARES,
    SeriesPart,
    SeriesParts,
    cut_in_time,
    standardise,
)

CANVAS = 1600
"""Pixels of one canvas."""

FARTHEST = 1e6
"""Standard deviations; what lies farther is no measurement, and its square spoils any mean."""

WIDTHS = (30, 61)
"""Where the hidden width of canvases is drawn from, the last one excluded."""


class LagTask(NamedTuple):
    """A series in three parts, and what is known about it.

    Attributes:
        parts: float32; the newest input of a row lies ``ahead`` rows before its target.
        names: of the input channels, ``C`` of them.
        known: the true lags, or those that follow from a known width; empty where nobody knows.
        floor: the least mean squared error that any model has, where it is known.
        last: mean squared error of predicting the test targets by their newest known values, where
            these are inputs too.
    """

    parts: SeriesParts
    names: tuple[str, ...]
    known: tuple[int, ...] = ()
    floor: float | None = None
    last: float | None = None


def series_task(
    seed: int, *, length: int, channels: int, reach: int, ahead: int, correlation: float
) -> LagTask:
    """Draw a hidden system and one long series of it; its lags are from 1 to ``reach - 1``.

    The system is the same for every length and correlation of one seed.
    """
    key = jax.random.key(seed)
    series = make_series(
        key, length=length, channels=channels, reach=reach, correlation=correlation
    )
    inputs, targets = np.asarray(series.inputs), np.asarray(series.targets)
    parts = cut_in_time(inputs, targets, history=reach, ahead=ahead)
    names = tuple(f"input {number}" for number in range(channels))
    return LagTask(parts, names, tuple(sorted(series.lags.tolist())), float(series.floor))


def canvas_task(seed: int, *, length: int, reach: int, ahead: int) -> LagTask:
    """Write canvases with digits row by row behind each other; each pixel is to be predicted.

    All canvases have the same width, which is the lag that is known. The digits of the three parts
    are different ones.
    """
    width_key, *keys = jax.random.split(jax.random.key(seed), 4)
    width = jax.random.randint(width_key, (), *WIDTHS)
    parts = []
    for key, split, share in zip(keys, load_splits("digits", None, seed=seed), SHARES, strict=True):
        count = -(-(length * share // 100 + reach + ahead) // CANVAS)
        pixels = _canvases(jax.random.split(key, count), split.images, width)
        pixels = np.asarray(pixels).reshape(-1, 1)
        parts.append(SeriesPart(pixels[: len(pixels) - ahead], pixels[ahead:]))
    return LagTask(SeriesParts(*parts), ("pixel",), (int(width),))


@jax.jit
def _canvases(keys: jax.Array, images: jax.Array, width: jax.Array) -> jax.Array:
    return jax.vmap(lambda key: make_canvas(key, images, width, length=CANVAS))(keys)


def read_columns(
    path: Path,
    targets: Sequence[str],
    inputs: Sequence[str],
    *,
    missing: Literal["refuse", "previous"],
) -> tuple[Table, tuple[str, ...]]:
    """Read inputs and targets from a CSV file; no names of inputs stand for all columns.

    Returns:
        the table, each column once, and the names of the inputs.
    """
    for flag, names in (("--targets", targets), ("--inputs", inputs)):
        twice = next((name for name in names if list(names).count(name) > 1), None)
        require(twice is None, f"{flag} with {twice!r} twice", "each column once", "leave one out")
    if inputs:
        asked = list(dict.fromkeys([*inputs, *targets]))
        return read_table(path, asked, missing=missing), tuple(inputs)
    read_table(path, targets, missing=missing)  # a wrong name is told before a bad cell
    table = read_table(path, missing=missing)
    return table, table.names


def table_task(
    table: Table, targets: Sequence[str], inputs: Sequence[str], *, reach: int, ahead: int
) -> LagTask:
    """Cut a table in time, and scale its columns as measured on the part for training."""
    rows = len(cut_in_time(table.values, table.values, history=reach, ahead=ahead).train.inputs)
    values, *_ = standardise(table.values, rows, table.names)
    for name, largest in zip(table.names, np.abs(values).max(axis=0), strict=True):
        require(
            largest < FARTHEST,
            f"column {name!r} with a value {largest:.1e} times as far from its mean as it varies"
            " in training",
            f"at most {FARTHEST:g}",
            "correct that value, or leave the column out",
        )
    values = values.astype(np.float32)
    read, told = ([table.names.index(name) for name in names] for names in (inputs, targets))
    parts = cut_in_time(values[:, read], values[:, told], history=reach, ahead=ahead)
    last = None
    if ahead and set(targets) <= set(inputs):
        newest = parts.test.inputs[:, [inputs.index(name) for name in targets]]
        last = float(np.mean((parts.test.targets - newest)[reach:] ** 2))
    return LagTask(parts, tuple(inputs), last=last)
