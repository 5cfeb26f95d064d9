"""Drop small weights and grow others: SET, RigL, and growth by momentum."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from sparse_hyper_jax import checks
from sparse_hyper_jax.placement import placed_like
from sparse_hyper_jax.pruning.distributions import count_kept
from sparse_hyper_jax.pruning.method import Kept, Method, Snapshot, magnitudes, random_scores
from sparse_hyper_jax.pruning.schedules import Schedule, periodic
from sparse_hyper_jax.pruning.select import keep_largest
from sparse_hyper_jax.reparam import Reparametrization


class Scores(NamedTuple):
    """What a new mask of an array is chosen by."""

    size: jax.Array
    """Magnitudes, of which the largest stay."""

    score: jax.Array
    """Where entries grow: where it is largest."""

    mask: jax.Array
    """What was kept."""

    density: float
    """Share to keep."""


@dataclass(frozen=True)
class DropAndGrow(Method):
    """Every so many steps, drop the smallest weights and grow as many others.

    The share of the kept entries that is replaced falls like a cosine from ``drop_fraction`` to 0
    at ``end``. Entries grow by chance (SET), where the gradient of the masked weights is largest
    (RigL), or its running mean (momentum). There is no gradient step when the masks change, and the
    optimizer's moments of grown entries begin at 0. The first masks are random.

    A grown entry starts from the mean magnitude of the kept ones of its array, times
    ``grown_size``, against its gradient (SET: with random sign). With 0, the choice of RigL's
    authors, it would never move under a power of more than 1.

    References: Mocanu et al. 2018, arXiv 1707.04780; Evci et al. 2020, arXiv 1911.11134; Dettmers
    and Zettlemoyer 2019, arXiv 1907.04840, for growth by momentum.

    Example:
        >>> import optax
        >>> from sparse_hyper_jax.pruning import DropAndGrow, sparse_training
        >>> method = DropAndGrow(1000, every=1, drop_fraction=0.9, grown_size=0.5, momentum=0.9)
        >>> optimizer = sparse_training(optax.sgd(0.1), method, density=0.5, key=jax.random.key(0))
        >>> params, gradient = {"kernel": jnp.full((4, 1), 2.0)}, {"kernel": jnp.ones((4, 1))}
        >>> updates, state = optimizer.update(gradient, optimizer.init(params), params)
        >>> new = updates["kernel"] != 0  # starts at half the mean size, against its gradient
        >>> optax.apply_updates(params, updates)["kernel"][new].tolist()
        [-1.0]
    """

    end: int
    """No change of the masks from this step on; 0: the first ones stay."""

    every: int = 100
    """Steps between changes."""

    drop_fraction: float = 0.3
    """Share of the kept entries that is replaced at first."""

    grow: Literal["gradient", "random"] = "gradient"
    """Where: RigL or SET."""

    grown_size: float = 0.0
    """Size of grown weights, as a share of the mean magnitude of the kept ones."""

    momentum: float | jax.Array = 0.0
    """Decay of the running mean of gradients by which entries grow, at dropped entries too; 0: by
    the last gradient. Costs one more array of float32 for every array that is pruned."""

    grows: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.check_count("end", self.end)
        checks.check_count("every", self.every, least=1)
        checks.check_choice("grow", self.grow, ("gradient", "random"))
        for name in ("drop_fraction", "grown_size"):
            checks.check_number(name, getattr(self, name), at_least=0, at_most=1)
        checks.check_number("momentum", self.momentum, at_least=0, below=1)
        checks.require(
            self.grow == "gradient" or not self.averages,
            f"momentum={self.momentum} with grow={self.grow!r}",
            "no running mean of gradients, which chance does not look at",
            "leave momentum out, or take RigL",
        )
        checks.require(
            self.every < self.end or self.end <= 1,
            f"every={self.every} with end={self.end}: masks would never change",
            "a first change before the end",
            "lower every; for random masks that stay, take Prune(score='random')",
        )

    @property
    def schedule(self) -> Schedule:
        """Changes between the first step and the last, none at either end."""
        full = periodic(self.every, end=max(self.end - 1, 0))
        return full._replace(due=lambda steps: full.due(steps) & (steps > 0))

    @property
    def random(self) -> bool:
        """Always: the first masks are."""
        return True

    def check_reparam(self, reparam: Reparametrization | None) -> None:
        """Raise if grown entries would stay at zero, or move others."""
        name = type(self).__name__
        checks.require(
            reparam is None or reparam.elementwise,
            f"{name} with a reparametrisation of groups",
            "one of single entries: a grown entry would rescale its whole group",
            "pass powerprop without axes",
        )
        checks.require(
            reparam is None or isinstance(self.grown_size, Tracer) or self.grown_size > 0,
            f"grown_size={self.grown_size} with a reparametrisation",
            "more than 0: under a power of more than 1, an entry at zero stays there for ever",
            "pass for instance grown_size=0.5; for alpha 1, no reparam",
        )

    def start(self, key: Any, seen: Snapshot) -> Kept:
        """Keep entries by chance."""
        masks = [
            keep_largest([one], count_kept(density, one.size))[0]
            for one, density in zip(random_scores(key, seen.weights), seen.densities, strict=True)
        ]
        return Kept(masks, masks)

    def change(self, key: Any, seen: Snapshot) -> Kept:
        """Drop and grow."""
        decay = optax.cosine_decay_schedule(1.0, max(int(self.end), 1))
        replaced = self.drop_fraction * jnp.asarray(decay(seen.steps.astype(jnp.float32)))
        keys = jax.random.split(key, len(seen.weights))
        arrays = seen.weights, seen.gradients, seen.masks, seen.densities
        parts = [self._replace(one, of, replaced) for one, *of in zip(keys, *arrays, strict=True)]
        forward, grown = (list(leaves) for leaves in zip(*parts, strict=True))
        return Kept(forward, forward, grown)

    def _replace(
        self, key: jax.Array, of: Sequence[Any], replaced: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Give the new mask of an array, and the first weights of what grows in it."""
        weights, gradient, mask, density = of
        (size,) = magnitudes([weights])
        kept = jnp.sum(mask, dtype=jnp.int32)
        wanted = replaced * kept.astype(replaced.dtype)
        dropped = jnp.minimum(wanted.astype(jnp.int32), mask.size - kept)
        if self.grow == "gradient":
            (score,), side = magnitudes([gradient]), jnp.where(gradient > 0, -1, 1)
        else:
            place, sign = jax.random.split(key)
            (score,) = random_scores(place, [weights])
            side = placed_like(jax.random.rademacher(sign, weights.shape, jnp.int32), weights)
        forward = self.choose(Scores(size, score, mask, density), dropped)
        new = forward & ~mask
        # Divided first, since the sum of large weights overflows.
        mean = jnp.sum(jnp.where(mask, size / jnp.maximum(kept, 1).astype(size.dtype), 0))
        first = jnp.asarray(self.grown_size, size.dtype) * mean
        grown = jnp.where(new, first * side.astype(size.dtype), jnp.nan)
        return forward, grown.astype(weights.dtype)

    def choose(self, scores: "Scores", dropped: jax.Array) -> jax.Array:
        """Make the mask of an array in which so many entries give way to others."""
        size, score, mask, _ = scores
        stay = keep_largest([size], jnp.sum(mask, dtype=jnp.int32) - dropped, among=[mask])[0]
        # Only entries that were not kept before, so that every grown one is new.
        return stay | keep_largest([score], dropped, among=[~mask])[0]


def SET(  # noqa: N802 (the method's name)
    end: int, *, every: int = 100, drop_fraction: float = 0.3, grown_size: float = 0.0
) -> DropAndGrow:
    """Sparse evolutionary training: :class:`DropAndGrow`, with its options, growing by chance.

    Example:
        >>> import optax
        >>> from sparse_hyper_jax.pruning import SET, density_report, sparse_training
        >>> params, key = {"kernel": jnp.ones((10, 10))}, jax.random.key(0)
        >>> optimizer = sparse_training(optax.sgd(0.1), SET(1000), density=0.1, key=key)
        >>> density_report(params, optimizer.init(params).masks).pruned  # from the first step on
        0.1
    """
    return DropAndGrow(end, every, drop_fraction, "random", grown_size)


def RigL(  # noqa: N802 (the method's name)
    end: int,
    *,
    every: int = 100,
    drop_fraction: float = 0.3,
    grown_size: float = 0.0,
    momentum: float | jax.Array = 0.0,
) -> DropAndGrow:
    """Rigged lottery: :class:`DropAndGrow`, with its options, growing by gradients.

    Example:
        >>> import optax
        >>> from sparse_hyper_jax.pruning import RigL, sparse_training
        >>> rigl, key = RigL(100, every=1, drop_fraction=0.9), jax.random.key(0)
        >>> optimizer = sparse_training(optax.sgd(0.1), rigl, density=0.25, key=key)
        >>> params, gradient = {"kernel": jnp.ones((8, 1))}, {"kernel": jnp.arange(8.0)[:, None]}
        >>> state = optimizer.init(params)
        >>> after = optimizer.update(gradient, state, params)[1].masks["kernel"]
        >>> after.sum().item(), (after & ~state.masks["kernel"]).sum().item()  # one of two is new
        (2, 1)
    """
    return DropAndGrow(end, every, drop_fraction, "gradient", grown_size, momentum)
