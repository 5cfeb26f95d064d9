"""What a method of sparse training is: a rule that makes masks from weights and gradients."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from sparse_hyper_jax.precision import at_least_float32
from sparse_hyper_jax.pruning.schedules import Schedule
from sparse_hyper_jax.reparam import Reparametrization

Leaves = Sequence[jax.Array]


class Kept(NamedTuple):
    """Masks of all pruned leaves, in their order.

    Example:
        >>> from sparse_hyper_jax.pruning import Kept
        >>> mask = jnp.array([True, False])
        >>> kept = Kept(forward=[mask], updated=[jnp.ones(2, bool)])  # train more than is used
        >>> kept.grown is None
        True
    """

    forward: list[jax.Array]
    """What the model uses."""

    updated: list[jax.Array]
    """What training changes."""

    grown: list[jax.Array] | None = None
    """The weights that newly grown entries start from, NaN at all others; or None."""


class Snapshot(NamedTuple):
    """What a method sees of training: all pruned leaves, in their order.

    Example:
        >>> from sparse_hyper_jax.pruning import Prune, Snapshot
        >>> leaves, everything = [jnp.array([3.0, -1.0, 2.0, 0.5])], [jnp.ones(4, bool)]
        >>> seen = Snapshot(jnp.int32(0), leaves, leaves, everything, densities=[0.5])
        >>> Prune().change(None, seen).forward[0].tolist()
        [True, False, True, False]
    """

    steps: jax.Array
    """Finished ones, int32."""

    weights: Leaves
    """What the model would use without masks."""

    gradients: Leaves
    """Of the masked weights, at all entries; zeros before the first step. For a method with a
    momentum their running mean."""

    masks: Leaves
    """What the model used; all true before the first step."""

    densities: Sequence[float]
    """Share of each leaf that is kept in the end."""


class Method(ABC):
    """A rule that makes masks.

    ``start`` makes the first ones; ``change`` makes them anew whenever the ``schedule`` says so.

    Example:
        >>> import optax
        >>> from sparse_hyper_jax.pruning import Kept, Method, periodic, sparse_training
        >>> class Positive(Method):  # keep what is positive, whatever the density
        ...     schedule = periodic(100)
        ...     def change(self, key, seen):
        ...         return Kept(*2 * [[leaf > 0 for leaf in seen.weights]])
        >>> optimizer = sparse_training(optax.sgd(0.1), Positive(), density=0.5)
        >>> optimizer.init({"kernel": jnp.array([[1.0, -1.0]])}).masks["kernel"].tolist()
        [[True, False]]
    """

    schedule: Schedule
    """When masks change."""

    grows: ClassVar[bool] = False
    """Whether a change takes the place of the gradient step and gives entries first weights."""

    needs_density: ClassVar[bool] = True
    """Whether it is told how many entries to keep."""

    momentum: float | jax.Array = 0.0
    """Decay of the running mean of gradients that it sees, from 0, the last gradient, to below 1;
    may be traced."""

    @property
    def averages(self) -> bool:
        """Whether it sees a running mean of gradients."""
        return isinstance(self.momentum, Tracer) or bool(self.momentum > 0)

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

    def check_params(self, params: Any, densities: Any) -> None:
        """Raise if the method does not go with the parameters; by default all do.

        Args:
            params: the parameters.
            densities: a share for every leaf that is pruned, ``optax.MaskedNode()`` for others.
        """
        del params, densities

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
