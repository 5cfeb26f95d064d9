"""A source network without input: tuples that are free parameters."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax import checks
from sparse_hyper_jax.nn.parameters import RawMeans, RawVariances, TupleValues
from sparse_hyper_jax.ops import ContinuousTuples, bound_means, bound_variances


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
    """

    def __init__(
        self,
        shape: Sequence[int],
        num_tuples: int,
        *,
        fixed_values: float | None = None,
        num_values: int | None = None,
        mean_method: str = "sigmoid",
        scale: float = 0.1,
        boost: float = 2.0,
        floor: float = 0.0,
        rngs: nnx.Rngs,
    ):
        self.shape = checks.check_index_shape("shape", shape)
        checks.require(
            len(self.shape) >= 1, "shape=()", "at least one axis", "learn at least one column"
        )
        checks.check_count("num_tuples", num_tuples, least=1)
        self.num_tuples = num_tuples
        self.fixed_values = fixed_values
        self.mean_method = mean_method
        self.scale, self.boost, self.floor = scale, boost, floor
        self.raw_means = RawMeans(self._draw_means(rngs.params()))
        self.raw_variances = RawVariances(jax.random.normal(rngs.params(), (num_tuples,)))
        if fixed_values is None:
            count = num_tuples if num_values is None else num_values
            checks.check_count("num_values", count, least=1)
            checks.require(
                count <= num_tuples,
                f"num_values={count} for {num_tuples} tuples",
                "at most one value per tuple",
                "lower num_values",
            )
            self.values = TupleValues(jax.random.normal(rngs.params(), (count,)))
        else:
            checks.require(
                num_values is None,
                f"num_values={num_values} beside fixed_values={fixed_values}",
                "one of them",
                "leave num_values out for fixed values",
            )

    def _draw_means(self, key: jax.Array) -> jax.Array:
        size = (self.num_tuples, len(self.shape))
        if self.mean_method == "sigmoid":
            return jax.random.normal(key, size)
        # The other methods take index units: a standard normal would start in one corner.
        return jax.random.uniform(key, size) * (jnp.asarray(self.shape) - 1.0)

    def __call__(self, x: jax.Array | None = None) -> ContinuousTuples:
        """Bound the parameters; the input is ignored.

        Returns:
            ``k`` continuous tuples, shared by the whole batch.
        """
        if self.fixed_values is None:
            values = self.values[...][jnp.arange(self.num_tuples) % self.values.shape[0]]
        else:
            values = jnp.full(self.num_tuples, self.fixed_values, jnp.float32)
        variances = bound_variances(
            self.raw_variances[...],
            self.shape,
            scale=self.scale,
            boost=self.boost,
            floor=self.floor,
        )
        means = bound_means(self.raw_means[...], self.shape, method=self.mean_method)
        return ContinuousTuples(means, variances, values)
