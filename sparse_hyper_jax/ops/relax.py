"""Continuous tuples to sparse entries: one random sparse tensor, or the settled one."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.ops.distances import Density
from sparse_hyper_jax.ops.duplicates import mark_first
from sparse_hyper_jax.ops.entrance import enter_tuples
from sparse_hyper_jax.ops.locality import Locality
from sparse_hyper_jax.ops.mix import mix_in_blocks
from sparse_hyper_jax.ops.nearby import check_nearby, mix_what_is_seen
from sparse_hyper_jax.ops.own_draws import GlobalFrom
from sparse_hyper_jax.ops.plan import Active, Plan, learned_shape, plan_relaxation
from sparse_hyper_jax.ops.sample import check_inside, check_range, draw_tuples, nearest_cells
from sparse_hyper_jax.ops.templates import Template, with_template
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
    active: Active | None = None,
    density: Density = "gaussian",
    block_size: int | None = None,
    locality: Locality | None = None,
    global_from: GlobalFrom = "uniform",
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
            without gradient; ``start`` may be traced, and of a range that reaches beyond the tuples
            only what lies inside counts. Neither with chunks nor with a template.
        density: see :func:`~sparse_hyper_jax.ops.log_densities`.
        block_size: see :func:`~sparse_hyper_jax.ops.mix_values`.
        locality: let tuples see nearby points only, for many thousands of them; see
            :func:`~sparse_hyper_jax.ops.mix_nearby`. Neither with ``wrap`` nor with a density other
            than the Gaussian. If it does not suffice, all values are NaN, and ``debug`` says why.
        global_from: ``"density"`` draws the global points of every tuple from its own density, see
            :func:`~sparse_hyper_jax.ops.sample_tuples`.
        wrap: every learned axis is a circle.
        debug: check by ``checkify`` that the means and the active tuples lie inside, and that the
            locality suffices.

    Returns:
        ``k * q`` entries of rank ``len(shape)`` (``k`` more with ``active``), values 0 at repeated
        points.

    Raises:
        ValueError: ranks, chunks or options that do not fit.

    Reference: Bloem 2018, arXiv 1810.09184.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> means, variances = jnp.array([[1.0, 2.5]]), jnp.full((1, 2), 0.1)
        >>> tuples = ops.ContinuousTuples(means, variances, values=jnp.ones(1))
        >>> entries = ops.relax(None, tuples, (4, 4))
        >>> print(entries.indices.tolist(), np.asarray(entries.values).round(2))
        [[1, 2], [1, 3], [2, 2], [2, 3]] [0.5 0.5 0.  0. ]
        >>> ops.relax(jax.random.key(0), tuples, (4, 4), num_global=6).values.shape
        (10,)
    """
    shape = checks.check_index_shape("shape", shape)
    tuples = enter_tuples(tuples)
    plan = plan_relaxation(
        key,
        tuples,
        shape,
        num_global=num_global,
        num_local=num_local,
        region=region,
        chunk_size=chunk_size,
        template=template,
        active=active,
        density=density,
        block_size=block_size,
        locality=locality,
        global_from=global_from,
        wrap=wrap,
        debug=debug,
    )
    return relax_as_planned(key, tuples, plan)


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
    (gaussian, laplace), but for means exactly between two cells: there :func:`relax` gives half to
    each, and this all to the even one. Coincident tuples add up. Means outside count as the nearest
    cell; one of NaN makes the value of its tuple NaN.

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

    Example:
        >>> from sparse_hyper_jax import ops
        >>> means, variances = jnp.array([[1.0, 2.25]]), jnp.full((1, 2), 0.5)
        >>> entries = ops.settle(ops.ContinuousTuples(means, variances, jnp.array([4.0])), (4, 4))
        >>> entries.indices.tolist(), entries.values.tolist()
        ([[1, 2]], [4.0])
    """
    shape = checks.check_index_shape("shape", shape)
    tuples = enter_tuples(tuples)
    learned = learned_shape(tuples, shape, template)
    wrap, debug = checks.check_flag("wrap", wrap), checks.check_flag("debug", debug)
    return settle_tuples(tuples, learned, template=template, wrap=wrap, debug=debug)


def relax_as_planned(key: jax.Array | None, tuples: ContinuousTuples, plan: Plan) -> SparseEntries:
    """Do what :func:`relax` says, without checks."""
    if plan.active is not None:
        return _relax_range(key, tuples, plan, plan.active)
    points, values = _relax_chunks(key, tuples, plan)
    return SparseEntries(with_template(points, plan.template), values)


def settle_tuples(
    tuples: ContinuousTuples,
    learned: tuple[int, ...],
    *,
    template: Template | None,
    wrap: bool,
    debug: bool,
) -> SparseEntries:
    """Do what :func:`settle` says, without checks."""
    if debug:
        check_inside(tuples.means, learned, wrap=wrap)
    cells = nearest_cells(tuples.means, learned, wrap=wrap)
    indices = cells if template is None else with_template(cells[:, None], template)
    # A factor, not a choice: the gradient has to be NaN as well.
    lost = jnp.any(jnp.isnan(jax.lax.stop_gradient(tuples.means)), axis=1)
    factors = jnp.where(lost, jnp.nan, 1).astype(tuples.values.dtype)
    return SparseEntries(indices, tuples.values * factors)


def _relax_context(
    key: jax.Array | None, tuples: ContinuousTuples, plan: Plan
) -> tuple[jax.Array, jax.Array]:
    """Relax tuples that share all their points: points ``(k, q, r)`` and values ``(k * q,)``."""
    if plan.debug:
        check_inside(tuples.means, plan.shape, wrap=plan.wrap)
    points = draw_tuples(
        key, tuples.means, tuples.variances, plan.shape, plan.counts, wrap=plan.wrap
    )
    flat = jax.lax.collapse(points, 0, 2)
    mask = mark_first(flat, plan.shape)
    if plan.locality is not None:
        nearby = mix_what_is_seen(flat, mask, tuples, plan.shape, plan.locality)
        if plan.debug:
            check_nearby(nearby, plan.locality)
        return points, nearby.values
    values = mix_in_blocks(
        flat, mask, tuples, density=plan.density, period=plan.period, block_size=plan.block_size
    )
    return points, values


def _relax_chunks(
    key: jax.Array | None, tuples: ContinuousTuples, plan: Plan
) -> tuple[jax.Array, jax.Array]:
    count = tuples.values.shape[0]
    if plan.chunk_size == count:
        return _relax_context(key, tuples, plan)
    num_chunks = count // plan.chunk_size
    chunks = jax.tree.map(
        lambda leaf: leaf.reshape(num_chunks, plan.chunk_size, *leaf.shape[1:]), tuples
    )
    keys = None if key is None else jax.random.split(key, num_chunks)
    points, values = jax.vmap(
        lambda key, chunk: _relax_context(key, chunk, plan),
        in_axes=(None if key is None else 0, 0),
    )(keys, chunks)
    return jax.lax.collapse(points, 0, 2), values.reshape(-1)


def _relax_range(
    key: jax.Array | None, tuples: ContinuousTuples, plan: Plan, active: Active
) -> SparseEntries:
    start, size = active
    count = tuples.values.shape[0]
    number = jnp.arange(count, dtype=jnp.int32)
    wanted = (number >= start) & (number < start + size)
    if plan.debug:
        check_range(start, size, count)
    # What a traced start asks for beyond the tuples is not there: the last range that lies inside
    # takes its place, in which some tuples are not wanted.
    start = jnp.clip(start, 0, count - size)
    chosen, kept = jax.tree.map(
        lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size), (tuples, wanted)
    )
    chosen = chosen._replace(values=jnp.where(kept, chosen.values, 0))
    points, values = _relax_context(key, chosen, plan)
    rest = settle_tuples(
        jax.lax.stop_gradient(tuples), plan.shape, template=None, wrap=plan.wrap, debug=False
    )
    passive = jnp.where(wanted, 0, rest.values)
    return SparseEntries(
        jnp.concatenate([jax.lax.collapse(points, 0, 2), rest.indices]),
        jnp.concatenate([values, passive.astype(values.dtype)]),
    )
