"""Whether another run finds the same: positions matched one to one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array


class Matching(NamedTuple):
    """Which position of another run stands for each of ``k`` positions.

    Attributes:
        partner: ``(k,)`` int32, its number in the other run; -1 where there is none within reach.
        share: the share of all positions, of the larger run, that have a partner.

    Example:
        >>> from sparse_hyper_jax import explain
        >>> explain.match_positions([[3], [9]], [[8], [30]]).partner.tolist()
        [-1, 0]
    """

    partner: jax.Array
    share: jax.Array


def match_positions(one: Any, other: Any, *, within: int = 1) -> Matching:
    """Match positions of two runs one to one: as many as can be, and of these the nearest.

    A pair may lie up to ``within`` cells apart along every axis. Solved as an assignment problem,
    so that two positions never share a partner, in the time of ``k^3`` steps.

    Args:
        one: integers ``(k, r)``.
        other: integers ``(m, r)``.
        within: largest distance (Chebyshev, in cells) of a pair.

    Returns:
        :class:`Matching`.

    Raises:
        ValueError: shapes that do not fit, or no positions.

    Reference: Kuhn 1955, "The Hungarian method for the assignment problem".

    Example:
        >>> from sparse_hyper_jax import explain
        >>> found = explain.match_positions([[1], [27], [60]], [[28], [27], [1]])
        >>> found.partner.tolist(), round(float(found.share), 3)
        ([2, 1, -1], 0.667)
    """
    one, other = _positions("one", one), _positions("other", other)
    within = checks.check_count("within", within)
    checks.require(
        one.shape[1] == other.shape[1],
        f"positions of rank {one.shape[1]} and of rank {other.shape[1]}",
        "the same rank",
        "compare positions of the same layer",
    )
    return _match(one, other, within)


def agreement(runs: Any, *, within: int = 1) -> jax.Array:
    """Give the share of positions that every two runs have in common.

    What all seeds find can be believed sooner; neighbours stand for each other where inputs
    resemble their neighbours, which is what ``within`` is for.

    Args:
        runs: integers ``(s, k, r)``: positions of ``s`` runs.
        within: see :func:`match_positions`.

    Returns:
        ``(s, s)``, symmetric, 1 on the diagonal.

    Raises:
        ValueError: no three axes, or an empty one.

    Example:
        >>> from sparse_hyper_jax import explain
        >>> explain.agreement([[[1], [5]], [[5], [40]]]).tolist()
        [[1.0, 0.5], [0.5, 1.0]]
    """
    runs = as_array("runs", runs)
    checks.check_integers("runs", runs)
    within = checks.check_count("within", within)
    checks.require(
        runs.ndim == 3 and runs.size > 0,
        f"runs of shape {runs.shape}",
        "positions (s, k, r), none of them 0",
        "stack the positions of all runs",
    )
    shares = jax.vmap(
        jax.vmap(lambda one, other: _match(one, other, within).share, (None, 0)), (0, None)
    )
    return shares(runs, runs)


def _match(one: jax.Array, other: jax.Array, within: int) -> Matching:
    """Solve the assignment: a pair out of reach costs more than all pairs within."""
    far = jnp.max(jnp.abs(one[:, None] - other[None]), -1)
    close = far <= within
    most = (within + 1) * min(len(one), len(other)) + 1
    rows, columns = optax.assignment.hungarian_algorithm(
        jnp.where(close, far, most).astype(jnp.float32)
    )
    pairs = close[rows, columns]
    partner = jnp.full(len(one), -1, jnp.int32)
    partner = partner.at[rows].set(jnp.where(pairs, columns, -1).astype(jnp.int32))
    return Matching(partner, jnp.mean(jnp.zeros(max(len(one), len(other))).at[rows].set(pairs)))


def _positions(name: str, positions: Any) -> jax.Array:
    """Check one run."""
    positions = as_array(name, positions)
    checks.check_integers(name, positions)
    checks.require(
        positions.ndim == 2 and positions.size > 0,
        f"{name} of shape {positions.shape}",
        "positions (k, r), at least one",
        "pass a row for every position",
    )
    return positions
