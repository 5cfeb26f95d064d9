"""Self-attention at learned lags."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sparse_hyper_jax import attention, checks
from sparse_hyper_jax.attention.probe import observe_attention, place_observed
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.nn.keys import check_rngs
from sparse_hyper_jax.nn.projections import divisor_of, make_projections, per_head
from sparse_hyper_jax.nn.tap_layers import TapLayer, TapSlots


class LagAttention(TapLayer):
    """Causal self-attention whose heads look at the nearest steps and at a few lags each.

    ``x -> query, key, value -> lag_attention -> output``, in time and memory of ``near + num_lags``
    reads for each step and head. At first no lag is placed: heads see the nearest steps, until
    :func:`place_taps` finds lags where they gain most; or set ``layer.taps``. No lag has weights of
    its own, so optimizers need to forget nothing.

    Args:
        in_features: length of the last axis of the input.
        num_heads: number of heads of the query.
        num_lags: number of slots of each head.
        reach: number of candidate lags, 0 to ``reach - 1``.
        near: number of nearest steps to which every head attends, the present one included.
        key_heads: number of heads of keys and values, which divides ``num_heads``; by default the
            same.
        head_features: features of a head, by default ``in_features / num_heads``.
        out_features: length of the last axis of the output, by default ``in_features``.
        directions: how many directions of the cotangent a probe looks at.
        use_bias: add biases to projections.
        dtype: of the result; None infers it from input and parameters.
        param_dtype: of the parameters.
        rngs: stream ``params``.

    Raises:
        ValueError: an option is wrong.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> layer = nn.LagAttention(8, num_heads=2, num_lags=4, reach=100, rngs=nnx.Rngs(0))
        >>> x = jnp.ones((3, 500, 8))
        >>> layer(x).shape, layer.taps.get_value().lags.shape
        ((3, 500, 8), (2, 4))
        >>> cache, y = layer.step(layer.init_cache((3,)), x[:, 0])
        >>> bool(jnp.allclose(y, layer(x)[:, 0], atol=1e-5))
        True
    """

    def __init__(
        self,
        in_features: int,
        num_heads: int,
        num_lags: int,
        reach: int,
        *,
        near: int = 4,
        key_heads: int | None = None,
        head_features: int | None = None,
        out_features: int | None = None,
        directions: int = 8,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features = checks.check_count("in_features", in_features, least=1)
        self.num_heads = checks.check_count("num_heads", num_heads, least=1)
        self.num_lags = checks.check_count("num_lags", num_lags)
        self.reach = checks.check_count("reach", reach, least=1)
        self.near = checks.check_count("near", near, most=self.reach)
        self.key_heads = divisor_of(self.num_heads, key_heads)
        self.head_features = per_head(self.in_features, self.num_heads, head_features)
        out_features = self.in_features if out_features is None else out_features
        self.out_features = checks.check_count("out_features", out_features, least=1)
        self.directions = checks.check_count("directions", directions, least=1)
        check_rngs(rngs, "params")
        self.query, self.key, self.value, self.out = make_projections(
            self, use_bias=use_bias, dtype=dtype, param_dtype=param_dtype, rngs=rngs
        )
        self.taps = TapSlots(attention.empty_lags(self.num_heads, self.num_lags))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Attend.

        Args:
            x: ``(..., T, in_features)``.

        Returns:
            ``(..., T, out_features)``.

        Raises:
            ValueError: another number of features, or no axis of time.
        """
        rows = self._rows(x, 2)
        query, key, value = self._by_head(rows)
        heads = attention.lag_attention(query, key, value, *self._placed(), near=self.near)
        return self.out(self.watched(rows, heads.reshape(*heads.shape[:-2], -1)))

    def init_cache(self, batch_shape: Sequence[int] = ()) -> attention.LagCache:
        """Make what :meth:`step` takes first: a sequence that starts.

        Args:
            batch_shape: lengths of all axes of its input but the last.
        """
        dtype = self.query.dtype or self.query.kernel.get_value().dtype
        none = jnp.zeros((*batch_shape, 0, self.key_heads, self.head_features), dtype)
        return attention.lag_attention_cache(none, none, reach=self.reach)

    def step(self, cache: attention.LagCache, x: jax.Array) -> tuple[attention.LagCache, jax.Array]:
        """Take the next step of a sequence: the numbers of a call on all of it.

        Args:
            cache: of :meth:`init_cache` or of the step before.
            x: ``(..., in_features)``.

        Returns:
            the next cache, and ``(..., out_features)``.

        Raises:
            ValueError: shapes that do not fit.
        """
        lags, placed = self._placed()
        rows = self._by_head(self._rows(x, 1))
        heads, cache = attention.lag_attention_step(
            cache, *rows, lags, placed=placed, near=self.near
        )
        return cache, self.out(heads.reshape(*heads.shape[:-2], -1))

    def seen_shapes(self) -> Any:
        """See :class:`TapLayer`."""
        directions = min(self.directions, self.head_features)
        return self.num_heads, self.reach, self.head_features, directions

    def observe(self, x: jax.Array, cotangent: jax.Array) -> Any:
        """See :class:`TapLayer`; ``x`` are query, key and value in one array."""
        query, key, value = self._by_head(x)
        return observe_attention(
            query,
            key,
            value,
            cotangent.reshape(query.shape),
            self._placed(),
            reach=self.reach,
            near=self.near,
            scale=None,
            directions=self.directions,
        )

    def next_taps(self, seen: Any, count: int, **options: Any) -> Any:
        """See :class:`TapLayer`."""
        return place_observed(seen, self._placed(), count, near=self.near, **options)

    def fresh_parameters(self, fresh: jax.Array) -> dict[str, jax.Array]:
        """See :class:`TapLayer`: lags have no weights of their own."""
        return {}

    def _placed(self) -> attention.LagTaps:
        """Give the lags; one that was set beyond the reach counts for nothing, as in a step."""
        lags, placed = self.taps.get_value()
        return attention.LagTaps(lags, placed & (lags < self.reach))

    def _rows(self, x: Any, least: int) -> jax.Array:
        """Give query, key and value in one array ``(..., features)``."""
        x = as_array("x", x)
        checks.check_last_axis("x", x, self.in_features)
        checks.require(
            x.ndim >= least,
            f"x of shape {x.shape}",
            "(..., T, in_features)",
            "give x an axis of time",
        )
        return jnp.concatenate([self.query(x), self.key(x), self.value(x)], axis=-1)

    def _by_head(self, rows: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        heads = (self.num_heads, self.key_heads, self.key_heads)
        ends = np.cumsum([count * self.head_features for count in heads])[:-1]
        query, key, value = (
            part.reshape(*part.shape[:-1], count, self.head_features)
            for part, count in zip(jnp.split(rows, ends, axis=-1), heads, strict=True)
        )
        return query, key, value
