"""Layers over the edges of a graph: of one that is given, or of one that is learned."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax import checks, graph
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.nn.keys import check_rngs
from sparse_hyper_jax.nn.options import check_float_dtype, initialised
from sparse_hyper_jax.nn.promotion import promote
from sparse_hyper_jax.nn.tap_conv import with_bias
from sparse_hyper_jax.nn.tap_layers import TapLayer, TapSlots


class GraphConv(nnx.Module):
    """A graph convolution: ``y = D^(-1/2) (A + I) D^(-1/2) h kernel + bias``.

    Degrees are those of the edges of the call; see :func:`~sparse_hyper_jax.graph.gcn_normalize`.

    Args:
        in_features: length of the last axis of the input.
        out_features: length of the last axis of the output.
        self_loops: every node also receives from itself.
        normalize: divide by degrees; else sum.
        use_bias: add a bias.
        dtype: of the result; None infers it from input and parameters.
        param_dtype: of the parameters.
        kernel_init: initializer of ``(in_features, out_features)``.
        bias_init: initializer of ``(out_features,)``.
        rngs: stream ``params``.

    Raises:
        ValueError: an option is wrong.

    Reference: Kipf and Welling 2017, arXiv 1609.02907.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> layer = nn.GraphConv(4, 2, rngs=nnx.Rngs(0))
        >>> senders, receivers = jnp.array([0, 1, 1, 2]), jnp.array([1, 0, 2, 1])
        >>> layer(jnp.ones((3, 4)), senders, receivers).shape
        (3, 2)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        self_loops: bool = True,
        normalize: bool = True,
        use_bias: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        kernel_init: Any = nnx.initializers.glorot_uniform(),  # noqa: B008 (pure)
        bias_init: Any = nnx.initializers.zeros,
        rngs: nnx.Rngs,
    ):
        self.in_features = checks.check_count("in_features", in_features, least=1)
        self.out_features = checks.check_count("out_features", out_features, least=1)
        self.self_loops = checks.check_flag("self_loops", self_loops)
        self.normalize = checks.check_flag("normalize", normalize)
        check_float_dtype("dtype", dtype, inferred=True)
        check_float_dtype("param_dtype", param_dtype)
        check_rngs(rngs, "params")
        self.dtype = dtype
        shape = self.in_features, self.out_features
        kernel = initialised("kernel_init", kernel_init, rngs.params(), shape, param_dtype)
        self.kernel = nnx.Param(kernel)
        if checks.check_flag("use_bias", use_bias):
            bias = initialised("bias_init", bias_init, rngs.params(), shape[1:], param_dtype)
            self.bias = nnx.Param(bias)
        else:
            self.bias = None

    def __call__(self, h: Any, senders: Any, receivers: Any, values: Any = None) -> jax.Array:
        """Convolve over a graph.

        Args:
            h: ``(n, in_features)``.
            senders: integers ``(E,)``; an edge with a node outside, such as -1, is padding.
            receivers: integers ``(E,)``.
            values: ``(E,)``, positive where they are normalised; None for ones.

        Returns:
            ``(n, out_features)``.

        Raises:
            ValueError: shapes that do not fit.
        """
        h = as_array("h", h)
        checks.check_shape("h", h, (None, self.in_features), "a row for every node")
        bias = None if self.bias is None else self.bias.get_value()
        h, kernel, bias = promote((h, self.kernel.get_value(), bias), dtype=self.dtype)
        if self.normalize:
            edges = graph.gcn_normalize(
                senders, receivers, values, num_nodes=h.shape[0], self_loops=self.self_loops
            )
            y = graph.aggregate(*edges, h @ kernel)
        else:
            sent = h @ kernel
            y = graph.aggregate(senders, receivers, values, sent)
            y = y + sent.astype(y.dtype) if self.self_loops else y
        return with_bias(y.astype(h.dtype), bias)


class SeenEdges(NamedTuple):
    """What a probe sees: :class:`~sparse_hyper_jax.graph.EdgeGains`, senders as floats."""

    senders: Any
    gains: Any
    noise: Any


class LearnedEdges(TapLayer):
    """Sums over a few learned edges that come into every node, put where they gain most.

    ``y[i] = sum_s values[i, s] h[senders[i, s]]`` over the slots that hold an edge: at first none.
    Place more by :func:`place_taps`, or set ``layer.taps``. To let edges go use
    :func:`~sparse_hyper_jax.graph.drop_edges` on ``layer.taps``. Values of empty slots get no
    gradient. Among nodes no two are apart, so ``apart`` of :func:`place_taps` means nothing here;
    ``min_z`` counts in root mean squares of the gains of a node, of which few nodes cannot have
    many.

    Args:
        num_nodes: number ``n`` of nodes, at most 2**24.
        num_edges: number ``k`` of slots of each node.
        in_features: with ``out_features``, every edge has a matrix of that shape; None for a number
            per edge.
        out_features: see there.
        mean: edges have no values, a node receives the mean of its senders.
        self_loops: nodes may receive from themselves.
        block: see :func:`~sparse_hyper_jax.graph.edge_gains`.
        dtype: of the result; None infers it from input and parameters.
        param_dtype: of the parameters.
        values_init: initializer of ``(n, k)`` or ``(n, k, in_features, out_features)``.
        rngs: stream ``params``.

    Raises:
        ValueError: an option is wrong.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> h = jax.random.normal(jax.random.key(0), (100, 6, 1))  # 100 samples of 6 nodes
        >>> target = jnp.roll(h, 2, axis=1)  # node i receives from node i - 2
        >>> layer = nn.LearnedEdges(6, 1, rngs=nnx.Rngs(0))
        >>> loss = lambda layer: jnp.mean((layer(h) - target) ** 2)
        >>> fresh = nn.place_taps(layer, loss, min_z=None)
        >>> layer.taps.get_value().senders.ravel().tolist()
        [4, 5, 0, 1, 2, 3]
    """

    def __init__(
        self,
        num_nodes: int,
        num_edges: int,
        *,
        in_features: int | None = None,
        out_features: int | None = None,
        mean: bool = False,
        self_loops: bool = False,
        block: int = 256,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        values_init: Any = nnx.initializers.normal(0.02),  # noqa: B008 (pure)
        rngs: nnx.Rngs,
    ):
        # A probe names senders by float32, as it sees all else.
        num_nodes = checks.check_count("num_nodes", num_nodes, least=1, most=2**24)
        self.taps = TapSlots(graph.empty_edges(num_nodes, num_edges))
        self.num_nodes, self.num_edges = int(num_nodes), int(num_edges)
        self.mean = checks.check_flag("mean", mean)
        self.self_loops = checks.check_flag("self_loops", self_loops)
        self.block = checks.check_count("block", block, least=1)
        check_float_dtype("dtype", dtype, inferred=True)
        check_float_dtype("param_dtype", param_dtype)
        check_rngs(rngs, "params")
        self.dtype = dtype
        self.features = _matrix(in_features, out_features, mean)
        if mean:
            self.values = None
        else:
            shape = self.num_nodes, self.num_edges, *self.features
            drawn = initialised("values_init", values_init, rngs.params(), shape, param_dtype)
            self.values = nnx.Param(drawn)

    def __call__(self, h: Any) -> jax.Array:
        """Sum over the edges.

        Args:
            h: ``(..., n, features)``.

        Returns:
            ``(..., n, features)``, of matrices ``(..., n, out_features)``.

        Raises:
            ValueError: another number of nodes, or of features.
        """
        h = as_array("h", h)
        features = self.features[0] if self.features else "any"
        checks.require(
            h.ndim >= 2
            and h.shape[-2] == self.num_nodes
            and (not self.features or h.shape[-1] == features),
            f"h of shape {h.shape}",
            f"(..., {self.num_nodes}, {features})",
            "give h a row for every node",
        )
        edges = self.taps.get_value()
        given = None if self.values is None else self.values.get_value()
        h, values = promote((h, given), dtype=self.dtype)
        if self.mean:
            values = _means(edges)
        # Nodes first: a row of an edge is then in one piece, whatever the batch.
        rows = jnp.moveaxis(h, -2, 0)
        y = graph.aggregate_in_edges(edges, values, rows).astype(h.dtype)
        return jnp.moveaxis(self.watched(rows, y), 0, -2)

    def seen_shapes(self) -> Any:
        """See :class:`TapLayer`."""
        shape = self.num_nodes, min(max(self.num_edges, 1), self.num_nodes)
        return SeenEdges(shape, shape, shape[:1])

    def observe(self, x: jax.Array, cotangent: jax.Array) -> Any:
        """See :class:`TapLayer`."""
        edges = self.taps.get_value()
        senders, receivers = graph.edge_list(edges)
        output = graph.aggregate_in_edges(edges, _means(edges), x) if self.mean else None
        found = graph.edge_gains(
            x,
            cotangent,
            max(self.num_edges, 1),
            senders=senders,
            receivers=receivers,
            weights="matrix" if self.features else "positive" if self.mean else "any",
            output=output,
            unit_senders=not self.mean,
            self_loops=self.self_loops,
            block=self.block,
        )
        return SeenEdges(found.senders.astype(jnp.float32), found.gains, found.noise)

    def next_taps(self, seen: Any, count: int, **options: Any) -> Any:
        """See :class:`TapLayer`."""
        gains = graph.EdgeGains(seen.senders.astype(jnp.int32), seen.gains, seen.noise)
        edges = self.taps.get_value()
        return graph.place_edges(edges, gains, count, min_z=options["min_z"])

    def fresh_parameters(self, fresh: jax.Array) -> dict[str, jax.Array]:
        """See :class:`TapLayer`."""
        if self.values is None:
            return {}
        return {"values": fresh.reshape(*fresh.shape, *(1,) * len(self.features))}


def _means(edges: graph.InEdges) -> jax.Array:
    """Give values by which each node receives the mean of its senders."""
    count = jnp.maximum(edges.placed.sum(axis=1, keepdims=True), 1)
    return edges.placed.astype(jnp.float32) / count.astype(jnp.float32)


def _matrix(before: int | None, after: int | None, mean: bool) -> tuple[int, ...]:
    """Give the shape of the matrix of an edge; none for numbers."""
    checks.require(
        (before is None) == (after is None) and not (mean and before is not None),
        f"in_features={before} and out_features={after} with mean={mean}",
        "both or none of them, and none for means",
        "change in_features, out_features or mean",
    )
    if before is None:
        return ()
    return (
        checks.check_count("in_features", before, least=1),
        checks.check_count("out_features", after, least=1),
    )
