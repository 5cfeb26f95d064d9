"""Convolutions of planes at learned offsets."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer

from sparse_hyper_jax import checks, conv
from sparse_hyper_jax.conv.entrance import enter_window
from sparse_hyper_jax.conv.observe import Seen, observe_offsets, place_shared
from sparse_hyper_jax.entrance import as_int32
from sparse_hyper_jax.nn.tap_conv import TapConv, small_weights, with_bias
from sparse_hyper_jax.nn.tap_layers import TapSlots
from sparse_hyper_jax.ops import Taps


class OffsetConv(TapConv):
    """A convolution of planes with few taps, each anywhere in a window, put where it gains most.

    ``y[p] = bias + sum_j x[p + offset_j] kernel[j]``; see :class:`LagConv`, and
    :func:`~sparse_hyper_jax.conv.offset_conv`. Positions in ``layer.taps`` are cells of the window;
    :func:`~sparse_hyper_jax.conv.window_offsets` makes offsets of them.

    Args:
        in_features: length of the last axis of the input, ``C``.
        out_features: length of the last axis of the output, ``O``.
        num_taps: number of slots ``k``.
        window: height and width of the candidates around each place.
        offsets: of taps that are placed from the beginning: ``(n, 2)``, n at most ``num_taps``.
        wrap: the plane is a torus, for probes at least twice the window less one.
        causal: candidates are the places before, in the order of reading: rows above, and in the
            same row what lies to the left.
        directions: how many directions of the cotangent a probe looks at.
        use_bias: add a bias.
        dtype: of the result; None infers it from input and parameters.
        param_dtype: of the parameters.
        kernel_init: initializer of ``(k, C, O)``; by default small.
        bias_init: initializer of ``(O,)``, by default 0.1.
        rngs: stream ``params``.

    Raises:
        ValueError: an option is wrong.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import conv, nn
        >>> x = jax.random.normal(jax.random.key(0), (8, 20, 20, 2))
        >>> target = jnp.roll(x, (3, -4), axis=(1, 2))
        >>> layer = nn.OffsetConv(2, 2, num_taps=1, window=(9, 9), wrap=True, rngs=nnx.Rngs(0))
        >>> _ = nn.place_taps(layer, lambda layer: jnp.mean((layer(x) - target) ** 2))
        >>> conv.window_offsets(layer.taps.get_value().positions, (9, 9)).tolist()
        [[-3, 4]]
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_taps: int,
        window: Sequence[int],
        *,
        offsets: Any = (),
        wrap: bool = False,
        causal: bool = False,
        directions: int = 8,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        kernel_init: Any = small_weights,
        bias_init: Any = nnx.initializers.constant(0.1),  # noqa: B008 (pure)
        rngs: nnx.Rngs,
    ):
        self.window = enter_window(window)
        self.wrap = checks.check_flag("wrap", wrap)
        self.causal = checks.check_flag("causal", causal)
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
        self.taps = TapSlots(self._given(offsets))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolve planes.

        Args:
            x: ``(..., H, W, C)``.

        Returns:
            ``(..., H, W, O)``.

        Raises:
            ValueError: another number of channels.
        """
        x, kernel, bias = self.promoted(x)
        positions, placed = self.taps.get_value()
        offsets = conv.window_offsets(positions, self.window)
        options = {"window": self.window, "wrap": self.wrap}
        y = conv.offset_conv(x, kernel, offsets, placed, **options).astype(x.dtype)
        return self.watched(x, with_bias(y, bias))

    def seen_shapes(self) -> Seen:
        """See :class:`TapLayer`."""
        directions = min(self.directions, self.out_features)
        height, width = self.window
        differences = 2 * height - 1, 2 * width - 1
        return Seen((height, width, self.in_features, directions), differences)  # type: ignore[arg-type]

    def observe(self, x: jax.Array, cotangent: jax.Array) -> Seen:
        """See :class:`TapLayer`."""
        options = {"wrap": self.wrap, "directions": self.directions}
        return observe_offsets(x, cotangent, window=self.window, **options)

    def next_taps(self, seen: Seen, count: int, **options: Any) -> Taps:
        """See :class:`TapLayer`."""
        return place_shared(seen, self.taps.get_value(), count, allowed=self._allowed(), **options)

    def _allowed(self) -> np.ndarray:
        """Flags of the cells where a tap may be placed."""
        height, width = self.window
        cells = np.arange(height * width).reshape(self.window)
        return cells < cells[height // 2, width // 2] if self.causal else cells >= 0

    def _given(self, offsets: Any) -> Taps:
        """Place given offsets in the first slots."""
        given = np.zeros((0, 2), np.int32) if len(offsets) == 0 else offsets
        given = as_int32("offsets", given)
        checks.check_shape("offsets", given, (None, 2), "rows and columns of each that is placed")
        count, height, width = given.shape[0], *self.window
        checks.require(
            count <= self.num_taps,
            f"{count} offsets for {self.num_taps} taps",
            "a slot for each",
            "raise num_taps",
        )
        cells = given + jnp.array([[height // 2, width // 2]], jnp.int32)
        if not isinstance(cells, Tracer):
            known = np.asarray(cells)
            inside = (known >= 0).all() and (known < self.window).all()
            checks.require(
                bool(inside) and bool(self._allowed()[known[:, 0], known[:, 1]].all()),
                f"offsets {np.asarray(given).tolist()!r:.80}",
                f"candidates in a window of {self.window}" + " before the middle" * self.causal,
                "enlarge the window, or drop them",
            )
        positions = jnp.zeros((self.num_taps, 2), jnp.int32).at[:count].set(cells)
        return Taps(positions, jnp.arange(self.num_taps) < count)
