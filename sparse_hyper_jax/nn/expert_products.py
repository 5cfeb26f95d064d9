"""Three ways to compute experts with one hidden layer: side by side, in slots, or all of them."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax.precision import at_least_float32

Arrays = Sequence[jax.Array]


def ragged_experts(
    tokens: jax.Array, index: jax.Array, kernels: Arrays, biases: Arrays
) -> jax.Array:
    """Compute each token with its own experts, the tokens of an expert side by side.

    Args:
        tokens: ``(n, d)``.
        index: int ``(n, k)``; a number below 0 marks an expert that is not computed.
        kernels: ``(E, d, h)`` and ``(E, h, o)``.
        biases: ``(E, h)`` and ``(E, o)``.

    Returns:
        ``(n, k, o)``, 0 where nothing is computed.
    """
    experts, k = kernels[0].shape[0], index.shape[1]
    owner = jnp.where(index < 0, experts, index).reshape(-1)
    order = jnp.argsort(owner)
    sizes = jnp.bincount(owner, length=experts).astype(jnp.int32)
    owner = owner[order]
    x = tokens[order // k]
    for layer, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        x = nnx.relu(x) if layer else x
        # The gather's transpose sums over tokens: in float32, whatever x is.
        own = at_least_float32(bias).at[owner].get(mode="fill", fill_value=0)
        x = jax.lax.ragged_dot(x, kernel, sizes) + own.astype(x.dtype)
    # Rows behind the last expert are those that nobody computes.
    x = jnp.where((owner < experts)[:, None], x, 0)
    return x[jnp.argsort(order)].reshape(*index.shape, x.shape[1])


def experts_in_slots(
    tokens: jax.Array,
    index: jax.Array,
    place: jax.Array,
    kernels: Arrays,
    biases: Arrays,
    *,
    capacity: int,
) -> jax.Array:
    """Compute every expert for its slots: the work is ``E capacity`` tokens, full or not.

    Args:
        tokens: ``(n, d)``.
        index: int ``(n, k)``; below 0 where a token was dropped.
        place: int ``(n, k)``, the slot of the expert.
        kernels: ``(E, d, h)`` and ``(E, h, o)``.
        biases: ``(E, h)`` and ``(E, o)``.
        capacity: slots of an expert.

    Returns:
        ``(n, k, o)``, 0 where a token was dropped.
    """
    experts, k = kernels[0].shape[0], index.shape[1]
    slots = experts * capacity
    slot = jnp.where(index < 0, slots, index * capacity + place)
    whose = jnp.full(slots + 1, -1, jnp.int32)
    whose = whose.at[slot.reshape(-1)].set(jnp.arange(index.size, dtype=jnp.int32))[:slots]
    x = jnp.where((whose >= 0)[:, None], tokens[jnp.maximum(whose, 0) // k], 0)
    x = x.reshape(experts, capacity, -1)
    for layer, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        x = nnx.relu(x) if layer else x
        x = jnp.einsum("eci,eio->eco", x, kernel) + at_least_float32(bias).astype(x.dtype)[:, None]
    x = x.reshape(slots, x.shape[-1])
    return x.at[slot].get(mode="fill", fill_value=0)


def all_experts(tokens: jax.Array, kernels: Arrays, biases: Arrays) -> jax.Array:
    """Compute every expert for every token: ``(n, d)`` to ``(n, E, o)``."""
    x = jnp.broadcast_to(tokens[:, None], (tokens.shape[0], kernels[0].shape[0], tokens.shape[1]))
    for layer, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        x = nnx.relu(x) if layer else x
        x = jnp.einsum("tei,eio->teo", x, kernel) + bias.astype(x.dtype)[None]
    return x
