"""Where a module takes its random keys from: what the call brings, else its own stream."""

import jax
from flax import nnx

from sparse_hyper_jax import checks

Randomness = nnx.Rngs | nnx.RngStream | jax.Array
"""What a call may bring: streams, of which ``sample`` is used, one stream, or a typed key."""


def draw_key(given: Randomness | None, stored: nnx.Rngs | nnx.RngStream | None) -> jax.Array:
    """Draw a key from what the call brings, else from the stream of the module.

    Args:
        given: a key is passed on; the stream ``sample`` of several is advanced.
        stored: stream of the module, or several of them.

    Returns:
        a typed key.

    Raises:
        ValueError: neither.
    """
    source = checks.require_given(
        stored if given is None else given,
        "neither rngs at the call nor a stream in the module",
        "one of them, because this call is random",
        "pass rngs, for instance jax.random.key(0)",
    )
    if isinstance(source, nnx.Rngs):
        return source["sample"]()
    return source() if isinstance(source, nnx.RngStream) else source
