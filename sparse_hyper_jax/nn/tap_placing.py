"""Place the taps of all layers of a model by what they gain for its loss."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax.nn.tap_layers import TapLayer
from sparse_hyper_jax.nn.watching import no_flags, observed_by


def place_taps(
    model: nnx.Module,
    loss: Callable[..., jax.Array],
    *arguments: Any,
    count: int = 1,
    min_z: float | jax.Array | None = 5.0,
    apart: int = 0,
) -> nnx.State:
    """Place taps in all layers of a model where they gain most, on one batch.

    One gradient of the loss; what its backward pass meets in each layer is looked at there (see
    :func:`~sparse_hyper_jax.conv.probe_lags`). Call it every so often in training, with eight
    sequences or more, and clear what the optimizer remembers of the slots::

        fresh = nn.place_taps(model, loss_of, batch)
        state = conv.clear_moments(transformation, state, fresh)

    Each layer has to be called once in the loss, on the batch as a whole and not inside of a
    ``jax.vmap`` over it.

    Args:
        model: with any number of :class:`LagConv`, :class:`OffsetConv`, :class:`AxonalDelay`,
            :class:`LagAttention` and :class:`LearnedEdges`, whose taps are changed in place.
        loss: ``(model, *arguments) -> scalar``; what it does to its model is forgotten.
        *arguments: what it takes besides.
        count: largest number of taps to place in each layer (in each channel of a delay), static.
        min_z: see :func:`~sparse_hyper_jax.conv.probe_lags`.
        apart: see there.

    Returns:
        ``nnx.state(model, nnx.Param)`` with flags in place of numbers, true for weights of taps
        that were placed.

    Raises:
        ValueError: a model without such layers.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> x = jax.random.normal(jax.random.key(0), (8, 300, 2))
        >>> target = jnp.roll(x, 25, axis=1)  # but for the first steps
        >>> layer = nn.LagConv(2, 2, num_taps=3, reach=50, rngs=nnx.Rngs(0))
        >>> fresh = nn.place_taps(layer, lambda layer: jnp.mean((layer(x) - target) ** 2))
        >>> layer.taps.get_value().positions[0], fresh["kernel"].get_value()[:, 0, 0].tolist()
        (Array([25], dtype=int32), [True, False, False])
    """
    seen = observed_by(
        TapLayer,
        model,
        loss,
        arguments,
        missing=(
            "taps",
            "a model with layers that have taps",
            "use LagConv, OffsetConv, AxonalDelay, LagAttention or LearnedEdges in it",
        ),
    )
    marked = no_flags(model)
    for path, layer, observed in seen:
        before = layer.taps.get_value()
        after = layer.next_taps(observed, count, min_z=min_z, apart=apart)
        layer.taps.set_value(after)
        for name, flags in layer.fresh_parameters(after.placed & ~before.placed).items():
            variable = marked[*path, name]
            variable.set_value(jnp.broadcast_to(flags, variable.get_value().shape))
    return nnx.from_flat_state(marked)
