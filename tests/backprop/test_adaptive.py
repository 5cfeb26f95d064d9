import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.backprop import AdaptiveLadder, AdaptiveTopK, UnifiedTopK, init_memory
from tests.backprop.examples import (
    KEY,
    ROWS,
    N,
    largest,
    layer_arrays,
    layer_gradients,
    most,
    pull,
    random_array,
)
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

SETTINGS = {
    "all of it": AdaptiveTopK(),
    "shares": AdaptiveTopK(0.1, 0.6),
    "damped": AdaptiveTopK(0.2, 0.9, 0.5, 2),
    "nothing": AdaptiveTopK(0.0, 0.0),
}


def memory_with(peak=0.0, kind="none", shape=(ROWS, N)):
    return init_memory(kind, shape, adaptive=True)._replace(peak=jnp.float32(peak))


def budgets(one, cotangent, peak):
    relative = np.abs(cotangent).sum(-1) / max(peak, np.abs(cotangent).sum(-1).max())
    share = (one.least + relative * (one.most - one.least)) * one.damping**one.depth
    return np.clip(np.round(cotangent.shape[-1] * share), 1, cotangent.shape[-1]).astype(int)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("peak", [0.0, 11.0])
def test_each_row_gets_the_budget_of_its_size(name, peak):
    one = SETTINGS[name]
    cotangent = np.float32([[0.1], [0.7], [1], [0.4]]) * random_array(ROWS, N, seed=3)
    ours, _ = pull(None, cotangent, memory_with(peak), sparsifier=one)
    ks = budgets(one, cotangent, peak)
    expected = [
        np.where(largest(np.abs(row), k), row, 0) for row, k in zip(cotangent, ks, strict=True)
    ]
    assert (ours == np.stack(expected)).all()


def test_larger_rows_get_larger_budgets():
    scales = np.linspace(0, 1, 40, dtype=np.float32)[:, None]
    ours, _ = pull(None, scales * random_array(1, 20), memory_with(), sparsifier=AdaptiveTopK())
    counts = np.count_nonzero(ours, axis=-1)[1:]
    assert (np.diff(counts) >= 0).all()
    assert set(counts) == set(range(1, 21))


@pytest.mark.parametrize(("depth", "expected"), [(0, 16), (1, 8), (2, 4), (3, 2), (4, 1), (5, 1)])
def test_at_the_peak_the_share_is_the_most_damped_by_depth(depth, expected):
    one = AdaptiveTopK(0.0, 0.8, 0.5, depth)
    ours, _ = pull(None, random_array(1, 20), memory_with(), sparsifier=one)
    assert np.count_nonzero(ours) == expected


@pytest.mark.parametrize("name", SETTINGS)
def test_a_row_keeps_at_least_one_component(name):
    ours, _ = pull(None, random_array(ROWS, N), memory_with(1e9), sparsifier=SETTINGS[name])
    assert (np.count_nonzero(ours, axis=-1) >= 1).all()


@pytest.mark.parametrize("one", [AdaptiveTopK(), AdaptiveLadder()])
def test_a_first_cotangent_of_zeros_does_no_harm(one):
    ours, memory = pull(None, np.zeros((ROWS, N), np.float32), memory_with(), sparsifier=one)
    assert not ours.any()
    assert memory.peak == 0
    ours, memory = pull(None, np.ones((ROWS, N), np.float32), memory, sparsifier=one)
    assert (ours == 1).all()
    assert memory.peak == N


def test_the_peak_never_falls():
    memory, peaks = memory_with(), []
    for scale in (1, 4, 2, 0, 5):
        cotangent = np.float32(scale) * np.ones((ROWS, N), np.float32)
        _, memory = pull(None, cotangent, memory, sparsifier=AdaptiveTopK())
        peaks.append(float(memory.peak))
    assert peaks == [N, 4 * N, 4 * N, 4 * N, 5 * N]


def test_the_peak_is_that_of_the_corrected_cotangent():
    memory = memory_with(kind="slot")._replace(residue=np.ones((ROWS, N), np.float32))
    for select_on, expected in [("corrected", 3 * N), ("gradient", 2 * N)]:
        _, following = pull(
            None, np.full((ROWS, N), 2, np.float32), memory, sparsifier=AdaptiveTopK(),
            select_on=select_on,
        )  # fmt: skip
        assert following.peak == expected


@pytest.mark.parametrize(
    ("n", "count", "expected"),
    [(8, 7, (1, 2, 4, 8)), (20, 3, (5, 10, 20)), (7, 2, (4, 7)), (1, 7, (1,)), (500, 1, (500,))],
)
def test_rungs_halve(n, count, expected):
    assert AdaptiveLadder(num_rungs=count).budgets(n) == expected


def test_the_rung_is_the_smallest_that_is_enough():
    ladder, n, peak = AdaptiveLadder(num_rungs=4), 20, 100.0
    cotangents = np.linspace(0, 5, 41, dtype=np.float32)[:, None, None] * np.ones((1, 3, n), "f")
    ours = jax.vmap(lambda cotangent: ladder.rung(cotangent, jnp.float32(peak)))(cotangents)
    wanted = [np.clip(np.round(n * (20 * one[0, 0] / peak)), 1, n) for one in cotangents]
    expected = [np.flatnonzero(np.array([3, 5, 10, 20]) >= k)[0] for k in wanted]
    assert ours.tolist() == expected
    assert set(expected) == {0, 1, 2, 3}


@pytest.mark.parametrize(("scale", "k"), [(1.0, 8), (0.5, 4), (0.45, 4), (0.2, 2), (0.05, 1)])
def test_every_rung_is_the_layer_of_that_budget(scale, k):
    cotangent, ladder = random_array(ROWS, N), AdaptiveLadder()
    cotangent *= np.float32(scale) / np.abs(cotangent).sum(-1, keepdims=True)
    memory = memory_with(1.0, "slot")
    ours, following = layer_gradients(KEY, layer_arrays(), cotangent, memory, sparsifier=ladder)
    other, expected = layer_gradients(
        KEY, layer_arrays(), cotangent, memory, sparsifier=UnifiedTopK(k)
    )
    assert_close((ours, following), (other, expected))
    assert np.asarray(ours[1]).any(1).sum() == k
    masked, _ = pull(None, cotangent, memory, sparsifier=ladder)
    assert (masked == np.where(most(cotangent, k), cotangent, 0)).all()


def test_a_ladder_that_is_not_finite_propagates_everything():
    cotangent = random_array(ROWS, N)
    cotangent[1, 2] = np.nan
    memory = memory_with(1.0, "slot")
    ours, _ = layer_gradients(KEY, layer_arrays(), cotangent, memory, sparsifier=AdaptiveLadder())
    assert np.asarray(ours[1]).any(1).all()


MISTAKES = {
    "upside down": (lambda: AdaptiveTopK(0.5, 0.2), "least=0.5, most=0.2", "least <= most", ""),
    "too much": (lambda: AdaptiveLadder(0.5, 1.2), "most=1.2", "at most 1", "most"),
    "no damping": (
        lambda: AdaptiveTopK(damping=0),
        "damping=0",
        "above 0 and at most 1",
        "damping",
    ),
    "a depth below 0": (lambda: AdaptiveTopK(depth=-1), "depth=-1", "at least 0", "depth"),
    "no rungs": (lambda: AdaptiveLadder(num_rungs=0), "num_rungs=0", "at least 1", "num_rungs"),
    "no peak": (
        lambda: pull(None, np.ones((2, 3), "f"), init_memory("none"), sparsifier=AdaptiveTopK()),
        "AdaptiveTopK without a peak",
        "largest cotangent so far",
        "adaptive=True",
    ),
    "no memory": (
        lambda: pull(None, np.ones((2, 3), "f"), None, sparsifier=AdaptiveLadder()),
        "AdaptiveLadder without a peak",
        "a memory",
        "adaptive=True",
    ),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
