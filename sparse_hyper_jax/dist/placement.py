"""Placement of arrays on a mesh: tuples along one axis, batches along the other.

With inputs placed like this ``jax.jit`` of any function of the library runs on all devices: the
compiler divides the work and inserts what the devices must exchange.
"""

from typing import Any

import jax
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sparse_hyper_jax import checks
from sparse_hyper_jax.dist.mesh import check_divides, check_mesh
from sparse_hyper_jax.entrance import as_array

MOST_AXES = 64


def tuple_shardings(tree: Any, mesh: Mesh) -> Any:
    """Say where the parts of continuous tuples go: rows over ``tuples``, copies over ``data``.

    Args:
        tree: pytree of arrays whose leading axis counts tuples: ``ContinuousTuples``, the raw
            parameters behind them, or an optimizer's moments; scalars go to every device.
        mesh: from :func:`~sparse_hyper_jax.dist.make_mesh`.

    Returns:
        the same pytree with a ``NamedSharding`` per array.

    Raises:
        ValueError: a leading axis that the mesh does not divide.

    Example:
        >>> from sparse_hyper_jax import ContinuousTuples, dist
        >>> mesh = dist.make_mesh({"tuples": jax.device_count()})
        >>> k = 2 * jax.device_count()
        >>> tuples = ContinuousTuples(jnp.ones((k, 2)), jnp.ones((k, 2)), jnp.ones(k))
        >>> tuple(dist.tuple_shardings(tuples, mesh).means.spec)
        ('tuples',)
    """
    check_mesh(mesh)

    def place(leaf: Any) -> NamedSharding:
        if not leaf.ndim:
            return NamedSharding(mesh, P())
        check_divides(mesh, "tuples", leaf.shape[0], "tuples")
        return NamedSharding(mesh, P("tuples"))

    return jax.tree.map(place, _arrays(tree))


def shard_tuples(tree: Any, mesh: Mesh) -> Any:
    """Spread the parts of continuous tuples over ``tuples``; inside ``jit``, ask for it.

    Args:
        tree: see :func:`tuple_shardings`; equal on all processes.
        mesh: from :func:`~sparse_hyper_jax.dist.make_mesh`.

    Returns:
        the same numbers, each device with its ``k / tuples`` rows.

    Raises:
        ValueError: a leading axis that the mesh does not divide.

    Example:
        >>> from sparse_hyper_jax import ContinuousTuples, dist
        >>> mesh = dist.make_mesh({"tuples": jax.device_count()})
        >>> k = 2 * jax.device_count()
        >>> tuples = ContinuousTuples(jnp.ones((k, 2)), jnp.ones((k, 2)), jnp.ones(k))
        >>> tuples = dist.shard_tuples(tuples, mesh)
        >>> tuples.means.addressable_shards[0].data.shape
        (2, 2)
    """
    tree = _arrays(tree)
    return jax.tree.map(_put, tree, tuple_shardings(tree, mesh))


def shard_batch(x: Any, mesh: Mesh, *, axis: int = -1) -> Any:
    """Spread a batch over ``data``; inside ``jit``, ask for it.

    Args:
        x: array with a batch axis, or a pytree of them; equal on all processes.
        mesh: from :func:`~sparse_hyper_jax.dist.make_mesh`.
        axis: the batch axis: the last one where the batch shares a sparse tensor.

    Returns:
        the same numbers, each device with its slice of the batch.

    Raises:
        ValueError: no such axis, or one that the mesh does not divide.

    Example:
        >>> from sparse_hyper_jax import dist
        >>> mesh = dist.make_mesh({"data": jax.device_count()})
        >>> x = dist.shard_batch(jnp.ones((8, 4 * jax.device_count())), mesh)
        >>> x.addressable_shards[0].data.shape
        (8, 4)
    """
    check_mesh(mesh)
    axis = checks.check_count("axis", axis, -MOST_AXES, MOST_AXES - 1)

    def place(leaf: Any) -> NamedSharding:
        checks.require(
            -leaf.ndim <= axis < leaf.ndim,
            f"an array of shape {leaf.shape} with axis={axis}",
            "a batch axis",
            "add one or change axis",
        )
        check_divides(mesh, "data", leaf.shape[axis], "instances")
        before = axis % leaf.ndim
        return NamedSharding(mesh, P(*[None] * before, "data"))

    return jax.tree.map(lambda leaf: _put(leaf, place(leaf)), _arrays(x))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copy arrays to every device of the mesh, from wherever their parts are.

    Args:
        tree: pytree of arrays.
        mesh: from :func:`~sparse_hyper_jax.dist.make_mesh`.

    Returns:
        the same numbers, whole on every device, so that every process can read them.

    Raises:
        ValueError: no mesh, or a leaf that is no array.

    Example:
        >>> from sparse_hyper_jax import dist
        >>> mesh = dist.make_mesh({"data": jax.device_count()})
        >>> x = dist.shard_batch(jnp.arange(2.0 * jax.device_count()), mesh)
        >>> dist.replicate(x, mesh).is_fully_replicated
        True
    """
    check_mesh(mesh)
    return jax.tree.map(lambda leaf: _put(leaf, NamedSharding(mesh, P())), _arrays(tree))


def _arrays(tree: Any) -> Any:
    """Return a tree whose leaves are arrays; numbers become arrays, and nothing else does."""
    checks.require(tree is not None, "None", "an array or a tree of arrays", "pass one")

    def array(leaf: Any) -> Any:
        # Arrays of any kind may move, also random keys; and of shapes alone placements are known.
        if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
            return leaf
        return as_array("a leaf of the tree", leaf)

    return jax.tree.map(array, tree)


def _put(leaf: Any, sharding: NamedSharding) -> jax.Array:
    # Inside jit, where device_put would leave the choice to the compiler, this asks for it.
    if isinstance(leaf, Tracer):
        return jax.lax.with_sharding_constraint(leaf, sharding)
    return jax.device_put(leaf, sharding)
