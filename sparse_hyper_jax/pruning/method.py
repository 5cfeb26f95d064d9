"""What a method of sparse training is: a rule that makes masks from weights and gradients."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from sparse_hyper_jax.precision import at_least_float32
from sparse_hyper_jax.pruning.schedules import Schedule
from sparse_hyper_jax.reparam import Reparametrization

Leaves = Sequence[jax.Array]


class Kept(NamedTuple):
    """Masks of all pruned leaves, in their order."""

    forward: list[jax.Array]
    """What the model uses."""

    updated: list[jax.Array]
    """What training changes."""

    grown: list[jax.Array] | None = None
    """The weights that newly grown entries start from, NaN at all others; or None."""


class Snapshot(NamedTuple):
    """What a method sees of training: all pruned leaves, in their order."""

    steps: jax.Array
    """Finished ones, int32."""

    weights: Leaves
    """What the model would use without masks."""

    gradients: Leaves
    """Of the masked weights, at all entries; zeros before the first step."""

    masks: Leaves
    """What the model used; all true before the first step."""

    densities: Sequence[float]
    """Share of each leaf that is kept in the end."""


class Method(ABC):
    """A rule that makes masks.

    ``start`` makes the first ones; ``change`` makes them anew whenever the ``schedule`` says so.
    """

    schedule: Schedule
    """When masks change."""

    grows: ClassVar[bool] = False
    """Whether a change takes the place of the gradient step and gives entries first weights."""

    @property
    def random(self) -> bool:
        """Whether ``start`` and ``change`` draw random numbers."""
        return False

    def start(self, key: Any, seen: Snapshot) -> Kept:
        """Make the first masks; by default as all others."""
        return self.change(key, seen)

    @abstractmethod
    def change(self, key: Any, seen: Snapshot) -> Kept:
        """Make masks."""

    def check_reparam(self, reparam: Reparametrization | None) -> None:
        """Raise if the method does not go with a reparametrisation; by default all do."""
        del reparam

    def adjust(
        self, gradients: Leaves, weights: Callable[[], Leaves], masks: Leaves
    ) -> Sequence[jax.Array]:
        """Change the gradients of weights, for instance by a penalty; by default not."""
        del weights, masks
        return gradients


def random_scores(key: Any, leaves: Leaves) -> list[jax.Array]:
    """Draw positive random numbers, one array for each."""
    keys = jax.random.split(key, len(leaves))
    # Added to zeros made from the leaf, so that they are spread over devices as it is.
    return [
        jax.random.uniform(one, leaf.shape, jnp.float32, minval=0.5, maxval=1.0)
        + jnp.zeros_like(leaf, jnp.float32)
        for one, leaf in zip(keys, leaves, strict=True)
    ]


def magnitudes(leaves: Leaves) -> list[jax.Array]:
    """Give magnitudes, at least in float32."""
    return [at_least_float32(jnp.abs(leaf)) for leaf in leaves]
