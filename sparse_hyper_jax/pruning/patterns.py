"""What is kept or dropped as one: entries, blocks, channels, or n of every m."""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.largest import top_k_mask
from sparse_hyper_jax.precision import at_least_float32
from sparse_hyper_jax.pruning.select import keep_largest


class Pattern(Protocol):
    """A pattern of a mask."""

    def units(self, shape: tuple[int, ...]) -> int:
        """Give the number of things that are kept or dropped in an array of this shape."""
        ...

    def mask(self, scores: jax.Array, kept: int | jax.Array) -> jax.Array:
        """Give a bool array like the scores, in which ``kept`` units are true."""
        ...


@dataclass(frozen=True)
class Unstructured:
    """Single entries."""

    def units(self, shape: tuple[int, ...]) -> int:
        """Give the number of entries."""
        return math.prod(shape)

    def mask(self, scores: jax.Array, kept: int | jax.Array) -> jax.Array:
        """Keep the entries with the largest scores."""
        return keep_largest([scores], kept)[0]


UNSTRUCTURED = Unstructured()


@dataclass(frozen=True)
class Blocks:
    """Blocks of the last two axes, by the mean or the largest magnitude of their entries."""

    shape: tuple[int, int] = (4, 4)
    """Height and width; they must divide the lengths of the axes."""

    by: Literal["mean", "max"] = "mean"
    """What makes the score of a block."""

    def __post_init__(self) -> None:
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
        self.units(scores.shape)
        *lead, rows, columns = scores.shape
        height, width = self.shape
        cut = jnp.abs(scores).reshape(*lead, rows // height, height, columns // width, width)
        blocks = {"mean": jnp.mean, "max": jnp.max}[self.by](cut, axis=(-3, -1))
        whole = keep_largest([blocks], kept)[0][..., :, None, :, None]
        return jnp.broadcast_to(whole, cut.shape).reshape(scores.shape)


@dataclass(frozen=True)
class Channels:
    """All entries with the same index on one axis, by the root mean square of their scores.

    On a kernel ``(inputs, outputs)``, axis -1 keeps or drops whole outputs.
    """

    axis: int = -1

    def units(self, shape: tuple[int, ...]) -> int:
        """Give the length of the axis."""
        checks.require(
            -len(shape) <= self.axis < len(shape),
            f"axis={self.axis} of an array of shape {shape}",
            "an axis of the array",
            "change axis",
        )
        return shape[self.axis]

    def mask(self, scores: jax.Array, kept: int | jax.Array) -> jax.Array:
        """Keep the channels with the largest scores."""
        self.units(scores.shape)
        others = tuple(axis for axis in range(scores.ndim) if axis != self.axis % scores.ndim)
        wide = at_least_float32(scores)
        squares = jnp.mean(wide * wide, axis=others, keepdims=True)
        return jnp.broadcast_to(keep_largest([squares], kept)[0], scores.shape)


@dataclass(frozen=True)
class NofM:
    """The n largest of every m neighbours on one axis, as 2:4 on recent GPUs.

    The density is n / m, whatever number is asked for, as soon as fewer than all are kept.
    """

    n: int = 2
    m: int = 4
    axis: int = -1

    def __post_init__(self) -> None:
        checks.check_count("n", self.n)
        checks.check_count("m", self.m, least=max(self.n, 1))

    def units(self, shape: tuple[int, ...]) -> int:
        """Give the number of entries."""
        valid = -len(shape) <= self.axis < len(shape)
        checks.require(
            valid and shape[self.axis] % self.m == 0,
            f"{self.n} of {self.m} on axis {self.axis} of an array of shape {shape}",
            f"an axis whose length is a multiple of {self.m}",
            "change axis, or leave this array out with select=",
        )
        return math.prod(shape)

    def mask(self, scores: jax.Array, kept: int | jax.Array) -> jax.Array:
        """Keep the n largest of every m; everything if all are to be kept."""
        size = self.units(scores.shape)
        moved = jnp.moveaxis(scores, self.axis, -1)
        chosen = top_k_mask(moved.reshape(*moved.shape[:-1], -1, self.m), self.n)
        mask = jnp.moveaxis(chosen.reshape(moved.shape), -1, self.axis)
        return mask | (jnp.asarray(kept) >= size)
