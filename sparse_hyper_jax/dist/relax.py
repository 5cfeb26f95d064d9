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
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from sparse_hyper_jax import checks, ops
from sparse_hyper_jax.dist.mesh import check_divides, check_mesh, spread
from sparse_hyper_jax.dist.placement import shard_tuples
from sparse_hyper_jax.ops import ContinuousTuples, SparseEntries, Template

REFUSED = ("active", "debug", "locality")
"""Options of ``ops.relax`` for a single device."""

SAMPLING = ("num_global", "num_local", "region")
"""Options of :func:`~sparse_hyper_jax.ops.sample_tuples`; the rest goes to ``mix_values``."""

LocalMix = Callable[[jax.Array, ContinuousTuples], jax.Array]
"""Maps a device's points ``(k/T, q, r)`` and tuples to their values ``(k/T * q,)``."""


def relax(
    key: jax.Array | None,
    tuples: ContinuousTuples,
    shape: Sequence[int],
    *,
    mesh: Mesh,
    template: Template | None = None,
    **options: Any,
) -> SparseEntries:
    """Sample integer tuples and share the values among them, each device for its tuples.

    The entries of :func:`sparse_hyper_jax.ops.relax`: the same points, and values equal up to the
    order of summation. Each of ``tuples=T`` devices has ``1 / T`` of the proportions to compute;
    with one context for all tuples it also sorts all points.

    Args:
        key: a typed key; may be None without global and local points.
        tuples: ``k`` continuous tuples of rank ``r``.
        shape: lengths of the whole sparse tensor, output axes first.
        mesh: from :func:`~sparse_hyper_jax.dist.make_mesh`; ``tuples`` divides ``k``.
        template: fixed columns.
        **options: as in :func:`sparse_hyper_jax.ops.relax`, but not ``active``, ``debug`` or
            ``locality``. With chunks, each device has whole ones.

    Returns:
        ``k * q`` entries, spread over ``tuples``.

    Raises:
        ValueError: what :func:`sparse_hyper_jax.ops.relax` refuses, or options that do not fit the
            mesh.
    """
    check_options(mesh, tuples, template, options)
    jax.eval_shape(partial(ops.relax, shape=shape, template=template, **options), key, tuples)
    points, indices, mix = sample(key, tuples, shape, options, mesh=mesh, template=template)
    rows = P(spread(mesh, "tuples"))
    values = jax.shard_map(mix, mesh=mesh, in_specs=(rows, rows), out_specs=rows, check_vma=False)(
        points, tuples
    )
    return SparseEntries(shard_tuples(indices, mesh), values)


def sample(
    key: jax.Array | None,
    tuples: ContinuousTuples,
    shape: Sequence[int],
    options: dict[str, Any],
    *,
    mesh: Mesh,
    template: Template | None,
) -> tuple[jax.Array, jax.Array, LocalMix]:
    """Draw all points, and say how a device gets the values of its own.

    Args:
        key: see :func:`relax`.
        tuples: see there.
        shape: see there.
        options: see there; checked.
        mesh: see there.
        template: see there.

    Returns:
        points int32 ``(k, q, r)``, indices int32 ``(k * q, R)`` with the template's columns, and
        the function to call inside ``shard_map`` with a device's rows of points and tuples.
    """
    count = len(tuples.values)
    learned = tuple(shape) if template is None else template.learned_shape(shape)
    chunk_size = chunk_size_of(count, template, options)
    wrap = options.get("wrap", False)
    draw = {name: options[name] for name in SAMPLING if name in options}
    points = _draw_points(key, tuples.means, learned, chunk_size, draw | {"wrap": wrap})
    indices = jax.lax.collapse(points, 0, 2) if template is None else ops.stitch(template, points)
    taken = (*SAMPLING, *REFUSED, "chunk_size", "wrap")
    mixing = {name: value for name, value in options.items() if name not in taken}
    mixing["period"] = learned if wrap else None
    if chunk_size == count and mesh.shape["tuples"] > 1:
        return points, indices, partial(_mix_shared, learned, mixing)
    return points, indices, partial(_mix_chunks, learned, mixing, chunk_size)


def chunk_size_of(count: int, template: Template | None, options: dict[str, Any]) -> int:
    """Give the number of tuples per context."""
    chunk_size = options.get("chunk_size") if template is None else template.chunk_size
    return count if chunk_size is None else chunk_size


def check_options(
    mesh: Mesh, tuples: ContinuousTuples, template: Template | None, options: dict[str, Any]
) -> None:
    """Raise unless the options fit the mesh.

    Raises:
        ValueError: tuples or chunks that the devices cannot share evenly, or an option for a single
            device.
    """
    check_mesh(mesh)
    for name in REFUSED:
        checks.require(
            not options.get(name),
            f"{name}={options.get(name)} with a mesh",
            "an option that works on several devices",
            f"leave out {name}, or use sparse_hyper_jax.ops on one device",
        )
    count, _ = checks.check_tuples(*tuples)
    check_divides(mesh, "tuples", count, "tuples")
    chunk_size, own = chunk_size_of(count, template, options), count // mesh.shape["tuples"]
    checks.check_count("chunk_size", chunk_size, least=1)
    checks.require(
        chunk_size == count or own % chunk_size == 0 or count % chunk_size != 0,
        f"chunks of {chunk_size} tuples on devices with {own} each",
        "whole chunks on every device, or one chunk of all tuples",
        f"change chunk_size to a divisor of {own}, or the mesh",
    )


def _draw_points(
    key: jax.Array | None,
    means: jax.Array,
    learned: tuple[int, ...],
    chunk_size: int,
    options: dict[str, Any],
) -> jax.Array:
    """Draw the points of ``ops.relax``: every chunk from a key of its own."""
    draw = partial(ops.sample_tuples, shape=learned, **options)
    if chunk_size == len(means):
        return draw(key, means)
    chunks = jnp.reshape(means, (-1, chunk_size, len(learned)))
    keys = None if key is None else jax.random.split(key, len(chunks))
    points = jax.vmap(draw, in_axes=(None if key is None else 0, 0))(keys, chunks)
    return jax.lax.collapse(points, 0, 2)


def _mix_shared(
    learned: tuple[int, ...], mixing: dict[str, Any], points: jax.Array, tuples: ContinuousTuples
) -> jax.Array:
    """Mix a device's tuples into the points of all, and add up what all devices mixed."""
    everywhere = jax.lax.all_gather(points, "tuples", tiled=True)
    return jax.lax.psum_scatter(_mix(learned, mixing, everywhere, tuples), "tuples", tiled=True)


def _mix_chunks(
    learned: tuple[int, ...],
    mixing: dict[str, Any],
    chunk_size: int,
    points: jax.Array,
    tuples: ContinuousTuples,
) -> jax.Array:
    """Mix tuples chunk by chunk, without a word to other devices."""
    if chunk_size == len(points):
        return _mix(learned, mixing, points, tuples)
    chunks = jax.tree.map(
        lambda leaf: leaf.reshape(-1, chunk_size, *leaf.shape[1:]), (points, tuples)
    )
    return jax.vmap(partial(_mix, learned, mixing))(*chunks).reshape(-1)


def _mix(
    learned: tuple[int, ...], mixing: dict[str, Any], points: jax.Array, tuples: ContinuousTuples
) -> jax.Array:
    flat = jax.lax.collapse(points, 0, 2)
    return ops.mix_values(flat, ops.first_occurrence(flat, learned), *tuples, **mixing)
