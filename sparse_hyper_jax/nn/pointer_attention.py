"""Attention at positions that a source network points to."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax import attention, checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.nn.keys import Randomness, check_rngs
from sparse_hyper_jax.nn.options import check_no_container, in_evaluation
from sparse_hyper_jax.nn.projections import divisor_of, make_projections, per_head
from sparse_hyper_jax.nn.sources import Source, check_source, found_by, over_batch, scaled
from sparse_hyper_jax.ops.own_draws import GLOBAL_FROM, GlobalFrom


class PointerAttention(nnx.Module):
    """Self-attention whose queries read at a few positions that a source network points to.

    ``x -> query, key, value -> pointer_attention -> output``. In training mode every call draws
    points around the means; in evaluation mode (``layer.eval()`` or ``deterministic=True``) means
    are rounded and nothing is random.

    A source decides what pointers know and where they may look. Bound means where it makes them:
    ``t - (reach - 1) * sigmoid(raw)`` looks back at most so far, ``t * sigmoid(raw)`` at all of the
    past. Points after a query are dropped in any case, if the layer is causal.

    Args:
        in_features: length of the last axis of the input.
        num_heads: number of heads of the query.
        source: module or function from ``(b, T, in_features)`` to means and variances, each
            ``(b, T', num_heads, k)`` in positions and squared positions; see
            :func:`~sparse_hyper_jax.attention.pointer_attention`.
        causal: no query reads what comes after it.
        near: number of nearest positions to which every query attends besides.
        stride: length of the stretches of which only the last position asks:
            ``T' = T // stride`` outputs. For causal layers.
        num_global: points per pointer drawn by its density, or from all positions.
        num_local: points per pointer drawn from the region.
        region: length of the window around a mean from which local points come.
        global_from: see :func:`~sparse_hyper_jax.ops.sample_tuples`.
        key_heads: number of heads of keys and values, which divides ``num_heads``; by default the
            same.
        head_features: features of a head, by default ``in_features / num_heads``.
        out_features: length of the last axis of the output, by default ``in_features``.
        use_bias: add biases to projections.
        dtype: of the result; None infers it from input and parameters.
        param_dtype: of the parameters.
        deterministic: evaluate instead of train.
        rngs: stream ``params`` for the projections, ``sample`` for the points.

    Raises:
        ValueError: an option is wrong.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> back = nnx.Linear(8, 2, rngs=nnx.Rngs(0))
        >>> def source(x):  # two heads with one pointer each, up to 100 steps back
        ...     means = jnp.arange(x.shape[1])[:, None] - 99 * nnx.sigmoid(back(x))
        ...     return means[..., None], jnp.full((*means.shape, 1), 4.0)
        >>> layer = nn.PointerAttention(8, num_heads=2, source=source, near=4, rngs=nnx.Rngs(0))
        >>> layer(jnp.ones((3, 500, 8))).shape
        (3, 500, 8)
    """

    def __init__(
        self,
        in_features: int,
        num_heads: int,
        source: Source,
        *,
        causal: bool = True,
        near: int = 0,
        stride: int = 1,
        num_global: int = 4,
        num_local: int = 4,
        region: int = 8,
        global_from: GlobalFrom = "density",
        key_heads: int | None = None,
        head_features: int | None = None,
        out_features: int | None = None,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        deterministic: bool = False,
        rngs: nnx.Rngs,
    ):
        self.in_features = checks.check_count("in_features", in_features, least=1)
        self.num_heads = checks.check_count("num_heads", num_heads, least=1)
        check_source(source)
        self.source = source
        check_no_container(global_from=global_from, causal=causal, deterministic=deterministic)
        self.causal, self.deterministic = causal, deterministic
        self.near, self.stride = checks.check_count("near", near), stride
        self.num_global = checks.check_count("num_global", num_global)
        self.num_local = checks.check_count("num_local", num_local)
        self.region = checks.check_count("region", region, least=1)
        self.global_from: GlobalFrom = global_from
        self._check_options()
        self.key_heads = divisor_of(self.num_heads, key_heads)
        self.head_features = per_head(self.in_features, self.num_heads, head_features)
        out_features = self.in_features if out_features is None else out_features
        self.out_features = checks.check_count("out_features", out_features, least=1)
        check_rngs(rngs, "params", "sample")
        self.query, self.key, self.value, self.out = make_projections(
            self, use_bias=use_bias, dtype=dtype, param_dtype=param_dtype, rngs=rngs
        )
        self.rngs = rngs["sample"].fork()

    def _check_options(self) -> None:
        checks.check_flag("causal", self.causal)
        checks.check_flag("deterministic", self.deterministic)
        checks.check_choice("global_from", self.global_from, GLOBAL_FROM)
        checks.check_count("stride", self.stride, least=1)
        checks.require(
            self.causal or (self.near == 0 and self.stride == 1),
            f"causal=False with near={self.near} and stride={self.stride}",
            "neither nearest positions nor a stride",
            "leave them out, or set causal to True",
        )

    def __call__(
        self,
        x: jax.Array,
        *,
        deterministic: bool | None = None,
        rngs: Randomness | None = None,
        variance_scale: float | jax.Array = 1.0,
    ) -> jax.Array:
        """Attend.

        Args:
            x: ``(b, T, in_features)``.
            deterministic: overrides the mode of the layer.
            rngs: overrides the stored stream; a typed key works too.
            variance_scale: factor of all variances; may be traced, and so fall by a schedule.

        Returns:
            ``(b, T', out_features)``.

        Raises:
            ValueError: another number of features or axes, a source that gives something else, or
                a wrong option.
        """
        self._check_options()
        x = as_array("x", x)
        checks.check_shape("x", x, (None, None, self.in_features), "(b, T, in_features)")
        checks.require(
            x.shape[1] >= self.stride,
            f"{x.shape[1]} positions with stride={self.stride}",
            "at least one that asks",
            "lengthen x, or lower stride",
        )
        times = jnp.arange(self.stride - 1, x.shape[1], self.stride, dtype=jnp.int32)
        query = self._by_head(self.query(x[:, self.stride - 1 :: self.stride]), self.num_heads)
        key, value = (
            self._by_head(projection(x), self.key_heads) for projection in (self.key, self.value)
        )
        shape = (x.shape[0], len(times), self.num_heads, None)
        means, variances = found_by(self.source, x, shape, "(b, T', num_heads, k)")
        variances = scaled(variances, variance_scale)
        options: dict[str, Any] = {"causal": self.causal, "near": self.near}
        options |= {"times": times if self.causal else None}
        if in_evaluation(self.deterministic, deterministic):

            def hard(*rows: jax.Array) -> jax.Array:
                return attention.pointer_attention_hard(*rows, **options)

            heads = jax.vmap(hard)(query, key, value, means)
        else:
            options |= {"num_global": self.num_global, "num_local": self.num_local}
            options |= {"region": (self.region,), "global_from": self.global_from}

            def soft(key: jax.Array | None, spread: jax.Array, *rows: jax.Array) -> jax.Array:
                return attention.pointer_attention(key, *rows, variances=spread, **options)

            points = self.num_global + self.num_local
            found = variances, query, key, value, means
            heads = over_batch(soft, rngs, self.rngs, points, x, *found)
        return self.out(heads.reshape(*heads.shape[:2], -1))

    def _by_head(self, rows: jax.Array, heads: int) -> jax.Array:
        return rows.reshape(*rows.shape[:2], heads, self.head_features)
