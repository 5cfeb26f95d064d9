"""Samples of an event camera: discs that move, made on the device, and N-MNIST from a file."""

import math
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from sparse_hyper_jax.checks import check_count, check_shape, require
from sparse_hyper_jax.entrance import as_array, check_random_key
from sparse_hyper_jax.train.npz import read_npz

ARRAYS = ("x", "y", "p", "dt", "offsets", "label", "is_test")
SIDE, CLASSES = 34, 10
"""Of the field of N-MNIST; digits."""

DISC_FIELD, DISC_RADIUS, DISC_SPEED, DISC_EVENTS = 32, 5.0, 0.25, 32
"""Pixels; pixels; pixels in a step; most events of a step that are kept."""

LONGEST_WAIT = 10**7
"""Most microseconds between two events: 10 s, so that no sum of them leaves int64."""

MOST_STEPS = 10**5
"""Milliseconds of a sample: its steps take memory even where nothing happens."""

CHANGE = (
    "pass an npz file with x, y, p, dt of all events, offsets, label and is_test of N-MNIST samples"
)


class EventSamples(NamedTuple):
    """Samples as lists of events in every step.

    Example:
        >>> from sparse_hyper_jax.train.data import EventSamples, moving_discs
        >>> samples = moving_discs(jax.random.key(0), jnp.arange(4), steps=20)
        >>> isinstance(samples, EventSamples), samples.codes.shape, samples.shape
        (True, (4, 20, 32), (2, 32, 32))
    """

    codes: jax.Array | np.ndarray
    """``(n, T, events)`` int16, ``(polarity * height + row) * width + column``; -1 is padding."""

    labels: jax.Array | np.ndarray
    """``(n,)`` int32."""

    shape: tuple[int, int, int]
    """Polarities, height, width."""


def moving_discs(key: jax.Array, labels: jax.Array, *, steps: int = 60) -> EventSamples:
    """Show discs that move up, down, left or right before an event camera of 32 x 32 pixels.

    A pixel that the disc, of radius 5 and a quarter of a pixel faster in every step, newly covers
    has an event of polarity 1, one that it leaves of polarity 0; nine of ten are seen. The middle
    of its way lies anywhere in the middle half of the field, so that where it is tells nothing.

    Args:
        key: one random key.
        labels: ``(n,)`` integers, 0 to 3 the direction.
        steps: how long.

    Returns:
        the samples; it may be traced.

    Raises:
        ValueError: no key, no labels, a known one that is no direction, or no steps.

    Example:
        >>> from sparse_hyper_jax.train.data import moving_discs
        >>> codes = moving_discs(jax.random.key(0), jnp.array([3]), steps=40).codes
        >>> rows, columns = codes // 32 % 32, codes % 32
        >>> first, last = (jnp.mean(columns[0, t], where=codes[0, t] >= 0) for t in (4, 36))
        >>> bool(last > first + 5)  # to the right
        True
    """
    check_random_key(key)
    labels = as_array("labels", labels, "integers").astype(jnp.int32)
    check_shape("labels", labels, (None,), "(n,): a direction each")
    if not isinstance(labels, Tracer):
        known = np.asarray(labels)
        require(
            not np.any((known < 0) | (known > 3)),
            f"labels from {known.min(initial=0)} to {known.max(initial=0)}",
            "0, 1, 2 or 3: up, down, left, right",
            "pass labels of these",
        )
    steps = check_count("steps", steps, least=1)
    return EventSamples(_discs(key, labels, steps), labels, (2, DISC_FIELD, DISC_FIELD))


@partial(jax.jit, static_argnums=2)
def _discs(key: jax.Array, labels: jax.Array, steps: int) -> jax.Array:
    """Draw the codes of all discs, in one program: piece by piece compiling takes far longer."""
    keys = jax.random.split(key, len(labels))
    return jax.vmap(lambda key, label: _disc(key, label, steps))(keys, labels)


def _disc(key: jax.Array, label: jax.Array, steps: int) -> jax.Array:
    place_key, seen_key = jax.random.split(key)
    middle = jax.random.uniform(
        place_key, (2,), minval=DISC_FIELD / 4, maxval=DISC_FIELD * 3 / 4 - 1
    )
    direction = jnp.array([[-1, 0], [1, 0], [0, -1], [0, 1]], jnp.float32)[label]
    times = DISC_SPEED * (jnp.arange(steps + 1) - steps / 2)
    centres = middle + times[:, None] * direction
    rows, columns = np.mgrid[:DISC_FIELD, :DISC_FIELD].astype(np.float32)
    distance = jnp.square(rows - centres[:, :1, None]) + jnp.square(columns - centres[:, 1:, None])
    inside = distance <= DISC_RADIUS**2
    events = jnp.stack([inside[:-1] & ~inside[1:], inside[1:] & ~inside[:-1]], axis=1)
    seen = events & jax.random.bernoulli(seen_key, 0.9, events.shape)

    def listed(frame: jax.Array) -> jax.Array:
        return jnp.nonzero(frame.reshape(-1), size=DISC_EVENTS, fill_value=-1)[0]

    return jax.vmap(listed)(seen).astype(jnp.int16)


def load_events(folder: Path, *, steps: int = 300) -> tuple[EventSamples, EventSamples]:
    """Read samples of N-MNIST, as lists of the events of every millisecond.

    Args:
        folder: holds one npz file with ``x`` (columns), ``y`` (rows) and ``p`` of all events,
            ``dt`` microseconds since the event before, sample ``i`` at ``offsets[i]:offsets[i+1]``,
            ``label`` and ``is_test``, 0 or 1, of each.
        steps: milliseconds that are kept of each sample, at most 100,000.

    Returns:
        samples to train and to test on.

    Raises:
        ValueError: not one such file, a damaged one, or steps out of range.

    Reference: Orchard, Jayawant, Cohen, Thakor 2015, arXiv 1507.07629.

    Example:
        >>> from pathlib import Path
        >>> from sparse_hyper_jax.train.data import load_events
        >>> numbers = {"offsets": [0, 2, 3], "label": [7, 1], "is_test": [0, 1]}
        >>> events = {"x": [3, 3, 0], "y": [1, 2, 0], "p": [1, 0, 1], "dt": [0, 1500, 20]}
        >>> np.savez("two.npz", **numbers, **events)
        >>> train, test = load_events(Path(), steps=3)
        >>> train.codes.tolist(), test.labels.tolist()
        ([[[1193], [71], [-1]]], [1])
    """
    steps = check_count("steps", steps, 1, MOST_STEPS)
    paths = sorted(Path(folder).glob("*.npz"))
    require(len(paths) == 1, f"{len(paths)} files *.npz in {folder}", "one", CHANGE)
    arrays = read_npz(paths[0], names=ARRAYS, change=CHANGE)
    _check(paths[0], arrays)
    offsets, labels = arrays["offsets"].astype(np.int64), arrays["label"].astype(np.int32)
    sample = np.repeat(np.arange(len(labels)), np.diff(offsets))
    since = np.cumsum(arrays["dt"].astype(np.int64))
    began = np.concatenate([[0], since])[offsets[:-1]]
    step = (since - began[sample]) // 1000
    codes = (arrays["p"].astype(np.int64) * SIDE + arrays["y"]) * SIDE + arrays["x"]
    kept = (step >= 0) & (step < steps)
    listed = _lists(sample[kept], step[kept], codes[kept], (len(labels), steps))
    tested = arrays["is_test"].astype(bool)
    train, test = (
        EventSamples(listed[rows], labels[rows], (2, SIDE, SIDE)) for rows in (~tested, tested)
    )
    return train, test


def _lists(
    sample: np.ndarray, step: np.ndarray, codes: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Write events into rows as long as the fullest, in their order."""
    cell = sample * shape[1] + step
    order = np.argsort(cell, kind="stable")
    counts = np.bincount(cell, minlength=math.prod(shape))
    place = np.arange(len(cell)) - np.repeat(np.cumsum(counts) - counts, counts)
    listed = np.full((math.prod(shape), max(1, counts.max())), -1, np.int16)
    listed[cell[order], place] = codes[order]
    return listed.reshape(*shape, -1)


def _check(path: Path, arrays: dict[str, np.ndarray]) -> None:
    count, events = arrays["label"].size, arrays["x"].shape
    offsets = arrays["offsets"]
    fits = (
        len(events) == 1
        and events[0] > 0
        and all(arrays[name].shape == events for name in ("y", "p", "dt"))
        and all(arrays[name].dtype.kind in "iub" for name in ARRAYS)
        and arrays["label"].shape == arrays["is_test"].shape == (count,)
        and offsets.shape == (count + 1,)
        and bool((np.diff(offsets.astype(np.int64)) >= 0).all())
        and (int(offsets[0]), int(offsets[-1])) == (0, events[0])
        and all(arrays[name].min() >= 0 and arrays[name].max() < SIDE for name in "xy")
        and arrays["p"].min() >= 0
        and arrays["p"].max() <= 1
        and arrays["dt"].min() >= 0
        and arrays["dt"].max() <= LONGEST_WAIT
        and arrays["label"].min() >= 0
        and arrays["label"].max() < CLASSES
        # Both occur, and nothing else: another number could stand for a part of its own.
        and np.unique(arrays["is_test"]).tolist() == [0, 1]
    )
    require(
        bool(fits),
        f"arrays that do not fit each other, or events outside of {SIDE} x {SIDE}, in {path}",
        f"columns, rows, polarities and times (at most {LONGEST_WAIT} us after the event before) "
        f"of events that all samples share out, labels below {CLASSES}, and is_test of 0 and of 1",
        CHANGE,
    )
