"""What is kept or dropped as one: entries, blocks, channels, n of every m, as many per output."""

import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.largest import count_array, top_k_mask
from sparse_hyper_jax.norms import norm, unit_of
from sparse_hyper_jax.placement import gathered, placed_like
from sparse_hyper_jax.precision import at_least_float32
from sparse_hyper_jax.pruning.select import keep_largest


@runtime_checkable
class Pattern(Protocol):
    """A pattern of a mask.

    Example:
        >>> from sparse_hyper_jax.pruning import magnitude_masks
        >>> class FirstRows:  # a pattern of one's own
        ...     def units(self, shape):
        ...         return shape[0]
        ...     def mask(self, scores, kept):
        ...         return jnp.broadcast_to(jnp.arange(len(scores))[:, None] < kept, scores.shape)
        >>> magnitude_masks(jnp.ones((4, 2)), 0.5, pattern=FirstRows()).astype(int).tolist()
        [[1, 1], [1, 1], [0, 0], [0, 0]]
    """

    def units(self, shape: tuple[int, ...]) -> int:
        """Give the number of things that are kept or dropped in an array of this shape."""
        ...

    def mask(self, scores: jax.Array, kept: int | jax.Array) -> jax.Array:
        """Give a bool array like the scores, in which ``kept`` units are true."""
        ...


@dataclass(frozen=True)
class Unstructured:
    """Single entries.

    Example:
        >>> from sparse_hyper_jax.pruning import Unstructured, magnitude_masks
        >>> kernel = jnp.array([[1.0, -5.0], [0.5, 2.0]])
        >>> magnitude_masks(kernel, 0.5, pattern=Unstructured()).astype(int).tolist()  # the default
        [[0, 1], [0, 1]]
    """

    def units(self, shape: tuple[int, ...]) -> int:
        """Give the number of entries."""
        return math.prod(shape)

    def mask(self, scores: jax.Array, kept: int | jax.Array) -> jax.Array:
        """Keep the entries with the largest scores."""
        return keep_largest([scores], kept)[0]


UNSTRUCTURED = Unstructured()


def check_pattern(pattern: Any) -> None:
    """Raise unless it is a pattern, and no name or class of one.

    Raises:
        ValueError: anything else.
    """
    checks.require(
        isinstance(pattern, Pattern) and not isinstance(pattern, type),
        f"pattern={pattern!r:.80}",
        "a pattern, for instance NofM(2, 4)",
        "make one of Unstructured, Blocks, Channels, NofM or ConstantFanIn",
    )


def check_axis(axis: Any, shape: tuple[int, ...]) -> int:
    """Return the axis of an array, counted from 0.

    Raises:
        ValueError: the array has no such axis.
    """
    rank = len(shape)
    valid = isinstance(axis, int | np.integer) and not isinstance(axis, bool)
    checks.require(
        valid and -rank <= int(axis) < rank,
        f"axis={axis!r} of an array of shape {shape}",
        "an axis of the array",
        "change axis",
    )
    return int(axis) % rank


@dataclass(frozen=True)
class Blocks:
    """Blocks of the last two axes, by the mean or the largest magnitude of their entries.

    Example:
        >>> from sparse_hyper_jax.pruning import Blocks, magnitude_masks
        >>> kernel = jnp.arange(16.0).reshape(4, 4)
        >>> magnitude_masks(kernel, 0.25, pattern=Blocks((2, 2))).astype(int).tolist()
        [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    """

    shape: tuple[int, int] = (4, 4)
    """Height and width; they must divide the lengths of the axes."""

    by: Literal["mean", "max"] = "mean"
    """What makes the score of a block."""

    def __post_init__(self) -> None:
        checks.require(
            isinstance(self.shape, tuple | list) and len(self.shape) == 2,
            f"shape={self.shape!r}",
            "a height and a width",
            "pass for instance shape=(4, 4)",
        )
        for length in self.shape:
            checks.check_count("shape", length, least=1)
        checks.check_choice("by", self.by, ("mean", "max"))

    def units(self, shape: tuple[int, ...]) -> int:
        """Give the number of blocks."""
        height, width = self.shape
        checks.require(
            len(shape) >= 2 and not (shape[-2] % height or shape[-1] % width),
            f"blocks of shape {self.shape} in an array of shape {shape}",
            "lengths that divide those of the last two axes",
            "change the blocks, or leave this array out with select=",
        )
        return math.prod(shape) // (height * width)

    def mask(self, scores: jax.Array, kept: int | jax.Array) -> jax.Array:
        """Keep the blocks with the largest scores."""
        scores = as_array("scores", scores)
        self.units(scores.shape)
        *lead, rows, columns = scores.shape
        height, width = self.shape
        sizes = jnp.abs(at_least_float32(gathered(scores)))
        # One axis after the other, which works where arrays are spread over devices.
        high = (*lead, rows // height, height, columns)
        cut = sizes.reshape(high).reshape(*high[:-1], columns // width, width)
        if self.by == "max":
            blocks = jnp.max(cut, axis=(-3, -1))
        else:
            # In units of the largest of all: the sum of a block would overflow before its mean.
            blocks = jnp.mean(cut / unit_of(jnp.max(cut, initial=0)), axis=(-3, -1))
        whole = keep_largest([blocks], kept)[0][..., :, None, :, None]
        mask = jnp.broadcast_to(whole, cut.shape).reshape(high).reshape(scores.shape)
        return placed_like(mask, scores)


@dataclass(frozen=True)
class Channels:
    """All entries with the same index on one axis, by the root mean square of their scores.

    On a kernel ``(inputs, outputs)``, axis -1 keeps or drops whole outputs.

    Example:
        >>> from sparse_hyper_jax.pruning import Channels, magnitude_masks
        >>> kernel = jnp.array([[1.0, 5.0, 0.0], [2.0, 0.0, 1.0]])  # inputs by outputs
        >>> magnitude_masks(kernel, 0.34, pattern=Channels()).astype(int).tolist()  # one output
        [[0, 1, 0], [0, 1, 0]]
    """

    axis: int = -1

    def units(self, shape: tuple[int, ...]) -> int:
        """Give the length of the axis."""
        return shape[check_axis(self.axis, shape)]

    def mask(self, scores: jax.Array, kept: int | jax.Array) -> jax.Array:
        """Keep the channels with the largest scores."""
        scores = as_array("scores", scores)
        own = check_axis(self.axis, scores.shape)
        others = tuple(axis for axis in range(scores.ndim) if axis != own)
        number = math.prod(scores.shape[axis] for axis in others)
        # Divided first: a root of a sum of squares overflows before that of their mean.
        means = norm(at_least_float32(scores) / math.sqrt(max(number, 1)), others)
        whole = keep_largest([means], kept)[0]
        return placed_like(jnp.broadcast_to(whole, scores.shape), scores)


@dataclass(frozen=True)
class NofM:
    """The n largest of every m neighbours on one axis, as 2:4 on recent GPUs.

    The density is n / m, whatever number is asked for, as soon as fewer than all are kept; with
    ``stepwise`` it falls to n / m as the number that is asked for does.

    Reference: Kao et al. 2022, arXiv 2209.07617, for the steps.

    Example:
        >>> from sparse_hyper_jax.pruning import NofM, magnitude_masks
        >>> kernel = jnp.array([[9.0, 8.0, 7.0, 6.0, 1.0, 0.0, 2.0, 0.0]])
        >>> masks = magnitude_masks(kernel, 0.5, pattern=NofM(2, 4))
        >>> masks.astype(int).tolist()  # two of every four
        [[1, 1, 0, 0, 1, 0, 1, 0]]
        >>> masks = magnitude_masks(kernel, 0.7, pattern=NofM(2, 4, stepwise=True))
        >>> masks.astype(int).tolist()  # not yet two
        [[1, 1, 1, 0, 1, 1, 1, 0]]
    """

    n: int = 2
    m: int = 4
    axis: int = -1

    stepwise: bool = False
    """Keep as many of every m as are asked for on average, rounded up, and n at least: under the
    schedule :func:`gradual`, m of m fall to n of m one after the other (iterative N:M)."""

    def __post_init__(self) -> None:
        checks.check_flag("stepwise", self.stepwise)
        checks.check_count("n", self.n)
        checks.check_count("m", self.m, least=max(self.n, 1))

    def units(self, shape: tuple[int, ...]) -> int:
        """Give the number of entries."""
        checks.require(
            shape[check_axis(self.axis, shape)] % self.m == 0,
            f"{self.n} of {self.m} on axis {self.axis} of an array of shape {shape}",
            f"an axis whose length is a multiple of {self.m}",
            "change axis, or leave this array out with select=",
        )
        return math.prod(shape)

    def mask(self, scores: jax.Array, kept: int | jax.Array) -> jax.Array:
        """Keep the n largest of every m; everything if all are to be kept."""
        scores = as_array("scores", scores)
        size = self.units(scores.shape)
        moved = jnp.moveaxis(gathered(scores), self.axis, -1)
        groups = moved.shape[-1] // self.m
        number, each = count_array("kept", kept), self.n
        if self.stepwise and size:
            each = jnp.clip(-(-number // (size // self.m)), self.n, self.m)
        chosen = top_k_mask(moved.reshape(*moved.shape[:-1], groups, self.m), each)
        mask = jnp.moveaxis(chosen.reshape(moved.shape), -1, self.axis)
        return placed_like(mask | (number >= size), scores)


@dataclass(frozen=True)
class ConstantFanIn:
    """Single entries, as many for every index on one axis.

    On a kernel ``(inputs, outputs)``, axis -1 gives every output the same number of inputs, that of
    the density rounded down.

    Reference: Lasby et al. 2023, arXiv 2305.02299.

    Example:
        >>> from sparse_hyper_jax.pruning import ConstantFanIn, magnitude_masks
        >>> kernel = jnp.array([[9.0, 1.0], [8.0, 2.0], [7.0, 0.0], [6.0, 0.0]])  # two outputs
        >>> magnitude_masks(kernel, 0.5, pattern=ConstantFanIn()).astype(int).tolist()
        [[1, 1], [1, 1], [0, 0], [0, 0]]
    """

    axis: int = -1

    def units(self, shape: tuple[int, ...]) -> int:
        """Give the number of entries."""
        check_axis(self.axis, shape)
        return math.prod(shape)

    def mask(self, scores: jax.Array, kept: int | jax.Array) -> jax.Array:
        """Keep as many of the largest scores of every index."""
        scores = as_array("scores", scores)
        self.units(scores.shape)
        rows = rows_of(scores, self.axis)
        outputs, inputs = rows.shape
        each = count_array("kept", kept) // max(outputs, 1)
        return from_rows(top_k_mask(rows, jnp.minimum(each, inputs)), self.axis, scores)


def rows_of(array: jax.Array, axis: int) -> jax.Array:
    """Give a matrix with one row for every index on an axis."""
    moved = jnp.moveaxis(gathered(array), axis, 0)
    return moved.reshape(len(moved), math.prod(moved.shape[1:]))


def from_rows(rows: jax.Array, axis: int, like: jax.Array) -> jax.Array:
    """Undo :func:`rows_of`, for an array of the shape and the place of another."""
    shape = list(like.shape)
    moved = rows.reshape(shape.pop(axis), *shape)
    return placed_like(jnp.moveaxis(moved, 0, axis), like)
