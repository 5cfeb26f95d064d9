"""Source networks that say where to look: what they give, and a call with points drawn about it."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.nn.keys import Randomness, draw_key, keys_for
from sparse_hyper_jax.nn.options import SMALLEST
from sparse_hyper_jax.nn.placement import spread_like
from sparse_hyper_jax.precision import at_least_float32

Source = Callable[[jax.Array], tuple[jax.Array, jax.Array]]
"""Maps a batch to means and variances, two arrays of one shape."""


def check_source(source: Any) -> None:
    """Raise unless a source can be called.

    Raises:
        ValueError: something else.
    """
    checks.require(
        callable(source) and not isinstance(source, type),
        f"source={source!r:.80}",
        "a module or a function of the input",
        "pass what gives means and variances",
    )


def found_by(
    source: Source, x: jax.Array, shape: Sequence[int | None], meaning: str
) -> tuple[jax.Array, jax.Array]:
    """Return what a source gives after checking that it is means and variances of a batch.

    Args:
        source: maps ``x`` to both.
        x: ``(b, ...)``.
        shape: of both, with None for any length.
        meaning: that shape in words.

    Raises:
        ValueError: something else.
    """
    found = source(x)
    checks.require(
        isinstance(found, tuple | list) and len(found) == 2,
        f"a source that gives {type(found).__name__}",
        "means and variances, two arrays",
        "return (means, variances)",
    )
    means, variances = as_array("means", found[0]), as_array("variances", found[1])
    checks.check_shape("means", means, shape, meaning)
    checks.check_shape("variances", variances, means.shape, "the shape of means")
    return spread_like(means, x), spread_like(variances, x)


def scaled(variances: jax.Array, factor: float | jax.Array) -> jax.Array:
    """Multiply variances by a factor.

    Raises:
        ValueError: no number, or one that is not positive.
    """
    checks.check_number("variance_scale", factor, at_least=SMALLEST)
    variances = at_least_float32(variances)
    return variances * jnp.asarray(factor, variances.dtype)


def over_batch(
    function: Callable[..., jax.Array],
    rngs: Randomness | None,
    own: nnx.RngStream,
    points: int,
    batch: jax.Array,
    *arrays: jax.Array,
) -> jax.Array:
    """Call a function for every instance of a batch, each with a key of its own.

    Args:
        function: takes a key, then an instance of every array.
        rngs: what a call was given; overrides ``own``.
        own: the layer's stream.
        points: how many are drawn; if none are, the key is None and no stream moves on.
        batch: ``(b, ...)``, on the devices where keys are to be.
        *arrays: ``(b, ...)``.
    """
    keys = keys_for(draw_key(rngs, own), batch) if points else None
    axes = (None if keys is None else 0, *(0 for _ in arrays))
    return jax.vmap(function, in_axes=axes)(keys, *arrays)
