import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import backprop
from sparse_hyper_jax.backprop import sparsify
from sparse_hyper_jax.backprop.choice import budget
from sparse_hyper_jax.backprop.sparsifiers import inclusion_probabilities
from tests.backprop.examples import BY_NUMPY, FIXED, KEY, RANDOM, ROWS, N, random_array
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

sparse = jax.jit(sparsify, static_argnames="sparsifier")
probabilities = jax.jit(inclusion_probabilities, static_argnums=1)
MATRIX = random_array(ROWS, N)
COUNTS = {
    "TopK": 3,
    "UnifiedTopK": 3,
    "CandidateTopK": 2,
    "BlockTopK": 4,
    "RandomK": 3,
    "RandomK, unscaled": 3,
    "UnifiedRandomK": 3,
    "UnifiedRandomK, unscaled": 3,
}


def heavy_tailed(rows, n):
    return np.random.default_rng(1).standard_t(2, size=(rows, n)).astype(np.float32)


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_propagates_what_numpy_propagates(name, seed):
    matrix = random_array(ROWS, N, seed=seed)
    ours = sparse(None, matrix, sparsifier=FIXED[name])
    assert (ours == np.where(BY_NUMPY[name](matrix), matrix, 0)).all()


@pytest.mark.parametrize("name", COUNTS)
def test_exactly_the_budget_is_propagated(name):
    for seed in range(3):
        ours = sparse(jax.random.key(seed), MATRIX, sparsifier=(FIXED | RANDOM)[name])
        assert (np.count_nonzero(ours, axis=-1) == COUNTS[name]).all()


@pytest.mark.parametrize("name", ["TopK", "UnifiedTopK", "CandidateTopK", "BlockTopK"])
def test_equal_magnitudes_do_not_exceed_the_budget(name):
    ours = sparse(None, np.where(MATRIX > 0, 1, -1).astype(np.float32), sparsifier=FIXED[name])
    assert (np.count_nonzero(ours, axis=-1) == COUNTS[name]).all()


@pytest.mark.parametrize("name", ["UnifiedTopK", "BlockTopK", "UnifiedRandomK"])
def test_rows_share_the_columns(name):
    support = np.asarray(sparse(KEY, MATRIX, sparsifier=(FIXED | RANDOM)[name])) != 0
    assert (support == support[0]).all()


def test_rows_draw_their_own_components():
    support = np.asarray(sparse(KEY, MATRIX, sparsifier=RANDOM["RandomK"])) != 0
    assert len(np.unique(support, axis=0)) > 1


@pytest.mark.parametrize("kind", [backprop.RandomK, backprop.UnifiedRandomK])
@pytest.mark.parametrize(("rescale", "factor"), [(True, N / 3), (False, 1)])
def test_random_components_are_rescaled_if_asked(kind, rescale, factor):
    ours = np.asarray(sparse(KEY, MATRIX, sparsifier=kind(3, rescale)))
    assert_close(ours, np.where(ours != 0, factor * MATRIX, 0))


@pytest.mark.parametrize("name", ["RandomK, unscaled", "UnifiedRandomK, unscaled"])
def test_every_component_is_equally_likely(name):
    keys = jax.random.split(KEY, 4000)
    draws = jax.vmap(lambda key: sparsify(key, jnp.ones((2, N)), RANDOM[name]))(keys)
    share = 3 / N
    assert (np.abs(draws.mean(0) - share) < 4.5 * np.sqrt(share * (1 - share) / 4000)).all()


@pytest.mark.parametrize(
    ("k", "n", "expected"),
    [(3, 8, 3), (8, 8, 8), (1, 8, 1), (1.0, 8, 8), (0.04, 500, 20), (0.04, 5, 1), (0.5, 7, 4)],
)
def test_a_budget_is_a_count_or_a_share(k, n, expected):
    assert budget(k, n) == expected


def test_one_component_and_all_of_them_are_different_programs():
    one, everything = backprop.TopK(1), backprop.TopK(1.0)
    assert one != everything
    assert hash(one) != hash(everything)
    assert np.count_nonzero(sparse(None, MATRIX, sparsifier=one)) == ROWS
    assert np.count_nonzero(sparse(None, MATRIX, sparsifier=everything)) == ROWS * N


def test_equal_descriptions_are_one_program():
    assert backprop.TopK(3) == backprop.TopK(3)
    assert hash(backprop.TopK(3)) == hash(backprop.TopK(3))
    assert backprop.TopK(3) != backprop.UnifiedTopK(3)
    assert backprop.RandomK(3) != backprop.RandomK(3, rescale=False)


@pytest.mark.parametrize("k", [1, 4, 17, 40])
def test_the_largest_keep_the_direction_and_contract_the_rest(k):
    matrix = heavy_tailed(500, 40)
    ours = np.asarray(sparse(None, matrix, sparsifier=backprop.TopK(k)), np.float64)
    matrix = matrix.astype(np.float64)
    cosine = (ours * matrix).sum(-1) / np.linalg.norm(ours, axis=-1)
    cosine /= np.linalg.norm(matrix, axis=-1)
    rest, whole = ((matrix - ours) ** 2).sum(-1), (matrix**2).sum(-1)
    assert (cosine >= np.sqrt(k / 40) - 1e-12).all()
    assert (rest <= (1 - k / 40) * whole * (1 + 1e-12)).all()


def test_equal_magnitudes_reach_the_bound():
    ours = np.asarray(sparse(None, np.ones((1, 8), np.float32), sparsifier=backprop.TopK(2)))
    assert ours.sum() / (np.linalg.norm(ours) * np.sqrt(8)) == pytest.approx(np.sqrt(2 / 8))


def test_the_best_columns_keep_their_share():
    matrix = heavy_tailed(5, 40)
    columns = np.asarray(sparse(None, matrix, sparsifier=backprop.UnifiedTopK(10)))
    blocks = np.asarray(sparse(None, matrix, sparsifier=backprop.BlockTopK(10, block=5)))
    assert np.abs(columns).sum() >= 10 / 40 * np.abs(matrix).sum()
    assert (blocks**2).sum() >= 10 / 40 * (matrix**2).sum()


def by_bisection(row, k):
    low, high = 0.0, 2 * k / row[row > 0].min()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(1, middle * row).sum() < k else (low, middle)
    return np.minimum(1, high * row)


@pytest.mark.parametrize("k", [1, 3, 10, 19])
def test_inclusion_probabilities_solve_their_equation(k):
    size = np.abs(heavy_tailed(30, 20))
    size[3, :5] = 0
    ours = probabilities(size, min(k, 15))
    rows = [by_bisection(row, min(k, 15)) for row in size.astype(np.float64)]
    assert_close(ours, np.stack(rows), rtol=1e-4)
    assert_close(np.sum(ours, axis=-1), np.full(30, min(k, 15)), rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_inclusion_probabilities_do_not_depend_on_the_scale(scale):
    size = np.abs(random_array(3, 20))
    assert_close(probabilities(np.float32(scale) * size, 4), probabilities(size, 4), rtol=1e-4)


def test_rows_with_few_components_keep_them_all():
    matrix = np.zeros((4, N), np.float32)
    matrix[1, 2], matrix[2, :2], matrix[3, :3] = 5, [-1, 1e-6], [1, 2, 3]
    ours = sparse(KEY, matrix, sparsifier=backprop.ImportanceSampling(3))
    assert_close(ours, matrix)


def test_importance_sampling_is_unbiased():
    matrix = random_array(2, N, seed=3)
    keys = jax.random.split(KEY, 8000)
    draws = jax.vmap(lambda key: sparsify(key, matrix, backprop.ImportanceSampling(3)))(keys)
    draws = np.asarray(draws, np.float64)
    error, deviation = draws.mean(0) - matrix, draws.std(0) / np.sqrt(len(keys))
    assert (np.abs(error) <= 4.5 * deviation + 1e-6).all()
    assert abs(np.count_nonzero(draws, axis=-1).mean() - 3) < 0.05
    assert deviation.max() > 1e-3


@pytest.mark.parametrize("name", [*FIXED, "ImportanceSampling"])
@pytest.mark.parametrize("fault", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_hidden(name, fault):
    matrix = MATRIX.copy()
    matrix[2, 5] = fault
    ours = sparse(KEY, matrix, sparsifier=(FIXED | RANDOM)[name])
    assert not np.isfinite(ours[2]).all()
    assert np.isfinite(np.delete(ours, 2, axis=0)).all()


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_stays_and_is_summed_in_single(name, dtype):
    matrix = jnp.asarray(MATRIX, dtype)
    ours = sparse(None, matrix, sparsifier=FIXED[name])
    wide = np.asarray(matrix, np.float32)
    assert ours.dtype == dtype
    assert (np.asarray(ours, np.float32) == np.where(BY_NUMPY[name](wide), wide, 0)).all()


@pytest.mark.parametrize("size", [1e-36, 1e-25, 1e25, 1e38])
def test_blocks_of_every_size_are_compared_right(size):
    """Beside much larger ones too: their squares would vanish or overflow."""
    row = np.float32(size) * np.array([[1.0, 2, 2, 1, 3, 0, 0, 1]], "f")
    ours = sparse(None, row, sparsifier=backprop.BlockTopK(4, block=2))
    assert np.flatnonzero(ours).tolist() == [0, 1, 4]
    if size < 1:
        row[0, 6:] = 1, 0
        ours = sparse(None, row, sparsifier=backprop.BlockTopK(4, block=2))
        assert np.flatnonzero(ours).tolist() == [4, 6]


@pytest.mark.parametrize("size", [1e-36, 1e37])
def test_probabilities_have_no_unit(size):
    row = np.array([[1.0, 2, 4, 8, 0, 1, 3, 5]], "f")
    got = inclusion_probabilities(jnp.asarray(np.float32(size) * row), 3)
    np.testing.assert_allclose(got, inclusion_probabilities(jnp.asarray(row), 3), rtol=1e-5)
    np.testing.assert_allclose(got.sum(), 3, rtol=1e-5)


def test_a_threshold_is_not_rounded_to_16_bits():
    row = jnp.array([[0.69921875, 0.703125]], jnp.bfloat16)
    assert sparse(None, row, sparsifier=backprop.Threshold(0.7)).tolist() == [[0, 0.703125]]


WRONG = {
    "no component": (lambda: backprop.TopK(0), "k=0", "at least 1", "pass a static int"),
    "no share": (lambda: backprop.TopK(float("nan")), "k=nan", "(0, 1]", "an int"),
    "of columns": (lambda: backprop.UnifiedTopK(0), "k=0", "at least 1", "pass a static int"),
    "a negative share": (lambda: backprop.TopK(-0.1), "k=-0.1", "(0, 1]", "an int for a count"),
    "of chance": (lambda: backprop.RandomK(2.0), "k=2.0", "(0, 1]", "an int for a count"),
    "of draws": (lambda: backprop.ImportanceSampling(-1), "k=-1", "at least 1", "pass a static"),
    "of candidates": (
        lambda: backprop.CandidateTopK(1, 0),
        "candidates=0",
        "at least 1",
        "pass a static int",
    ),
    "traced": (
        lambda: jax.eval_shape(lambda k: sparsify(None, MATRIX, backprop.TopK(k)), 3),
        "k=",
        "an int",
        "pass a static int",
    ),
    "a word for a flag": (
        lambda: backprop.RandomK(1, rescale="no"),
        "rescale='no'",
        "True or False",
        "change rescale",
    ),
    "an axis that is no name": (
        lambda: backprop.UnifiedTopK(1, axis_name=0),
        "axis_name=0",
        "an instance of str",
        "change axis_name",
    ),
    "an array as threshold": (
        lambda: backprop.Threshold(jnp.array(0.5)),
        "tau=Array(0.5",
        "a static number",
        "pass a float",
    ),
    "a share of more": (
        lambda: backprop.AdaptiveTopK(0.1, 1.5),
        "most=1.5",
        "at most 1",
        "change most",
    ),
    "a matrix in words": (
        lambda: sparsify(None, "matrix", backprop.TopK(1)),
        "cotangent='matrix'",
        "of floats",
        "convert cotangent",
    ),
    "a seed": (
        lambda: sparsify(3, MATRIX, backprop.RandomK(1)),
        "key=3",
        "one random key",
        "jax.random.key(seed)",
    ),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), WRONG.values(), ids=WRONG)
def test_options_are_checked_where_they_are_given(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)


def test_counts_of_numpy_are_counts():
    ours = sparsify(None, MATRIX, backprop.TopK(np.int64(3)))
    np.testing.assert_array_equal(ours, sparsify(None, MATRIX, backprop.TopK(3)))
    half = sparsify(None, MATRIX.tolist(), backprop.TopK(np.float32(0.5)))
    np.testing.assert_array_equal(half, sparsify(None, MATRIX, backprop.TopK(0.5)))


def call(sparsifier, key=KEY, matrix=MATRIX):
    return lambda: sparsify(key, matrix, sparsifier)


MISTAKES = {
    "more than all": (call(backprop.UnifiedTopK(9)), "k=9 of 8", "at most 8", "lower k"),
    "a truth value": (lambda: backprop.TopK(True), "k=True", "an int", "pass a static int"),
    "few candidates": (
        call(backprop.CandidateTopK(3, 2)),
        "k=3 of candidates=2",
        "at least as many",
        "raise candidates",
    ),
    "blocks that do not fit": (
        call(backprop.BlockTopK(3, block=3)),
        "block=3 for 8",
        "a divisor",
        "pad the layer",
    ),
    "empty blocks": (
        lambda: backprop.BlockTopK(3, block=0),
        "block=0",
        "at least 1",
        "block",
    ),
    "no key": (
        call(backprop.ImportanceSampling(3), key=None),
        "key=None with ImportanceSampling",
        "a typed key",
        "jax.random.key",
    ),
    "a number": (
        call(0.04),
        "sparsifier=0.04",
        "a Sparsifier",
        "sparse_hyper_jax.backprop",
    ),
    "a vector": (call(backprop.TopK(3), matrix=MATRIX[0]), "(8,)", "(rows, n)", "reshape"),
    "a state": (call(backprop.AdaptiveTopK()), "AdaptiveTopK", "without a state", "memory"),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
