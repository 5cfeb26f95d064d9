"""Relaxation by many devices: each mixes the values of its own tuples into all points.

::

    points    (k q, r)   drawn by each device for its k/T tuples    -> all-gather of int32
    table     (k/T, k q) one part on each of the T devices
    values    (k q,)     sums over the table's rows                 -> reduce-scatter
                         each device keeps the values of the points that it drew

Points are drawn in the global view, where ``jax.random`` gives every device its rows of the numbers
that one device would draw. They are constants: means, variances and values of tuples, and their
gradients, stay where they are. With contexts that lie on one device nothing is exchanged at all.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from sparse_hyper_jax import checks
from sparse_hyper_jax.dist.mesh import check_divides, check_mesh, spread
from sparse_hyper_jax.dist.placement import shard_tuples
from sparse_hyper_jax.entrance import check_instance
from sparse_hyper_jax.ops import ContinuousTuples, SparseEntries, Template
from sparse_hyper_jax.ops.distances import Density
from sparse_hyper_jax.ops.duplicates import mark_first
from sparse_hyper_jax.ops.entrance import enter_tuples
from sparse_hyper_jax.ops.mix import mix_in_blocks
from sparse_hyper_jax.ops.own_draws import GlobalFrom
from sparse_hyper_jax.ops.plan import Plan, plan_relaxation
from sparse_hyper_jax.ops.sample import draw_tuples
from sparse_hyper_jax.ops.templates import with_template

LocalMix = Callable[[jax.Array, ContinuousTuples], jax.Array]
"""Maps a device's points ``(k/T, q, r)`` and tuples to their values ``(k/T * q,)``."""


def relax(
    key: jax.Array | None,
    tuples: ContinuousTuples,
    shape: Sequence[int],
    *,
    mesh: Mesh,
    num_global: int = 0,
    num_local: int = 0,
    region: Sequence[int] | None = None,
    chunk_size: int | None = None,
    template: Template | None = None,
    density: Density = "gaussian",
    block_size: int | None = None,
    global_from: GlobalFrom = "uniform",
    wrap: bool = False,
) -> SparseEntries:
    """Sample integer tuples and share the values among them, each device for its tuples.

    The entries of :func:`sparse_hyper_jax.ops.relax`: the same points, and values equal up to the
    order of summation. Each of ``tuples=T`` devices has ``1 / T`` of the proportions to compute;
    with one context for all tuples it also sorts all points. ``active``, ``debug`` and ``locality``
    are for a single device.

    Args:
        key: a typed key; may be None without global and local points.
        tuples: ``k`` continuous tuples of rank ``r``.
        shape: lengths of the whole sparse tensor, output axes first.
        mesh: from :func:`~sparse_hyper_jax.dist.make_mesh`; ``tuples`` divides ``k``.
        num_global: see :func:`sparse_hyper_jax.ops.relax`.
        num_local: see there.
        region: see there.
        chunk_size: see there; of several chunks, each device has whole ones.
        template: fixed columns.
        density: see there.
        block_size: see there.
        global_from: see there.
        wrap: every learned axis is a circle.

    Returns:
        ``k * q`` entries, spread over ``tuples``.

    Raises:
        ValueError: what :func:`sparse_hyper_jax.ops.relax` refuses, or options that do not fit the
            mesh.

    Example:
        >>> from sparse_hyper_jax import ContinuousTuples, dist, ops
        >>> k = jax.device_count()
        >>> tuples = ContinuousTuples(jnp.full((k, 1), 1.5), jnp.ones((k, 1)), jnp.ones(k))
        >>> key, mesh = jax.random.key(0), dist.make_mesh({"tuples": k})
        >>> many = dist.relax(key, tuples, (2 * k,), mesh=mesh, num_global=2)
        >>> one = ops.relax(key, tuples, (2 * k,), num_global=2)
        >>> bool(jnp.all(many.indices == one.indices))
        True
    """
    check_mesh(mesh)
    check_template(template)
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
        active=None,
        density=density,
        block_size=block_size,
        locality=None,
        global_from=global_from,
        wrap=wrap,
        debug=False,
    )
    check_parts(mesh, len(tuples.values), plan.chunk_size)
    points, indices, mix = sample(key, tuples, plan, mesh)
    rows = P(spread(mesh, "tuples"))
    values = jax.shard_map(mix, mesh=mesh, in_specs=(rows, rows), out_specs=rows, check_vma=False)(
        points, tuples
    )
    return SparseEntries(shard_tuples(indices, mesh), values)


def sample(
    key: jax.Array | None, tuples: ContinuousTuples, plan: Plan, mesh: Mesh
) -> tuple[jax.Array, jax.Array, LocalMix]:
    """Draw all points, and say how a device gets the values of its own.

    Args:
        key: see :func:`relax`.
        tuples: from :func:`~sparse_hyper_jax.ops.entrance.enter_tuples`.
        plan: checked, see :func:`check_parts`.
        mesh: see :func:`relax`.

    Returns:
        points int32 ``(k, q, r)``, indices int32 ``(k * q, R)`` with the template's columns, and
        the function to call inside ``shard_map`` with a device's rows of points and tuples.
    """
    points = _draw_points(key, tuples, plan)
    indices = with_template(points, plan.template)
    if plan.chunk_size == len(points) and mesh.shape["tuples"] > 1:
        return points, indices, partial(_mix_shared, plan)
    return points, indices, partial(_mix_chunks, plan)


def check_template(template: Any) -> None:
    """Raise unless this is a template, or None.

    Raises:
        ValueError: something else.
    """
    if template is not None:
        check_instance("template", template, Template)


def check_parts(mesh: Mesh, count: int, chunk_size: int) -> None:
    """Raise unless the devices can share tuples evenly.

    Args:
        mesh: checked.
        count: number of tuples.
        chunk_size: tuples per context, a divisor of their number.

    Raises:
        ValueError: tuples or chunks that do not fit the mesh.
    """
    check_divides(mesh, "tuples", count, "tuples")
    own = count // mesh.shape["tuples"]
    checks.require(
        chunk_size == count or own % chunk_size == 0,
        f"chunks of {chunk_size} tuples on devices with {own} each",
        "whole chunks on every device, or one chunk of all tuples",
        f"change chunk_size to a divisor of {own}, or the mesh",
    )


def _draw_points(key: jax.Array | None, tuples: ContinuousTuples, plan: Plan) -> jax.Array:
    """Draw the points of ``ops.relax``: every chunk from a key of its own."""

    def draw(key: jax.Array | None, means: jax.Array, variances: jax.Array) -> jax.Array:
        return draw_tuples(key, means, variances, plan.shape, plan.counts, wrap=plan.wrap)

    if plan.chunk_size == len(tuples.means):
        return draw(key, tuples.means, tuples.variances)
    means, variances = (part.reshape(-1, plan.chunk_size, len(plan.shape)) for part in tuples[:2])
    keys = None if key is None else jax.random.split(key, len(means))
    points = jax.vmap(draw, in_axes=(None if key is None else 0, 0, 0))(keys, means, variances)
    return jax.lax.collapse(points, 0, 2)


def _mix_shared(plan: Plan, points: jax.Array, tuples: ContinuousTuples) -> jax.Array:
    """Mix a device's tuples into the points of all, and add up what all devices mixed."""
    everywhere = jax.lax.all_gather(points, "tuples", tiled=True)
    return jax.lax.psum_scatter(_mix(plan, everywhere, tuples), "tuples", tiled=True)


def _mix_chunks(plan: Plan, points: jax.Array, tuples: ContinuousTuples) -> jax.Array:
    """Mix tuples chunk by chunk, without a word to other devices."""
    if plan.chunk_size == len(points):
        return _mix(plan, points, tuples)
    chunks = jax.tree.map(
        lambda leaf: leaf.reshape(-1, plan.chunk_size, *leaf.shape[1:]), (points, tuples)
    )
    return jax.vmap(partial(_mix, plan))(*chunks).reshape(-1)


def _mix(plan: Plan, points: jax.Array, tuples: ContinuousTuples) -> jax.Array:
    flat = jax.lax.collapse(points, 0, 2)
    mask = mark_first(flat, plan.shape)
    return mix_in_blocks(
        flat, mask, tuples, density=plan.density, period=plan.period, block_size=plan.block_size
    )
