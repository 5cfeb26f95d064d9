"""An embedding whose words share the rows of a small table, as a module."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax import checks, memory
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.nn.keys import check_rngs
from sparse_hyper_jax.nn.options import check_float_dtype, initialised
from sparse_hyper_jax.nn.parameters import TableRows
from sparse_hyper_jax.nn.tap_layers import TapProbe
from sparse_hyper_jax.nn.watching import no_flags, observed_by


class RowSlots(nnx.Variable):
    """Which rows of a table every word has: int32 ``(V, k)``, no parameter.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> layer = nn.SparseEmbedding(1000, 50, 2, 16, rngs=nnx.Rngs(0))
        >>> nnx.state(layer, nn.RowSlots)["rows"].get_value().shape
        (1000, 2)
    """


class SparseEmbedding(nnx.Module):
    """Embed each of many words as a weighted sum of a few rows of a small table.

    ``e_w = sum_j values[w, j] table[rows[w, j]]``. Table and values are learned; rows are hashed at
    first (:func:`~sparse_hyper_jax.memory.hash_rows`), and :func:`relocate_rows` exchanges them by
    exact gains. In place of ``V d`` numbers there are ``m d + V k``, and ``V k`` integers.

    Both are :class:`TableRows`: few of their rows are read in a step, see
    :func:`~sparse_hyper_jax.memory.lazy_rows`.

    Args:
        num_words: number ``V`` of words.
        num_rows: number ``m`` of rows of the table.
        count: number ``k`` of rows of each word.
        features: length ``d`` of an embedding.
        dtype: of the result; None for that of the parameters.
        param_dtype: of the parameters.
        table_init: initializer of ``(m, d)``.
        values_init: initializer of ``(V, k)``; None for a normal one of variance ``1 / k``.
        rngs: stream ``params``.

    Raises:
        ValueError: an option is wrong.

    Reference: Tito Svenstrup et al. 2017, arXiv 1709.03933, hash embeddings.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> layer = nn.SparseEmbedding(1000, 50, 2, 16, rngs=nnx.Rngs(0))
        >>> layer(jnp.array([[7, 3, 7]])).shape
        (1, 3, 16)
        >>> sum(leaf.size for leaf in jax.tree.leaves(nnx.state(layer, nnx.Param)))
        2800
    """

    probe: Any = None

    def __init__(
        self,
        num_words: int,
        num_rows: int,
        count: int,
        features: int,
        *,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        table_init: Any = nnx.initializers.variance_scaling(  # noqa: B008 (pure)
            1.0, "fan_in", "normal", out_axis=0
        ),
        values_init: Any = None,
        rngs: nnx.Rngs,
    ):
        check_rngs(rngs, "params")
        self.num_words = checks.check_count("num_words", num_words, least=1)
        self.features = checks.check_count("features", features, least=1)
        self.rows = RowSlots(memory.hash_rows(rngs.params(), num_words, num_rows, count))
        check_float_dtype("dtype", dtype, inferred=True)
        check_float_dtype("param_dtype", param_dtype)
        self.dtype = dtype
        shape = int(num_rows), self.features
        table = initialised("table_init", table_init, rngs.params(), shape, param_dtype)
        self.table = TableRows(table)
        if values_init is None:
            values_init = nnx.initializers.normal(int(count) ** -0.5)
        shape = self.num_words, int(count)
        values = initialised("values_init", values_init, rngs.params(), shape, param_dtype)
        self.values = TableRows(values)

    @property
    def words(self) -> memory.WordRows:
        """Rows and values of every word."""
        return memory.WordRows(self.rows.get_value(), self.values.get_value())

    def __call__(self, ids: Any) -> jax.Array:
        """Embed words.

        Args:
            ids: integers ``(*batch,)``; one outside, such as -1, is padding, with embedding 0.

        Returns:
            ``(*batch, features)``.

        Raises:
            ValueError: ids that are no integers.
        """
        ids, table = as_array("ids", ids, "integers"), self.table.get_value()
        y = memory.embed(table, self.words, ids)
        if self.probe is not None:
            # A table of all words, of zeros: its slope is that of the embeddings.
            whole = memory.Reads(ids[..., None], jnp.ones((*ids.shape, 1), y.dtype))
            y = y + memory.read_rows(self.probe.get_value(), whole)
        return y.astype(table.dtype if self.dtype is None else self.dtype)

    def watch(self) -> None:
        """Get ready for a probe."""
        self.probe = TapProbe(jnp.zeros((self.num_words, self.features)))

    def relocate(
        self,
        cotangent: Any,
        *,
        min_z: float | jax.Array | None = None,
        max_share: float | jax.Array | None = None,
    ) -> jax.Array:
        """Exchange a row of every word, in place.

        Args:
            cotangent: ``(V, d)``, slopes of the loss towards the embeddings of all words.
            min_z: see :func:`~sparse_hyper_jax.memory.relocate_rows`.
            max_share: see there.

        Returns:
            bool ``(V, k)``: where a row is new.

        Raises:
            ValueError: as the functions of ``memory``.
        """
        table, before = self.table.get_value(), self.words
        gains = memory.row_gains(table, cotangent, before.rows)
        importance = memory.row_importance(before, table)
        options = {"min_z": min_z, "max_share": max_share}
        after = memory.relocate_rows(before, gains, importance, **options)
        self.rows.set_value(after.rows)
        self.values.set_value(after.values)
        return after.rows != before.rows


def relocate_rows(
    model: nnx.Module,
    loss: Callable[..., jax.Array],
    *arguments: Any,
    min_z: float | jax.Array | None = None,
    max_share: float | jax.Array | None = None,
) -> nnx.State:
    """Let the words of all sparse embeddings of a model exchange a row, by gains on one batch.

    One gradient of the loss, and a product of all words with all rows, in blocks. Call it once in a
    while, on as much data as fits, and clear what the optimizer remembers::

        fresh = nn.relocate_rows(model, loss_of, batch)
        state = conv.clear_moments(transformation, state, fresh)

    Args:
        model: with any number of :class:`SparseEmbedding`, which are changed in place.
        loss: ``(model, *arguments) -> scalar``; what it does to its model is forgotten.
        *arguments: what it takes besides.
        min_z: see :func:`~sparse_hyper_jax.memory.relocate_rows`.
        max_share: see there.

    Returns:
        ``nnx.state(model, nnx.Param)`` with flags in place of numbers, true for values of rows that
        are new.

    Raises:
        ValueError: a model without such layers.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> layer = nn.SparseEmbedding(6, 4, 2, 3, rngs=nnx.Rngs(0))
        >>> target = jax.random.normal(jax.random.key(1), (6, 3))
        >>> loss = lambda layer: jnp.sum((layer(jnp.arange(6)) - target) ** 2)
        >>> fresh = nn.relocate_rows(layer, loss)
        >>> fresh["values"].get_value().sum(axis=1).tolist()
        [1, 1, 1, 1, 1, 1]
    """
    seen = observed_by(
        SparseEmbedding,
        model,
        loss,
        arguments,
        missing=("a SparseEmbedding", "a model with one", "use SparseEmbedding in it"),
    )
    marked = no_flags(model)
    for path, layer, observed in seen:
        flags = layer.relocate(observed, min_z=min_z, max_share=max_share)
        marked[*path, "values"].set_value(flags)
    return nnx.from_flat_state(marked)
