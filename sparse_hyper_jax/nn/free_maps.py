"""A hyperlayer whose tuples are parameters of its own."""

from collections.abc import Sequence
from typing import Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_instance
from sparse_hyper_jax.nn.free_tuples import FreeTuples
from sparse_hyper_jax.nn.sparse_maps import Bias, HyperLayer
from sparse_hyper_jax.ops import ContinuousTuples, Locality, Template
from sparse_hyper_jax.ops.bounds import MeanMethod
from sparse_hyper_jax.ops.distances import Density
from sparse_hyper_jax.ops.own_draws import GlobalFrom
from sparse_hyper_jax.ops.plan import plan_relaxation


class HyperLayerOptions(TypedDict, total=False):
    """Options of every :class:`HyperLayer`, which documents them and gives their defaults."""

    num_global: int
    global_from: GlobalFrom
    num_local: int
    region: Sequence[int] | None
    chunk_size: int | None
    bias: Bias
    num_bias_tuples: int
    share_samples: bool
    sample_probability: float
    density: Density
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

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> layer = nn.FreeHyperLayer((16,), (8,), num_tuples=12, num_global=2, rngs=nnx.Rngs(0))
        >>> layer(jnp.ones((4, 16))).shape
        (4, 8)
        >>> layer.eval()  # from now on every tuple is one entry, and nothing is random
        >>> layer(jnp.ones((4, 16))).shape
        (4, 8)
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        num_tuples: int,
        *,
        fixed_values: float | None = None,
        num_values: int | None = None,
        mean_method: MeanMethod = "sigmoid",
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
            shape if template is None else _learned_shape(template, shape),
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
        self._check_plan((*self.out_shape, *self.in_shape))

    def _check_plan(self, shape: tuple[int, ...]) -> None:
        """Raise now where options do not fit the tuples, whose number and rank are known."""
        size = self.source.num_tuples, len(self.source.shape)
        # Of tuples a plan looks at the shapes alone.
        parts: Any = (jax.ShapeDtypeStruct(one, jnp.float32) for one in (size, size, size[:1]))
        plan_relaxation(
            jax.random.key(0),
            ContinuousTuples(*parts),
            shape,
            num_global=self.num_global,
            num_local=self.num_local,
            region=self.region,
            chunk_size=self.chunk_size,
            template=self.template,
            active=None,
            density=self.density,
            block_size=None,
            locality=self.locality,
            global_from=self.global_from,
            wrap=self.wrap,
            debug=False,
        )

    def _enter(self, x: Any) -> jax.Array:
        """Take an input whose axes are known; otherwise it could be read as another shape."""
        x = as_array("x", x)
        checks.require(
            x.shape[1 : 1 + len(self.in_shape)] == self.in_shape,
            f"x of shape {x.shape}",
            f"(batch, {', '.join(map(str, self.in_shape))}), and features behind if there are any",
            "reshape x or make the layer with another in_shape",
        )
        return x


def _learned_shape(template: Template, shape: tuple[int, ...]) -> tuple[int, ...]:
    check_instance("template", template, Template)
    columns = template.rows.shape[1]
    checks.require(
        columns == len(shape),
        f"a template with {columns} columns for a sparse tensor of shape {shape}",
        "one column per output axis, then one per input axis",
        "change the template's rows or the shapes",
    )
    return template.learned_shape(shape)
