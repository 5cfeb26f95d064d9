"""Continuous tuples to sparse entries: one random sparse tensor, or the settled one."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.ops.duplicates import first_occurrence
from sparse_hyper_jax.ops.mix import mix_values
from sparse_hyper_jax.ops.nearby import Locality, check_nearby, mix_nearby
from sparse_hyper_jax.ops.sample import check_inside, round_means, sample_tuples
from sparse_hyper_jax.ops.templates import Template, check_chunks, stitch
from sparse_hyper_jax.precision import at_least_float32
from sparse_hyper_jax.types import ContinuousTuples, SparseEntries


def relax(
    key: jax.Array | None,
    tuples: ContinuousTuples,
    shape: Sequence[int],
    *,
    num_global: int = 0,
    num_local: int = 0,
    region: Sequence[int] | None = None,
    chunk_size: int | None = None,
    template: Template | None = None,
    active: tuple[int | jax.Array, int] | None = None,
    density: str = "gaussian",
    block_size: int | None = None,
    locality: Locality | None = None,
    wrap: bool = False,
    debug: bool = False,
) -> SparseEntries:
    """Sample integer tuples and share the values among them: one random sparse tensor.

    Points are sampled, deduplicated and normalised within each chunk of ``chunk_size`` consecutive
    tuples (all of them by default). Time: ``k * chunk_size * q`` proportions for ``q`` points per
    tuple, of which a block at a time is held; with a locality about ``k`` times the points nearby.

    Args:
        key: a typed key; may be None without global and local points.
        tuples: ``k`` continuous tuples of rank ``r``.
        shape: lengths of the whole sparse tensor, output axes first; without a template ``r`` of
            them.
        num_global: see :func:`~sparse_hyper_jax.ops.sample_tuples`.
        num_local: see there.
        region: see there; one length per learned axis.
        chunk_size: tuples per context; a template brings its own.
        template: fixed columns; then the tuples live on its learned columns only.
        active: ``(start, count)``: relax these tuples only and let all others enter rounded and
            without gradient; ``start`` may be traced. Neither with chunks nor with a template.
        density: see :func:`~sparse_hyper_jax.ops.log_densities`.
        block_size: see :func:`~sparse_hyper_jax.ops.mix_values`.
        locality: let tuples see nearby points only, for many thousands of them; see
            :func:`~sparse_hyper_jax.ops.mix_nearby`. Neither with ``wrap`` nor with a density other
            than the Gaussian. If it does not suffice, all values are NaN, and ``debug`` says why.
        wrap: every learned axis is a circle.
        debug: check by ``checkify`` that the means lie inside, and that the locality suffices.

    Returns:
        ``k * q`` entries of rank ``len(shape)`` (``k`` more with ``active``), values 0 at repeated
        points.

    Raises:
        ValueError: ranks, chunks or options that do not fit.

    Reference: Bloem 2018, arXiv 1810.09184.
    """
    shape = checks.check_index_shape("shape", shape)
    tuples = ContinuousTuples(*map(jnp.asarray, tuples))
    learned = _learned_shape(tuples, shape, template)
    options: dict[str, Any] = {
        "num_global": num_global,
        "num_local": num_local,
        "region": region,
        "density": density,
        "block_size": block_size,
        "locality": locality,
        "wrap": wrap,
        "debug": debug,
    }
    if active is not None:
        _check_active(tuples, active, chunk_size, template)
        return _relax_range(key, tuples, learned, active, options)
    count = len(tuples.values)
    if template is not None:
        checks.require(
            chunk_size in (None, template.chunk_size),
            f"chunk_size={chunk_size} beside a template with chunk_size={template.chunk_size}",
            "one chunk size",
            "leave chunk_size out: the template has it",
        )
        chunk_size = template.chunk_size
    chunk_size = count if chunk_size is None else chunk_size
    check_chunks(count, chunk_size)
    points, values = _relax_chunks(key, tuples, learned, chunk_size, options)
    indices = jax.lax.collapse(points, 0, 2) if template is None else stitch(template, points)
    return SparseEntries(indices, values)


def settle(
    tuples: ContinuousTuples,
    shape: Sequence[int],
    *,
    template: Template | None = None,
    wrap: bool = False,
    debug: bool = False,
) -> SparseEntries:
    """Round every tuple to its nearest cell: the sparse tensor of evaluation.

    The limit of :func:`relax` for variances towards 0, with densities that fall off exponentially
    (gaussian, laplace). Coincident tuples add up.

    Args:
        tuples: ``k`` continuous tuples of rank ``r``.
        shape: lengths of the whole sparse tensor, output axes first.
        template: fixed columns.
        wrap: every learned axis is a circle.
        debug: check by ``checkify`` that the means lie inside.

    Returns:
        ``k`` entries; gradient reaches the values only.

    Raises:
        ValueError: ranks that do not fit.
    """
    shape = checks.check_index_shape("shape", shape)
    tuples = ContinuousTuples(*map(jnp.asarray, tuples))
    learned = _learned_shape(tuples, shape, template)
    if debug:
        check_inside(tuples.means, learned, wrap=wrap)
    cells = round_means(tuples.means, learned, wrap=wrap)
    indices = cells if template is None else stitch(template, cells[:, None])
    return SparseEntries(indices, at_least_float32(tuples.values))


def _relax_context(
    key: jax.Array | None,
    tuples: ContinuousTuples,
    shape: tuple[int, ...],
    *,
    density: str,
    block_size: int | None,
    locality: Locality | None,
    wrap: bool,
    debug: bool,
    **sampling: Any,
) -> tuple[jax.Array, jax.Array]:
    """Relax tuples that share all their points: points ``(k, q, r)`` and values ``(k * q,)``."""
    points = sample_tuples(key, tuples.means, shape, wrap=wrap, debug=debug, **sampling)
    flat = jax.lax.collapse(points, 0, 2)
    mask = first_occurrence(flat, shape)
    if locality is not None:
        _check_locality_alone(density, block_size, wrap=wrap)
        nearby = mix_nearby(flat, mask, *tuples, shape=shape, locality=locality)
        if debug:
            check_nearby(nearby, locality)
        return points, nearby.values
    period = shape if wrap else None
    options = {"density": density, "period": period, "block_size": block_size}
    return points, mix_values(flat, mask, *tuples, **options)


def _relax_chunks(
    key: jax.Array | None,
    tuples: ContinuousTuples,
    shape: tuple[int, ...],
    chunk_size: int,
    options: dict[str, Any],
) -> tuple[jax.Array, jax.Array]:
    count = len(tuples.values)
    if chunk_size == count:
        return _relax_context(key, tuples, shape, **options)
    num_chunks = count // chunk_size
    chunks = jax.tree.map(
        lambda leaf: leaf.reshape(num_chunks, chunk_size, *leaf.shape[1:]), tuples
    )
    keys = None if key is None else jax.random.split(key, num_chunks)
    points, values = jax.vmap(
        lambda key, chunk: _relax_context(key, chunk, shape, **options),
        in_axes=(None if key is None else 0, 0),
    )(keys, chunks)
    return jax.lax.collapse(points, 0, 2), values.reshape(-1)


def _relax_range(
    key: jax.Array | None,
    tuples: ContinuousTuples,
    shape: tuple[int, ...],
    active: tuple[int | jax.Array, int],
    options: dict[str, Any],
) -> SparseEntries:
    start, size = active
    # As dynamic_slice does with a traced start: the last range that lies inside.
    start = jnp.clip(start, 0, len(tuples.values) - size)
    chosen = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size), tuples)
    points, values = _relax_context(key, chosen, shape, **options)
    rest = settle(jax.lax.stop_gradient(tuples), shape, wrap=options["wrap"])
    number = jnp.arange(len(tuples.values))
    passive = jnp.where((number >= start) & (number < start + size), 0, rest.values)
    return SparseEntries(
        jnp.concatenate([jax.lax.collapse(points, 0, 2), rest.indices]),
        jnp.concatenate([values, passive.astype(values.dtype)]),
    )


def _learned_shape(
    tuples: ContinuousTuples, shape: tuple[int, ...], template: Template | None
) -> tuple[int, ...]:
    count, rank = checks.check_tuples(*tuples)
    if template is not None:
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


def _check_locality_alone(density: str, block_size: int | None, *, wrap: bool) -> None:
    checks.require(
        density == "gaussian" and block_size is None and not wrap,
        f"a locality with density={density!r}, block_size={block_size} and wrap={wrap}",
        "Gaussians, whose tails are short, on axes with two ends",
        "leave out the locality or these options",
    )


def _check_active(
    tuples: ContinuousTuples,
    active: tuple[int | jax.Array, int],
    chunk_size: int | None,
    template: Template | None,
) -> None:
    count = len(tuples.values)
    checks.require(
        template is None and chunk_size in (None, count),
        "active tuples together with chunks or a template",
        "one context without fixed columns",
        "leave out active, or chunk_size and template",
    )
    checks.check_count("active count", active[1], least=1)
    start = active[0] if isinstance(active[0], int) else 0
    checks.require(
        0 <= start <= count - active[1],
        f"active={active} for {count} tuples",
        "(start, count) of a range that lies inside",
        "lower the start or the count",
    )
