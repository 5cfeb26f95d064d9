"""Arrays on a mesh: over which axes of it they differ between devices."""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType


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


def spread_alike(array: jax.Array, index: jax.Array) -> jax.Array:
    """Let an array be spread over the devices as the indices are by which it will be read.

    Under ``jax.vmap`` on a mesh of explicit axes nothing is gathered by the indices of a batch,
    which is spread, from what all of it shares, which is not. What depends on the indices is spread
    like them. On other meshes, and without one, nothing happens.

    Args:
        array: real numbers or flags, of any shape.
        index: integers of any shape.

    Returns:
        the same array.
    """
    if AxisType.Explicit not in jax.typeof(index).sharding.mesh.axis_types:
        return array
    nothing = index * 0 if index.shape == array.shape else (index * 0).sum()
    if array.dtype == jnp.bool_:
        return array | (nothing > 0)
    # A product: what comes back is spread by it as well.
    return array * (1 + nothing).astype(array.dtype)
