"""A source network without input: tuples that are free parameters."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax import checks
from sparse_hyper_jax.nn.keys import check_rngs
from sparse_hyper_jax.nn.options import check_finite, check_no_container
from sparse_hyper_jax.nn.parameters import RawMeans, RawVariances, TupleValues
from sparse_hyper_jax.ops import ContinuousTuples, bound_means, bound_variances
from sparse_hyper_jax.ops.bounds import MEAN_METHODS, MeanMethod
from sparse_hyper_jax.precision import wide_dtype


class FreeTuples(nnx.Module):
    """Continuous tuples as parameters, drawn from a standard normal before bounding.

    With ``mean_method`` other than ``"sigmoid"`` raw means are index units, drawn uniformly.

    Parameters: ``raw_means (k, r)``, ``raw_variances (k,)`` and, unless the values are fixed,
    ``values (num_values,)``; tuple ``j`` takes value ``j mod num_values``.

    Args:
        shape: the ``r`` lengths of the index space.
        num_tuples: ``k``.
        fixed_values: a constant value for all tuples; None makes the values parameters.
        num_values: number of distinct values, shared in turn; None gives every tuple its own.
        mean_method: see :func:`~sparse_hyper_jax.ops.bound_means`.
        scale: see :func:`~sparse_hyper_jax.ops.bound_variances`.
        boost: see there.
        floor: see there.
        rngs: a ``params`` stream.

    Raises:
        ValueError: no axis, an axis without cells, counts below 1, more values than tuples, or both
            fixed values and a number of values.

    Reference: Bloem 2018, arXiv 1810.09184.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> source = nn.FreeTuples((8, 16), num_tuples=12, fixed_values=1.0, rngs=nnx.Rngs(0))
        >>> jax.tree.map(jnp.shape, source())
        ContinuousTuples(means=(12, 2), variances=(12, 2), values=(12,))
    """

    def __init__(
        self,
        shape: Sequence[int],
        num_tuples: int,
        *,
        fixed_values: float | None = None,
        num_values: int | None = None,
        mean_method: MeanMethod = "sigmoid",
        scale: float = 0.1,
        boost: float = 2.0,
        floor: float = 0.0,
        rngs: nnx.Rngs,
    ):
        self.shape = checks.check_index_shape("shape", shape)
        checks.require(
            len(self.shape) >= 1, "shape=()", "at least one axis", "learn at least one column"
        )
        self.num_tuples = checks.check_count("num_tuples", num_tuples, least=1)
        check_no_container(fixed_values=fixed_values, mean_method=mean_method)
        check_no_container(scale=scale, boost=boost, floor=floor)
        self.fixed_values = fixed_values
        self.mean_method: MeanMethod = mean_method
        self.scale, self.boost, self.floor = scale, boost, floor
        self._check_options()
        check_rngs(rngs, "params")
        self.raw_means = RawMeans(self._draw_means(rngs.params()))
        self.raw_variances = RawVariances(jax.random.normal(rngs.params(), (self.num_tuples,)))
        if fixed_values is None:
            count = self._count_values(num_values)
            self.values = TupleValues(jax.random.normal(rngs.params(), (count,)))
        else:
            checks.require(
                num_values is None,
                f"num_values={num_values} beside fixed_values={fixed_values}",
                "one of them",
                "leave num_values out for fixed values",
            )

    def _check_options(self) -> None:
        checks.check_choice("mean_method", self.mean_method, MEAN_METHODS)
        check_finite("scale", self.scale, at_least=0)
        check_finite("boost", self.boost)
        check_finite("floor", self.floor, at_least=0)
        if self.fixed_values is not None:
            check_finite("fixed_values", self.fixed_values)

    def _count_values(self, num_values: int | None) -> int:
        if num_values is None:
            return self.num_tuples
        count = checks.check_count("num_values", num_values, least=1)
        checks.require(
            count <= self.num_tuples,
            f"num_values={count} for {self.num_tuples} tuples",
            "at most one value per tuple",
            "lower num_values",
        )
        return count

    def _draw_means(self, key: jax.Array) -> jax.Array:
        size = (self.num_tuples, len(self.shape))
        if self.mean_method == "sigmoid":
            return jax.random.normal(key, size)
        # The other methods take index units: a standard normal would start in one corner.
        return jax.random.uniform(key, size) * (jnp.asarray(self.shape, jnp.float32) - 1)[None]

    def __call__(self, x: jax.Array | None = None) -> ContinuousTuples:
        """Bound the parameters; the input is ignored.

        Returns:
            ``k`` continuous tuples, shared by the whole batch.

        Raises:
            ValueError: an attribute was set to what the constructor refuses.
        """
        self._check_options()
        raw = self.raw_means[...]
        variances = bound_variances(
            self.raw_variances[...],
            self.shape,
            scale=self.scale,
            boost=self.boost,
            floor=self.floor,
        )
        means = bound_means(raw, self.shape, method=self.mean_method)
        return ContinuousTuples(means, variances, self._values_of(raw.shape[0]))

    def _values_of(self, count: int) -> jax.Array:
        # The count is that of the parameters, a symbol in a program that is exported for any.
        if self.fixed_values is not None:
            dtype = wide_dtype(self.raw_means[...])
            return jnp.broadcast_to(jnp.asarray(self.fixed_values, dtype), (count,))
        values = self.values[...]
        if values.shape[0] == count:
            return values
        return values[jnp.arange(count) % values.shape[0]]
