"""Sparsifiers: which components of a cotangent are propagated, as static descriptions.

Each is a frozen dataclass, hashable and so static for ``jit``, with one pure method ``choose``. A
budget ``k`` is an int (components) or a float from 0 to 1 (share of all ``n``, rounded, at least
one).
"""

from dataclasses import dataclass
from types import NoneType
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.backprop.choice import (
    Choice,
    Sparsifier,
    budget,
    check_budget,
    check_static,
    require_key,
)
from sparse_hyper_jax.entrance import check_instance
from sparse_hyper_jax.largest import top_k_mask
from sparse_hyper_jax.norms import in_units, unit_of
from sparse_hyper_jax.precision import at_least_float32, wide_dtype


@dataclass(frozen=True, eq=False)
class TopK(Sparsifier):
    """The k largest magnitudes of each row (meProp).

    Biased; ``cos(g, S(g)) >= sqrt(k / n)`` in every row. Rows have different patterns, so a dense
    product follows and no time is saved.

    Reference: Sun et al. 2017, arXiv 1706.06197.

    Example:
        >>> from sparse_hyper_jax.backprop import TopK, sparsify
        >>> cotangent = jnp.array([[3.0, -1.0, 2.0, 0.5], [0.0, 1.0, 2.0, -4.0]])
        >>> sparsify(None, cotangent, TopK(0.5)).tolist()  # half of each row
        [[3.0, 0.0, 2.0, 0.0], [0.0, 0.0, 2.0, -4.0]]
    """

    k: float

    def __post_init__(self) -> None:
        check_budget("k", self.k)

    def choose(self, key: jax.Array | None, cotangent: jax.Array, peak: Any = None) -> Choice:
        """Mark the largest components of each row."""
        mask = top_k_mask(cotangent, budget(self.k, cotangent.shape[-1]))
        return Choice(None, mask)


@dataclass(frozen=True, eq=False)
class UnifiedTopK(Sparsifier):
    """The k columns with the largest sum of magnitudes over all rows (unified meProp).

    Biased. What follows are dense products of ``k / n`` of the size: the fast one.

    Attributes:
        k: budget.
        axis_name: inside ``shard_map`` or ``vmap`` with an axis of that name over which the rows
            are spread: sum the magnitudes over it, so that all devices choose the same columns.
            None: each device chooses for its own rows. (Under plain ``jit`` with sharded arrays
            there is nothing to say.)

    Reference: Sun et al. 2017, arXiv 1706.06197; Wei et al. 2017, arXiv 1709.06080.

    Example:
        >>> from sparse_hyper_jax.backprop import UnifiedTopK, sparsify
        >>> cotangent = jnp.array([[3.0, -1.0, 2.0, 0.5], [0.0, 1.0, 2.0, -4.0]])
        >>> sparsify(None, cotangent, UnifiedTopK(2)).tolist()  # the same columns in all rows
        [[0.0, 0.0, 2.0, 0.5], [0.0, 0.0, 2.0, -4.0]]
    """

    k: float
    axis_name: str | None = None

    def __post_init__(self) -> None:
        check_budget("k", self.k)
        check_instance("axis_name", self.axis_name, str, NoneType)

    def choose(self, key: jax.Array | None, cotangent: jax.Array, peak: Any = None) -> Choice:
        """Give the columns with the largest sums."""
        scores = _column_sums(jnp.abs(cotangent), self.axis_name)
        return Choice(jax.lax.top_k(scores, budget(self.k, len(scores)))[1], None)


@dataclass(frozen=True, eq=False)
class CandidateTopK(Sparsifier):
    """The k largest magnitudes of each row among columns chosen for all rows.

    Biased. The best ``candidates`` columns as in :class:`UnifiedTopK`, in these the rows choose as
    in :class:`TopK`: patterns differ by row, products stay ``candidates / n`` of the size. With all
    columns as candidates it is :class:`TopK`.

    Attributes:
        k: budget of a row.
        candidates: budget of columns, at least k; by default four times k, or all.
        axis_name: as in :class:`UnifiedTopK`.

    Example:
        >>> from sparse_hyper_jax.backprop import CandidateTopK, sparsify
        >>> cotangent = jnp.array([[3.0, -1.0, 2.0, 0.5], [0.0, 1.0, 2.0, -4.0]])
        >>> sparsify(None, cotangent, CandidateTopK(1, candidates=2)).tolist()  # of columns 2 and 3
        [[0.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, -4.0]]
    """

    k: float
    candidates: float | None = None
    axis_name: str | None = None

    def __post_init__(self) -> None:
        check_budget("k", self.k)
        if self.candidates is not None:
            check_budget("candidates", self.candidates)
        check_instance("axis_name", self.axis_name, str, NoneType)

    def choose(self, key: jax.Array | None, cotangent: jax.Array, peak: Any = None) -> Choice:
        """Give the shared columns and mark in them the largest components of each row."""
        n = cotangent.shape[-1]
        k = budget(self.k, n)
        candidates = min(4 * k, n) if self.candidates is None else budget(self.candidates, n)
        checks.require(
            k <= candidates,
            f"k={self.k} of candidates={self.candidates}",
            "at least as many candidates as k",
            "raise candidates",
        )
        if candidates == n:
            return TopK(k).choose(None, cotangent)
        columns, _ = UnifiedTopK(candidates, self.axis_name).choose(None, cotangent)
        return Choice(columns, top_k_mask(cotangent[:, columns], k))


@dataclass(frozen=True, eq=False)
class BlockTopK(Sparsifier):
    """The contiguous blocks of columns with the largest squared sums, k columns in all.

    Biased. Rows share the blocks.

    Attributes:
        k: budget, rounded up to whole blocks.
        block: columns per block, a divisor of n.
        axis_name: as in :class:`UnifiedTopK`.

    Example:
        >>> from sparse_hyper_jax.backprop import BlockTopK, sparsify
        >>> cotangent = jnp.array([[3.0, -1.0, 2.0, 0.5], [0.0, 1.0, 2.0, -4.0]])
        >>> sparsify(None, cotangent, BlockTopK(2, block=2)).tolist()
        [[0.0, 0.0, 2.0, 0.5], [0.0, 0.0, 2.0, -4.0]]
    """

    k: float
    block: int = 16
    axis_name: str | None = None

    def __post_init__(self) -> None:
        check_budget("k", self.k)
        checks.check_count("block", self.block, least=1)
        check_instance("axis_name", self.axis_name, str, NoneType)

    def choose(self, key: jax.Array | None, cotangent: jax.Array, peak: Any = None) -> Choice:
        """Give the columns of the blocks with the largest sums."""
        n = cotangent.shape[-1]
        checks.require(
            n % self.block == 0,
            f"block={self.block} for {n} columns",
            "a divisor",
            "change block or pad the layer",
        )
        blocks = -(-budget(self.k, n) // self.block)
        chosen = jax.lax.top_k(self._sizes(cotangent), blocks)[1]
        inside = jnp.arange(self.block, dtype=jnp.int32)
        return Choice((chosen[:, None] * self.block + inside[None]).reshape(-1), None)

    def _sizes(self, cotangent: jax.Array) -> jax.Array:
        """Give numbers that are ordered like the sums of squares of the blocks."""
        rows, n = cotangent.shape
        cut = at_least_float32(cotangent).reshape(rows, n // self.block, self.block)
        if self.axis_name is not None:
            return self._roots(cut)
        squares = jnp.sum(cut * cut, axis=(0, 2))
        # As far as all are in a range where no square vanished or overflowed; the other way reads
        # the cotangent twice.
        ordinary = jnp.all((squares > 1e-24) & (squares < 1e36))
        return jax.lax.cond(ordinary, lambda: squares, lambda: self._roots(cut))

    def _roots(self, cut: jax.Array) -> jax.Array:
        """Give roots of mean squares, each computed in units of its block's largest."""
        largest = jnp.max(jnp.abs(cut), axis=(0, 2), initial=0)
        if self.axis_name is not None:
            largest = jax.lax.pmax(largest, self.axis_name)
        unit = unit_of(largest)
        means = jnp.mean(jnp.square(in_units(cut, unit[None, :, None])), axis=(0, 2))
        means = means if self.axis_name is None else jax.lax.psum(means, self.axis_name)
        return unit * jnp.sqrt(means)


@dataclass(frozen=True, eq=False)
class RandomK(Sparsifier):
    """A uniformly random k-subset of each row.

    Inside ``shard_map``, fold the device's index into the key, or all devices choose alike.

    Attributes:
        k: budget.
        rescale: multiply by ``n / k``, which makes it unbiased; otherwise the mean is ``k / n`` of
            the cotangent.

    Example:
        >>> from sparse_hyper_jax.backprop import RandomK, sparsify
        >>> sparse = sparsify(jax.random.key(0), jnp.ones((2, 100)), RandomK(0.25))
        >>> jnp.count_nonzero(sparse, axis=1).tolist(), jnp.max(sparse).item()  # 25 each, times 4
        ([25, 25], 4.0)
    """

    needs_key: ClassVar[bool] = True
    k: float
    rescale: bool = True

    def __post_init__(self) -> None:
        check_budget("k", self.k)
        checks.check_flag("rescale", self.rescale)

    @property
    def unbiased(self) -> bool:
        """Whether it rescales."""
        return self.rescale

    def choose(self, key: jax.Array | None, cotangent: jax.Array, peak: Any = None) -> Choice:
        """Mark random components of each row."""
        n = cotangent.shape[-1]
        k = budget(self.k, n)
        drawn = jax.random.uniform(require_key(self, key), cotangent.shape, jnp.float32)
        mask = top_k_mask(drawn, k)
        return Choice(
            None, mask.astype(at_least_float32(cotangent).dtype) * (n / k) if self.rescale else mask
        )


@dataclass(frozen=True, eq=False)
class UnifiedRandomK(RandomK):
    """A uniformly random k-subset of the columns, shared by all rows.

    Attributes:
        k: budget.
        rescale: as in :class:`RandomK`.

    Example:
        >>> from sparse_hyper_jax.backprop import UnifiedRandomK, sparsify
        >>> sparse = sparsify(jax.random.key(0), jnp.ones((2, 100)), UnifiedRandomK(0.25))
        >>> jnp.sum(sparse, axis=1).tolist(), jnp.count_nonzero(jnp.any(sparse, axis=0)).item()
        ([100.0, 100.0], 25)
    """

    def choose(self, key: jax.Array | None, cotangent: jax.Array, peak: Any = None) -> Choice:
        """Give random columns."""
        n = cotangent.shape[-1]
        k = budget(self.k, n)
        columns = jax.random.permutation(require_key(self, key), n)[:k].astype(jnp.int32)
        return Choice(columns, jnp.asarray(n / k, wide_dtype(cotangent)) if self.rescale else None)


@dataclass(frozen=True, eq=False)
class ImportanceSampling(Sparsifier):
    """Keep each component with a probability in proportion to its magnitude, and divide by it.

    ``p_j = min(1, c |g_j|)`` with ``sum_j p_j = k`` in each row: unbiased, of the least variance
    among those with k components on average; how many they are differs from draw to draw. Inside
    ``shard_map``, fold the device's index into the key.

    Reference: Wangni et al. 2018, arXiv 1710.09854.

    Example:
        >>> from sparse_hyper_jax.backprop import ImportanceSampling, sparsify
        >>> cotangent = jnp.array([[8.0, -1.0, 1.0, 0.0]])  # of these, 8 is always kept
        >>> draw = lambda key: sparsify(key, cotangent, ImportanceSampling(2))
        >>> draws = jax.vmap(draw)(jax.random.split(jax.random.key(0), 4000))
        >>> draws[:, 0, 0].min().item(), bool(jnp.allclose(draws.mean(0), cotangent, atol=0.1))
        (8.0, True)
    """

    needs_key: ClassVar[bool] = True
    k: float

    def __post_init__(self) -> None:
        check_budget("k", self.k)

    @property
    def unbiased(self) -> bool:
        """Always."""
        return True

    def choose(self, key: jax.Array | None, cotangent: jax.Array, peak: Any = None) -> Choice:
        """Draw components and weigh them by their inverse probabilities."""
        size = jnp.abs(at_least_float32(cotangent))
        kept = inclusion_probabilities(size, budget(self.k, size.shape[-1]))
        drawn = jax.random.uniform(require_key(self, key), size.shape, size.dtype) < kept
        # Where nothing is drawn p may be 0: divide by 1 there.
        return Choice(None, jnp.where(drawn, 1 / jnp.where(drawn, kept, 1), 0))


@dataclass(frozen=True, eq=False)
class Threshold(Sparsifier):
    """All components with a magnitude above ``tau``; biased, their number depends on the data.

    Example:
        >>> from sparse_hyper_jax.backprop import Threshold, sparsify
        >>> sparsify(None, jnp.array([[3.0, -1.0, 2.0, 0.5]]), Threshold(1.5)).tolist()
        [[3.0, 0.0, 2.0, 0.0]]
    """

    tau: float

    def __post_init__(self) -> None:
        check_static("tau", self.tau, at_least=0)

    def choose(self, key: jax.Array | None, cotangent: jax.Array, peak: Any = None) -> Choice:
        """Mark the components above the threshold, and those that are not numbers."""
        # Not rounded to 16 bits: a magnitude at the threshold would count as above.
        return Choice(None, ~(jnp.abs(at_least_float32(cotangent)) <= self.tau))


def inclusion_probabilities(size: jax.Array, k: int) -> jax.Array:
    """Solve ``sum_j min(1, c * size_j) = k`` for c, in each row.

    With magnitudes in falling order, the first m have probability 1 and ``c = (k - m) / (sum of the
    others)`` for the smallest m with ``c * size_m <= 1``. Rows with at most k non-zeros keep all.

    Args:
        size: ``(rows, n)``, not negative.
        k: wanted sum.

    Returns:
        probabilities ``(rows, n)``, 0 only where ``size`` is 0 (or vanishes beside the others). A
        row that is not finite keeps everything, so that the fault is seen.
    """
    if k == size.shape[-1]:
        return (~(size <= 0)).astype(size.dtype)
    falling = -jnp.sort(-size, axis=-1)
    # Sums of numbers near the largest one would overflow.
    unit = unit_of(falling[:, :1])
    size, falling = size / unit, falling / unit
    # Summed from the small end: subtracting from the total would leave rounding errors.
    tails = jnp.flip(jnp.cumsum(jnp.flip(falling, -1), axis=-1), -1)[:, :k]
    left = k - jnp.arange(k, dtype=size.dtype)
    fits = left[None] * falling[:, :k] <= tails
    first = jnp.argmax(fits, axis=-1).astype(jnp.int32)[:, None]
    at_first = jax.lax.broadcasted_iota(jnp.int32, tails.shape, 1) == first
    # No lookup: indices that are spread over devices cannot look up what is whole.
    tail = jnp.sum(jnp.where(at_first, tails, 0), axis=-1, keepdims=True)
    scale = (k - first).astype(size.dtype) / jnp.where(tail > 0, tail, 1)
    scaled = jnp.isfinite(tail) & (tail > 0)
    everything = (~(size <= 0)).astype(size.dtype)
    return jnp.where(scaled, jnp.minimum(1, scale * size), everything)


def _column_sums(sizes: jax.Array, axis_name: str | None) -> jax.Array:
    sums = jnp.sum(at_least_float32(sizes), axis=0)
    return sums if axis_name is None else jax.lax.psum(sums, axis_name)
