"""Prune what has the smallest scores: before, during or after training."""

from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.pruning.densities import count_kept
from sparse_hyper_jax.pruning.method import Kept, Method, Snapshot, magnitudes, random_scores
from sparse_hyper_jax.pruning.patterns import UNSTRUCTURED, Pattern, Unstructured
from sparse_hyper_jax.pruning.schedules import Schedule, one_shot
from sparse_hyper_jax.pruning.select import keep_largest


@dataclass(frozen=True)
class Prune(Method):
    """Keep the entries with the largest scores, as many as the schedule asks for.

    Dropped entries keep their values and may come back when the masks are made anew.
    """

    schedule: Schedule = field(default_factory=lambda: one_shot(0))
    """When, and how much by then."""

    score: Literal["magnitude", "saliency", "random"] = "magnitude"
    """``|w|``; ``|w dL/dw|`` of the last step, what the loss changes in first order; or chance."""

    scope: Literal["layer", "global"] = "layer"
    """Largest of every array, or of all of them together."""

    pattern: Pattern = UNSTRUCTURED
    """What is kept or dropped as one; with the global scope single entries only."""

    straight_through: bool = False
    """Update dropped entries too, as if they had been used."""

    def __post_init__(self) -> None:
        checks.check_choice("score", self.score, ("magnitude", "saliency", "random"))
        checks.check_choice("scope", self.scope, ("layer", "global"))
        checks.require(
            self.scope == "layer" or isinstance(self.pattern, Unstructured),
            f"scope='global' with {self.pattern}",
            "single entries, which alone compare between arrays",
            "pass scope='layer' or leave out the pattern",
        )
        checks.require(
            self.score != "saliency" or float(self.schedule.share(jnp.int32(0))) == 0,
            "score='saliency' with a schedule that prunes before the first step",
            "a gradient to compute it from",
            "begin later, for instance with one_shot(1)",
        )

    @property
    def random(self) -> bool:
        """Whether it needs a key."""
        return self.score == "random"

    def change(self, key: Any, seen: Snapshot) -> Kept:
        """Make the masks anew."""
        scores = self._scores(key, seen)
        share = self.schedule.share(seen.count)
        units = [self.pattern.units(jnp.shape(leaf)) for leaf in seen.weights]
        numbers = [
            _so_far(count_kept(density, of), of, share)
            for density, of in zip(seen.densities, units, strict=True)
        ]
        if self.scope == "global":
            forward = keep_largest(scores, sum(numbers))
        else:
            forward = [self.pattern.mask(*pair) for pair in zip(scores, numbers, strict=True)]
        updated = [jnp.ones_like(mask) for mask in forward] if self.straight_through else forward
        return Kept(forward, updated)

    def _scores(self, key: Any, seen: Snapshot) -> list[jax.Array]:
        if self.score == "random":
            return random_scores(key, seen.weights)
        sizes = magnitudes(seen.weights)
        if self.score == "magnitude":
            return sizes
        slopes = magnitudes(seen.gradients)
        return [size * slope for size, slope in zip(sizes, slopes, strict=True)]


def _so_far(kept: int, units: int, share: jax.Array) -> jax.Array:
    """Give the number to keep after a share of the pruning is done; exact at the end."""
    dropped = jnp.round(share * (units - kept)).astype(jnp.int32)
    return jnp.where(share >= 1, kept, units - dropped)
