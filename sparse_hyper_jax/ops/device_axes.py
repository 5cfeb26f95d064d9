"""Arrays on a mesh of devices: over which of its axes they differ between these."""

from typing import Any

import jax
import jax.numpy as jnp


def vary_alike(*arrays: jax.Array) -> list[jax.Array]:
    """Let all arrays vary over the axes over which any of them does.

    Library functions do this by themselves; the carry of a loop and the operands of a primitive
    need it spelled out. Outside of ``shard_map`` nothing varies and nothing happens.

    Args:
        arrays: of any shapes.

    Returns:
        the same arrays.
    """
    axes = [jax.typeof(array).manual_axis_type.varying for array in arrays]
    union = frozenset().union(*axes)
    return [
        jax.lax.pcast(array, tuple(union - own), to="varying") if union - own else array
        for array, own in zip(arrays, axes, strict=True)
    ]


def spread_alike(*arrays: jax.Array) -> list[jax.Array]:
    """Let all arrays be spread over devices as any of them is, on a mesh of ``Explicit`` axes.

    There, an array that all instances of a batch share cannot be read at places that each instance
    has for itself. On other meshes, and on none, nothing happens.

    Args:
        arrays: of any shapes, inside of ``jax.vmap`` over a batch that is spread over devices.

    Returns:
        the same numbers.
    """
    if not any(_has_explicit_axes(array) for array in arrays):
        return list(arrays)
    # A nothing that depends on all of them. Of flags: a NaN times 0 would not be 0.
    firsts = [jnp.any(jnp.ravel(array)[:1] != 0).astype(jnp.int32) for array in arrays]
    nothing = jnp.minimum(sum(firsts), 0)
    return [array + nothing.astype(array.dtype) for array in arrays]


def spread_by(array: jax.Array, index: jax.Array) -> jax.Array:
    """Let an array be spread over the devices as the indices are by which it will be read.

    Under ``jax.vmap`` on a mesh of explicit axes nothing is gathered by the indices of a batch,
    which is spread, from what all of it shares, which is not. What depends on the indices is spread
    like them. On other meshes, and without one, nothing happens.

    Args:
        array: real numbers, flags or typed keys, of any shape.
        index: integers of any shape.

    Returns:
        the same array.
    """
    if jax.sharding.AxisType.Explicit not in jax.typeof(index).sharding.mesh.axis_types:
        return array
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        data = spread_by(jax.random.key_data(array), index)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(array))
    nothing = index * 0 if index.shape == array.shape else (index * 0).sum()
    if array.dtype == jnp.bool_:
        return array | (nothing > 0)
    # A product: what comes back is spread by it as well.
    return array * (1 + nothing).astype(array.dtype)


def explicit_axes(array: jax.Array, axis: int | None) -> tuple[jax.sharding.AbstractMesh, Any]:
    """Give the mesh of an array, and over which of its ``Explicit`` axes an axis is spread.

    Args:
        array: anything.
        axis: of the array; None for no axis.

    Returns:
        mesh, and the entry of a partition spec, None if it is not spread.
    """
    sharding = jax.typeof(array).sharding
    return sharding.mesh, None if axis is None else sharding.spec[axis]


def _has_explicit_axes(array: jax.Array) -> bool:
    meshes = jax.sharding.get_abstract_mesh(), jax.typeof(array).sharding.mesh
    return any(jax.sharding.AxisType.Explicit in mesh.axis_types for mesh in meshes)
