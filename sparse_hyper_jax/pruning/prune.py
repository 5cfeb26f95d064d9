"""Prune what has the smallest scores: before, during or after training."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import check_instance
from sparse_hyper_jax.precision import wide_dtype
from sparse_hyper_jax.pruning.distributions import count_kept
from sparse_hyper_jax.pruning.method import Kept, Method, Snapshot, magnitudes, random_scores
from sparse_hyper_jax.pruning.patterns import UNSTRUCTURED, Pattern, Unstructured, check_pattern
from sparse_hyper_jax.pruning.schedules import Schedule, one_shot
from sparse_hyper_jax.pruning.select import keep_largest


@dataclass(frozen=True)
class Prune(Method):
    """Keep the entries with the largest scores, as many as the schedule asks for.

    Dropped entries keep their values and may come back when the masks are made anew.

    Example:
        >>> import optax
        >>> from sparse_hyper_jax.pruning import Prune, gradual, sparse_training
        >>> optimizer = sparse_training(optax.sgd(0.1), Prune(gradual(0, 4, every=2)), density=0.25)
        >>> params = {"kernel": jnp.arange(1.0, 9.0).reshape(2, 4)}
        >>> state = optimizer.init(params)
        >>> for _ in range(4):
        ...     _, state = optimizer.update(jax.tree.map(jnp.zeros_like, params), state, params)
        ...     print(state.masks["kernel"].astype(int).tolist())
        [[1, 1, 1, 1], [1, 1, 1, 1]]
        [[0, 0, 0, 0], [0, 1, 1, 1]]
        [[0, 0, 0, 0], [0, 1, 1, 1]]
        [[0, 0, 0, 0], [0, 0, 1, 1]]
    """

    schedule: Schedule = field(default_factory=lambda: one_shot(0))
    """When, and how much by then."""

    score: Literal["magnitude", "saliency", "random"] = "magnitude"
    """``|w|``; ``|w dL/dw|`` of the last step, what the loss changes in first order; or chance, by
    which entries that were dropped stay dropped unless they are updated straight through."""

    scope: Literal["layer", "global"] = "layer"
    """Largest of every array, or of all together but those whose density is 1, which stay whole."""

    pattern: Pattern = UNSTRUCTURED
    """What is kept or dropped as one; with the global scope single entries only."""

    straight_through: bool = False
    """Update dropped entries too, as if they had been used."""

    def __post_init__(self) -> None:
        check_instance("schedule", self.schedule, Schedule)
        check_pattern(self.pattern)
        checks.check_flag("straight_through", self.straight_through)
        checks.check_choice("score", self.score, ("magnitude", "saliency", "random"))
        checks.check_choice("scope", self.scope, ("layer", "global"))
        checks.require(
            self.scope == "layer" or isinstance(self.pattern, Unstructured),
            f"scope='global' with {self.pattern}",
            "single entries, which alone compare between arrays",
            "pass scope='layer' or leave out the pattern",
        )
        with jax.ensure_compile_time_eval():
            first = float(self.schedule.share(jnp.int32(0)))
        checks.require(
            self.score != "saliency" or first == 0,
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
        share = self.schedule.share(seen.steps)
        units = [self.pattern.units(jnp.shape(leaf)) for leaf in seen.weights]
        numbers = [
            _so_far(count_kept(density, of), of, share)
            for density, of in zip(seen.densities, units, strict=True)
        ]
        if self.scope == "global":
            forward = _largest_together(scores, numbers, seen.densities)
        else:
            forward = [self.pattern.mask(*pair) for pair in zip(scores, numbers, strict=True)]
        updated = [jnp.ones_like(mask) for mask in forward] if self.straight_through else forward
        return Kept(forward, updated)

    def _scores(self, key: Any, seen: Snapshot) -> list[jax.Array]:
        if self.score == "random":
            scores = random_scores(key, seen.weights)
            if self.straight_through:
                return scores
            return [
                jnp.where(mask, score, 0) for score, mask in zip(scores, seen.masks, strict=True)
            ]
        sizes = magnitudes(seen.weights)
        if self.score == "magnitude":
            return sizes
        slopes = magnitudes(seen.gradients)
        # Roots are ordered as the products are, which would overflow or vanish.
        return [
            jnp.sqrt(size) * jnp.sqrt(slope).astype(size.dtype)
            for size, slope in zip(sizes, slopes, strict=True)
        ]


def _largest_together(
    scores: Sequence[jax.Array], numbers: Sequence[jax.Array], densities: Sequence[float]
) -> list[jax.Array]:
    """Rank the entries of all arrays; an array of density 1 stays whole and out of it."""
    ranked = [place for place, density in enumerate(densities) if density < 1]
    masks = [jnp.ones_like(score, bool) for score in scores]
    if not ranked:
        return masks
    wide = wide_dtype(*(scores[place] for place in ranked))
    kept = keep_largest(
        [scores[place].astype(wide) for place in ranked],
        sum((numbers[place] for place in ranked), jnp.int32(0)),
    )
    for place, mask in zip(ranked, kept, strict=True):
        masks[place] = mask
    return masks


def _so_far(kept: int, units: int, share: jax.Array) -> jax.Array:
    """Give the number to keep after a share of the pruning is done; exact at the end."""
    dropped = jnp.round(share * (units - kept)).astype(jnp.int32)
    return jnp.where(share >= 1, kept, units - dropped)
