"""Which gradient of a function it is whose memory counts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax.remat.traced import Function, Traced


def gradient_maker(whole: Traced) -> Callable[[Function], Function]:
    """Choose what is measured: ``jax.grad`` where that is defined, else the pullback."""
    program = whole.program
    args, _ = whole.tree.unflatten([program.types[number] for number in program.inputs])
    first = jax.tree.leaves(args[0]) if args else []
    types: list[Any] = [
        program.types[one] if isinstance(one, int) else one.aval for one in program.outputs
    ]
    single = len(types) == 1 and jax.tree_util.treedef_is_leaf(program.tree)
    scalar = single and types[0].shape == () and jnp.issubdtype(types[0].dtype, jnp.floating)
    if scalar and first and all(jnp.issubdtype(one.dtype, jnp.floating) for one in first):
        return jax.grad
    return pullback


def pullback(fn: Function) -> Function:
    """Make the function that pulls its own results back to all float arguments."""

    def pulled(*args: Any, **kwargs: Any) -> Any:
        leaves, tree = jax.tree.flatten((args, kwargs))
        moving = {n: one for n, one in enumerate(leaves) if _is_inexact(one)}

        def floats(moving: dict[int, Any]) -> list[Any]:
            args, kwargs = tree.unflatten([moving.get(n, one) for n, one in enumerate(leaves)])
            return [one for one in jax.tree.leaves(fn(*args, **kwargs)) if _is_inexact(one)]

        results, pull = jax.vjp(floats, moving)
        return results, pull(results)

    return pulled


def _is_inexact(array: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(array), jnp.inexact)
