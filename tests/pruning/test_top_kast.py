import numpy as np
import optax
import pytest

from sparse_hyper_jax.pruning import TopKAST
from sparse_hyper_jax.reparam import powerprop
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure
from tests.pruning.examples import SIZES, largest, same, train, unchanged

USED = [int(0.2 * size) for size in SIZES]
TRAINED = [int(0.5 * size) for size in SIZES]
RATE = np.float32(0.3)


def each(scores, counts):
    return [largest([one], count)[0] for one, count in zip(scores, counts, strict=True)]


def top_kast(**options):
    return TopKAST(**{"trained_extra": 0.3, "every": 1, **options})


def test_both_sets_are_the_largest_weights_and_change():
    history = train(optax.sgd(RATE), top_kast(), 6, density=0.2)
    for step in range(7):
        assert same(history.masks(step), each(history.kernels(step), USED)), step
        assert same(history.updated(step), each(history.kernels(step), TRAINED)), step
        for used, trained in zip(history.masks(step), history.updated(step), strict=True):
            assert not (used & ~trained).any()
            assert used.sum() < trained.sum()
    assert not same(history.masks(0), history.masks(6))
    # The sets changed in both directions: what was trained beside the network grew into it.
    entered = [
        now & ~at_first for now, at_first in zip(history.masks(6), history.masks(0), strict=True)
    ]
    assert any(one.any() for one in entered)


def test_the_sets_change_every_so_often():
    history = train(optax.sgd(RATE), top_kast(every=3), 7, density=0.2)
    for step in range(8):
        last = step - step % 3
        assert same(history.masks(step), each(history.kernels(last), USED))
        assert same(history.updated(step), each(history.kernels(last), TRAINED))


@pytest.mark.parametrize("penalty", [0.0, 0.05])
def test_nothing_but_the_trained_set_moves(penalty):
    inner = optax.chain(optax.clip(0.5), optax.adamw(0.1, weight_decay=0.1))
    history = train(inner, top_kast(penalty=penalty), 6, density=0.2)
    for step in range(6):
        pairs = zip(history.kernels(step), history.kernels(step + 1), strict=True)
        for (before, after), trained in zip(pairs, history.updated(step), strict=True):
            still = unchanged(before, after)
            assert still[~trained].all()
            assert not still[trained].any()


def test_the_optimizer_sees_no_gradient_outside_the_trained_set():
    inner = optax.sgd(RATE, momentum=0.9)
    history = train(inner, top_kast(every=100, penalty=0.1), 3, density=0.2)
    trace = history.state.inner[0].trace
    for name, trained in zip(("one", "two"), history.updated(0), strict=True):
        moment = np.asarray(trace[name]["kernel"][3])
        assert not moment[~trained].any()
        assert moment[trained].all()


@pytest.mark.parametrize("alpha", [None, 2.0])
def test_the_penalty_pulls_harder_at_what_is_not_used(alpha):
    options = {} if alpha is None else {"reparam": powerprop(alpha)}
    history = train(optax.sgd(RATE), top_kast(penalty=0.1), 3, density=0.2, **options)
    for step in range(3):
        moved = []
        for theta, slope, used, trained in zip(
            history.kernels(step),
            history.slopes(step + 1),
            history.masks(step),
            history.updated(step),
            strict=True,
        ):
            weights = theta if alpha is None else theta * np.abs(theta)
            pull = np.where(used, 1, used.size / used.sum())
            gradient = slope + np.float32(0.1) * weights * pull
            if alpha is not None:
                gradient = gradient * 2 * np.abs(theta)
            moved.append(np.where(trained, theta - RATE * gradient, theta))
        assert_close(history.kernels(step + 1), moved, rtol=1e-5, atol=1e-6)


def test_biases_get_no_penalty():
    with_it, without = (
        train(optax.sgd(RATE), top_kast(penalty=penalty), 3, density=0.2) for penalty in (0.5, 0.0)
    )
    for name in ("one", "two"):
        assert unchanged(with_it.params[name]["bias"], without.params[name]["bias"]).all()


def test_the_sets_are_those_of_the_weights_under_a_power():
    reparam = powerprop(2.0)
    history = train(optax.sgd(RATE), top_kast(), 4, density=0.2, reparam=reparam)
    for step in (0, 4):
        weights = [theta * np.abs(theta) for theta in history.kernels(step)]
        assert same(history.masks(step), each(weights, USED))
    for step in range(4):
        for before, after, trained in zip(
            history.kernels(step), history.kernels(step + 1), history.updated(step), strict=True
        ):
            assert unchanged(before, after)[~trained].all()


@pytest.mark.parametrize(("density", "more"), [(0.0, 0.3), (0.8, 0.5), (1.0, 0.1), (0.3, 0.0)])
def test_extreme_densities(density, more):
    history = train(optax.sgd(RATE), top_kast(trained_extra=more, penalty=0.1), 2, density=density)
    for size, used, trained, kernel in zip(
        SIZES, history.masks(2), history.updated(2), history.kernels(2), strict=True
    ):
        assert used.sum() == int(density * size)
        assert trained.sum() == int(min(1.0, density + more) * size)
        assert np.isfinite(kernel).all()


MISTAKES = {
    "no period": (lambda: TopKAST(every=0), "every=0", "at least 1", "pass a static int"),
    "a percentage": (
        lambda: TopKAST(trained_extra=10),
        "trained_extra=10",
        "from 0 to 1",
        "change",
    ),
    "less": (lambda: TopKAST(trained_extra=-0.1), "trained_extra=-0.1", "from 0 to 1", "change"),
    "nan": (lambda: TopKAST(trained_extra=np.nan), "trained_extra=nan", "from 0 to 1", "change"),
    "a reward": (lambda: TopKAST(penalty=-1), "penalty=-1", "at least 0", "change penalty"),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
