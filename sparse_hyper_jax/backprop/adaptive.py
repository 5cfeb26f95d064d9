"""Budgets that follow the size of the cotangent (TinyProp)."""

import math
from dataclasses import dataclass
from types import NoneType
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.backprop.choice import Choice, Sparsifier, check_static
from sparse_hyper_jax.backprop.sparsifiers import UnifiedTopK
from sparse_hyper_jax.entrance import check_instance
from sparse_hyper_jax.largest import top_k_mask


@dataclass(frozen=True, eq=False)
class AdaptiveTopK(Sparsifier):
    """The k largest magnitudes of each row, with a k that follows the row's size.

    With ``Y = sum_j |g_j|`` of the row and the largest one so far, of this and all earlier steps::

        r = (least + Y / Y_max * (most - least)) * damping**depth
        k = clip(round(n * r), 1, n)

    Exact, and no faster than :class:`TopK`. Needs a memory with a peak
    (``init_memory(..., adaptive=True)``).

    Attributes:
        least: share for a row of size 0.
        most: share for the largest row.
        damping: factor per layer of distance from the output (zeta).
        depth: that distance, 0 for the last sparsified layer.

    Reference: Rüb et al. 2023, arXiv 2308.09201.

    Example:
        >>> from sparse_hyper_jax.backprop import AdaptiveTopK, init_memory, sparsify_cotangent
        >>> weights = jnp.array([[8.0, 4, 2, 1], [1.0, 0, 0, 1]])  # are the cotangent of their sum
        >>> loss = lambda y, memory: jnp.sum(weights * sparsify_cotangent(
        ...     None, y, memory, sparsifier=AdaptiveTopK(most=0.75)))
        >>> memory = init_memory("none", adaptive=True)
        >>> gradient, memory = jax.grad(loss, argnums=(0, 1))(jnp.zeros((2, 4)), memory)
        >>> gradient.tolist(), memory.peak.item()  # the large row is worth three, the small one one
        ([[8.0, 4.0, 2.0, 0.0], [1.0, 0.0, 0.0, 0.0]], 15.0)
    """

    needs_peak: ClassVar[bool] = True
    least: float = 0.0
    most: float = 1.0
    damping: float = 1.0
    depth: int = 0

    def __post_init__(self) -> None:
        check_static("least", self.least, at_least=0, at_most=1)
        check_static("most", self.most, at_least=0, at_most=1)
        check_static("damping", self.damping, above=0, at_most=1)
        checks.require(
            self.least <= self.most,
            f"least={self.least}, most={self.most}",
            "0 <= least <= most <= 1",
            "change one of the two",
        )
        checks.check_count("depth", self.depth)

    def ratios(self, cotangent: jax.Array, peak: jax.Array) -> jax.Array:
        """Give the share r of each row: ``(rows,)``."""
        size = jnp.sum(jnp.abs(cotangent.astype(peak.dtype)), axis=-1)
        # Before the first cotangent that is not zero the peak is 0, and so is the row.
        relative = size / jnp.where(peak > 0, peak, 1)
        return (self.least + relative * (self.most - self.least)) * self.damping**self.depth

    def choose(self, key: jax.Array | None, cotangent: jax.Array, peak: Any = None) -> Choice:
        """Mark as many components as each row deserves."""
        n = cotangent.shape[-1]
        wanted = jnp.clip(jnp.round(n * self.ratios(cotangent, peak)), 1, n)
        # A share that is not a number keeps everything, which propagates the fault.
        k = jnp.where(jnp.isnan(wanted), n, wanted).astype(jnp.int32)
        return Choice(None, top_k_mask(cotangent, k))


@dataclass(frozen=True, eq=False)
class AdaptiveLadder(AdaptiveTopK):
    """Columns for all rows, as many as the batch deserves, rounded up to one of a few budgets.

    The mean share of the rows decides. In ``sparse_dense`` every budget (rung) is compiled with its
    own sizes and ``lax.switch`` runs one of them, which saves time (not under ``vmap``, which runs
    them all); elsewhere it masks.

    Attributes:
        num_rungs: budgets, from the largest share that ``most`` allows down to its half, quarter,
            ..., rounded up; and all n, for a cotangent that is not finite.
        axis_name: as in :class:`UnifiedTopK`; the rung is then the same on all devices.

    Example:
        >>> from sparse_hyper_jax.backprop import AdaptiveLadder, init_memory, sparse_dense
        >>> AdaptiveLadder(most=0.5, num_rungs=3).budgets(64)  # each is compiled, one of them runs
        (8, 16, 32, 64)
        >>> loss = lambda kernel, memory: jnp.sum(sparse_dense(
        ...     None, jnp.ones((2, 3)), kernel, None, memory, sparsifier=AdaptiveLadder(most=0.5)))
        >>> memory = init_memory("none", adaptive=True)
        >>> gradient, memory = jax.grad(loss, argnums=(0, 1))(jnp.ones((64, 3)), memory)
        >>> jnp.count_nonzero(gradient[:, 0]).item()
        32
    """

    num_rungs: int = 7
    axis_name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_count("num_rungs", self.num_rungs, least=1)
        check_instance("axis_name", self.axis_name, str, NoneType)

    def budgets(self, n: int) -> tuple[int, ...]:
        """Give the numbers of columns, from the smallest to n."""
        top = max(1, math.ceil(n * self.most * self.damping**self.depth))
        return tuple(sorted({-(-top // 2**power) for power in range(self.num_rungs)} | {n}))

    def rungs(self, n: int) -> tuple[UnifiedTopK, ...]:
        """Give the sparsifier of each rung."""
        return tuple(UnifiedTopK(k, self.axis_name) for k in self.budgets(n))

    def rung(self, cotangent: jax.Array, peak: Any) -> jax.Array:
        """Give the number of the smallest rung that is enough: int32 scalar."""
        n = cotangent.shape[-1]
        share = jnp.mean(self.ratios(cotangent, peak))
        share = share if self.axis_name is None else jax.lax.pmean(share, self.axis_name)
        wanted = jnp.clip(jnp.round(n * share), 1, n)
        enough = jnp.asarray(self.budgets(n), share.dtype) >= wanted
        # A share that is not a number takes the last rung, which propagates the fault.
        return jnp.where(jnp.any(enough), jnp.argmax(enough), len(enough) - 1).astype(jnp.int32)

    def choose(self, key: jax.Array | None, cotangent: jax.Array, peak: Any = None) -> Choice:
        """Mark the columns of the rung."""
        sums = jnp.sum(jnp.abs(cotangent.astype(peak.dtype)), axis=0)
        sums = sums if self.axis_name is None else jax.lax.psum(sums, self.axis_name)
        number = self.rung(cotangent, peak)
        k = jnp.asarray(self.budgets(cotangent.shape[-1]), jnp.int32)[number]
        mask = top_k_mask(sums, k)
        return Choice(None, jnp.broadcast_to(mask[None], cotangent.shape))
