"""The six arrows composed: continuous tuples and an input to an output."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_instance
from sparse_hyper_jax.ops.distances import Density
from sparse_hyper_jax.ops.entrance import enter_tuples
from sparse_hyper_jax.ops.locality import Locality
from sparse_hyper_jax.ops.multiply import check_sides, contract
from sparse_hyper_jax.ops.own_draws import GlobalFrom
from sparse_hyper_jax.ops.plan import Active, learned_shape, plan_relaxation
from sparse_hyper_jax.ops.relax import relax_as_planned, settle_tuples
from sparse_hyper_jax.ops.templates import Template
from sparse_hyper_jax.types import ContinuousTuples, SparseEntries

COIN = 2**32 - 1
"""Beyond the numbers that ``jax.random.split`` gives to its keys."""


def hyperlayer(
    key: jax.Array | None,
    tuples: ContinuousTuples,
    x: jax.Array,
    out_shape: Sequence[int],
    *,
    num_global: int = 0,
    num_local: int = 0,
    region: Sequence[int] | None = None,
    chunk_size: int | None = None,
    template: Template | None = None,
    active: Active | None = None,
    density: Density = "gaussian",
    block_size: int | None = None,
    locality: Locality | None = None,
    global_from: GlobalFrom = "uniform",
    sample_probability: float | jax.Array = 1.0,
    wrap: bool = False,
    debug: bool = False,
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
        num_global: points per tuple drawn from all cells.
        num_local: points per tuple drawn from a window around the mean.
        region: lengths of that window, one per learned axis.
        chunk_size: tuples per context; see :func:`relax`.
        template: fixed columns; if its rows go through the output cells in order, the sum needs no
            scatter.
        active: ``(start, count)`` of the tuples to relax; see :func:`relax`.
        density: see :func:`~sparse_hyper_jax.ops.log_densities`.
        block_size: see :func:`~sparse_hyper_jax.ops.mix_values`.
        locality: for many thousands of tuples; see :func:`~sparse_hyper_jax.ops.mix_nearby`.
        global_from: see :func:`~sparse_hyper_jax.ops.sample_tuples`.
        sample_probability: chance that this pass samples; otherwise it is
            :func:`hyperlayer_hard`, through which means and variances get no gradient. It may be
            traced, and so follow a schedule. The same key samples the same points whatever it is.
        wrap: every learned axis is a circle.
        debug: check means and indices by ``checkify``.

    Returns:
        ``(*out_shape, *features)`` in the dtype of ``x``.

    Raises:
        ValueError: ranks, chunks or options that do not fit.

    Reference: Bloem 2018, arXiv 1810.09184.

    Example:
        >>> from sparse_hyper_jax import ops
        >>> tuples = ops.ContinuousTuples(jnp.array([[0.5, 2.5]]), jnp.ones((1, 2)), jnp.ones(1))
        >>> def first_output(tuples):
        ...     x = jnp.array([1.0, 2.0, 3.0, 5.0])
        ...     return ops.hyperlayer(None, tuples, x, out_shape=(2,))[0]
        >>> float(first_output(tuples)), jax.grad(first_output)(tuples).means.tolist()
        (2.0, [[-1.0, 0.25]])
    """
    out_shape = checks.check_index_shape("out_shape", out_shape)
    tuples, x = enter_tuples(tuples), as_array("x", x, "numbers")
    plan = plan_relaxation(
        key,
        tuples,
        tensor_shape(tuples, x, out_shape, template),
        num_global=num_global,
        num_local=num_local,
        region=region,
        chunk_size=chunk_size,
        template=template,
        active=active,
        density=density,
        block_size=block_size,
        locality=locality,
        global_from=global_from,
        wrap=wrap,
        debug=debug,
    )

    def sampled(key: jax.Array | None) -> jax.Array:
        return _multiply(relax_as_planned(key, tuples, plan), x, out_shape, template, debug=debug)

    def settled(_: jax.Array) -> jax.Array:
        entries = settle_tuples(tuples, plan.shape, template=template, wrap=wrap, debug=debug)
        return _multiply(entries, x, out_shape, template, debug=debug)

    return sometimes(key, sample_probability, sampled, settled)


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

    Example:
        >>> from sparse_hyper_jax import ops
        >>> means, variances = jnp.array([[0.0, 2.6]]), jnp.full((1, 2), 0.1)
        >>> tuples = ops.ContinuousTuples(means, variances, values=jnp.ones(1))
        >>> ops.hyperlayer_hard(tuples, jnp.array([1.0, 2.0, 3.0, 5.0]), out_shape=(2,)).tolist()
        [5.0, 0.0]
    """
    out_shape = checks.check_index_shape("out_shape", out_shape)
    tuples, x = enter_tuples(tuples), as_array("x", x, "numbers")
    shape = learned_shape(tuples, tensor_shape(tuples, x, out_shape, template), template)
    wrap, debug = checks.check_flag("wrap", wrap), checks.check_flag("debug", debug)
    entries = settle_tuples(tuples, shape, template=template, wrap=wrap, debug=debug)
    return _multiply(entries, x, out_shape, template, debug=debug)


def tensor_shape(
    tuples: ContinuousTuples, x: jax.Array, out_shape: tuple[int, ...], template: Template | None
) -> tuple[int, ...]:
    """Give the lengths of the whole sparse tensor, output axes first.

    Args:
        tuples: ``k`` tuples of rank ``r``; only their shapes.
        x: ``(*in_shape, *features)``; only its shape.
        out_shape: lengths of the output axes.
        template: fixed columns.

    Raises:
        ValueError: ranks that do not fit, or sides of 2**31 cells or more.
    """
    if template is not None:
        check_instance("template", template, Template)
    rank = tuples.means.shape[1] if template is None else template.rows.shape[1]
    in_rank = rank - len(out_shape)
    checks.require(
        0 <= in_rank <= x.ndim,
        f"tuples of rank {rank}, out_shape {out_shape} and x of shape {x.shape}",
        f"rank {len(out_shape)} + the number of contracted axes of x",
        "give means one column per output axis, then one per input axis",
    )
    check_sides(out_shape, x.shape[:in_rank])
    return (*out_shape, *x.shape[:in_rank])


def sometimes(
    key: jax.Array | None,
    probability: float | jax.Array,
    sampled: Callable[[jax.Array | None], jax.Array],
    settled: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """Run one of two passes by the toss of a coin.

    Args:
        key: a typed key; may be None where nothing is random.
        probability: chance of the first pass; may be traced.
        sampled: function of a key.
        settled: the other pass; takes the same and does not use it.

    Raises:
        ValueError: no probability, or no key.
    """
    checks.check_number("sample_probability", probability, at_least=0, at_most=1)
    if not isinstance(probability, jax.Array) and probability == 1:
        return sampled(key)
    key = checks.require_given(key, "key=None", "a key to draw the kind of pass", "pass a key")
    # Folded, not split off: the points that a key samples do not depend on the probability.
    coin = jax.random.uniform(jax.random.fold_in(key, COIN), (), jnp.float32)
    heads = coin < jnp.asarray(probability, jnp.float32)
    return jax.lax.cond(heads, sampled, settled, key)


def _multiply(
    entries: SparseEntries,
    x: jax.Array,
    out_shape: tuple[int, ...],
    template: Template | None,
    *,
    debug: bool,
) -> jax.Array:
    in_rows = template is not None and template.groups_by_output(out_shape)
    layout = "rows" if in_rows else "any"
    return contract(entries, x, out_shape, layout=layout, debug=debug)
