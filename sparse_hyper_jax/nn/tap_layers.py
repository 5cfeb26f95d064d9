"""What layers with taps share: slots, a stream, and how a probe looks at them.

A probe needs the input of a layer and the cotangent of its output. Both meet in the backward pass,
and there they are looked at: as the gradient of zeros that a copy of the layer has for the probe.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax.conv.observe import Seen
from sparse_hyper_jax.ops import Taps


class TapSlots(nnx.Variable):
    """Where taps are: :class:`~sparse_hyper_jax.ops.Taps`, no parameter.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> layer = nn.LagConv(2, 3, num_taps=4, reach=50, lags=[7, 30], rngs=nnx.Rngs(0))
        >>> taps = nnx.state(layer, nn.TapSlots)["taps"].get_value()
        >>> taps.positions.ravel().tolist(), taps.placed.tolist()
        ([7, 30, 0, 0], [True, True, False, False])
    """


class TapProbe(nnx.Variable):
    """Zeros whose gradient is what a probe sees; only copies made for a probe have them."""


class TapLayer(nnx.Module):
    """A layer that reads at taps; :func:`~.tap_placing.place_taps` finds them by this type."""

    probe: Any = None
    taps: TapSlots

    @abstractmethod
    def seen_shapes(self) -> Seen:
        """Shapes of what a probe sees of the layer."""

    @abstractmethod
    def observe(self, x: jax.Array, cotangent: jax.Array) -> Seen:
        """Look at the input and the cotangent of the output of a batch."""

    @abstractmethod
    def next_taps(self, seen: Seen, count: int, **options: Any) -> Taps:
        """Place taps by what was seen."""

    @abstractmethod
    def fresh_parameters(self, fresh: jax.Array) -> dict[str, jax.Array]:
        """Name the parameters of which entries belong to fresh taps, with their flags."""

    def watch(self) -> None:
        """Get ready for a probe."""
        self.probe = TapProbe(jax.tree.map(jnp.zeros, self.seen_shapes(), is_leaf=_is_shape))

    def watched(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """Return the output, before a probe such that its cotangent is looked at."""
        if self.probe is None:
            return y
        return _watched(self.observe, y, x, self.probe.get_value())


def _watched(
    observe: Callable[[jax.Array, jax.Array], Seen], y: jax.Array, x: jax.Array, zeros: Seen
) -> jax.Array:
    """Give ``y``; the gradient of ``zeros`` is what is observed of ``x`` and the cotangent."""

    @jax.custom_vjp
    def keep(y: jax.Array, x: jax.Array, zeros: Seen) -> jax.Array:
        return y

    def forward(y: jax.Array, x: jax.Array, zeros: Seen) -> tuple[jax.Array, jax.Array]:
        return y, x

    def backward(x: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, jax.Array, Seen]:
        seen = observe(x, cotangent)
        cast = jax.tree.map(lambda part, like: part.astype(like.dtype), seen, zeros)
        return cotangent, jnp.zeros_like(x), cast

    keep.defvjp(forward, backward)
    return keep(y, x, zeros)


def _is_shape(node: Any) -> bool:
    return isinstance(node, tuple) and all(isinstance(length, int) for length in node)
