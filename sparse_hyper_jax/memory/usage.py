"""How much of a memory is in use: a few cells that everything reads are a dead memory."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import export

from sparse_hyper_jax import checks
from sparse_hyper_jax.memory.reads import Reads, enter_reads, keep_inside
from sparse_hyper_jax.norms import unit_of
from sparse_hyper_jax.ops.device_axes import spread_by
from sparse_hyper_jax.precision import at_least_float32


class Usage(NamedTuple):
    """What of a table was read.

    Attributes:
        weights: ``(n,)``: for every row the sum of the magnitudes of its shares.
        used: int32 ``()``: number of rows of any weight.
        perplexity: float ``()``: ``exp(-sum p log p)`` of the weights as shares ``p`` of their sum:
            1 if all reads are of one row, ``n`` if all rows are used alike, 0 if nothing was read.

    Example:
        >>> from sparse_hyper_jax import memory
        >>> reads = memory.Reads([[0, 1], [0, 1]], [[1.0, 0.0], [1.0, 0.0]])
        >>> memory.usage(reads, 4)._asdict()["perplexity"].tolist()
        1.0
    """

    weights: jax.Array
    used: jax.Array
    perplexity: jax.Array


export.register_namedtuple_serialization(Usage, serialized_name="sparse_hyper_jax.Usage")


def usage(reads: Reads, num_rows: int) -> Usage:
    """Tell how many rows are in use, and how evenly.

    Args:
        reads: rows and shares ``(*batch, q)`` of all that is to be counted; a row outside counts
            for nothing.
        num_rows: number ``n`` of rows of the table, static; of a grid the number of its cells.

    Returns:
        weights, number and perplexity; the latter has slopes in the shares, but for those of 0.

    Raises:
        ValueError: reads that are none, or no row.

    Reference: Lample et al. 2019, arXiv 1907.05242, report such figures of their memory.

    Example:
        >>> from sparse_hyper_jax import memory
        >>> reads = memory.grid_shares(None, [[0.0, 0.0], [0.5, 1.0]], (2, 3))
        >>> found = memory.usage(reads, 6)
        >>> found.weights.tolist(), int(found.used), round(float(found.perplexity), 2)
        ([1.0, 0.5, 0.0, 0.0, 0.5, 0.0], 3, 2.83)
    """
    reads = enter_reads(reads)
    count = checks.check_count("num_rows", num_rows, least=1, most=checks.INT32_CELLS - 1)
    shares = at_least_float32(reads.shares)
    rows, kept = keep_inside(reads.rows, count)
    sizes = jnp.where(kept, jnp.abs(shares), 0).reshape(math.prod(rows.shape))
    flat = rows.reshape(math.prod(rows.shape))
    weights = spread_by(jax.ops.segment_sum(sizes, flat, count), flat)
    scaled = weights / unit_of(jnp.max(weights))  # so that their sum does not overflow
    total = jnp.sum(scaled)
    # Zeros first: 0 log 0 has no slope. NaN is not 0.
    some = ~(total == 0)
    proportions = scaled / jnp.where(some, total, 1)
    there = ~(proportions == 0)
    logs = jnp.log(jnp.where(there, proportions, 1))
    entropy = -jnp.sum(proportions * logs)
    used = jnp.sum(weights > 0, dtype=jnp.int32)
    return Usage(weights, used, jnp.where(some, jnp.exp(entropy), 0))
