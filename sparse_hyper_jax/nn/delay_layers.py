"""Delays of channels, found where they are missed."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax import checks, conv
from sparse_hyper_jax.conv.observe import Seen, observe_delays, place_own
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.nn.keys import check_rngs
from sparse_hyper_jax.nn.lag_layers import check_lags
from sparse_hyper_jax.nn.options import check_float_dtype, initialised
from sparse_hyper_jax.nn.promotion import promote
from sparse_hyper_jax.nn.tap_conv import small_weights
from sparse_hyper_jax.nn.tap_layers import TapLayer, TapSlots
from sparse_hyper_jax.ops import Taps


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
            streams = checks.require_given(
                rngs, "out_features without rngs", "a stream params", "pass nnx.Rngs(seed)"
            )
            check_rngs(streams, "params")
            size, key = (1, self.features, self.out_features), streams.params()
            self.kernel = nnx.Param(initialised("kernel_init", kernel_init, key, size, param_dtype))
        shape = self.features, 1
        if delays is None:
            taps = Taps(jnp.zeros((*shape, 1), jnp.int32), jnp.zeros(shape, bool))
        else:
            delays = as_array("delays", delays, "integers")
            checks.check_shape("delays", delays, (self.features,), "one for each channel")
            check_lags(delays, self.reach, self.strict)
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
