"""A memory that is read at learned addresses, as a module."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax import checks, memory
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.memory.grid import EVALUATIONS, Evaluation, enter_shape
from sparse_hyper_jax.memory.reads import sum_rows
from sparse_hyper_jax.nn.keys import Randomness, check_rngs, draw_key, keys_for
from sparse_hyper_jax.nn.options import (
    check_finite,
    check_float_dtype,
    check_no_container,
    in_evaluation,
    initialised,
)
from sparse_hyper_jax.nn.parameters import TableRows
from sparse_hyper_jax.ops import ContinuousTuples, bound_means, bound_variances
from sparse_hyper_jax.precision import at_least_float32

PROBIT = 1.702
"""``sigmoid(1.702 x)`` is within 0.01 of the normal distribution function at ``x``."""


class GridMemory(nnx.Module):
    """A grid of vectors, read by several heads, each at an address of its own.

    ``y = (y_1, ..., y_H)`` with ``y_h = sum_p pi_hp table[u_hp]``, the points about the address of
    head ``h``: see :func:`~sparse_hyper_jax.memory.grid_read`. An address comes from ``r`` logits,
    ``(S_c - 1) sigmoid(1.702 logit_c)``: standard normal logits give addresses that are spread
    uniformly. So keep them near that, for instance by a normalisation as the last layer of the
    encoder: a memory of which few cells are read is a small one, and
    :func:`~sparse_hyper_jax.memory.usage` of :meth:`reads` tells.

    Without random points a read interpolates between the corners, in training too. With them a head
    has one number more, its raw spread, and training samples; evaluation interpolates or rounds.

    Args:
        shape: lengths of the grid, 1 to 4 axes.
        features: length ``d`` of its vectors.
        num_heads: number ``H`` of addresses.
        source: module or function from the input to logits; None where the input is logits.
        num_global: points per head drawn from all cells.
        num_local: points per head drawn from the region about its address.
        region: lengths of that region.
        evaluate: ``"interpolate"`` or ``"round"``.
        scale: see :func:`~sparse_hyper_jax.ops.bound_variances`.
        boost: see there.
        floor: see there.
        deterministic: evaluate instead of train.
        param_dtype: of the table.
        table_init: initializer of ``(*shape, features)``.
        rngs: streams ``params``, and ``sample`` for random points.

    Raises:
        ValueError: an option is wrong.

    Reference: Bloem 2018, arXiv 1810.09184, for the read; Lample et al. 2019, arXiv 1907.05242, for
    heads, normalised queries and usage.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import memory, nn
        >>> layer = nn.GridMemory((64, 64), 8, num_heads=2, rngs=nnx.Rngs(0))
        >>> logits = jax.random.normal(jax.random.key(0), (1000, 2, 2))
        >>> layer(logits).shape
        (1000, 16)
        >>> bool(memory.usage(layer.reads(logits), 64 * 64).perplexity > 2000)
        True
    """

    def __init__(
        self,
        shape: Sequence[int],
        features: int,
        *,
        num_heads: int = 1,
        source: Callable[[jax.Array], jax.Array] | None = None,
        num_global: int = 0,
        num_local: int = 0,
        region: Sequence[int] | None = None,
        evaluate: Evaluation = "interpolate",
        scale: float = 0.1,
        boost: float = 2.0,
        floor: float = 0.0,
        deterministic: bool = False,
        param_dtype: Any = jnp.float32,
        table_init: Any = nnx.initializers.normal(1.0),  # noqa: B008 (pure)
        rngs: nnx.Rngs,
    ):
        self.shape = enter_shape(shape)
        self.features = checks.check_count("features", features, least=1)
        self.num_heads = checks.check_count("num_heads", num_heads, least=1)
        checks.require(
            source is None or (callable(source) and not isinstance(source, type)),
            f"source={source!r:.80}",
            "a module or a function of the input, or None",
            "pass what makes the logits",
        )
        self.source = source
        self.num_global = checks.check_count("num_global", num_global)
        self.num_local = checks.check_count("num_local", num_local)
        self.region = None if region is None else checks.check_index_shape("region", region)
        check_no_container(evaluate=evaluate, scale=scale, boost=boost, floor=floor)
        check_no_container(deterministic=deterministic)
        self.evaluate: Evaluation = evaluate
        self.scale, self.boost, self.floor = scale, boost, floor
        self.deterministic = deterministic
        self._check_options()
        check_float_dtype("param_dtype", param_dtype)
        check_rngs(rngs, "params")
        size = *self.shape, self.features
        table = initialised("table_init", table_init, rngs.params(), size, param_dtype)
        self.table = TableRows(table)
        if self.samples:
            check_rngs(rngs, "sample")
            self.rngs = rngs["sample"].fork()
        else:
            self.rngs = None

    @property
    def samples(self) -> bool:
        """Whether training draws points, so that every head has a spread too."""
        return self.num_global + self.num_local > 0

    def _check_options(self) -> None:
        checks.check_flag("deterministic", self.deterministic)
        checks.check_choice("evaluate", self.evaluate, EVALUATIONS)
        local, region = checks.check_count("num_local", self.num_local), self.region
        checks.check_count("num_global", self.num_global)
        wanted = len(self.shape) if local else 0
        checks.require(
            wanted == (0 if region is None else len(region)),
            f"num_local={local} with region={region} for a grid {self.shape}",
            "both, with a length for every axis, or neither",
            "pass num_local with the region that it is drawn from",
        )
        check_finite("scale", self.scale, at_least=0)
        check_finite("boost", self.boost)
        check_finite("floor", self.floor, at_least=0)

    def __call__(
        self,
        x: Any,
        *,
        deterministic: bool | None = None,
        rngs: Randomness | None = None,
    ) -> jax.Array:
        """Read the memory.

        Args:
            x: logits ``(*batch, H, r)``, or ``(*batch, H, r + 1)`` with random points, the last
                one the raw spread; with a source, what that takes.
            deterministic: overrides the mode of the layer.
            rngs: overrides the stored stream; a typed key works too.

        Returns:
            ``(*batch, H features)``, float32 or wider.

        Raises:
            ValueError: logits of another shape, or a wrong option.
        """
        reads = self.reads(x, deterministic=deterministic, rngs=rngs)
        y = sum_rows(self.table.get_value(), reads)
        return y.reshape(*y.shape[:-2], self.num_heads * self.features)

    def reads(
        self,
        x: Any,
        *,
        deterministic: bool | None = None,
        rngs: Randomness | None = None,
    ) -> memory.Reads:
        """Give the cells that a call reads, for :func:`~sparse_hyper_jax.memory.usage`.

        Args:
            x: as in a call.
            deterministic: as there.
            rngs: as there.

        Returns:
            rows and shares ``(*batch, H, q)``.

        Raises:
            ValueError: as a call.
        """
        self._check_options()
        logits = as_array("logits", x if self.source is None else self.source(x))
        rank = len(self.shape)
        size = self.num_heads, rank + self.samples
        checks.require(
            logits.ndim >= 2 and logits.shape[-2:] == size,
            f"logits of shape {logits.shape}",
            f"(*batch, {size[0]}, {size[1]}): {rank} numbers for every head"
            + ", and a raw spread" * self.samples,
            "reshape what the encoder gives",
        )
        logits = at_least_float32(logits)
        means = bound_means(PROBIT * logits[..., :rank], self.shape)
        hard = in_evaluation(self.deterministic, deterministic)
        if hard or not self.samples:
            evaluate = self.evaluate if hard else "interpolate"
            return memory.grid_shares(None, means, self.shape, evaluate=evaluate)
        key, spreads = draw_key(rngs, self.rngs), logits[..., rank]
        if spreads.ndim == 1:
            return self._draw(key, means, spreads)
        return jax.vmap(self._draw)(keys_for(key, spreads), means, spreads)

    def _draw(self, key: jax.Array, means: jax.Array, spreads: jax.Array) -> memory.Reads:
        """Give the reads of one instance."""
        variances = bound_variances(
            spreads, self.shape, scale=self.scale, boost=self.boost, floor=self.floor
        )
        count = spreads.size
        tuples = ContinuousTuples(
            means.reshape(count, -1), variances.reshape(count, -1), jnp.ones(count, means.dtype)
        )
        reads = memory.grid_shares(
            key,
            tuples,
            self.shape,
            num_global=self.num_global,
            num_local=self.num_local,
            region=self.region,
        )
        return memory.Reads(*(part.reshape(*spreads.shape, -1) for part in reads))
