"""Use the largest weights and train some more: Top-KAST."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.pruning.distributions import count_kept
from sparse_hyper_jax.pruning.method import Kept, Leaves, Method, Snapshot
from sparse_hyper_jax.pruning.schedules import Schedule, periodic
from sparse_hyper_jax.pruning.select import keep_largest


@dataclass(frozen=True)
class TopKAST(Method):
    """Use the largest weights, train some more of them.

    The forward pass uses the set A of the largest weights (the density of ``sparse_training``); the
    set B has the ``trained_extra`` next ones too and is what is trained, from the gradient of the
    masked weights, so that entries can grow into A. Everything else keeps its value. ``penalty``
    pulls weights to zero, those in B but not in A harder, by 1 / density::

        dL/dw += penalty * w * (1 in A, 1 / density in B without A)

    Reference: Jayakumar et al. 2020, arXiv 2106.03517.
    """

    trained_extra: float = 0.1
    """Share of all entries that are trained but not used."""

    every: int = 100
    """Steps between changes of the masks."""

    penalty: float = 0.0
    """Exploration penalty."""

    def __post_init__(self) -> None:
        checks.check_count("every", self.every, least=1)
        extra = self.trained_extra
        checks.require(0 <= extra <= 1, f"trained_extra={extra}", "from 0 to 1", "change it")
        checks.require(self.penalty >= 0, f"penalty={self.penalty}", "at least 0", "change it")

    @property
    def schedule(self) -> Schedule:
        """All the time."""
        return periodic(self.every)

    def change(self, key: Any, seen: Snapshot) -> Kept:
        """Choose A and B by magnitude."""
        del key
        more = [min(1.0, density + self.trained_extra) for density in seen.densities]
        used, trained = (_largest(seen.weights, shares) for shares in (seen.densities, more))
        return Kept(used, trained)

    def adjust(
        self, gradients: Leaves, weights: Callable[[], Leaves], masks: Leaves
    ) -> Sequence[jax.Array]:
        """Add the exploration penalty."""
        if not self.penalty:
            return gradients

        def added(gradient: jax.Array, leaf: jax.Array, used: jax.Array) -> jax.Array:
            density = jnp.maximum(jnp.mean(used, dtype=jnp.float32), 1 / used.size)
            pulls = jnp.where(used, 1, 1 / density)
            return (gradient + self.penalty * leaf * pulls).astype(gradient.dtype)

        return [added(*leaves) for leaves in zip(gradients, weights(), masks, strict=True)]


def _largest(weights: Leaves, densities: Sequence[float]) -> list[jax.Array]:
    return [
        keep_largest([leaf], count_kept(density, leaf.size))[0]
        for leaf, density in zip(weights, densities, strict=True)
    ]
