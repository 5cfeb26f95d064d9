"""Many devices, the numbers of one: data parallel over the batch, tuple parallel over ``k``.

::

    mesh.py         make_mesh("data=4,tuples=2")     eight devices as a grid
    placement.py    shard_tuples, shard_batch        arrays spread over it, for jax.jit
    relax.py        relax                            points, then values: tuples stay in place
    hyperlayer.py   hyperlayer, hyperlayer_hard      partial outputs, summed over the devices
    processes.py    join_processes                   devices of several processes in one grid

Two ways, the same numbers (those of ``ops`` on one device, up to the order of float32 sums; the
sampled points are identical). ``jax.jit`` of ``ops.hyperlayer``, of a layer or of a whole training
step, with inputs placed by ``shard_tuples`` and ``shard_batch``: the compiler divides the work.
And ``dist.hyperlayer``, which fixes by ``jax.shard_map`` what is exchanged: int32 points, values of
points, outputs, and the gradients of these. Neither gathers the tuples.
"""

from sparse_hyper_jax.dist.hyperlayer import hyperlayer, hyperlayer_hard
from sparse_hyper_jax.dist.mesh import make_mesh
from sparse_hyper_jax.dist.placement import (
    replicate,
    shard_batch,
    shard_tuples,
    tuple_shardings,
)
from sparse_hyper_jax.dist.processes import first_does, first_says, is_first, join_processes
from sparse_hyper_jax.dist.relax import relax

__all__ = [
    "first_does",
    "first_says",
    "hyperlayer",
    "hyperlayer_hard",
    "is_first",
    "join_processes",
    "make_mesh",
    "relax",
    "replicate",
    "shard_batch",
    "shard_tuples",
    "tuple_shardings",
]
