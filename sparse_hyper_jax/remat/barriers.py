"""What keeps a compiler from merging the second computation of a segment with the first.

``"checkpoint"`` is ``jax.checkpoint``, whose barriers XLA respects, but not on a CPU before JAX
0.11.1: there a pass takes them away, unless ``XLA_FLAGS=--xla_disable_hlo_passes=
cse_barrier_expander`` is set before JAX is imported. ``"cond"`` needs no flag: it computes again
inside of a branch that is always taken, which XLA cannot know. It has no forward mode, and under
``jax.vmap``, where branches become selections, it saves nothing.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

Body = Callable[..., tuple[Any, ...]]
Barrier = Literal["checkpoint", "cond"]


def always_taken(body: Body) -> Body:
    """Compute ``body`` again in the backward pass, inside of a branch."""

    @jax.custom_vjp
    def call(*inputs: Any) -> tuple[Any, ...]:
        return body(*inputs)

    def forward(*inputs: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return body(*inputs), inputs

    def backward(inputs: tuple[Any, ...], cotangents: tuple[Any, ...]) -> tuple[Any, ...]:
        moving = [number for number, one in enumerate(inputs) if _is_inexact(one)]
        slopes = [one for one in cotangents if _is_inexact(one)]

        def pull(inputs: tuple[Any, ...], slopes: list[Any]) -> list[Any]:
            def floats(*arrays: Any) -> list[Any]:
                given = dict(zip(moving, arrays, strict=True))
                outputs = body(*(given.get(n, one) for n, one in enumerate(inputs)))
                return [one for one in outputs if _is_inexact(one)]

            return list(jax.vjp(floats, *(inputs[number] for number in moving))[1](slopes))

        def nothing(inputs: tuple[Any, ...], slopes: list[Any]) -> list[Any]:
            return [jnp.zeros_like(inputs[number]) for number in moving]

        filled = [one for one in slopes if one.size]
        if not filled or not moving:
            found = nothing(inputs, slopes)
        else:
            found = jax.lax.cond(_is_true(filled[0]), pull, nothing, inputs, slopes)
        given = dict(zip(moving, found, strict=True))
        return tuple(given.get(number) for number in range(len(inputs)))

    call.defvjp(forward, backward)
    return call


def _is_inexact(array: Any) -> bool:
    return jnp.issubdtype(array.dtype, jnp.inexact)


def _is_true(array: Any) -> jax.Array:
    """Say of an array's largest entry what holds for all bits; a compiler does not see that."""
    # Not of the first: an axis that is spread over devices cannot be cut at one entry.
    largest = jnp.max(jnp.real(array)).astype(jnp.float32)
    bits = jax.lax.bitcast_convert_type(largest, jnp.uint32)
    return (bits >> jnp.uint32(1)) < jnp.uint32(2**31)


GUARDS: dict[str, Callable[[Body], Body]] = {"checkpoint": jax.checkpoint, "cond": always_taken}
