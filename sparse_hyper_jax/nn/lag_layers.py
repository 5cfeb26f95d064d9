"""Convolutions at learned lags."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer

from sparse_hyper_jax import checks, conv
from sparse_hyper_jax.conv.observe import Seen, lags_from, observe_lags, place_shared
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.nn.tap_conv import TapConv, small_weights, with_bias
from sparse_hyper_jax.nn.tap_layers import TapSlots
from sparse_hyper_jax.ops import Taps


class LagConv(TapConv):
    """A causal convolution of few taps, each anywhere in the past, put where it gains most.

    ``y[t] = bias + sum_j x[t - lag_j] kernel[j]`` over the taps that are placed: at first none, or
    those of ``lags``. Place more by :func:`place_taps`, or set ``layer.taps``. Weights of empty
    slots get no gradient. Decay of weights shrinks them all the same: leave the kernel out of it.

    Args:
        in_features: length of the last axis of the input, ``C``.
        out_features: length of the last axis of the output, ``O``.
        num_taps: number of slots ``k``.
        reach: number of candidate lags, 0 to ``reach - 1``.
        lags: of taps that are placed from the beginning, at most ``num_taps``.
        strict: the present is excluded; see :func:`~sparse_hyper_jax.conv.lag_conv`.
        directions: how many directions of the cotangent a probe looks at.
        use_bias: add a bias.
        dtype: of the result; None infers it from input and parameters.
        param_dtype: of the parameters.
        kernel_init: initializer of ``(k, C, O)``; by default small.
        bias_init: initializer of ``(O,)``. By default 0.1, not 0: with nothing placed the bias is
            all that a following rectifier sees, and at 0 it has no slope.
        rngs: stream ``params``.

    Raises:
        ValueError: an option is wrong.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> layer = nn.LagConv(2, 3, num_taps=4, reach=50, lags=[7, 30], rngs=nnx.Rngs(0))
        >>> x = jnp.ones((5, 100, 2))
        >>> layer(x).shape
        (5, 100, 3)
        >>> stream, y = layer.step(layer.init_stream((5,)), x[:, 0])
        >>> bool(jnp.allclose(y, layer(x)[:, 0]))
        True
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_taps: int,
        reach: int,
        *,
        lags: Sequence[int] = (),
        strict: bool = False,
        directions: int = 8,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        kernel_init: Any = small_weights,
        bias_init: Any = nnx.initializers.constant(0.1),  # noqa: B008 (pure)
        rngs: nnx.Rngs,
    ):
        self.reach = checks.check_count("reach", reach, least=1)
        self.strict = checks.check_flag("strict", strict)
        super().__init__(
            in_features,
            out_features,
            num_taps,
            directions=directions,
            use_bias=use_bias,
            dtype=dtype,
            param_dtype=param_dtype,
            kernel_init=kernel_init,
            bias_init=bias_init,
            rngs=rngs,
        )
        self.taps = TapSlots(_given_lags(lags, self.num_taps, self.reach, self.strict))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolve sequences.

        Args:
            x: ``(..., T, C)``.

        Returns:
            ``(..., T, O)``.

        Raises:
            ValueError: another number of channels.
        """
        x, kernel, bias = self.promoted(x)
        lags, placed = self._lags()
        options = {"reach": self.reach, "strict": self.strict}
        y = conv.lag_conv(x, kernel, lags, placed, **options).astype(x.dtype)
        return self.watched(x, with_bias(y, bias))

    def init_stream(self, batch_shape: Sequence[int] = ()) -> conv.LagStream:
        """Make what :meth:`step` takes first.

        Args:
            batch_shape: lengths of all axes of its input but the last.

        Raises:
            ValueError: lengths that are none.
        """
        dtype = self.kernel.get_value().dtype
        return conv.init_lag_stream(self.reach, self.in_features, batch_shape, dtype=dtype)

    def step(self, stream: conv.LagStream, x: jax.Array) -> tuple[conv.LagStream, jax.Array]:
        """Take the next step of a stream: the numbers of a call on all of it.

        Args:
            stream: of :meth:`init_stream` or of the step before.
            x: ``(..., C)``.

        Returns:
            the next stream, and ``(..., O)``.

        Raises:
            ValueError: shapes that do not fit.
        """
        x, kernel, bias = self.promoted(x)
        lags, placed = self._lags()
        following, y = conv.lag_conv_step(stream, x, kernel, lags, placed, strict=self.strict)
        return following, with_bias(y.astype(x.dtype), bias)

    def seen_shapes(self) -> Seen:
        """See :class:`TapLayer`."""
        directions = min(self.directions, self.out_features)
        return Seen((self.reach, self.in_features, directions), (self.reach,))  # type: ignore[arg-type]

    def observe(self, x: jax.Array, cotangent: jax.Array) -> Seen:
        """See :class:`TapLayer`."""
        options = {"strict": self.strict, "directions": self.directions}
        return observe_lags(x, cotangent, reach=self.reach, **options)

    def next_taps(self, seen: Seen, count: int, **options: Any) -> Taps:
        """See :class:`TapLayer`."""
        allowed = lags_from(self.reach, strict=self.strict)
        return place_shared(seen, self.taps.get_value(), count, allowed=allowed, **options)

    def _lags(self) -> tuple[jax.Array, jax.Array]:
        positions, placed = self.taps.get_value()
        return positions[:, 0], placed


def _given_lags(lags: Sequence[int], slots: int, reach: int, strict: bool) -> Taps:
    """Place given lags in the first slots."""
    given = as_array("lags", np.zeros(0, np.int32) if len(lags) == 0 else lags, "integers")
    checks.check_shape("lags", given, (None,), "one for each tap that is placed")
    count = given.shape[0]
    checks.require(
        count <= slots, f"{count} lags for {slots} taps", "a slot for each", "raise num_taps"
    )
    check_lags(given, reach, strict)
    positions = jnp.zeros((slots, 1), jnp.int32).at[:count, 0].set(given.astype(jnp.int32))
    return Taps(positions, jnp.arange(slots) < count)


def check_lags(lags: jax.Array, reach: int, strict: bool) -> None:
    """Raise if a lag, as far as it is known, is none that may be read."""
    if isinstance(lags, Tracer) or lags.size == 0:
        return
    low, high = int(lags.min()), int(lags.max())
    checks.require(
        int(strict) <= low and high < reach,
        f"lags from {low} to {high} with reach={reach} and strict={strict}",
        f"lags from {int(strict)} to {reach - 1}",
        "raise reach, or drop them",
    )
