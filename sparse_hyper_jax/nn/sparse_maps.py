"""Hyperlayers as Flax NNX modules: a source network and one call into the functions."""

from collections.abc import Callable, Sequence
from typing import TypedDict, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax import checks
from sparse_hyper_jax.nn.free_tuples import FreeTuples
from sparse_hyper_jax.nn.keys import Randomness, draw_key
from sparse_hyper_jax.ops import (
    ContinuousTuples,
    Locality,
    Template,
    hyperlayer,
    hyperlayer_hard,
    relax,
    settle,
    to_dense,
)

BIASES = ("none", "dense", "sparse")

Source = Callable[[jax.Array], ContinuousTuples]
"""Maps a batch ``(b, *in_shape, *features)`` to tuples: fields with a leading axis ``b`` for tuples
that depend on the instance, without it for tuples that the batch shares."""


class HyperLayer(nnx.Module):
    """A sparse linear map whose tuples come from a source network.

    In training mode every call samples integer tuples (``hyperlayer``); in evaluation mode
    (``layer.eval()`` or ``deterministic=True``) tuples are rounded and nothing is random.

    Args:
        source: module or function that maps the input to tuples, see :data:`Source`. Tuples have
            one column of means per output axis, then one per contracted input axis (with a
            template: one per learned column).
        out_shape: lengths of the output axes.
        num_global: points per tuple drawn from all cells.
        num_local: points per tuple drawn from a window around the mean.
        region: lengths of that window, one per learned axis.
        chunk_size: tuples per context; None puts all into one.
        template: fixed columns.
        bias: ``"none"``, ``"dense"`` (one number per output cell, from 0) or ``"sparse"``
            (``num_bias_tuples`` learned tuples over the output cells; in training always sampled,
            with ``num_global`` points and the layer's density).
        num_bias_tuples: number of tuples of a sparse bias.
        share_samples: if the batch shares the tuples, sample once per batch instead of once per
            instance: faster by up to the batch size, with more variance in the gradient.
        sample_probability: chance that a training pass samples; otherwise it rounds.
        density: see :func:`~sparse_hyper_jax.ops.log_densities`.
        locality: for many thousands of tuples, see :func:`~sparse_hyper_jax.ops.mix_nearby`.
        wrap: every learned axis is a circle.
        deterministic: evaluate instead of train.
        rngs: stream ``sample`` for the samples, ``params`` for a sparse bias.

    Raises:
        ValueError: an unknown bias, or a sparse one without tuples.

    Reference: Bloem 2018, arXiv 1810.09184.
    """

    def __init__(
        self,
        source: Source,
        out_shape: Sequence[int],
        *,
        num_global: int = 0,
        num_local: int = 0,
        region: Sequence[int] | None = None,
        chunk_size: int | None = None,
        template: Template | None = None,
        bias: str = "none",
        num_bias_tuples: int = 0,
        share_samples: bool = True,
        sample_probability: float = 1.0,
        density: str = "gaussian",
        locality: Locality | None = None,
        wrap: bool = False,
        deterministic: bool = False,
        rngs: nnx.Rngs,
    ):
        self.source = source
        self.out_shape = checks.check_index_shape("out_shape", out_shape)
        checks.check_choice("bias", bias, BIASES)
        if bias == "sparse":
            checks.check_count("num_bias_tuples", num_bias_tuples, least=1)
        self.template = template
        self.wrap = wrap
        self.share_samples = share_samples
        self.sample_probability = sample_probability
        self.deterministic = deterministic
        self.num_global, self.num_local = num_global, num_local
        self.region = None if region is None else checks.check_index_shape("region", region)
        self.chunk_size, self.density, self.locality = chunk_size, density, locality
        self.bias = nnx.Param(jnp.zeros(self.out_shape)) if bias == "dense" else None
        self.bias_source = (
            FreeTuples(self.out_shape, num_bias_tuples, rngs=rngs) if bias == "sparse" else None
        )
        self.rngs = rngs["sample"].fork()

    def __call__(
        self,
        x: jax.Array,
        *,
        deterministic: bool | None = None,
        rngs: Randomness | None = None,
    ) -> jax.Array:
        """Map a batch.

        Args:
            x: ``(b, *in_shape, *features)``.
            deterministic: overrides the mode of the layer.
            rngs: overrides the stored stream; a typed key works too.

        Returns:
            ``(b, *out_shape, *features)`` in the dtype of ``x``.

        Raises:
            ValueError: an input without batch axis, or ranks that do not fit.
        """
        checks.require(
            x.ndim >= 1, f"x of shape {x.shape}", "(b, *in_shape, *features)", "add a batch axis"
        )
        hard = self.deterministic if deterministic is None else deterministic
        key = None if hard else draw_key(rngs, self.rngs)
        tuple_key, bias_key = (None, None) if key is None else jax.random.split(key)
        y = self._multiply(tuple_key, self.source(x), x)
        bias = self._bias(bias_key)
        if bias is None:
            return y
        features = (1,) * (y.ndim - 1 - len(self.out_shape))
        return y + bias.reshape(*self.out_shape, *features).astype(y.dtype)

    def _multiply(self, key: jax.Array | None, tuples: ContinuousTuples, x: jax.Array) -> jax.Array:
        rank = tuples.means.shape[-1] if self.template is None else self.template.rows.shape[1]
        in_rank = rank - len(self.out_shape)
        # Otherwise the batch, as the last axis, would be contracted.
        checks.require(
            in_rank < x.ndim,
            f"x of shape {x.shape} for tuples of rank {rank} and out_shape {self.out_shape}",
            f"(b, *in_shape, *features) with {in_rank} input axes",
            "add the batch axis, or give means one column per output and input axis",
        )
        shared = tuples.means.ndim == 2
        if shared and (key is None or self.share_samples):
            # The batch as last axis is contiguous in the gathered rows of x.
            y = self._one(key, tuples, jnp.moveaxis(x, 0, -1))
            return jnp.moveaxis(y, -1, 0)
        checks.check_shape(
            "values", tuples.values, (None,) if shared else (len(x), None), "(k,) or (b, k)"
        )
        keys = None if key is None else jax.random.split(key, len(x))
        axes = (None if key is None else 0, None if shared else 0, 0)
        return jax.vmap(self._one, in_axes=axes)(keys, tuples, x)

    def _one(self, key: jax.Array | None, tuples: ContinuousTuples, x: jax.Array) -> jax.Array:
        if key is None:
            return hyperlayer_hard(
                tuples, x, self.out_shape, template=self.template, wrap=self.wrap
            )
        return hyperlayer(
            key,
            tuples,
            x,
            self.out_shape,
            num_global=self.num_global,
            num_local=self.num_local,
            region=self.region,
            chunk_size=self.chunk_size,
            template=self.template,
            density=self.density,
            locality=self.locality,
            sample_probability=self.sample_probability,
            wrap=self.wrap,
        )

    def _bias(self, key: jax.Array | None) -> jax.Array | None:
        if self.bias is not None:
            return self.bias[...]
        if self.bias_source is None:
            return None
        tuples = self.bias_source()
        if key is None:
            return to_dense(settle(tuples, self.out_shape), self.out_shape)
        entries = relax(
            key, tuples, self.out_shape, num_global=self.num_global, density=self.density
        )
        return to_dense(entries, self.out_shape)


class HyperLayerOptions(TypedDict, total=False):
    """Options of every :class:`HyperLayer`, which documents them and gives their defaults."""

    num_global: int
    num_local: int
    region: Sequence[int] | None
    chunk_size: int | None
    bias: str
    num_bias_tuples: int
    share_samples: bool
    sample_probability: float
    density: str
    locality: Locality | None
    wrap: bool
    deterministic: bool


class FreeHyperLayer(HyperLayer):
    """A sparse linear map with free tuples: the sparse counterpart of ``nnx.Linear``.

    Args:
        in_shape: lengths of the contracted input axes.
        out_shape: lengths of the output axes.
        num_tuples: number of non-zeros to learn.
        fixed_values: a constant value for all tuples; None makes the values parameters.
        num_values: number of distinct values, shared in turn by the tuples.
        mean_method: see :func:`~sparse_hyper_jax.ops.bound_means`; ``"modulo"`` sets ``wrap``.
        scale: see :func:`~sparse_hyper_jax.ops.bound_variances`.
        boost: see there.
        floor: see there.
        template: fixed columns.
        rngs: streams ``params`` and ``sample``.
        **options: as :class:`HyperLayer`; their types are in :class:`HyperLayerOptions`.

    Raises:
        ValueError: as :class:`HyperLayer` and :class:`FreeTuples`.

    Reference: Bloem 2018, arXiv 1810.09184.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        num_tuples: int,
        *,
        fixed_values: float | None = None,
        num_values: int | None = None,
        mean_method: str = "sigmoid",
        scale: float = 0.1,
        boost: float = 2.0,
        floor: float = 0.0,
        template: Template | None = None,
        rngs: nnx.Rngs,
        **options: Unpack[HyperLayerOptions],
    ):
        self.in_shape = checks.check_index_shape("in_shape", in_shape)
        shape = (*checks.check_index_shape("out_shape", out_shape), *self.in_shape)
        source = FreeTuples(
            shape if template is None else template.learned_shape(shape),
            num_tuples,
            fixed_values=fixed_values,
            num_values=num_values,
            mean_method=mean_method,
            scale=scale,
            boost=boost,
            floor=floor,
            rngs=rngs,
        )
        options.setdefault("wrap", mean_method == "modulo")
        super().__init__(source, out_shape, template=template, rngs=rngs, **options)

    def __call__(
        self,
        x: jax.Array,
        *,
        deterministic: bool | None = None,
        rngs: Randomness | None = None,
    ) -> jax.Array:
        """Map a batch; see :meth:`HyperLayer.__call__`.

        Args:
            x: ``(b, *in_shape, *features)``.
            deterministic: overrides the mode of the layer.
            rngs: overrides the stored stream; a typed key works too.

        Returns:
            ``(b, *out_shape, *features)``.

        Raises:
            ValueError: an input of another shape.
        """
        given = x.shape[1 : 1 + len(self.in_shape)]
        checks.require(
            given == self.in_shape,
            f"x of shape {x.shape}",
            f"(b, *{self.in_shape}, *features)",
            "reshape x or make the layer with another in_shape",
        )
        return super().__call__(x, deterministic=deterministic, rngs=rngs)
