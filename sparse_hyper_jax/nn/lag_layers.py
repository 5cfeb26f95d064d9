"""Convolutions and delays at learned lags."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer

from sparse_hyper_jax import checks, conv
from sparse_hyper_jax.conv.observe import (
    Seen,
    lags_from,
    observe_delays,
    observe_lags,
    place_own,
    place_shared,
)
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.nn.keys import check_rngs
from sparse_hyper_jax.nn.options import check_float_dtype, initialised
from sparse_hyper_jax.nn.promotion import promote
from sparse_hyper_jax.nn.tap_layers import TapLayer, TapSlots
from sparse_hyper_jax.ops import Taps


def small_weights(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Draw weights ``(k, C, ...)`` of standard deviation ``0.02 / sqrt(C)``.

    Small, so that a tap that was just placed does not disturb what the others have learned.
    """
    return 0.02 / shape[1] ** 0.5 * jax.random.normal(key, tuple(shape), dtype)


class LagConv(TapLayer):
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
        self.in_features = checks.check_count("in_features", in_features, least=1)
        self.out_features = checks.check_count("out_features", out_features, least=1)
        self.num_taps = checks.check_count("num_taps", num_taps, least=1)
        self.reach = checks.check_count("reach", reach, least=1)
        self.strict = checks.check_flag("strict", strict)
        self.directions = checks.check_count("directions", directions, least=1)
        check_float_dtype("dtype", dtype, inferred=True)
        check_float_dtype("param_dtype", param_dtype)
        check_rngs(rngs, "params")
        self.dtype = dtype
        shape = self.num_taps, self.in_features, self.out_features
        drawn = initialised("kernel_init", kernel_init, rngs.params(), shape, param_dtype)
        self.kernel = nnx.Param(drawn)
        if checks.check_flag("use_bias", use_bias):
            bias = initialised("bias_init", bias_init, rngs.params(), shape[-1:], param_dtype)
            self.bias = nnx.Param(bias)
        else:
            self.bias = None
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
        x, kernel, bias = self._promoted(x)
        lags, placed = self._lags()
        options = {"reach": self.reach, "strict": self.strict}
        y = conv.lag_conv(x, kernel, lags, placed, **options).astype(x.dtype)
        return self.watched(x, _with_bias(y, bias))

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
        x, kernel, bias = self._promoted(x)
        lags, placed = self._lags()
        following, y = conv.lag_conv_step(stream, x, kernel, lags, placed, strict=self.strict)
        return following, _with_bias(y.astype(x.dtype), bias)

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

    def fresh_parameters(self, fresh: jax.Array) -> dict[str, jax.Array]:
        """See :class:`TapLayer`."""
        return {"kernel": fresh[:, None, None]}

    def _lags(self) -> tuple[jax.Array, jax.Array]:
        positions, placed = self.taps.get_value()
        return positions[:, 0], placed

    def _promoted(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        x = as_array("x", x)
        checks.check_last_axis("x", x, self.in_features)
        bias = None if self.bias is None else self.bias.get_value()
        return promote((x, self.kernel.get_value(), bias), dtype=self.dtype)


class AxonalDelay(TapLayer):
    """A delay for every channel: ``y[t, c] = x[t - delay_c, c]``, at first of none.

    A channel without a delay is silent, until :func:`place_taps` finds where it is missed. Without
    ``out_features`` there are no parameters, and a delay is missed only as far as what follows
    weighs its channel: silence teaches no weights. With ``out_features`` the delayed channels are
    mixed, ``y[t] = sum_c x[t - delay_c, c] kernel[0, c]``, and a probe sees what each output
    misses.

    Args:
        features: number of channels ``C``.
        reach: number of candidate delays, 0 to ``reach - 1``.
        delays: ``C`` of them, to begin with; None for none.
        strict: the present is none of them.
        out_features: length ``O`` of the last axis of the output, if channels are to be mixed.
        directions: see :class:`LagConv`, if mixed.
        dtype: see there, if mixed.
        param_dtype: see there.
        kernel_init: initializer of ``(1, C, O)``; by default small.
        rngs: stream ``params``, if mixed.

    Raises:
        ValueError: an option is wrong.

    Reference: Hammouamri, Khalfaoui-Hassani and Masquelier 2024, arXiv 2306.17670, learn delays of
    spiking networks, one for each synapse, by gradients.

    Example:
        >>> from sparse_hyper_jax import nn
        >>> delay = nn.AxonalDelay(2, reach=100, delays=[0, 3])
        >>> delay(jnp.arange(1.0, 6.0)[:, None] * jnp.array([1.0, 10.0])).tolist()
        [[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 10.0], [5.0, 20.0]]
    """

    def __init__(
        self,
        features: int,
        reach: int,
        *,
        delays: Any = None,
        strict: bool = False,
        out_features: int | None = None,
        directions: int = 8,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        kernel_init: Any = small_weights,
        rngs: nnx.Rngs | None = None,
    ):
        self.features = checks.check_count("features", features, least=1)
        self.reach = checks.check_count("reach", reach, least=1)
        self.strict = checks.check_flag("strict", strict)
        self.directions = checks.check_count("directions", directions, least=1)
        check_float_dtype("dtype", dtype, inferred=True)
        check_float_dtype("param_dtype", param_dtype)
        self.dtype = dtype
        if out_features is None:
            self.out_features, self.kernel = None, None
        else:
            self.out_features = checks.check_count("out_features", out_features, least=1)
            check_rngs(rngs, "params")
            size, key = (1, self.features, self.out_features), rngs.params()
            self.kernel = nnx.Param(initialised("kernel_init", kernel_init, key, size, param_dtype))
        shape = self.features, 1
        if delays is None:
            taps = Taps(jnp.zeros((*shape, 1), jnp.int32), jnp.zeros(shape, bool))
        else:
            delays = as_array("delays", delays, "integers")
            checks.check_shape("delays", delays, (self.features,), "one for each channel")
            _check_lags(delays, self.reach, self.strict)
            taps = Taps(delays.astype(jnp.int32)[:, None, None], jnp.ones(shape, bool))
        self.taps = TapSlots(taps)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Delay sequences.

        Args:
            x: ``(..., T, C)``.

        Returns:
            ``(..., T, C)`` or ``(..., T, O)``, floats of the input's dtype.

        Raises:
            ValueError: another number of channels.
        """
        x, weights = self._promoted(x)
        options = {"reach": self.reach, "strict": self.strict}
        y = conv.lag_conv(x, weights, *self._delays(), **options).astype(x.dtype)
        return self.watched(x, y)

    def init_stream(
        self, batch_shape: Sequence[int] = (), *, dtype: Any = jnp.float32
    ) -> conv.LagStream:
        """Make what :meth:`step` takes first.

        Args:
            batch_shape: lengths of all axes of its input but the last.
            dtype: of what is remembered.

        Raises:
            ValueError: lengths that are none.
        """
        check_float_dtype("dtype", dtype)
        return conv.init_lag_stream(self.reach, self.features, batch_shape, dtype=dtype)

    def step(self, stream: conv.LagStream, x: jax.Array) -> tuple[conv.LagStream, jax.Array]:
        """Take the next step of a stream.

        Args:
            stream: of :meth:`init_stream` or of the step before.
            x: ``(..., C)``.

        Returns:
            the next stream, and ``(..., C)`` or ``(..., O)``.

        Raises:
            ValueError: shapes that do not fit.
        """
        x, weights = self._promoted(x)
        lags, placed = self._delays()
        following, y = conv.lag_conv_step(stream, x, weights, lags, placed, strict=self.strict)
        return following, y.astype(x.dtype)

    def seen_shapes(self) -> Seen:
        """See :class:`TapLayer`."""
        shape = self.reach, self.features
        count = 1 if self.out_features is None else min(self.directions, self.out_features)
        return Seen((*shape, count), shape)  # type: ignore[arg-type]

    def observe(self, x: jax.Array, cotangent: jax.Array) -> Seen:
        """See :class:`TapLayer`."""
        mixed = self.out_features is not None
        options = {"strict": self.strict, "mixed": mixed, "directions": self.directions}
        return observe_delays(x, cotangent, reach=self.reach, **options)

    def next_taps(self, seen: Seen, count: int, **options: Any) -> Taps:
        """See :class:`TapLayer`."""
        return place_own(seen, self.taps.get_value(), count, strict=self.strict, **options)

    def fresh_parameters(self, fresh: jax.Array) -> dict[str, jax.Array]:
        """See :class:`TapLayer`."""
        return {} if self.kernel is None else {"kernel": fresh.T[..., None]}

    def _promoted(self, x: Any) -> tuple[jax.Array, jax.Array]:
        """Bring input and weights, ``(1, C, O)`` or ones ``(1, C)``, to one dtype."""
        x = as_array("x", x)
        checks.check_last_axis("x", x, self.features)
        if self.kernel is not None:
            return promote((x, self.kernel.get_value()), dtype=self.dtype)
        (x,) = promote((x,), dtype=self.dtype)
        return x, jnp.ones((1, self.features), x.dtype)

    def _delays(self) -> tuple[jax.Array, jax.Array]:
        """Lags and flags, ``(1, C)`` each."""
        positions, placed = self.taps.get_value()
        return positions[..., 0].T, placed.T


def _with_bias(y: jax.Array, bias: jax.Array | None) -> jax.Array:
    return y if bias is None else y + jnp.broadcast_to(bias, y.shape)


def _given_lags(lags: Sequence[int], slots: int, reach: int, strict: bool) -> Taps:
    """Place given lags in the first slots."""
    given = as_array("lags", np.zeros(0, np.int32) if len(lags) == 0 else lags, "integers")
    checks.check_shape("lags", given, (None,), "one for each tap that is placed")
    count = given.shape[0]
    checks.require(
        count <= slots, f"{count} lags for {slots} taps", "a slot for each", "raise num_taps"
    )
    _check_lags(given, reach, strict)
    positions = jnp.zeros((slots, 1), jnp.int32).at[:count, 0].set(given.astype(jnp.int32))
    return Taps(positions, jnp.arange(slots) < count)


def _check_lags(lags: jax.Array, reach: int, strict: bool) -> None:
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
