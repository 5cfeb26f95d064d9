import numpy as np
import pytest

from sparse_hyper_jax.continual import search_sparsity
from tests.ops.examples import assert_names_itself_and_its_cure

GRID = [number / 20 for number in range(1, 20)]


def by_scan(evaluate, accept, grid):
    return max([0.0] + [s for s in grid if accept(evaluate(s), evaluate(0.0))])


@pytest.mark.parametrize("limit", [0.0, 0.04, 0.05, 0.3, 0.31, 0.77, 0.95, 1.0])
def test_finds_what_a_scan_finds_where_scores_fall(limit):
    tried = []

    def evaluate(sparsity):
        tried.append(sparsity)
        return 1.0 if sparsity <= limit else 0.5

    accept = lambda score, whole: score >= 0.9 * whole  # noqa: E731
    search = search_sparsity(evaluate, accept, GRID)
    assert len(tried) == len(set(tried)) <= np.log2(len(GRID)) + 2
    assert set(search.curve) == set(tried)
    assert list(search.curve) == sorted(search.curve)
    assert search.sparsity == by_scan(evaluate, accept, GRID)


def test_where_scores_jump_it_finds_an_accepted_one_before_a_refused_one():
    generator = np.random.default_rng(0)
    for _ in range(50):
        good = dict(zip(GRID, generator.random(len(GRID)) < 0.5, strict=True)) | {0.0: True}
        search = search_sparsity(lambda s, good=good: good[s], lambda score, _: score, GRID)
        assert good[search.sparsity]
        later = [sparsity for sparsity in search.curve if sparsity > search.sparsity]
        assert not any(good[sparsity] for sparsity in later)


def test_losses_compare_by_difference():
    search = search_sparsity(lambda s: s, lambda loss, whole: loss <= whole + 0.5, GRID)
    assert search.sparsity == 0.5


def test_nothing_accepted_leaves_the_whole_network():
    search = search_sparsity(lambda s: s, lambda score, whole: score == whole, [0.2, 0.4])
    assert search.sparsity == 0
    assert 0.0 in search.curve


@pytest.mark.parametrize("score", [-2.0, float("nan")])
def test_a_rule_that_refuses_the_unpruned_network(score):
    assert_names_itself_and_its_cure(
        lambda: search_sparsity(lambda s: score, lambda s, whole: s >= 0.9 * whole, [0.5]),
        f"an unpruned score of {score}",
        "accept(score, score)",
        "compare differences",
    )


def test_zero_may_be_in_the_grid():
    search = search_sparsity(lambda s: 1.0, lambda score, whole: True, [0.0, 0.5, 1.0])
    assert search.sparsity == 1


@pytest.mark.parametrize("grid", [[], [0.5, 0.2], [0.1, 0.1], [-0.1, 0.5], [0.5, 1.1]])
def test_wrong_grids(grid):
    assert_names_itself_and_its_cure(
        lambda: search_sparsity(lambda s: 1.0, lambda score, whole: True, grid),
        "sparsities=",
        "from 0 to 1",
        "",
    )
