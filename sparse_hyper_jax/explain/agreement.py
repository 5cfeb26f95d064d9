"""Whether another run finds the same: positions matched one to one."""

import itertools
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.explain.known import check_known

_assigned = jax.jit(optax.assignment.hungarian_algorithm)


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

    partner: np.ndarray
    share: float


def match_positions(one: Any, other: Any, *, within: int = 1) -> Matching:
    """Match positions of two runs one to one: as many as can be, and of these the nearest.

    A pair may lie up to ``within`` cells apart along every axis. Solved as an assignment problem,
    so that two positions never share a partner, in the time of ``k^3`` steps. Runs on the host: the
    numbers have to be known.

    Args:
        one: integers ``(k, r)``.
        other: integers ``(m, r)``.
        within: largest distance (Chebyshev, in cells) of a pair.

    Returns:
        :class:`Matching`.

    Raises:
        ValueError: shapes that do not fit, no positions, traced ones, or ``(within + 1) min(k, m)``
            of 2**24 or more, beyond which costs would be inexact.

    Reference: Kuhn 1955, "The Hungarian method for the assignment problem".

    Example:
        >>> from sparse_hyper_jax import explain
        >>> found = explain.match_positions([[1], [27], [60]], [[28], [27], [1]])
        >>> found.partner.tolist(), round(found.share, 3)
        ([2, 1, -1], 0.667)
    """
    expected = "positions (k, r), at least one"
    one, other = _known("one", one, 2, expected), _known("other", other, 2, expected)
    within = checks.check_count("within", within)
    checks.require(
        one.shape[1] == other.shape[1],
        f"positions of rank {one.shape[1]} and of rank {other.shape[1]}",
        "the same rank",
        "compare positions of the same layer",
    )
    return _match(one, other, within)


def agreement(runs: Any, *, within: int = 1) -> np.ndarray:
    """Give the share of positions that every two runs have in common.

    What all seeds find can be believed sooner; neighbours stand for each other where inputs
    resemble their neighbours, which is what ``within`` is for. Runs on the host, too.

    Args:
        runs: integers ``(s, k, r)``: positions of ``s`` runs; or a list of ``(k_i, r)``, where runs
            have found different numbers of them. A share is that of the larger run of a pair.
        within: see :func:`match_positions`.

    Returns:
        ``(s, s)``, symmetric, 1 on the diagonal.

    Raises:
        ValueError: no three axes, an empty one, different ranks, traced runs, or ``(within + 1) k``
            of 2**24 or more.

    Example:
        >>> from sparse_hyper_jax import explain
        >>> explain.agreement([[[1], [5]], [[5], [40]]]).tolist()
        [[1.0, 0.5], [0.5, 1.0]]
        >>> explain.agreement([[[1], [5]], [[5]]]).tolist()
        [[1.0, 0.5], [0.5, 1.0]]
    """
    runs = _enter_runs(runs)
    within = checks.check_count("within", within)
    shares = np.eye(len(runs))
    for first, second in itertools.combinations(range(len(runs)), 2):
        shares[first, second] = shares[second, first] = _match(
            runs[first], runs[second], within
        ).share
    return shares


def _enter_runs(runs: Any) -> list[np.ndarray]:
    """Check the positions of some runs, which are as many in each, or stand in a list."""
    expected = "positions (s, k, r), none of them 0"
    if not isinstance(runs, list | tuple) or not runs:
        return list(_known("runs", runs, 3, expected))
    found = [_known(f"runs[{number}]", run, 2, expected) for number, run in enumerate(runs)]
    checks.require(
        len({run.shape[1] for run in found}) == 1,
        f"runs of positions of ranks {', '.join(str(run.shape[1]) for run in found)}",
        "the same rank",
        "compare positions of the same layer",
    )
    return found


def _match(one: np.ndarray, other: np.ndarray, within: int) -> Matching:
    """Solve the assignment: a pair out of reach costs more than all pairs within."""
    far = np.abs(one[:, None] - other[None]).max(-1)
    most = (within + 1) * min(len(one), len(other)) + 1
    checks.require(
        most <= 2**24,
        f"within={within} and {min(len(one), len(other))} positions",
        "(within + 1) times the positions of the smaller run below 2**24, to which costs are exact",
        "lower within, or compare parts of the positions",
    )
    costs = np.where(far <= within, far, most).astype(np.float32)
    rows, columns = map(np.asarray, _assigned(costs))
    pairs = far[rows, columns] <= within
    partner = np.full(len(one), -1, np.int32)
    partner[rows[pairs]] = columns[pairs]
    return Matching(partner, float(pairs.sum() / max(len(one), len(other))))


def _known(name: str, positions: Any, rank: int, expected: str) -> np.ndarray:
    """Check positions whose numbers are known."""
    check_known(name, positions)
    array = as_array(name, positions)
    checks.check_integers(name, array)
    checks.require(
        array.ndim == rank and array.size > 0,
        f"{name} of shape {array.shape}",
        expected,
        "stack the positions, a row for each",
    )
    return np.asarray(array, np.int64)
