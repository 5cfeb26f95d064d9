"""The hyperlayer by many devices: each multiplies its slice of the batch by its own entries."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from sparse_hyper_jax import checks
from sparse_hyper_jax.dist.mesh import check_divides, check_mesh, spread
from sparse_hyper_jax.dist.relax import check_parts, check_template, sample
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.ops import ContinuousTuples, SparseEntries, Template
from sparse_hyper_jax.ops.distances import Density
from sparse_hyper_jax.ops.entrance import enter_tuples
from sparse_hyper_jax.ops.hyperlayer import sometimes, tensor_shape
from sparse_hyper_jax.ops.multiply import contract, product_dtype
from sparse_hyper_jax.ops.own_draws import GlobalFrom
from sparse_hyper_jax.ops.plan import learned_shape, plan_relaxation
from sparse_hyper_jax.ops.relax import settle_tuples
from sparse_hyper_jax.precision import at_least_float32, wide_dtype


def hyperlayer(
    key: jax.Array | None,
    tuples: ContinuousTuples,
    x: jax.Array,
    out_shape: Sequence[int],
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
    sample_probability: float | jax.Array = 1.0,
    wrap: bool = False,
) -> jax.Array:
    """Multiply ``x`` by a sampled sparse tensor: the whole training pass, on all devices.

    ``y = sum over devices t of W_t x`` with ``W_t`` the entries that device ``t`` drew, see
    :func:`~sparse_hyper_jax.dist.relax`. The numbers are those of
    :func:`sparse_hyper_jax.ops.hyperlayer`, up to the order of summation, for every mesh. Devices
    exchange points, values of points, outputs and gradients of these; never tuples, their gradients
    or the batch. Works inside ``jit``, ``grad`` and ``vmap``.

    Args:
        key: a typed key; may be None without global and local points.
        tuples: ``k`` continuous tuples of rank ``r``, best placed by
            :func:`~sparse_hyper_jax.dist.shard_tuples`.
        x: ``(*in_shape, *features)``; with ``data`` above 1 the last axis is the batch, best
            placed by :func:`~sparse_hyper_jax.dist.shard_batch`.
        out_shape: lengths of the output axes.
        mesh: from :func:`~sparse_hyper_jax.dist.make_mesh`; ``tuples`` divides ``k``, ``data`` the
            batch.
        num_global: see :func:`sparse_hyper_jax.ops.relax`.
        num_local: see there.
        region: see there.
        chunk_size: see there; of several chunks, each device has whole ones.
        template: fixed columns.
        density: see there.
        block_size: see there.
        global_from: see there.
        sample_probability: see :func:`sparse_hyper_jax.ops.hyperlayer`.
        wrap: every learned axis is a circle.

    Returns:
        ``(*out_shape, *features)`` in the dtype of ``x``, its last axis spread over ``data``.

    Raises:
        ValueError: what :func:`sparse_hyper_jax.ops.hyperlayer` refuses, or options that do not fit
            the mesh.

    Reference: Bloem 2018, arXiv 1810.09184.

    Example:
        >>> from sparse_hyper_jax import ContinuousTuples, dist, ops
        >>> k = jax.device_count()
        >>> tuples = ContinuousTuples(jnp.ones((k, 2)), jnp.ones((k, 2)), jnp.ones(k))
        >>> key, x, mesh = jax.random.key(0), jnp.ones((4, 3)), dist.make_mesh({"tuples": k})
        >>> many = dist.hyperlayer(key, tuples, x, out_shape=(4,), mesh=mesh, num_global=2)
        >>> one = ops.hyperlayer(key, tuples, x, out_shape=(4,), num_global=2)
        >>> many.shape, bool(jnp.allclose(many, one, rtol=1e-4))
        ((4, 3), True)
    """
    check_mesh(mesh)
    check_template(template)
    out_shape = checks.check_index_shape("out_shape", out_shape)
    tuples, x = enter_tuples(tuples), as_array("x", x)
    plan = plan_relaxation(
        key,
        tuples,
        tensor_shape(tuples, x, out_shape, template),
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
    check_parts(mesh, tuples.values.shape[0], plan.chunk_size)

    def sampled(key: jax.Array | None) -> jax.Array:
        points, indices, mix = sample(key, tuples, plan, mesh)
        work = _Work(mix, (points, tuples), indices, wide_dtype(*tuples))
        return _multiply(work, x, out_shape, template, mesh)

    def settled(_: jax.Array) -> jax.Array:
        return _multiply(
            _settled(tuples, plan.shape, template, wrap=wrap), x, out_shape, template, mesh
        )

    return sometimes(key, sample_probability, sampled, settled)


def hyperlayer_hard(
    tuples: ContinuousTuples,
    x: jax.Array,
    out_shape: Sequence[int],
    *,
    mesh: Mesh,
    template: Template | None = None,
    wrap: bool = False,
) -> jax.Array:
    """Multiply ``x`` by the settled sparse tensor on all devices: evaluation, without sampling.

    ``y = sum over devices t of W_t x`` with ``W_t`` the rounded tuples of device ``t``.

    Args:
        tuples: ``k`` continuous tuples of rank ``r``.
        x: see :func:`hyperlayer`.
        out_shape: lengths of the output axes.
        mesh: see :func:`hyperlayer`.
        template: fixed columns.
        wrap: every learned axis is a circle.

    Returns:
        ``(*out_shape, *features)`` in the dtype of ``x``, its last axis spread over ``data``.

    Raises:
        ValueError: ranks that do not fit, or sizes that do not fit the mesh.

    Example:
        >>> from sparse_hyper_jax import ContinuousTuples, dist
        >>> k, x = jax.device_count(), jnp.array([[5.0], [7.0]])
        >>> tuples = ContinuousTuples(jnp.ones((k, 2)), jnp.ones((k, 2)), jnp.full(k, 1 / k))
        >>> mesh = dist.make_mesh({"tuples": k})
        >>> dist.hyperlayer_hard(tuples, x, out_shape=(3,), mesh=mesh).T.tolist()
        [[0.0, 7.0, 0.0]]
    """
    check_mesh(mesh)
    check_template(template)
    wrap = checks.check_flag("wrap", wrap)
    out_shape = checks.check_index_shape("out_shape", out_shape)
    tuples, x = enter_tuples(tuples), as_array("x", x)
    check_divides(mesh, "tuples", tuples.values.shape[0], "tuples")
    learned = learned_shape(tuples, tensor_shape(tuples, x, out_shape, template), template)
    work = _settled(tuples, learned, template, wrap=wrap)
    return _multiply(work, x, out_shape, template, mesh)


class _Work(NamedTuple):
    """What the devices share: each has its rows of operands and indices.

    Attributes:
        values_of: maps a device's operands to the values of its entries.
        operands: arrays whose leading axis goes over the devices.
        indices: int32 ``(n, R)``, of all entries.
        dtype: that of the values.
    """

    values_of: Callable[..., jax.Array]
    operands: tuple[Any, ...]
    indices: jax.Array
    dtype: jnp.dtype


def _settled(
    tuples: ContinuousTuples, learned: tuple[int, ...], template: Template | None, *, wrap: bool
) -> _Work:
    indices, values = settle_tuples(tuples, learned, template=template, wrap=wrap, debug=False)
    return _Work(lambda own: own, (values,), indices, values.dtype)


def _multiply(
    work: _Work, x: jax.Array, out_shape: tuple[int, ...], template: Template | None, mesh: Mesh
) -> jax.Array:
    """Multiply on every device and add up."""
    features = x.ndim - (work.indices.shape[1] - len(out_shape))
    batch = features > 0
    _check_batch(x, mesh, batch=batch)
    in_order = template is not None and template.groups_by_output(out_shape)
    rows = P(spread(mesh, "tuples"))
    columns = P(*[None] * (x.ndim - 1), spread(mesh, "data")) if batch else P()
    # Not psum: the parts leave with an axis of their own, over which the compiler sums. So every
    # axis of the mesh is spelled out, and the gradient of the sum is a copy that costs no exchange.
    # Hence also no check_vma: it would forbid loops in values_of that start from zeros.
    parted = (
        P("tuples", *[None] * (len(out_shape) + features - 1), "data") if batch else P("tuples")
    )

    def part(operands: tuple[Any, ...], indices: jax.Array, x: jax.Array) -> jax.Array:
        entries = SparseEntries(indices, work.values_of(*operands))
        layout = "sorted" if in_order else "any"
        return contract(entries, x, out_shape, layout=layout, debug=False)[None]

    on_devices = jax.shard_map(
        part, mesh=mesh, in_specs=(rows, rows, columns), out_specs=parted, check_vma=False
    )
    # The parts are summed once more: in 16 bits each of them would be rounded first.
    parts = on_devices(work.operands, work.indices, at_least_float32(x))
    return jnp.sum(parts, axis=0).astype(product_dtype(x.dtype, work.dtype))


def _check_batch(x: jax.Array, mesh: Mesh, *, batch: bool) -> None:
    """Raise unless the mesh divides the batch; it must not divide what is not there."""
    if batch:
        check_divides(mesh, "data", x.shape[-1], "instances")
    checks.require(
        batch or mesh.shape["data"] == 1,
        f"x of shape {x.shape} without a batch on a mesh with data={mesh.shape['data']}",
        "a last axis behind the contracted ones, to be spread over data",
        "add the batch axis or make a mesh with data=1",
    )
