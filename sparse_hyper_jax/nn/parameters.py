"""Parameter types of sparse layers, so that optimizers can tell them apart."""

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import check_instance


class RawMeans(nnx.Param):
    """Means before :func:`~sparse_hyper_jax.ops.bound_means`: ``(k, r)``.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> layer = nn.FreeHyperLayer((16,), (8,), num_tuples=12, rngs=nnx.Rngs(0))
        >>> jax.tree.map(jnp.shape, nnx.to_pure_dict(nnx.state(layer, nn.RawMeans)))
        {'source': {'raw_means': (12, 2)}}
    """


class RawVariances(nnx.Param):
    """Spreads before :func:`~sparse_hyper_jax.ops.bound_variances`: ``(k,)``.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> layer = nn.FreeHyperLayer((16,), (8,), num_tuples=12, rngs=nnx.Rngs(0))
        >>> jax.tree.map(jnp.shape, nnx.to_pure_dict(nnx.state(layer, nn.RawVariances)))
        {'source': {'raw_variances': (12,)}}
    """


class TupleValues(nnx.Param):
    """Values of tuples: ``(number of values,)``.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> layer = nn.FreeHyperLayer((16,), (8,), num_tuples=12, rngs=nnx.Rngs(0))
        >>> jax.tree.map(jnp.shape, nnx.to_pure_dict(nnx.state(layer, nn.TupleValues)))
        {'source': {'values': (12,)}}
    """


class TableRows(nnx.Param):
    """A table of which a step reads few rows, for :func:`~sparse_hyper_jax.memory.lazy_rows`.

    Example:
        >>> import optax
        >>> from flax import nnx
        >>> from sparse_hyper_jax import memory, nn
        >>> layer = nn.SparseEmbedding(1000, 50, 2, 16, rngs=nnx.Rngs(0))
        >>> labels = nn.parameter_labels(nnx.state(layer, nnx.Param))
        >>> nnx.to_pure_dict(labels)
        {'table': 'rows', 'values': 'rows'}
        >>> lazy = memory.lazy_rows(optax.adam(1e-2))
        >>> optimizer = optax.partition({"rows": lazy, "other": optax.adam(1e-3)}, labels)
    """


LABELS = {
    RawMeans: "means",
    RawVariances: "variances",
    TupleValues: "values",
    TableRows: "rows",
}


def parameter_labels(parameters: Any) -> Any:
    """Label parameters by what they are, for ``optax.partition``.

    Call it once and pass on the result, not the function: inside an update optimizers see plain
    arrays, which have no type to tell them apart.

    Args:
        parameters: an ``nnx.State`` of parameters, as ``nnx.state(model, nnx.Param)`` gives it.

    Returns:
        the same tree with ``"means"``, ``"variances"``, ``"values"``, ``"rows"`` or ``"other"`` in
        place of each parameter.

    Raises:
        ValueError: no state, or a leaf that is no ``nnx.Variable``.

    Example:
        >>> import optax
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> layer = nn.FreeHyperLayer((16,), (8,), num_tuples=12, rngs=nnx.Rngs(0))
        >>> labels = nn.parameter_labels(nnx.state(layer, nnx.Param))
        >>> nnx.to_pure_dict(labels)
        {'source': {'raw_means': 'means', 'raw_variances': 'variances', 'values': 'values'}}
        >>> fast, slow = optax.adam(1e-2), optax.adam(1e-3)
        >>> optimizer = optax.partition({"means": slow, "variances": slow, "values": fast}, labels)
    """
    check_instance("parameters", parameters, nnx.State, Mapping)

    def label(variable: Any) -> str:
        checks.require(
            isinstance(variable, nnx.Variable),
            f"a parameter of type {type(variable).__name__}",
            "an nnx.Variable",
            "pass parameter_labels(nnx.state(model, nnx.Param)), not the function, to optax",
        )
        return LABELS.get(type(variable), "other")

    return jax.tree.map(label, parameters, is_leaf=lambda node: isinstance(node, nnx.Variable))
