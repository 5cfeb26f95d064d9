"""Options of a relaxation, checked once: static facts that the arrows trust."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.core import Tracer

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import check_instance
from sparse_hyper_jax.ops.counts import Counts, check_counts
from sparse_hyper_jax.ops.densities import check_density
from sparse_hyper_jax.ops.distances import Density
from sparse_hyper_jax.ops.locality import Locality
from sparse_hyper_jax.ops.mix import check_block_size
from sparse_hyper_jax.ops.own_draws import GlobalFrom
from sparse_hyper_jax.ops.templates import Template, check_chunks
from sparse_hyper_jax.types import ContinuousTuples

Active = tuple[int | jax.Array, int]
"""``(start, count)`` of the tuples to relax; only the start may be traced."""


@dataclass(frozen=True)
class Plan:
    """How to relax tuples; made by :func:`plan_relaxation`, whose arguments explain the fields.

    Attributes:
        shape: lengths of the learned axes.
        counts: how many points to draw, and from where.
        chunk_size: tuples per context, a divisor of their number.
        template: fixed columns.
        active: range of tuples to relax.
        density: name of the density.
        block_size: tuples per block.
        locality: how far tuples see.
        wrap: every learned axis is a circle.
        debug: check values by ``checkify``.
    """

    shape: tuple[int, ...]
    counts: Counts
    chunk_size: int
    template: Template | None
    active: Active | None
    density: Density
    block_size: int | None
    locality: Locality | None
    wrap: bool
    debug: bool

    @property
    def period(self) -> tuple[int, ...] | None:
        """Lengths of the axes if these are circles."""
        return self.shape if self.wrap else None


def plan_relaxation(
    key: jax.Array | None,
    tuples: ContinuousTuples,
    shape: tuple[int, ...],
    *,
    num_global: int,
    num_local: int,
    region: Sequence[int] | None,
    chunk_size: int | None,
    template: Template | None,
    active: Active | None,
    density: Density,
    block_size: int | None,
    locality: Locality | None,
    global_from: GlobalFrom,
    wrap: bool,
    debug: bool,
) -> Plan:
    """Check options, of which :func:`~sparse_hyper_jax.ops.relax` tells the meaning.

    Args:
        key: only whether there is one.
        tuples: from :func:`~.entrance.enter_tuples`; only their shapes.
        shape: lengths of the whole sparse tensor.
        num_global: see :func:`~sparse_hyper_jax.ops.relax`.
        num_local: see there.
        region: see there.
        chunk_size: see there.
        template: see there.
        active: see there.
        density: see there.
        block_size: see there.
        locality: see there.
        global_from: see there.
        wrap: see there.
        debug: see there.

    Returns:
        the plan.

    Raises:
        ValueError: ranks, chunks or options that do not fit.
    """
    learned = learned_shape(tuples, shape, template)
    count = tuples.values.shape[0]
    if active is not None:
        active = _check_active(count, active, chunk_size, template)
    check_density(density)
    counts = check_counts(
        key, learned, num_global, num_local, region, global_from=global_from, density=density
    )
    block_size = check_block_size(block_size)
    wrap, debug = checks.check_flag("wrap", wrap), checks.check_flag("debug", debug)
    if locality is not None:
        check_instance("locality", locality, Locality)
        _check_locality_alone(density, block_size, wrap=wrap)
    return Plan(
        shape=learned,
        counts=counts,
        chunk_size=_chunk_size(count, chunk_size, template),
        template=template,
        active=active,
        density=density,
        block_size=block_size,
        locality=locality,
        wrap=wrap,
        debug=debug,
    )


def learned_shape(
    tuples: ContinuousTuples, shape: tuple[int, ...], template: Template | None
) -> tuple[int, ...]:
    """Give the lengths of the learned axes, after checking that the tuples fit them.

    Args:
        tuples: ``k`` tuples of rank ``r``; only their shapes.
        shape: lengths of the whole sparse tensor.
        template: fixed columns.

    Raises:
        ValueError: another rank, or a template for other tuples or another tensor.
    """
    count, rank = tuples.means.shape
    if template is not None:
        check_instance("template", template, Template)
        rows, columns = template.rows.shape
        checks.require(
            rows == count and columns == len(shape),
            f"a template of {rows} rows and {columns} columns for {count} tuples and shape {shape}",
            "one row per tuple and one column per axis of the sparse tensor",
            "make the template from the same counts",
        )
        fixed = [axis for axis in range(columns) if axis not in template.columns]
        high = template.rows[:, fixed].max(axis=0, initial=0)
        checks.require(
            all(index < shape[axis] for index, axis in zip(high, fixed, strict=True)),
            f"a template with fixed indices up to {high.tolist()} on axes {fixed}",
            f"indices inside shape {shape}",
            "change the template's rows or the shape",
        )
        shape = template.learned_shape(shape)
    checks.require(
        rank == len(shape),
        f"tuples of rank {rank} for an index space of shape {shape}",
        "one column of means per learned axis (output axes first, then input axes)",
        "change the tuples, out_shape or the template",
    )
    return shape


def _chunk_size(count: int, chunk_size: int | None, template: Template | None) -> int:
    if chunk_size is not None:
        chunk_size = checks.check_count("chunk_size", chunk_size, least=1)
    if template is not None:
        checks.require(
            chunk_size in (None, template.chunk_size),
            f"chunk_size={chunk_size} beside a template with chunk_size={template.chunk_size}",
            "one chunk size",
            "leave chunk_size out: the template has it",
        )
        chunk_size = template.chunk_size
    return count if chunk_size is None else check_chunks(count, chunk_size)


def _check_locality_alone(density: Density, block_size: int | None, *, wrap: bool) -> None:
    checks.require(
        density == "gaussian" and block_size is None and not wrap,
        f"a locality with density={density!r}, block_size={block_size} and wrap={wrap}",
        "Gaussians, whose tails are short, on axes with two ends",
        "leave out the locality or these options",
    )


def _check_active(
    count: int,
    active: Active,
    chunk_size: int | None,
    template: Template | None,
) -> Active:
    checks.require(
        isinstance(active, tuple | list) and len(active) == 2,
        f"active={active!r}",
        "(start, count) of the tuples to relax",
        "pass two numbers, of which only the start may be traced",
    )
    checks.require(
        template is None and chunk_size in (None, count),
        "active tuples together with chunks or a template",
        "one context without fixed columns",
        "leave out active, or chunk_size and template",
    )
    start, size = active
    size = checks.check_count("active count", size, least=1)
    if isinstance(start, Tracer):
        checks.check_shape("active start", start, (), "one number")
        checks.check_integers("active start", start)
        start, known = jnp.asarray(start, jnp.int32), 0
    else:
        start = known = checks.check_count("active start", start)
    checks.require(
        known <= count - size,
        f"active={active} for {count} tuples",
        "(start, count) of a range that lies inside",
        "lower the start or the count",
    )
    return start, size
