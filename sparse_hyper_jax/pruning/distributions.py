"""How many entries of each array are kept, before any training."""

import math
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from sparse_hyper_jax import checks
from sparse_hyper_jax.parameter_paths import (
    Selector,
    check_selector,
    is_kernel,
    map_selected,
    path_name,
)


class Distribution(Protocol):
    """How a density is shared out among arrays: :func:`uniform`, :func:`erk` or your own.

    Example:
        >>> from sparse_hyper_jax.pruning import uniform
        >>> def all_but_the_last(params, density, *, select):  # a distribution of one's own
        ...     return {**uniform(params, density, select=select), "last": {"kernel": 1.0}}
        >>> params = {"first": {"kernel": jnp.ones((8, 8))}, "last": {"kernel": jnp.ones((8, 2))}}
        >>> all_but_the_last(params, 0.25, select=lambda path, leaf: True)
        {'first': {'kernel': 0.25}, 'last': {'kernel': 1.0}}
    """

    def __call__(self, params: Any, density: float, *, select: Selector) -> Any:
        """Give a tree of densities from 0 to 1, with ``optax.MaskedNode()`` for other leaves."""


def uniform(
    params: Any, density: float, *, select: Selector = is_kernel, dense: Selector | None = None
) -> Any:
    """Give every selected array the same density.

    Args:
        params: pytree of arrays; only shapes matter.
        density: share of the entries to keep, from 0 to 1.
        select: which leaves are pruned.
        dense: which of these stay whole, for instance the first layer; by default none.

    Returns:
        a float for every selected leaf, ``optax.MaskedNode()`` for the others.

    Raises:
        ValueError: the density is no share, or nothing is selected.

    Example:
        >>> from sparse_hyper_jax.pruning import uniform
        >>> params = {"kernel": jnp.ones((8, 4)), "bias": jnp.ones(4)}
        >>> uniform(params, 0.25)
        {'bias': MaskedNode(), 'kernel': 0.25}
    """
    density = check_share("density", density)
    return _densities(params, select, dense, lambda shape: density)


def erk(
    params: Any, density: float, *, select: Selector = is_kernel, dense: Selector | None = None
) -> Any:
    """Give small arrays more than large ones (Erdős-Rényi kernel).

    ``density_l = epsilon * sum(shape_l) / prod(shape_l)``, at most 1, with epsilon such that the
    share of all entries is ``density``: what arrays of density 1 cannot take is shared among the
    others.

    Args:
        params: pytree of arrays; only shapes matter.
        density: share of the entries of all pruned arrays together, from 0 to 1.
        select: which leaves are pruned.
        dense: which of these stay whole and do not count; by default none.

    Returns:
        a float for every selected leaf, ``optax.MaskedNode()`` for the others.

    Raises:
        ValueError: the density is no share, or nothing is selected.

    Reference: Evci et al. 2020, arXiv 1911.11134.

    Example:
        >>> from sparse_hyper_jax.pruning import density_report, erk, magnitude_masks
        >>> params = {"wide": jnp.ones((300, 100)), "narrow": jnp.ones((100, 10))}
        >>> densities = erk(params, 0.1, select=lambda path, leaf: True)
        >>> {name: round(density, 2) for name, density in densities.items()}
        {'narrow': 0.67, 'wide': 0.08}
        >>> round(density_report(params, magnitude_masks(params, densities)).pruned, 3)
        0.1
    """
    density = check_share("density", density)
    shapes = []
    _densities(params, select, dense, lambda shape: shapes.append(shape) or 0.0)
    whole: set[tuple[int, ...]] = set()
    target = density * sum(math.prod(shape) for shape in shapes)
    epsilon = 0.0
    while len(whole) < len(set(shapes)):
        rest = target - sum(math.prod(shape) for shape in shapes if shape in whole)
        epsilon = rest / max(sum(sum(shape) for shape in shapes if shape not in whole), 1)
        full = {shape for shape in set(shapes) - whole if epsilon * sum(shape) >= math.prod(shape)}
        if not full:
            break
        whole |= full
    return _densities(
        params,
        select,
        dense,
        lambda shape: 1.0 if shape in whole else epsilon * sum(shape) / math.prod(shape),
    )


def count_kept(density: float, units: int) -> int:
    """Give the number of units that a density keeps, ``int(density * units)``.

    A product that misses a whole number by rounding counts as that number.

    Raises:
        ValueError: the density is no share, or units is no count.

    Example:
        >>> from sparse_hyper_jax.pruning import count_kept
        >>> count_kept(0.34, 10)
        3
        >>> int(0.29 * 100), count_kept(0.29, 100)  # the product is 28.999999999999996
        (28, 29)
    """
    product = check_share("density", density) * checks.check_count("units", units)
    nearest = round(product)
    return nearest if math.isclose(product, nearest, rel_tol=1e-12) else int(product)


def _densities(
    params: Any,
    select: Selector,
    dense: Selector | None,
    density_of: Callable[[tuple[int, ...]], float],
) -> Any:
    def visit(path: tuple[Any, ...], leaf: Any) -> Any:
        name = path_name(path)
        if not select(name, leaf):
            return optax.MaskedNode()
        return 1.0 if dense is not None and dense(name, leaf) else density_of(jnp.shape(leaf))

    if dense is not None:
        check_selector("dense", dense)
    map_selected(lambda leaf: leaf, select, params)  # raises if nothing is selected
    return jax.tree_util.tree_map_with_path(visit, params)


def check_share(name: str, share: Any) -> float:
    """Return a share as a Python float: shapes of masks depend on it.

    Raises:
        ValueError: no number from 0 to 1, or a traced one.
    """
    known = checks.is_real(share) and np.ndim(share) == 0 and not isinstance(share, Tracer)
    checks.require(
        known and 0 <= float(share) <= 1,
        f"{name}={share!r}",
        "a static number from 0 to 1, a share",
        "pass 1 - sparsity" if name == "density" else f"change {name}",
    )
    return float(share)
