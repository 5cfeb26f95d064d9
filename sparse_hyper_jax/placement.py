"""Where arrays lie on a mesh of ``Explicit`` axes, on which their type says it.

Elsewhere, with ``Auto`` axes or on one device, the compiler decides, and nothing is done here.
"""

import jax


def gathered(array: jax.Array) -> jax.Array:
    """Give the array whole to every device, so that its axes may be cut and merged."""
    if not _is_spread(array):
        return array
    return jax.sharding.reshard(array, _place(array, jax.P()))


def placed_like(array: jax.Array, like: jax.Array) -> jax.Array:
    """Spread an array over devices as another of its shape."""
    if not _is_spread(like) and not _is_spread(array):
        return array
    return jax.sharding.reshard(array, jax.typeof(like).sharding)


def _is_spread(array: jax.Array) -> bool:
    return any(axis is not None for axis in jax.typeof(array).sharding.spec)


def _place(array: jax.Array, spec: jax.P) -> jax.NamedSharding:
    return jax.NamedSharding(jax.typeof(array).sharding.mesh, spec)
