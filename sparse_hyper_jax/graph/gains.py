"""What a loss would gain by each absent edge: the best few of every node, in bounded memory."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export, lax

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import check_function
from sparse_hyper_jax.graph.entrance import Edges, enter_nodes
from sparse_hyper_jax.graph.probed import (
    NEW_WEIGHTS,
    NewWeight,
    enter_allowed,
    enter_cotangent,
    enter_there,
    sent_by,
)
from sparse_hyper_jax.norms import norm
from sparse_hyper_jax.ops.best import best_of_blocks, per_size


class EdgeGains(NamedTuple):
    """The best absent edges of every node.

    Attributes:
        senders: int32 ``(n, c)``, best first; -1 where there are no more.
        gains: ``(n, c)``, -inf where there are no more.
        noise: ``(n,)``, root mean square of the gains of all absent edges of a node: what a gain
            has to stand out from.

    Example:
        >>> from sparse_hyper_jax import graph
        >>> gains = graph.EdgeGains(jnp.array([[4]]), jnp.array([[6.0]]), jnp.array([2.0]))
        >>> float(gains.gains[0, 0] / gains.noise[0])
        3.0
    """

    senders: jax.Array
    gains: jax.Array
    noise: jax.Array


export.register_namedtuple_serialization(EdgeGains, serialized_name="sparse_hyper_jax.EdgeGains")


def edge_gains(
    h: Any,
    cotangent: Any,
    count: int = 1,
    *,
    senders: Any = None,
    receivers: Any = None,
    weights: NewWeight = "positive",
    output: Any = None,
    unit_senders: bool = False,
    self_loops: bool = False,
    allowed: Any = None,
    message: Callable[[jax.Array], jax.Array] | None = None,
    block: int = 256,
) -> EdgeGains:
    """Give the absent edges of the largest gain, of all ``n`` for every node, exactly.

    With ``y[i] = sum_j v_ij h[j]`` and the cotangent ``delta = dL/dy``, an absent edge from j to i
    has the gradient ``dL/dv_ij = delta[i] . h[j]`` at ``v_ij = 0``. Its gain is, by ``weights``::

        positive    -delta[i] . h[j]                 how fast the loss falls as the value grows
        any         |delta[i] . h[j]|                the same, if the value may also be negative
        matrix      ||sum_s delta[i, s] h[j, s]^T||  of an edge that brings a matrix, h[j, s] W

    Only a block of senders is looked at at a time, and the best are carried on: no array is n x n.
    Time is that of the product of ``(n, F)`` and ``(F, n)``: once per probe, not in every step.
    How degrees change by an edge is not counted. Gains of edges are of first order: of two senders
    that only matter together none has any.

    Args:
        h: ``(n, *features)``, what nodes send; for matrices ``(n, ..., C)``.
        cotangent: ``(n, *features)``, for matrices ``(n, ..., O)``: the gradient of the loss with
            respect to the sums, before the non-linearity. Sums over a batch want its axis here.
        count: how many edges to give for every node, ``c``, at most ``n``; static.
        senders: of edges that are there, or forbidden: ``(E,)``, such as those of
            :func:`edge_list`; -1 marks padding.
        receivers: of these, ``(E,)``.
        weights: see above.
        output: ``(n, *features)``, what nodes receive now, where a new edge takes its share from
            the others, as in a softmax: then the gain is ``-delta[i] . (h[j] - output[i])``. Not
            for matrices.
        unit_senders: divide by the size ``||h[j]||``: loud senders gain no more than others. The
            square of the gain of a number is then in proportion to what least squares of that one
            edge take off a squared error: of ``||y - t||^2 / 2`` half the square. Of a matrix only
            if features are white. Not with ``output``.
        self_loops: nodes may receive from themselves.
        allowed: flags ``(n,)``: which nodes may send. None allows all.
        message: from rows of ``h`` to what these nodes send, where that is larger than ``h``: it is
            computed for a block at a time.
        block: number of senders that are looked at together, static; memory is ``n block`` numbers,
            for matrices ``C O`` times that.

    Returns:
        edges and gains, as constants: gradients do not pass. Of equal gains the first sender
        counts; one of NaN is never among the best.

    Raises:
        ValueError: shapes that do not agree, an unknown kind, a count below 1, or
            ``unit_senders`` with ``output``.

    Reference: Franceschi et al. 2019, arXiv 1903.11960, learn a table of all edges by such slopes;
    Evci et al. 2020, arXiv 1911.11134, grow where the slope is largest.

    Example:
        >>> from sparse_hyper_jax import graph
        >>> h = jnp.array([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
        >>> error = jnp.array([[0.0, -1.0], [1.0, 0.0], [-1.0, 1.0]])  # what is too much
        >>> gains = graph.edge_gains(h, error, count=2)
        >>> gains.senders.tolist(), gains.gains.tolist()
        ([[2, 1], [0, 2], [0, 1]], [[2.0, 1.0], [-1.0, -2.0], [1.0, -1.0]])
    """
    checks.check_choice("weights", weights, NEW_WEIGHTS)
    self_loops = checks.check_flag("self_loops", self_loops)
    unit_senders = checks.check_flag("unit_senders", unit_senders)
    checks.require(
        not unit_senders or output is None,
        "unit_senders=True with output",
        "one of them: an edge that takes a share brings h[j] - output[i], of another size",
        "leave unit_senders or output out",
    )
    h = lax.stop_gradient(enter_nodes("h", h))
    nodes = h.shape[0]
    block = min(checks.check_count("block", block, least=1), nodes)
    count = min(checks.check_count("count", count, least=1), nodes)
    send, sent = _enter_message(message, h, block)
    cotangent, own = enter_cotangent(cotangent, output, weights, nodes=nodes, sent=sent)
    there = enter_there(senders, receivers, nodes)
    more = -nodes % block
    rows = jnp.pad(h, ((0, more), *((0, 0) for _ in h.shape[1:])))
    may_send = jnp.pad(enter_allowed(allowed, nodes), (0, more))

    def gains_of(start: jax.Array) -> jax.Array:
        sent = send(lax.dynamic_slice_in_dim(rows, start, block)).astype(cotangent.dtype)
        return _of_block(sent, cotangent, own, weights, unit=unit_senders)

    def opened_of(start: jax.Array) -> jax.Array:
        opened = lax.dynamic_slice_in_dim(may_send, start, block)[None]
        opened = opened & ~_in_block(there, start, block, nodes)
        if self_loops:
            return opened
        numbers = start + jnp.arange(block, dtype=jnp.int32)
        return opened & (numbers[None] != jnp.arange(nodes, dtype=jnp.int32)[:, None])

    sizes = {"rows": nodes, "columns": nodes, "count": count, "block": block}
    return EdgeGains(*best_of_blocks(gains_of, opened_of, **sizes, dtype=cotangent.dtype))


def _enter_message(
    message: Callable[[jax.Array], jax.Array] | None, h: jax.Array, block: int
) -> tuple[Callable[[jax.Array], jax.Array], jax.ShapeDtypeStruct]:
    """Give what makes of rows of features what they send, and the shape of that for a block."""
    if message is not None:
        check_function("message", message, "a function of rows of h")
    send = sent_by(message)
    sent = jax.eval_shape(send, jax.ShapeDtypeStruct((block, *h.shape[1:]), h.dtype))
    checks.require(
        sent.shape[:1] == (block,),
        f"message(rows) of shape {sent.shape} for {block} rows",
        "what each of these nodes sends",
        "keep the first axis",
    )
    return send, sent


def _of_block(
    sent: jax.Array, cotangent: jax.Array, own: jax.Array, weights: NewWeight, *, unit: bool
) -> jax.Array:
    """Give gains ``(n, block)`` of edges from the senders of a block."""
    if weights == "matrix":
        there = sent.reshape(len(sent), cotangent.shape[1], sent.shape[-1])
        slopes = jnp.einsum("nso,bsc->nboc", cotangent, there, precision=lax.Precision.HIGHEST)
        gains = norm(slopes, (2, 3))[:, :, 0, 0]
    else:
        there = sent.reshape(len(sent), -1).T
        slopes = jnp.matmul(cotangent, there, precision=lax.Precision.HIGHEST) - own[:, None]
        gains = -slopes if weights == "positive" else jnp.abs(slopes)
    return per_size(gains, sent.reshape(len(sent), -1)) if unit else gains


def _in_block(there: Edges | None, start: jax.Array, block: int, nodes: int) -> jax.Array:
    """Mark ``(n, block)`` where an edge is there already."""
    closed = jnp.zeros((nodes, block), bool)
    if there is None:
        return closed
    column = there.senders - start
    inside = there.kept & (column >= 0) & (column < block)
    # One column more for what is not of this block: indices below 0 would count from the end.
    closed = jnp.zeros((nodes, block + 1), bool)
    return closed.at[there.receivers, jnp.where(inside, column, block)].set(True)[:, :block]
