"""Where the arrays of a layer lie: on the devices where the instances of its batch are.

With axes of a mesh that are ``Explicit``, as ``jax.make_mesh`` makes them, the type of an array
says over which of them it is spread, and operations want to be told where that does not follow
from their arguments. With axes that are ``Auto``, and on one device, nothing happens here.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax.placement import place


def spread_like(array: jax.Array, batch: jax.Array) -> jax.Array:
    """Spread an array over the devices as a batch is; ``jax.vmap`` maps over such arrays alone.

    Args:
        array: ``(b, ...)``.
        batch: ``(b, ...)``.

    Returns:
        the same numbers.
    """
    spec, own = (jax.typeof(leaf).sharding.spec for leaf in (batch, array))
    if spec[0] == own[0]:
        return array
    return jax.sharding.reshard(array, place(batch, jax.P(spec[0], *own[1:])))


def reshape_like(array: jax.Array, shape: Sequence[int], batch: jax.Array, axes: int) -> jax.Array:
    """Reshape an array whose first axes are those of a batch, or one for all of them.

    Args:
        array: ``(b, ...)``.
        shape: what it shall have.
        batch: ``(*b, ...)``.
        axes: how many of the axes of the batch are the first ones of the shape.

    Returns:
        the same numbers, spread over the devices as the batch is.
    """
    spec = jax.typeof(batch).sharding.spec[:axes]
    if all(axis is None for axis in spec):
        return array.reshape(shape)
    return jnp.reshape(array, shape, out_sharding=place(batch, jax.P(*spec)))


def leave_to_compiler(
    function: Callable[..., jax.Array], arguments: tuple[Any, ...], batch: jax.Array
) -> jax.Array:
    """Call a function whose work the compiler divides among the devices, as with ``Auto`` axes.

    For what moves the instances of a batch, as sorting them does.

    Args:
        function: of the arguments, to ``(b, ...)``.
        arguments: pytrees of arrays.
        batch: ``(b, ...)``.

    Returns:
        what the function does, spread over the devices as the batch is.
    """
    axis = jax.typeof(batch).sharding.spec[0]
    if axis is None:
        return function(*arguments)
    divided: Any = jax.sharding.auto_axes(function, out_sharding=jax.P(axis))
    return divided(*arguments)
