"""Where arrays lie on a mesh of ``Explicit`` axes, on which their type says it.

Elsewhere, with ``Auto`` axes or on one device, the compiler decides, and nothing is done here.
"""

from typing import Any

import jax
import jax.numpy as jnp


def gathered(array: jax.Array) -> jax.Array:
    """Give the array whole to every device, so that its axes may be cut and merged."""
    if not _is_spread(array):
        return array
    return jax.sharding.reshard(array, place(array, jax.P()))


def with_whole_rows(matrix: jax.Array) -> jax.Array:
    """Give every row whole to a device, while the rows may be spread."""
    rows, columns = (*jax.typeof(matrix).sharding.spec, None, None)[:2]
    return matrix if columns is None else jax.sharding.reshard(matrix, place(matrix, jax.P(rows)))


def product_over_rows(left: jax.Array, right: jax.Array, *, precision: Any = None) -> jax.Array:
    """Give ``left^T right``, whole on every device, also where the rows are spread."""
    spread = next(filter(_is_spread, (left, right)), None)
    whole = None if spread is None else place(spread, jax.P())
    return jnp.matmul(left.T, right, precision=precision, out_sharding=whole)


def placed_like(array: jax.Array, like: jax.Array) -> jax.Array:
    """Spread an array over devices as another of its shape."""
    # What is not spread may have no mesh.
    if not _is_spread(like):
        return gathered(array)
    return jax.sharding.reshard(array, jax.typeof(like).sharding)


def _is_spread(array: jax.Array) -> bool:
    return any(axis is not None for axis in jax.typeof(array).sharding.spec)


def place(array: jax.Array, spec: jax.P) -> jax.NamedSharding:
    """Give a place on the mesh on which an array lies; no mesh has to be set for it."""
    return jax.NamedSharding(jax.typeof(array).sharding.mesh, spec)
