"""The sparsest network that is still good enough."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_function


class Search(NamedTuple):
    """What a search found."""

    sparsity: float
    """The chosen one; 0 if none of the others was accepted."""

    curve: dict[float, float]
    """Scores of all sparsities that were tried."""


def search_sparsity(
    evaluate: Callable[[float], float],
    accept: Callable[[float, float], bool],
    sparsities: Sequence[float],
) -> Search:
    """Bisect for the largest sparsity that is accepted.

    It tries about ``log2(len(sparsities))`` of them. Where scores do not fall steadily it finds a
    sparsity that is accepted while the next one is not, but not always the largest such; the curve
    shows what was tried. Sparsity 0, the unpruned network, is what is left if no other is accepted.

    Args:
        evaluate: gives the score of the network at a sparsity.
        accept: ``accept(score, unpruned score)``, for instance
            ``lambda score, whole: score >= 0.99 * whole``. A ratio suits accuracies; for losses or
            negative returns take a difference.
        sparsities: increasing, from 0 to 1.

    Returns:
        the sparsity and all scores.

    Raises:
        ValueError: the sparsities are not increasing shares; the unpruned network itself is not
            accepted, as when its score is NaN or a ratio is asked of a negative score.
    """
    grid = check_grid(sparsities)
    check_function("evaluate", evaluate)
    check_function("accept", accept)
    curve = {0.0: float(evaluate(0.0))}
    checks.require(
        bool(accept(curve[0.0], curve[0.0])),
        f"an unpruned score of {curve[0.0]}, which accept refuses",
        "accept(score, score) to be true",
        "compare differences if scores may be negative, and train until the score is finite",
    )
    # Invariant: everything before ``low`` counts as accepted, everything from ``high`` on as not.
    low, high = 0, len(grid)
    while low < high:
        middle = (low + high) // 2
        sparsity = grid[middle]
        if sparsity not in curve:
            curve[sparsity] = float(evaluate(sparsity))
        if accept(curve[sparsity], curve[0.0]):
            low = middle + 1
        else:
            high = middle
    return Search(grid[low - 1] if low else 0.0, dict(sorted(curve.items())))


def check_grid(sparsities: Sequence[float]) -> list[float]:
    """Return the sparsities as floats; raise unless they are increasing shares."""
    numbers = as_array("sparsities", sparsities)
    checks.check_shape("sparsities", numbers, (None,), "candidates in increasing order")
    grid = [float(sparsity) for sparsity in sparsities]
    checks.require(
        bool(grid) and all(a < b for a, b in zip([-1.0, *grid], [*grid, 1.5], strict=True)),
        f"sparsities={grid}",
        "increasing numbers from 0 to 1",
        "sort them and drop duplicates",
    )
    checks.require(grid[0] >= 0 and grid[-1] <= 1, f"sparsities={grid}", "from 0 to 1", "cut them")
    return grid
