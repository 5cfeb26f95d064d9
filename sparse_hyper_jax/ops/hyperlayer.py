"""The six arrows composed: continuous tuples and an input to an output."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.ops.multiply import sparse_multiply
from sparse_hyper_jax.ops.relax import relax, settle
from sparse_hyper_jax.ops.templates import Template
from sparse_hyper_jax.types import ContinuousTuples


def hyperlayer(
    key: jax.Array | None,
    tuples: ContinuousTuples,
    x: jax.Array,
    out_shape: Sequence[int],
    *,
    template: Template | None = None,
    sample_probability: float = 1.0,
    wrap: bool = False,
    debug: bool = False,
    **sampling: Any,
) -> jax.Array:
    """Multiply ``x`` by a sampled sparse tensor: the whole training pass.

    ``y = W x`` with ``W`` from :func:`relax`. For one instance, or for a batch that shares ``W``
    and lies on the last axis of ``x``; use ``jax.vmap`` where each instance has its own tuples or
    key.

    Args:
        key: a typed key; may be None without global and local points.
        tuples: ``k`` continuous tuples of rank ``r``.
        x: ``(*in_shape, *features)``; ``in_shape`` takes the columns that ``out_shape`` leaves. A
            batch goes last: put first, it would be taken for an input axis (``debug`` tells).
        out_shape: lengths of the output axes.
        template: fixed columns; if its rows go through the output cells in order, the sum needs no
            scatter.
        sample_probability: chance that this pass samples; otherwise it is
            :func:`hyperlayer_hard`, through which means and variances get no gradient.
        wrap: every learned axis is a circle.
        debug: check means and indices by ``checkify``.
        **sampling: ``num_global``, ``num_local``, ``region``, ``chunk_size``, ``active``,
            ``density``, ``block_size`` and ``locality``, as in :func:`relax`.

    Returns:
        ``(*out_shape, *features)`` in the dtype of ``x``.

    Raises:
        ValueError: ranks, chunks or options that do not fit.

    Reference: Bloem 2018, arXiv 1810.09184.
    """
    out_shape = checks.check_index_shape("out_shape", out_shape)
    shape = _tensor_shape(tuples, x, out_shape, template)
    row_layout = template is not None and template.groups_by_output(out_shape)

    def sampled(key: jax.Array | None) -> jax.Array:
        entries = relax(key, tuples, shape, template=template, wrap=wrap, debug=debug, **sampling)
        return sparse_multiply(*entries, x, out_shape, row_layout=row_layout, debug=debug)

    checks.require(
        0 <= sample_probability <= 1,
        f"sample_probability={sample_probability}",
        "a probability from 0 to 1",
        "pass 1 to sample in every pass",
    )
    if sample_probability == 1:
        return sampled(key)
    checks.require(key is not None, "key=None", "a key to draw the kind of pass", "pass a key")
    coin_key, sample_key = jax.random.split(key)
    return jax.lax.cond(
        jax.random.bernoulli(coin_key, sample_probability),
        sampled,
        lambda _: hyperlayer_hard(tuples, x, out_shape, template=template, wrap=wrap, debug=debug),
        sample_key,
    )


def hyperlayer_hard(
    tuples: ContinuousTuples,
    x: jax.Array,
    out_shape: Sequence[int],
    *,
    template: Template | None = None,
    wrap: bool = False,
    debug: bool = False,
) -> jax.Array:
    """Multiply ``x`` by the settled sparse tensor: evaluation, without sampling.

    ``y = W x`` with ``W`` from :func:`settle`.

    Args:
        tuples: ``k`` continuous tuples of rank ``r``.
        x: ``(*in_shape, *features)``.
        out_shape: lengths of the output axes.
        template: fixed columns.
        wrap: every learned axis is a circle.
        debug: check means and indices by ``checkify``.

    Returns:
        ``(*out_shape, *features)`` in the dtype of ``x``.

    Raises:
        ValueError: ranks that do not fit.
    """
    out_shape = checks.check_index_shape("out_shape", out_shape)
    shape = _tensor_shape(tuples, x, out_shape, template)
    row_layout = template is not None and template.groups_by_output(out_shape)
    entries = settle(tuples, shape, template=template, wrap=wrap, debug=debug)
    return sparse_multiply(*entries, x, out_shape, row_layout=row_layout, debug=debug)


def _tensor_shape(
    tuples: ContinuousTuples, x: jax.Array, out_shape: tuple[int, ...], template: Template | None
) -> tuple[int, ...]:
    _, rank = checks.check_tuples(*tuples)
    rank = rank if template is None else template.rows.shape[1]
    in_rank = rank - len(out_shape)
    checks.require(
        0 <= in_rank <= jnp.ndim(x),
        f"tuples of rank {rank}, out_shape {out_shape} and x of shape {jnp.shape(x)}",
        f"rank {len(out_shape)} + the number of contracted axes of x",
        "give means one column per output axis, then one per input axis",
    )
    return (*out_shape, *jnp.shape(x)[:in_rank])
