"""The hyperlayer by many devices: each multiplies its slice of the batch by its own entries."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from sparse_hyper_jax import checks, ops
from sparse_hyper_jax.dist.mesh import check_divides, check_mesh, spread
from sparse_hyper_jax.dist.relax import check_options, sample
from sparse_hyper_jax.ops import ContinuousTuples, Template
from sparse_hyper_jax.precision import at_least_float32


def hyperlayer(
    key: jax.Array | None,
    tuples: ContinuousTuples,
    x: jax.Array,
    out_shape: Sequence[int],
    *,
    mesh: Mesh,
    template: Template | None = None,
    sample_probability: float = 1.0,
    **options: Any,
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
        template: fixed columns.
        sample_probability: see :func:`sparse_hyper_jax.ops.hyperlayer`.
        **options: as in :func:`~sparse_hyper_jax.dist.relax`.

    Returns:
        ``(*out_shape, *features)`` in the dtype of ``x``, its last axis spread over ``data``.

    Raises:
        ValueError: what :func:`sparse_hyper_jax.ops.hyperlayer` refuses, or options that do not fit
            the mesh.

    Reference: Bloem 2018, arXiv 1810.09184.
    """
    check_options(mesh, tuples, template, options)
    static = {"out_shape": out_shape, "template": template}
    one_device = partial(ops.hyperlayer, sample_probability=sample_probability, **static, **options)
    out = jax.eval_shape(one_device, key, tuples, x)
    shape = _tensor_shape(tuples, x, out_shape, template)

    def sampled(key: jax.Array | None) -> jax.Array:
        points, indices, mix = sample(key, tuples, shape, options, mesh=mesh, template=template)
        return _multiply(mix, (points, tuples), indices, x, out, mesh=mesh, **static)

    if sample_probability == 1:
        return sampled(key)
    coin_key, sample_key = jax.random.split(key)
    hard = {"wrap": options.get("wrap", False), "mesh": mesh}
    return jax.lax.cond(
        jax.random.bernoulli(coin_key, sample_probability),
        sampled,
        lambda _: hyperlayer_hard(tuples, x, **static, **hard),
        sample_key,
    )


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
    """
    check_mesh(mesh)
    check_divides(mesh, "tuples", checks.check_tuples(*tuples)[0], "tuples")
    static = {"out_shape": out_shape, "template": template}
    out = jax.eval_shape(partial(ops.hyperlayer_hard, wrap=wrap, **static), tuples, x)
    shape = _tensor_shape(tuples, x, out_shape, template)
    indices, values = ops.settle(tuples, shape, template=template, wrap=wrap)
    return _multiply(lambda own: own, (values,), indices, x, out, mesh=mesh, **static)


def _multiply(
    values_of: Callable[..., jax.Array],
    operands: tuple[Any, ...],
    indices: jax.Array,
    x: jax.Array,
    out: jax.ShapeDtypeStruct,
    *,
    mesh: Mesh,
    out_shape: Sequence[int],
    template: Template | None,
) -> jax.Array:
    """Multiply on every device and add up; ``values_of`` maps a device's rows of operands."""
    batch = _check_batch(x, out, out_shape, mesh)
    in_order = template is not None and template.groups_by_output(out_shape)
    rows = P(spread(mesh, "tuples"))
    columns = P(*[None] * (jnp.ndim(x) - 1), spread(mesh, "data")) if batch else P()
    # Not psum: the parts leave with an axis of their own, over which the compiler sums. So every
    # axis of the mesh is spelled out, and the gradient of the sum is a copy that costs no exchange.
    # Hence also no check_vma: it would forbid loops in values_of that start from zeros.
    parted = P("tuples", *[None] * (len(out.shape) - 1), "data") if batch else P("tuples")

    def part(operands: tuple[Any, ...], indices: jax.Array, x: jax.Array) -> jax.Array:
        values = values_of(*operands)
        y = ops.sparse_multiply(indices, values, x, out_shape, indices_are_sorted=in_order)
        return y[None]

    on_devices = jax.shard_map(
        part, mesh=mesh, in_specs=(rows, rows, columns), out_specs=parted, check_vma=False
    )
    # The parts are summed once more: in 16 bits each of them would be rounded first.
    parts = on_devices(operands, indices, at_least_float32(x))
    return jnp.sum(parts, axis=0).astype(out.dtype)


def _check_batch(
    x: jax.Array, out: jax.ShapeDtypeStruct, out_shape: Sequence[int], mesh: Mesh
) -> bool:
    """Tell whether ``x`` has a batch axis, which the mesh must divide."""
    batch = len(out.shape) > len(out_shape)
    if batch:
        check_divides(mesh, "data", jnp.shape(x)[-1], "instances")
    checks.require(
        batch or mesh.shape["data"] == 1,
        f"x of shape {jnp.shape(x)} without a batch on a mesh with data={mesh.shape['data']}",
        "a last axis behind the contracted ones, to be spread over data",
        "add the batch axis or make a mesh with data=1",
    )
    return batch


def _tensor_shape(
    tuples: ContinuousTuples, x: jax.Array, out_shape: Sequence[int], template: Template | None
) -> tuple[int, ...]:
    rank = tuples.means.shape[1] if template is None else template.rows.shape[1]
    return (*out_shape, *jnp.shape(x)[: rank - len(out_shape)])
