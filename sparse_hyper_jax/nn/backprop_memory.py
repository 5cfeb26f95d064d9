"""What a training step does with the memories of the layers of a model."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax import checks
from sparse_hyper_jax.backprop import Memory, next_memory
from sparse_hyper_jax.entrance import check_instance


# Linen's TrainState replaces what lies in this collection by its gradient.
@nnx.register_variable_name("_overwrite_with_gradient")
class BackpropMemory(nnx.Variable):
    """What a layer remembers between backward passes: a :class:`Memory`, no parameter.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> layer = nn.SparseBackpropLinear(8, 4, memory="shared", rngs=nnx.Rngs(0))
        >>> nnx.state(layer, nn.BackpropMemory)["memory"].get_value().residue.tolist()
        [0.0, 0.0, 0.0, 0.0]
    """


TRAINED = (nnx.Param, BackpropMemory)
"""Filter of what to differentiate: ``argnums=nnx.DiffState(0, TRAINED)``.

Example:
    >>> from flax import nnx
    >>> from sparse_hyper_jax import nn
    >>> layer = nn.SparseBackpropLinear(8, 4, memory="shared", rngs=nnx.Rngs(0))
    >>> wrt = nnx.DiffState(0, nn.TRAINED)
    >>> sorted(nnx.grad(lambda layer: layer(jnp.ones(8)).sum(), argnums=wrt)(layer))
    ['bias', 'kernel', 'memory']
"""


def carry_memory(model: nnx.Module, gradient: nnx.State) -> nnx.State:
    """Give every layer its next memory, and the optimizer the rest of the gradient.

    Args:
        model: with any number of layers that remember.
        gradient: of the loss with respect to ``nnx.DiffState(0, TRAINED)``.

    Returns:
        the gradient without the memories.

    Raises:
        ValueError: the gradient lacks a memory, or a layer was called several times in the loss
            (outside ``jit``; inside, its memory and next gradients become NaN).

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> layer = nn.SparseBackpropLinear(8, 4, memory="shared", rngs=nnx.Rngs(0))
        >>> wrt = nnx.DiffState(0, nn.TRAINED)
        >>> gradient = nnx.grad(lambda layer: layer(jnp.ones(8)).sum(), argnums=wrt)(layer)
        >>> sorted(nn.carry_memory(layer, gradient))
        ['bias', 'kernel']
        >>> print(layer.memory.get_value().residue)
        [0.  0.8 0.8 0.8]
    """
    check_instance("model", model, nnx.Module)
    check_instance("gradient", gradient, nnx.State)
    following, rest = nnx.split_state(gradient, BackpropMemory, ...)
    current = nnx.state(model, BackpropMemory)
    have, want = jax.tree.structure(following), jax.tree.structure(current)
    checks.require(
        have == want,
        f"a gradient with {have.num_leaves} arrays of memories of {want.num_leaves}",
        "the gradient of every memory",
        "differentiate with argnums=nnx.DiffState(0, TRAINED)",
    )
    nnx.update(model, next_memories(current, following))
    return rest


def next_memories(memories: Any, gradient: Any) -> Any:
    """Take the gradient of every memory as the next one, after checking it.

    Args:
        memories: pytree with a :class:`~sparse_hyper_jax.backprop.Memory` for each layer.
        gradient: the same tree, of the loss with respect to it.

    Returns:
        the memories of the next step.

    Raises:
        ValueError: another tree, or as :func:`~sparse_hyper_jax.backprop.next_memory`.

    Example:
        >>> from sparse_hyper_jax import backprop, nn
        >>> options = {"sparsifier": backprop.UnifiedTopK(0.5), "eta": 0.5}
        >>> def loss(memories, x):
        ...     kernel, memory = jnp.ones((4, 8)), memories["layer"]
        ...     return backprop.sparse_dense(None, x, kernel, None, memory, **options).sum()
        >>> memories = {"layer": backprop.init_memory("shared", (1, 4))}
        >>> gradient = jax.grad(loss)(memories, jnp.ones((1, 8)))
        >>> nn.next_memories(memories, gradient)["layer"].residue.tolist()
        [0.0, 0.0, 0.5, 0.5]
    """
    have, want = jax.tree.structure(gradient), jax.tree.structure(memories)
    checks.require(
        have == want,
        f"a gradient of the structure {have}",
        f"that of the memories, {want}",
        "differentiate with respect to the memories",
    )
    return jax.tree.map(next_memory, memories, gradient, is_leaf=_is_memory)


def reset_memory(model: nnx.Module, *, batch_shape: Sequence[int] | None = None) -> None:
    """Let all layers of a model forget, for instance when the loss or the batch size changes.

    Args:
        model: with any number of layers that remember.
        batch_shape: lengths of all axes of the coming inputs but the last; None keeps them. Only
            ``"slot"`` memories have them.

    Raises:
        ValueError: no model, or a batch shape for one without ``"slot"`` memories.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> layer = nn.SparseBackpropLinear(8, 4, memory="slot", batch_shape=(3,), rngs=nnx.Rngs(0))
        >>> nn.reset_memory(layer, batch_shape=(5,))
        >>> layer.memory.get_value().residue.shape
        (5, 4)
    """
    check_instance("model", model, nnx.Module)
    current = nnx.state(model, BackpropMemory)
    memories = jax.tree.leaves(current, is_leaf=_is_memory)
    if batch_shape is not None:
        batch_shape = checks.check_index_shape("batch_shape", batch_shape)
        checks.require(
            any(map(_has_slots, memories)),
            f"batch_shape={batch_shape} for a model without memories of slots",
            "a batch shape where a layer has memory='slot'",
            "leave batch_shape out",
        )

    def forget(memory: Memory) -> Memory:
        empty = jax.tree.map(jnp.zeros_like, memory)
        if batch_shape is None or memory.residue is None or not _has_slots(memory):
            return empty
        shape = (*batch_shape, memory.residue.shape[-1])
        return empty._replace(residue=jnp.zeros(shape, memory.residue.dtype))

    nnx.update(model, jax.tree.map(forget, current, is_leaf=_is_memory))


def _is_memory(node: Any) -> bool:
    return isinstance(node, Memory)


def _has_slots(memory: Memory) -> bool:
    return memory.residue is not None and memory.residue.ndim > 1
