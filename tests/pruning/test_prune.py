import math
from functools import partial

import jax
import numpy as np
import optax
import pytest

from sparse_hyper_jax.parameter_paths import is_kernel
from sparse_hyper_jax.pruning import (
    Blocks,
    Channels,
    NofM,
    Prune,
    count_kept,
    erk,
    gradual,
    one_shot,
    periodic,
)
from sparse_hyper_jax.reparam import powerprop
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure
from tests.pruning.examples import NAMES, PARAMS, SIZES, array, largest, same, train

SGD = optax.sgd(0.3)
KEPT = [int(0.3 * size) for size in SIZES]


def largest_of_each(scores, counts=KEPT):
    return [largest([one], count)[0] for one, count in zip(scores, counts, strict=True)]


@pytest.mark.parametrize("step", [0, 3])
def test_one_shot_keeps_the_largest_at_that_step(step):
    history = train(SGD, Prune(one_shot(step)), 5)
    for count in range(6):
        if count < step:
            assert all(mask.all() for mask in history.masks(count))
        else:
            assert same(history.masks(count), largest_of_each(history.kernels(step)))
    assert not same(history.masks(5), largest_of_each(history.kernels(5)))


def test_masks_are_made_anew_every_so_often():
    history = train(SGD, Prune(periodic(3, begin=1, end=5)), 9)
    assert all(mask.all() for mask in history.masks(0))
    for count in range(1, 10):
        last = {1: 1, 2: 1, 3: 1}.get(count, 4)
        assert same(history.masks(count), largest_of_each(history.kernels(last))), count
    assert not same(history.masks(1), history.masks(4))


@pytest.mark.parametrize("density", [0.29])
def test_gradual_pruning_follows_its_formula_and_ends_exactly(density):
    history = train(SGD, Prune(gradual(1, 8, every=3)), 10, density=density)
    for count in range(11):
        last = max([step for step in (1, 4, 7, 8) if step <= count], default=0)
        share = 1 - (1 - max(last - 1, 0) / 7) ** 3
        finally_kept = [int(density * size) for size in SIZES]
        counts = [
            size - round(share * (size - kept))
            for size, kept in zip(SIZES, finally_kept, strict=True)
        ]
        assert same(history.masks(count), largest_of_each(history.kernels(last), counts)), count
        assert count < 8 or counts == finally_kept


def test_saliency_is_the_product_with_the_last_gradient():
    history = train(SGD, Prune(gradual(0, 4, every=2), score="saliency"), 6)
    assert all(mask.all() for mask in history.masks(0))
    scores = [w * g for w, g in zip(history.kernels(4), history.slopes(4), strict=True)]
    assert same(history.masks(4), largest_of_each(scores))
    assert same(history.masks(6), history.masks(4))


def test_gradients_of_dropped_entries_count_too():
    # Not of the masked weight, which is zero: a dropped entry of large saliency comes back.
    history = train(SGD, Prune(periodic(1, begin=1), score="saliency"), 4)
    for count in range(1, 5):
        scores = [w * g for w, g in zip(history.kernels(count), history.slopes(count), strict=True)]
        assert same(history.masks(count), largest_of_each(scores))
    assert any(
        (now & ~before).any()
        for now, before in zip(history.masks(4), history.masks(3), strict=True)
    )


def test_all_arrays_together():
    history = train(SGD, Prune(periodic(2), scope="global"), 4, distribution=erk)
    densities = jax.tree.leaves(erk(PARAMS, 0.3))
    count = sum(int(one * size) for one, size in zip(densities, SIZES, strict=True))
    for step in (0, 2, 4):
        assert same(history.masks(step), largest(history.kernels(step), count))


def test_chance_keeps_as_many_and_depends_on_key_and_step():
    method = Prune(periodic(1), score="random", straight_through=True)
    one, again = (train(SGD, method, 2) for _ in range(2))
    other = train(SGD, method, 2, key=jax.random.key(7))
    for step in range(3):
        assert [int(mask.sum()) for mask in one.masks(step)] == KEPT
        assert same(one.masks(step), again.masks(step))
        assert not same(one.masks(step), other.masks(step))
    assert not same(one.masks(1), one.masks(2))
    assert not same(one.masks(0), largest_of_each(one.kernels(0)))


def test_what_chance_dropped_stays_dropped():
    history = train(SGD, Prune(gradual(0, 6, every=1), score="random"), 6)
    for step in range(6):
        for before, after in zip(history.masks(step), history.masks(step + 1), strict=True):
            assert not (after & ~before).any()
    assert [int(mask.sum()) for mask in history.masks(6)] == KEPT


@pytest.mark.parametrize("schedule", [one_shot(0), gradual(0, 3, every=1)])
def test_what_is_dense_stays_whole_in_the_global_ranking(schedule):
    whole = partial(erk, dense=lambda path, leaf: path.startswith(NAMES[0]))
    method = Prune(schedule, scope="global")
    masks = train(SGD, method, 4, distribution=whole).masks(4)
    assert masks[0].all()
    rest = sum(count_kept(one, mask.size) for one, mask in zip(shares(whole), masks, strict=True))
    assert sum(int(mask.sum()) for mask in masks) == rest
    assert not masks[1].all()
    assert all(mask.all() for mask in train(SGD, method, 4, density=1.0).masks(4))


def shares(distribution):
    return jax.tree.leaves(distribution(PARAMS, 0.3))


def test_a_method_can_be_made_inside_jit():
    make = jax.jit(lambda _: Prune(one_shot(1), score="saliency").schedule.share(1))
    assert make(0.0) == 1


def test_channels_are_pruned_as_one():
    history = train(SGD, Prune(periodic(2), pattern=Channels()), 2, density=0.5)
    for kernel, mask in zip(history.kernels(2), history.masks(2), strict=True):
        norms = np.sum(kernel.astype(np.float64) ** 2, axis=0)
        (kept,) = largest([norms], len(norms) // 2)
        assert np.array_equal(mask, np.broadcast_to(kept, mask.shape))


@pytest.mark.parametrize("pattern", [Blocks((2, 4)), NofM()])
def test_other_patterns_reach_their_density(pattern):
    params = {
        name: {"kernel": array(4, 8, seed=seed), "bias": array(8)}
        for seed, name in enumerate(NAMES)
    }
    history = train(
        SGD, Prune(gradual(1, 3, every=1), pattern=pattern), 3, density=0.5, params=params
    )
    for mask in history.masks(3):
        cut = mask.reshape(2, 2, 2, 4) if isinstance(pattern, Blocks) else mask.reshape(4, 2, 4)
        sums = cut.sum(axis=(1, 3)) if isinstance(pattern, Blocks) else cut.sum(axis=-1)
        assert sorted(np.unique(sums)) == ([0, 8] if isinstance(pattern, Blocks) else [2])
        assert mask.sum() == 16


def test_straight_through_updates_dropped_entries_as_well():
    history = train(SGD, Prune(periodic(2), straight_through=True), 4)
    for step in range(4):
        moved = [
            w - np.float32(0.3) * g
            for w, g in zip(history.kernels(step), history.slopes(step + 1), strict=True)
        ]
        assert_close(history.kernels(step + 1), moved)
        assert all(mask.all() for mask in history.updated(step))
    for step in (0, 2, 4):
        assert same(history.masks(step), largest_of_each(history.kernels(step)))
    assert not same(history.masks(0), history.masks(4))


@pytest.mark.parametrize("score", ["magnitude", "saliency"])
def test_scores_are_those_of_weights_and_not_of_theta(score):
    reparam = powerprop(3.0, select=lambda path, leaf: path == "one/kernel")
    method = Prune(one_shot(2), score=score, scope="global")
    history = train(SGD, method, 3, density=0.6, reparam=reparam)
    one, two = history.kernels(2)
    weights = [np.sign(one) * np.abs(one) ** 3, two]
    scores = {
        "magnitude": weights,
        "saliency": [w * g for w, g in zip(weights, history.slopes(2), strict=True)],
    }[score]
    assert same(history.masks(2), largest(scores, 25 + 21))
    assert not same(history.masks(2), largest([one, two], 25 + 21))


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_extreme_densities(density):
    history = train(SGD, Prune(gradual(0, 2, every=1)), 3, density=density)
    assert [int(mask.sum()) for mask in history.masks(3)] == [
        math.floor(density * size) for size in SIZES
    ]
    assert all(np.isfinite(kernel).all() for kernel in history.kernels(3))


def test_only_what_the_filter_selects_is_pruned():
    def second(path, leaf):
        return is_kernel(path, leaf) and path.startswith("two")

    history = train(SGD, Prune(), 1, select=second)
    assert isinstance(history.state.masks["one"]["kernel"], optax.MaskedNode)
    mask = np.asarray(history.state.masks["two"]["kernel"][0])
    assert same([mask], largest_of_each(history.kernels(0)[1:], KEPT[1:]))
    one = PARAMS["one"]["kernel"] - np.float32(0.3) * history.slopes(1)[0]
    np.testing.assert_allclose(history.kernels(1)[0], one, rtol=1e-5, atol=1e-6)


MISTAKES = {
    "a score": (lambda: Prune(score="size"), "score='size'", "'magnitude'", "choose score"),
    "a scope": (lambda: Prune(scope="all"), "scope='all'", "'global'", "choose scope"),
    "a global pattern": (
        lambda: Prune(scope="global", pattern=NofM()),
        "scope='global' with NofM",
        "single entries",
        "scope='layer'",
    ),
    "no gradient yet": (
        lambda: Prune(score="saliency"),
        "prunes before the first step",
        "a gradient",
        "one_shot(1)",
    ),
    "nor here": (
        lambda: Prune(periodic(3), score="saliency"),
        "prunes before the first step",
        "a gradient",
        "begin later",
    ),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
