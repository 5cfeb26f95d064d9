"""Arrays inside ``jax.shard_map``: over which axes of the mesh they differ between devices."""

import jax


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
