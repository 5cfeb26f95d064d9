"""Place the taps of all layers of a model by what they gain for its loss."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import check_function, check_instance
from sparse_hyper_jax.nn.tap_layers import TapLayer, TapProbe


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
    check_instance("model", model, nnx.Module)
    check_function("loss", loss, "a function of a model that gives a number")
    watching = nnx.clone(model)
    for _, layer in _layers(watching):
        layer.watch()
    slopes = nnx.grad(loss, argnums=nnx.DiffState(0, TapProbe))(watching, *arguments)
    seen = dict(nnx.to_flat_state(slopes))
    fresh = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, bool), nnx.state(model, nnx.Param))
    marked = dict(nnx.to_flat_state(fresh))
    for path, layer in _layers(model):
        before = layer.taps.get_value()
        observed = seen[*path, "probe"].get_value()
        after = layer.next_taps(observed, count, min_z=min_z, apart=apart)
        layer.taps.set_value(after)
        for name, flags in layer.fresh_parameters(after.placed & ~before.placed).items():
            variable = marked[*path, name]
            variable.set_value(jnp.broadcast_to(flags, variable.get_value().shape))
    return nnx.from_flat_state(marked)


def _layers(model: nnx.Module) -> list[tuple[tuple[Any, ...], TapLayer]]:
    """Find the layers that have taps, with their paths."""
    found = [
        (path, layer) for path, layer in nnx.iter_modules(model) if isinstance(layer, TapLayer)
    ]
    checks.require(
        bool(found),
        f"a {type(model).__name__} without taps",
        "a model with layers that have taps",
        "use LagConv, OffsetConv, AxonalDelay, LagAttention or LearnedEdges in it",
    )
    return found
