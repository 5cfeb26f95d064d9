"""Where a module takes its random keys from: what the call brings, else its own stream."""

from typing import Any

import jax
from flax import nnx

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import check_random_key
from sparse_hyper_jax.nn.placement import spread_like

Randomness = nnx.Rngs | nnx.RngStream | jax.Array
"""What a call may bring: streams, of which ``sample`` is used, one stream, or a typed key."""


def check_rngs(rngs: Any, *streams: str) -> None:
    """Raise unless these are streams of a module with all of the given names.

    Args:
        rngs: what a constructor takes.
        *streams: names that are drawn from; a stream ``default`` stands for any.

    Raises:
        ValueError: a key, a seed, or a stream that is missing.
    """
    checks.require(
        isinstance(rngs, nnx.Rngs),
        f"rngs={rngs!r:.80}",
        "the streams of a module, nnx.Rngs",
        "pass rngs=nnx.Rngs(seed)",
    )
    for name in streams:
        checks.require(
            name in rngs or "default" in rngs,
            f"rngs without a stream {name!r}",
            f"the streams {', '.join(streams)}",
            "pass nnx.Rngs(seed), which has all of them",
        )


def draw_key(given: Randomness | None, stored: nnx.Rngs | nnx.RngStream | None) -> jax.Array:
    """Draw a key from what the call brings, else from the stream of the module.

    Args:
        given: a key is passed on; the stream ``sample`` of several is advanced.
        stored: stream of the module, or several of them.

    Returns:
        a typed key.

    Raises:
        ValueError: neither, or something else.
    """
    source = checks.require_given(
        stored if given is None else given,
        "neither rngs at the call nor a stream in the module",
        "one of them, because this call is random",
        "pass rngs, for instance jax.random.key(0)",
    )
    if isinstance(source, nnx.Rngs):
        check_rngs(source, "sample")
        return source["sample"]()
    if isinstance(source, nnx.RngStream):
        return source()
    check_random_key(source)
    return source


def keys_for(key: jax.Array, batch: jax.Array, *more: int) -> jax.Array:
    """Split a key into one for every instance of a batch, on the devices where the instance is.

    Args:
        key: a typed key.
        batch: ``(b, ...)``.
        *more: lengths of further axes.

    Returns:
        ``(b, *more)`` keys, the same for every number of devices.
    """
    keys = jax.random.split(key, (batch.shape[0], *more))
    return spread_like(keys, batch)
