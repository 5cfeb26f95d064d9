"""Reads of rows, words, their usage, gains and relocation, against loops in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import memory
from tests.ops.examples import assert_names_itself_and_its_cure

RNG = np.random.default_rng(1)
V, M, K, D = 5, 7, 3, 2
TABLE = RNG.normal(size=(M, D)).astype(np.float32)
ROWS = np.array([[0, 4, 6], [1, -1, 3], [2, 2, 5], [0, 1, 99], [6, 3, 4]], np.int32)
VALUES = RNG.normal(size=(V, K)).astype(np.float32)
WORDS = memory.WordRows(ROWS, VALUES)
SLOPES = RNG.normal(size=(V, D)).astype(np.float32)
SLOPES[3] = 0
TARGET = RNG.normal(size=(V, D)).astype(np.float32)


def loss(table, words):
    return 0.5 * jnp.sum((memory.embed(table, words, jnp.arange(V)) - TARGET) ** 2)


@jax.jit
def computed():
    gains = memory.row_gains(TABLE, SLOPES, ROWS, 3)
    importance = memory.row_importance(WORDS, TABLE)
    ids = jnp.array([[4, 0], [-1, V]])
    # One slot more, of value 0, in turn with every row: what its slope is.
    more = jnp.concatenate([ROWS, jnp.zeros((V, 1), jnp.int32)], 1)
    values = jnp.concatenate([VALUES, jnp.zeros((V, 1))], 1)
    by_row = jax.vmap(
        lambda row: jax.grad(
            lambda values: loss(TABLE, memory.WordRows(more.at[:, -1].set(row), values))
        )(values)[:, -1]
    )(jnp.arange(M))
    cotangent = memory.embed(TABLE, WORDS, jnp.arange(V)) - TARGET
    return {
        "embed": memory.embed(TABLE, WORDS, ids),
        "gains": gains,
        "blocks": memory.row_gains(TABLE, SLOPES, ROWS, 3, block=2),
        "positive": memory.row_gains(TABLE, SLOPES, ROWS, 99, positive=True, unit_rows=False),
        "slopes": by_row.T,
        "of slopes": memory.row_gains(TABLE, cotangent, ROWS, M, unit_rows=False),
        "importance": importance,
        "after": memory.relocate_rows(WORDS, gains, importance),
        "strict": memory.relocate_rows(WORDS, gains, importance, min_z=1.0),
        "weak rows": memory.relocate_rows(WORDS, gains, importance, max_share=0.1),
        "twice": memory.relocate_rows(WORDS, gains._replace(rows=ROWS), importance),
        "stays": memory.relocate_rows(WORDS, gains, jnp.full((V, K), jnp.nan)),
        "rows": memory.hash_rows(jax.random.key(0), 400, M, K),
        "usage": memory.usage(memory.Reads(ROWS, VALUES), M),
        "nothing": memory.usage(memory.Reads(ROWS * 0 - 1, VALUES), M),
        "one": memory.usage(memory.Reads(ROWS * 0, VALUES), M),
        "even": memory.usage(memory.Reads(jnp.arange(M), jnp.ones(M)), M),
    }


def embedded():
    kept = (ROWS >= 0) & (ROWS < M)
    read = TABLE[np.where(kept, ROWS, 0)] * np.where(kept, VALUES, 0)[..., None]
    return read.sum(1)


def test_words_are_sums_of_their_rows_and_padding_is_nothing():
    expected = np.concatenate([embedded()[[4, 0]], np.zeros((2, D))]).reshape(2, 2, D)
    np.testing.assert_allclose(computed()["embed"], expected, rtol=1e-5, atol=1e-6)


def table_of_gains(cotangent, *, positive=False, unit=True):
    gains = -cotangent @ TABLE.T
    gains = gains if positive else np.abs(gains)
    gains = gains / np.linalg.norm(TABLE, axis=1) if unit else gains
    there = np.zeros((V, M), bool)
    for word, row in zip(*np.nonzero((ROWS >= 0) & (ROWS < M)), strict=True):
        there[word, ROWS[word, row]] = True
    return gains, there


@pytest.mark.parametrize(("case", "count"), [("gains", 3), ("blocks", 3), ("positive", M)])
def test_gains_are_the_best_of_the_whole_table(case, count):
    plain = case == "positive"
    gains, there = table_of_gains(SLOPES, positive=plain, unit=not plain)
    ranked = np.where(there, -np.inf, gains)
    order = np.argsort(-ranked, axis=1, kind="stable")[:, :count]
    best = np.take_along_axis(ranked, order, 1)
    found = computed()[case]
    np.testing.assert_allclose(found.gains, best, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.rows, np.where(best > -np.inf, order, -1))
    noise = np.sqrt((np.where(there, 0, gains) ** 2).sum(1) / (~there).sum(1))
    np.testing.assert_allclose(found.noise, noise, rtol=1e-5, atol=1e-6)


def test_a_gain_is_the_slope_of_a_row_that_is_not_there():
    found, (_, there) = computed(), table_of_gains(SLOPES)
    rows, gains = found["of slopes"].rows, found["of slopes"].gains
    for word in range(V):
        real = rows[word] >= 0
        assert set(rows[word][real].tolist()) == set(np.flatnonzero(~there[word]))
        expected = np.abs(found["slopes"][word])[rows[word][real]]
        np.testing.assert_allclose(gains[word][real], expected, rtol=1e-4, atol=1e-5)


def test_the_row_that_does_least_is_exchanged_for_the_one_that_gains_most():
    found = computed()
    importance = np.abs(VALUES) * np.linalg.norm(TABLE, axis=1)[np.clip(ROWS, 0, M - 1)]
    importance = np.where((ROWS >= 0) & (ROWS < M), importance, 0)
    np.testing.assert_allclose(found["importance"], importance, rtol=1e-5)
    rows, values = ROWS.copy(), VALUES.copy()
    for word in (0, 1, 2, 4):  # the slope of word 3 is 0, so it gains nothing
        slot = importance[word].argmin()
        rows[word, slot], values[word, slot] = found["gains"].rows[word, 0], 0
    np.testing.assert_array_equal(found["after"].rows, rows)
    np.testing.assert_array_equal(found["after"].values, values)


def test_a_row_that_a_word_needs_does_not_go():
    importance = computed()["importance"]
    weak = importance.min(1) <= 0.1 * importance.sum(1)
    gained = (computed()["after"].rows != ROWS).any(1)
    assert 0 < (weak & gained).sum() < gained.sum()
    moved = (computed()["weak rows"].rows != ROWS).any(1)
    np.testing.assert_array_equal(moved, weak & gained)


def test_weak_gains_and_rows_that_are_there_move_nothing():
    found = computed()
    moved = (found["strict"].rows != ROWS).any(1)
    ratio = found["gains"].gains[:, 0] / np.maximum(found["gains"].noise, 1e-9)
    np.testing.assert_array_equal(moved, ratio > 1)
    assert 0 < moved.sum() < V
    for case in ("twice", "stays"):
        np.testing.assert_array_equal(found[case].rows, ROWS)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint32])
def test_rows_in_narrow_integers_name_every_row_of_a_table_and_none(dtype):
    table = jnp.ones((300, 1)).at[299].set(3).at[261].set(2)
    words = memory.WordRows(jnp.array([[5, 6]], dtype), jnp.array([[1.0, 2.0]]))
    gains = memory.row_gains(table, [[1.0]], words.rows, 2, unit_rows=False)
    np.testing.assert_array_equal(gains.rows, [[299, 261]])
    after = memory.relocate_rows(words, gains, words.values)
    np.testing.assert_array_equal(after.rows, [[299, 6]])
    assert after.rows.dtype == jnp.int32
    reads = memory.word_reads(words, [-1])
    np.testing.assert_array_equal(reads.rows, [[-1, -1]])
    np.testing.assert_array_equal(memory.embed(table.at[255].set(np.nan), words, [-1]), [[0]])


def test_a_candidate_that_no_row_of_32_bits_can_name_moves_nothing():
    words = memory.WordRows(jnp.array([[0, 1]], jnp.int32), jnp.ones((1, 2)))
    unsigned = memory.RowGains(jnp.array([[2**32 - 5]], jnp.uint32), jnp.ones((1, 1)), jnp.ones(1))
    after = memory.relocate_rows(words, unsigned, words.values)
    np.testing.assert_array_equal(after.rows, [[0, 1]])
    with jax.enable_x64(True):
        gains = memory.RowGains(jnp.array([[2**32 + 5]]), jnp.ones((1, 1)), jnp.ones(1))
        after = memory.relocate_rows(words, gains, words.values)
        long = memory.relocate_rows((words.rows.astype(int), words.values), gains, words.values)
    np.testing.assert_array_equal(after.rows, [[0, 1]])
    np.testing.assert_array_equal(long.rows, [[2**32 + 5, 1]])
    assert (after.rows.dtype, long.rows.dtype) == (jnp.int32, jnp.int64)


def test_a_share_of_unknown_importance_lets_no_row_go():
    gains = memory.RowGains([[7]], [[1.0]], [0.1])
    words = memory.WordRows([[0, 1, 2]], [[1.0, 1.0, 1.0]])
    for importance, row in (([[5.0, np.nan, 4.0]], 2), ([[5.0, 9.0, 4.0]], 7)):
        after = memory.relocate_rows(words, gains, importance, max_share=0.3)
        np.testing.assert_array_equal(after.rows, [[0, 1, row]])


def test_importance_keeps_its_size_and_empty_slots_have_no_slope():
    table = jnp.array([[np.nan, 1.0], [3e-24, 4e-24], [3e30, 4e30]])
    words = memory.WordRows([[1, 2, -1]], jnp.array([[-2.0, 1.0, np.nan]]))
    importance = memory.row_importance(words, table)
    np.testing.assert_allclose(importance, [[1e-23, 5e30, 0]], rtol=1e-6)

    def total(values, table):
        return memory.row_importance(words._replace(values=values), table).sum()

    of_values, of_table = jax.jit(jax.grad(total, argnums=(0, 1)))(words.values, table)
    np.testing.assert_allclose(of_values, [[-5e-24, 5e30, 0]], rtol=1e-6)
    np.testing.assert_allclose(of_table, [[0, 0], [1.2, 1.6], [0.6, 0.8]], rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_gains_do_not_depend_on_the_size_of_the_table(scale):
    gains = jax.jit(lambda table: memory.row_gains(table, SLOPES, ROWS, 3))
    for found, expected in zip(gains(TABLE * np.float32(scale)), gains(TABLE), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    huge = memory.usage(memory.Reads(jnp.arange(M), jnp.full(M, 3e38)), M)
    np.testing.assert_allclose(huge.perplexity, M, rtol=1e-5)
    assert np.isnan(
        memory.usage(memory.Reads(jnp.arange(2), jnp.array([jnp.inf, 2])), 2).perplexity
    )


def test_hashed_rows_lie_in_parts_of_their_own_and_reach_all():
    rows = np.asarray(computed()["rows"])
    ends = np.arange(K + 1) * M // K
    for slot in range(K):
        assert set(rows[:, slot]) == set(range(ends[slot], ends[slot + 1]))


def test_usage_is_the_perplexity_of_the_weights():
    found = computed()["usage"]
    weights = np.zeros(M)
    kept = (ROWS >= 0) & (ROWS < M)
    np.add.at(weights, ROWS[kept], np.abs(VALUES[kept]))
    np.testing.assert_allclose(found.weights, weights, rtol=1e-5)
    shares = weights[weights > 0] / weights.sum()
    np.testing.assert_allclose(found.perplexity, np.exp(-(shares * np.log(shares)).sum()), 1e-5)
    assert found.used == (weights > 0).sum()
    ends = [computed()[case] for case in ("nothing", "one", "even")]
    np.testing.assert_allclose([one.perplexity for one in ends], [0, 1, M], rtol=1e-6)
    assert [int(one.used) for one in ends] == [0, 1, M]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: memory.hash_rows(jax.random.key(0), 4, 2, 3),
            ("count=3 with num_rows=2", "one row for every slot", "lower count"),
        ),
        (
            lambda: memory.embed(TABLE, (ROWS, VALUES[1:]), [0]),
            ("rows of shape (5, 3), values of shape (4, 3)", "the same shape", "reshape"),
        ),
        (
            lambda: memory.embed(TABLE, WORDS, [0.5]),
            ("ids of dtype float32", "integers", "convert ids"),
        ),
        (
            lambda: memory.row_gains(TABLE, SLOPES[:, :1], ROWS),
            ("cotangent of shape (5, 1)", "(any, 2)", "reshape"),
        ),
        (
            lambda: memory.relocate_rows(WORDS, (ROWS, VALUES), VALUES),
            ("gains=", "RowGains", "row_gains gives"),
        ),
        (
            lambda: memory.read_rows(TABLE, (ROWS, VALUES[0])),
            ("rows of shape (5, 3), shares of shape (3,)", "the same shape", "reshape"),
        ),
        (lambda: memory.usage(WORDS, 0), ("num_rows=0", "from 1", "pass")),
    ],
)
def test_what_is_wrong_is_told(call, words):
    assert_names_itself_and_its_cure(lambda: jax.eval_shape(call), *words)
