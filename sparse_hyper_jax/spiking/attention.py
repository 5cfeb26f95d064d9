"""Covert attention: a window of an event camera's field that follows where the events are.

events of a step -> ring buffer of the last n -> counts of rows, columns -> their medians
                                                                            |
the same events  -> re-addressed to the window about that place   or a glimpse at it
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax.checks import check_count, check_index_shape, check_shape, require
from sparse_hyper_jax.entrance import as_array, as_int32, check_instance
from sparse_hyper_jax.glimpse import bilinear
from sparse_hyper_jax.ops.device_axes import spread_by
from sparse_hyper_jax.precision import at_least_float32


class ActivityState(NamedTuple):
    """The last events, and how many of them lie in each row and column.

    Example:
        >>> from sparse_hyper_jax.spiking import activity_state
        >>> state = activity_state((32, 24), memory=100)
        >>> state.recent.shape, state.rows.shape, state.columns.shape
        ((100, 2), (32,), (24,))
    """

    recent: jax.Array
    """``(memory, 2)`` int32 rows and columns, -1 where there is none yet."""

    oldest: jax.Array
    """int32, the place of the ring that is written next."""

    rows: jax.Array
    """``(height,)`` int32 events in each row."""

    columns: jax.Array
    """``(width,)`` int32."""


def activity_state(shape: Sequence[int], *, memory: int = 1000) -> ActivityState:
    """Give the state before the first event.

    Args:
        shape: height and width of the field.
        memory: number of events that are remembered.

    Returns:
        an empty ring and empty counts.

    Raises:
        ValueError: no such shape, or no memory.

    Example:
        >>> from sparse_hyper_jax.spiking import activity_state
        >>> int(activity_state((8, 8)).rows.sum())
        0
    """
    shape = check_index_shape("shape", shape)
    require(len(shape) == 2, f"shape={shape}", "(height, width)", "pass two lengths")
    memory = check_count("memory", memory, least=1)
    counts = (jnp.zeros(size, jnp.int32) for size in shape)
    return ActivityState(jnp.full((memory, 2), -1, jnp.int32), jnp.int32(0), *counts)


def follow_activity(state: ActivityState, places: jax.Array) -> tuple[ActivityState, jax.Array]:
    """Remember the events of a step, and give the median place of the last ones.

    A ring buffer and counts of rows and columns: new events are counted, those that fall out of
    the memory are no longer. The median of rows is the first by which half of the events are
    reached, and so for columns; no event is sorted, and the cost of a step is that of its events
    and of a side of the field.

    Args:
        state: of the step before, or :func:`activity_state`.
        places: ``(n, 2)`` integers, row and column of each event, at most as many as the memory; a
            place outside of the field marks padding.

    Returns:
        the new state, and ``(2,)`` int32 the centre; before the first event the middle.

    Raises:
        ValueError: other shapes.

    Reference: Kaiser et al. 2019, arXiv 1904.04805.

    Example:
        >>> from sparse_hyper_jax.spiking import activity_state, follow_activity
        >>> places = jnp.array([[1, 5], [2, 6], [7, 6], [-1, -1]])
        >>> state, centre = follow_activity(activity_state((8, 8)), places)
        >>> centre.tolist(), int(state.rows.sum())
        ([2, 6], 3)
    """
    check_instance("state", state, ActivityState)
    # One that was read from a file holds arrays of NumPy.
    state = ActivityState(
        *(as_int32(f"state.{name}", state[n]) for n, name in enumerate(state._fields))
    )
    places = as_int32("places", places)
    check_shape("places", places, (None, 2), "(n, 2): row and column of each event")
    memory, sizes = len(state.recent), (len(state.rows), len(state.columns))
    require(
        len(places) <= memory,
        f"{len(places)} events in a step",
        f"at most {memory}, the memory",
        "raise the memory, or take shorter steps",
    )
    real = jnp.all((places >= 0) & (places < np.array([sizes])), axis=1)
    rank = jnp.cumsum(real.astype(jnp.int32)) - 1
    # Padding is sent outside of the ring, where nothing is written and nothing forgotten.
    slots = jnp.where(real, (state.oldest + rank) % memory, memory)
    out = spread_by(state.recent, slots).at[slots].get(mode="fill", fill_value=-1)
    counts = []
    for axis, before in enumerate((state.rows, state.columns)):
        arrived = jnp.where(real, places[:, axis], sizes[axis])
        # Minus one would wrap around to the last row.
        left = jnp.where(out[:, axis] < 0, sizes[axis], out[:, axis])
        counts.append(before.at[arrived].add(1, mode="drop").at[left].add(-1, mode="drop"))
    recent = state.recent.at[slots].set(places, mode="drop")
    oldest = (state.oldest + jnp.sum(real, dtype=jnp.int32)) % memory
    new = ActivityState(recent, oldest, *counts)
    return new, jnp.stack([_median(count) for count in counts])


def readdress(
    places: jax.Array, centre: jax.Array, *, shape: Sequence[int], window: Sequence[int]
) -> jax.Array:
    """Give events their places in a window about a centre; those outside of it become padding.

    ``place - centre + window // 2``. All events moved by the same integers, and the centre with
    them, come out the same.

    Args:
        places: ``(n, 2)`` integers, row and column; outside of the field padding.
        centre: ``(2,)`` integers, see :func:`follow_activity`.
        shape: height and width of the field.
        window: height and width of the window.

    Returns:
        ``(n, 2)`` int32, -1 for what lies outside.

    Raises:
        ValueError: other shapes.

    Reference: Kaiser et al. 2019, arXiv 1904.04805.

    Example:
        >>> from sparse_hyper_jax.spiking import readdress
        >>> places = jnp.array([[10, 10], [12, 9], [20, 10]])
        >>> readdress(places, jnp.array([10, 10]), shape=(32, 32), window=(8, 8)).tolist()
        [[4, 4], [6, 3], [-1, -1]]
    """
    places = as_int32("places", places)
    centre = as_int32("centre", centre)
    check_shape("places", places, (None, 2), "(n, 2): row and column of each event")
    check_shape("centre", centre, (2,), "(2,): a row and a column")
    sizes, window = _pair("shape", shape), _pair("window", window)
    moved = places - centre[None] + np.array([window], np.int32) // 2
    inside = (places >= 0) & (places < np.array([sizes]))
    inside = jnp.all(inside & (moved >= 0) & (moved < np.array([window])), axis=1, keepdims=True)
    return jnp.where(inside, moved, -1)


def glimpse_at(frame: jax.Array, centre: jax.Array, *, window: Sequence[int]) -> jax.Array:
    """Read a window of a frame of events by a bilinear glimpse; what lies outside is 0.

    At a centre of whole numbers it is the raster of :func:`readdress`, exactly. In between it has
    a slope for the centre, so that an offset on top of the activity's can be learned.

    Args:
        frame: ``(H, W)`` or ``(H, W, C)`` counts of events in a step.
        centre: ``(2,)`` row and column in index units.
        window: height and width.

    Returns:
        ``(h, w)`` or ``(h, w, C)`` as :func:`~sparse_hyper_jax.glimpse.bilinear` reads it.

    Raises:
        ValueError: other shapes.

    Example:
        >>> from sparse_hyper_jax.spiking import glimpse_at
        >>> frame = jnp.zeros((8, 8)).at[5, 6].set(1.0)
        >>> glimpse_at(frame, jnp.array([5, 6]), window=(3, 3))[1].tolist()
        [0.0, 1.0, 0.0]
    """
    centre = at_least_float32(as_array("centre", centre))
    check_shape("centre", centre, (2,), "(2,): a row and a column")
    height, width = _pair("window", window)
    grid = np.moveaxis(np.mgrid[:height, :width], 0, -1) - np.array([height // 2, width // 2])
    return bilinear(frame, centre[None, None] + grid.astype(centre.dtype), padding="zeros")


def _median(counts: jax.Array) -> jax.Array:
    """Give the first place by which half of what is counted is reached."""
    reached = 2 * jnp.cumsum(counts) >= jnp.sum(counts)
    middle = jnp.int32(len(counts) // 2)
    return jnp.where(jnp.sum(counts) > 0, jnp.argmax(reached).astype(jnp.int32), middle)


def _pair(name: str, sizes: Sequence[int]) -> tuple[int, int]:
    sizes = check_index_shape(name, sizes)
    require(len(sizes) == 2, f"{name}={sizes}", "(height, width)", "pass two lengths")
    return sizes[0], sizes[1]
