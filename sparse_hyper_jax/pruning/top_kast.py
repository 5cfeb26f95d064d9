"""Use the largest weights and train some more: Top-KAST."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from sparse_hyper_jax import checks
from sparse_hyper_jax.precision import wide_dtype
from sparse_hyper_jax.pruning.distributions import check_share, count_kept
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

    Example:
        >>> import optax
        >>> from sparse_hyper_jax.pruning import TopKAST, sparse_training
        >>> optimizer = sparse_training(optax.sgd(0.1), TopKAST(trained_extra=0.25), density=0.25)
        >>> state = optimizer.init({"kernel": jnp.array([[4.0, 3.0, 2.0, 1.0]])})
        >>> state.masks["kernel"].astype(int).tolist(), state.updated["kernel"].astype(int).tolist()
        ([[1, 0, 0, 0]], [[1, 1, 0, 0]])
    """

    trained_extra: float = 0.1
    """Share of all entries that are trained but not used."""

    every: int = 100
    """Steps between changes of the masks."""

    penalty: float = 0.0
    """Exploration penalty; may be traced."""

    def __post_init__(self) -> None:
        checks.check_count("every", self.every, least=1)
        check_share("trained_extra", self.trained_extra)
        checks.check_number("penalty", self.penalty, at_least=0)

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
        if not isinstance(self.penalty, Tracer) and not self.penalty:
            return gradients

        def added(gradient: jax.Array, leaf: jax.Array, used: jax.Array) -> jax.Array:
            wide = wide_dtype(gradient, leaf)
            density = jnp.sum(used, dtype=jnp.int32).astype(wide) / max(used.size, 1)
            harder = 1 / jnp.maximum(density, 1 / max(used.size, 1))
            pull = jnp.asarray(self.penalty, wide) * leaf.astype(wide) * jnp.where(used, 1, harder)
            return (gradient.astype(wide) + pull).astype(gradient.dtype)

        return [added(*leaves) for leaves in zip(gradients, weights(), masks, strict=True)]


def _largest(weights: Leaves, densities: Sequence[float]) -> list[jax.Array]:
    return [
        keep_largest([leaf], count_kept(density, leaf.size))[0]
        for leaf, density in zip(weights, densities, strict=True)
    ]
