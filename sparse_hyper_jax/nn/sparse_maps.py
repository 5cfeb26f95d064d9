"""Hyperlayers as Flax NNX modules: a source network and one call into the functions."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_instance
from sparse_hyper_jax.nn.free_tuples import FreeTuples
from sparse_hyper_jax.nn.keys import Randomness, check_rngs, draw_key, keys_for
from sparse_hyper_jax.nn.options import check_no_container, in_evaluation
from sparse_hyper_jax.nn.placement import spread_like
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
from sparse_hyper_jax.ops.densities import check_density
from sparse_hyper_jax.ops.distances import Density
from sparse_hyper_jax.ops.own_draws import GLOBAL_FROM, GlobalFrom

Bias = Literal["none", "dense", "sparse"]
BIASES = get_args(Bias)

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
        global_from: ``"density"`` draws them from the tuple's own density instead, see
            :func:`~sparse_hyper_jax.ops.sample_tuples`.
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
        sample_probability: chance that a training pass samples; otherwise it rounds. One that
            follows a schedule is passed at the call.
        density: see :func:`~sparse_hyper_jax.ops.log_densities`.
        locality: for many thousands of tuples, see :func:`~sparse_hyper_jax.ops.mix_nearby`.
        wrap: every learned axis is a circle.
        deterministic: evaluate instead of train.
        rngs: stream ``sample`` for the samples, ``params`` for a sparse bias.

    Raises:
        ValueError: an option that is wrong, or without effect. Attributes may be set later; a call
            then refuses what the constructor would have refused.

    Reference: Bloem 2018, arXiv 1810.09184.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import ContinuousTuples, nn
        >>> def source(x):  # one tuple per instance, which reads x where its first number says
        ...     means = x[:, None, :1]
        ...     return ContinuousTuples(means, jnp.ones_like(means), jnp.ones_like(means[..., 0]))
        >>> layer = nn.HyperLayer(source, out_shape=(), rngs=nnx.Rngs(0))
        >>> layer(jnp.array([[2.0, 5.0, 7.0], [1.0, 5.0, 7.0]]), deterministic=True).tolist()
        [7.0, 5.0]
    """

    def __init__(
        self,
        source: Source,
        out_shape: Sequence[int],
        *,
        num_global: int = 0,
        global_from: GlobalFrom = "uniform",
        num_local: int = 0,
        region: Sequence[int] | None = None,
        chunk_size: int | None = None,
        template: Template | None = None,
        bias: Bias = "none",
        num_bias_tuples: int = 0,
        share_samples: bool = True,
        sample_probability: float = 1.0,
        density: Density = "gaussian",
        locality: Locality | None = None,
        wrap: bool = False,
        deterministic: bool = False,
        rngs: nnx.Rngs,
    ):
        checks.require(
            callable(source) and not isinstance(source, type),
            f"source={source!r:.80}",
            "a module or a function of the input",
            "pass for instance FreeTuples(shape, num_tuples, rngs=rngs)",
        )
        self.source = source
        self.out_shape = checks.check_index_shape("out_shape", out_shape)
        check_no_container(template=template, locality=locality, density=density, wrap=wrap)
        check_no_container(share_samples=share_samples, deterministic=deterministic)
        check_no_container(sample_probability=sample_probability)
        self.template = template
        self.wrap, self.share_samples, self.deterministic = wrap, share_samples, deterministic
        self.sample_probability = sample_probability
        self.num_global = checks.check_count("num_global", num_global)
        check_no_container(global_from=global_from)
        self.global_from: GlobalFrom = global_from
        self.num_local = checks.check_count("num_local", num_local)
        self.region = None if region is None else checks.check_index_shape("region", region)
        self.chunk_size = (
            None if chunk_size is None else checks.check_count("chunk_size", chunk_size, least=1)
        )
        self.density: Density = density
        self.locality = locality
        self._check_options()
        num_bias_tuples = _check_bias(bias, num_bias_tuples)
        check_rngs(rngs, "sample")
        self.bias = nnx.Param(jnp.zeros(self.out_shape)) if bias == "dense" else None
        self.bias_source = (
            FreeTuples(self.out_shape, num_bias_tuples, rngs=rngs) if bias == "sparse" else None
        )
        self.rngs = rngs["sample"].fork()

    def _check_options(self) -> None:
        for name in ("wrap", "share_samples", "deterministic"):
            checks.check_flag(name, getattr(self, name))
        checks.check_count("num_global", self.num_global)
        checks.check_choice("global_from", self.global_from, GLOBAL_FROM)
        checks.require(
            self.num_global > 0 or self.global_from == "uniform",
            f"global_from={self.global_from!r} with num_global=0",
            "points that are drawn so",
            "pass num_global, or leave global_from away",
        )
        checks.check_count("num_local", self.num_local)
        checks.require(
            self.num_local == 0 or self.region is not None,
            f"num_local={self.num_local} without a region",
            "the window from which local points are drawn",
            "pass region, one length per learned axis, or num_local=0",
        )
        checks.require(
            self.num_local > 0 or self.region is None,
            f"region={self.region} with num_local=0",
            "no region, where nothing is drawn from it",
            "pass num_local, the number of points to draw there, or leave region away",
        )
        if self.chunk_size is not None:
            checks.check_count("chunk_size", self.chunk_size, least=1)
        if self.template is not None:
            check_instance("template", self.template, Template)
        if self.locality is not None:
            check_instance("locality", self.locality, Locality)
            checks.require(
                self.density == "gaussian" and not self.wrap,
                f"a locality with density={self.density!r} and wrap={self.wrap}",
                "Gaussians, whose tails are short, on axes with two ends",
                "leave out the locality or these options",
            )
        check_density(self.density)
        _check_probability(self.sample_probability)

    def __call__(
        self,
        x: jax.Array,
        *,
        deterministic: bool | None = None,
        rngs: Randomness | None = None,
        sample_probability: float | jax.Array | None = None,
    ) -> jax.Array:
        """Map a batch.

        Args:
            x: ``(b, *in_shape, *features)``.
            deterministic: overrides the mode of the layer.
            rngs: overrides the stored stream; a typed key works too.
            sample_probability: overrides that of the layer; may be traced, and so follow a
                schedule.

        Returns:
            ``(b, *out_shape, *features)`` in the dtype of ``x``.

        Raises:
            ValueError: an input without batch axis, ranks that do not fit, or a wrong option.
        """
        self._check_options()
        x = self._enter(x)
        probability = self.sample_probability if sample_probability is None else sample_probability
        _check_probability(probability)
        hard = in_evaluation(self.deterministic, deterministic)
        key = None if hard else draw_key(rngs, self.rngs)
        tuple_key, bias_key = (None, None) if key is None else jax.random.split(key)
        y = self._multiply(tuple_key, _check_tuples(self.source(x), x), x, probability)
        bias = self._bias(bias_key)
        if bias is None:
            return y
        features = (1,) * (y.ndim - 1 - len(self.out_shape))
        return y + bias.reshape(1, *self.out_shape, *features).astype(y.dtype)

    def _enter(self, x: Any) -> jax.Array:
        """Return the input as an array, after checking what is known of its shape."""
        x = as_array("x", x)
        checks.require(
            x.ndim >= 1, f"x of shape {x.shape}", "(batch, *in_shape)", "add a batch axis"
        )
        return x

    def _multiply(
        self,
        key: jax.Array | None,
        tuples: ContinuousTuples,
        x: jax.Array,
        probability: float | jax.Array,
    ) -> jax.Array:
        rank = tuples.means.shape[-1] if self.template is None else self.template.rows.shape[1]
        in_rank = rank - len(self.out_shape)
        # Otherwise the batch, as the last axis, would be contracted.
        checks.require(
            in_rank < x.ndim,
            f"x of shape {x.shape} for tuples of rank {rank} and out_shape {self.out_shape}",
            f"(batch, *in_shape), and features behind, with {in_rank} input axes",
            "add the batch axis, or give means one column per output and input axis",
        )
        one = partial(self._one, probability)
        shared = tuples.means.ndim == 2
        if shared and (key is None or self.share_samples):
            # The batch as last axis is contiguous in the gathered rows of x.
            y = one(key, tuples, jnp.moveaxis(x, 0, -1))
            return jnp.moveaxis(y, -1, 0)
        keys = None if key is None else keys_for(key, x)
        if not shared:
            tuples = jax.tree.map(lambda part: spread_like(part, x), tuples)
        axes = (None if key is None else 0, None if shared else 0, 0)
        return jax.vmap(one, in_axes=axes)(keys, tuples, x)

    def _one(
        self,
        probability: float | jax.Array,
        key: jax.Array | None,
        tuples: ContinuousTuples,
        x: jax.Array,
    ) -> jax.Array:
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
            global_from=self.global_from,
            num_local=self.num_local,
            region=self.region,
            chunk_size=self.chunk_size,
            template=self.template,
            density=self.density,
            locality=self.locality,
            sample_probability=probability,
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
            key,
            tuples,
            self.out_shape,
            num_global=self.num_global,
            global_from=self.global_from,
            density=self.density,
        )
        return to_dense(entries, self.out_shape)


def _check_bias(bias: Bias, num_bias_tuples: int) -> int:
    """Return the number of tuples of a bias, which only a sparse one has."""
    checks.check_choice("bias", bias, BIASES)
    if bias == "sparse":
        return checks.check_count("num_bias_tuples", num_bias_tuples, least=1)
    checks.require(
        checks.check_count("num_bias_tuples", num_bias_tuples) == 0,
        f"num_bias_tuples={num_bias_tuples} with bias={bias!r}",
        "tuples for a sparse bias alone",
        "pass bias='sparse', or leave num_bias_tuples out",
    )
    return 0


def _check_probability(probability: Any) -> None:
    checks.check_number("sample_probability", probability, at_least=0, at_most=1)


def _check_tuples(found: Any, x: jax.Array) -> ContinuousTuples:
    """Return what a source gave after checking that it is tuples, for all or for each instance."""
    checks.require(
        isinstance(found, tuple | list) and len(found) == len(ContinuousTuples._fields),
        f"a source that gives {type(found).__name__}",
        "ContinuousTuples",
        "return ContinuousTuples(means, variances, values)",
    )
    parts = zip(ContinuousTuples._fields, found, strict=True)
    tuples = ContinuousTuples(*(as_array(name, part) for name, part in parts))
    batch = x.shape[:1] if tuples.means.ndim == 3 else ()
    meaning = "with (k, r) for tuples of the whole batch, with (b, k, r) for those of instances"
    checks.check_shape("means", tuples.means, (*batch, None, None), meaning)
    k, r = tuples.means.shape[-2:]
    checks.check_shape("variances", tuples.variances, (*batch, k, r), "the shape of means")
    checks.check_shape("values", tuples.values, (*batch, k), "(k,) or (b, k)")
    return tuples
