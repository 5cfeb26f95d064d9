"""An embedding of few rows: its formula, its probe, and targets that relocation lets it reach."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sparse_hyper_jax import conv, memory, nn
from tests.ops.examples import assert_names_itself_and_its_cure

WORDS, ROWS, COUNT, FEATURES = 12, 6, 2, 6
RNG = np.random.default_rng(0)
HIDDEN = np.stack([RNG.permutation(ROWS)[:COUNT] for _ in range(WORDS)])
AMOUNTS = RNG.choice([-1.0, 1.0], (WORDS, COUNT)) * RNG.uniform(1, 2, (WORDS, COUNT))
TARGET = np.zeros((WORDS, FEATURES), np.float32)
np.put_along_axis(TARGET, HIDDEN, AMOUNTS.astype(np.float32), 1)


def loss(layer):
    return jnp.sum((layer(jnp.arange(WORDS)) - TARGET) ** 2)


@nnx.jit
def made():
    return nn.SparseEmbedding(WORDS, ROWS, COUNT, FEATURES, rngs=nnx.Rngs(0))


def computed():
    # Drawn by a program of its own: drawn where they are used, numbers may be rounded twice.
    return computed_of(made())


@nnx.jit
def computed_of(layer):
    before = layer.words, layer.table.get_value(), layer(jnp.array([[3, -1], [WORDS, 0]]))
    half = nn.SparseEmbedding(4, 3, 1, 2, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    fresh = nn.relocate_rows(layer, loss)
    return {
        "before": before,
        "after": layer.words,
        "fresh": fresh,
        "half": half(jnp.arange(4)),
        "trained": trained(made(), relocate=True),
        "without": trained(made(), relocate=False),
    }


def trained(layer, *, relocate):
    """Rows of the table are known here, so that only the choice of rows and values is learned."""
    layer.table.set_value(jnp.eye(ROWS, FEATURES))
    optimizer = memory.lazy_rows(optax.adam(0.1))
    kind, parameters, rest = nnx.split(layer, nnx.Param, ...)

    def step(carried, number):
        parameters, rest, state = carried
        slopes = jax.grad(lambda parameters: loss(nnx.merge(kind, parameters, rest)))(parameters)
        slopes["table"].set_value(jnp.zeros((ROWS, FEATURES)))
        updates, state = optimizer.update(slopes, state, parameters)
        parameters = optax.apply_updates(parameters, updates)
        if not relocate:
            return (parameters, rest, state), None
        moved = nnx.merge(kind, parameters, rest)
        fresh = nn.relocate_rows(moved, loss, max_share=0.2)
        _, *after = nnx.split(moved, nnx.Param, ...)
        cleared = conv.clear_moments(optimizer, state, fresh)
        now = (parameters, rest, state), (*after, cleared)
        return jax.tree.map(lambda one, two: jnp.where(number % 60 == 59, two, one), *now), None

    state = optimizer.init(parameters)
    last, _ = jax.lax.scan(step, (parameters, rest, state), jnp.arange(420))
    layer = nnx.merge(kind, last[0], last[1])
    return loss(layer), layer.words, layer.table.get_value()


def test_an_embedding_is_the_sum_of_its_rows():
    words, table, y = computed()["before"]
    read = np.asarray(table)[np.asarray(words.rows)] * np.asarray(words.values)[..., None]
    expected = np.stack([read.sum(1)[3], np.zeros(FEATURES), np.zeros(FEATURES), read.sum(1)[0]])
    np.testing.assert_allclose(y.reshape(4, -1), expected, rtol=1e-5, atol=1e-6)
    assert computed()["half"].dtype == jnp.bfloat16


def test_a_probe_moves_the_rows_that_memory_would_move():
    words, table, _ = computed()["before"]
    y = memory.embed(table, words, jnp.arange(WORDS))
    gains = memory.row_gains(table, 2 * (y - TARGET), words.rows)
    after = memory.relocate_rows(words, gains, memory.row_importance(words, table))
    found = computed()["after"]
    np.testing.assert_array_equal(found.rows, after.rows)
    np.testing.assert_array_equal(found.values, after.values)
    flags = computed()["fresh"]
    np.testing.assert_array_equal(flags["values"].get_value(), words.rows != after.rows)
    assert not flags["table"].get_value().any()


def test_relocation_finds_the_rows_of_words():
    total, words, table = computed()["trained"]
    np.testing.assert_array_equal(table, np.eye(ROWS, FEATURES))
    assert float(total) < 1e-3
    assert float(computed()["without"][0]) > 1
    np.testing.assert_array_equal(np.sort(words.rows, axis=1), np.sort(HIDDEN, axis=1))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: made()(jnp.ones(2)), ("ids of dtype float32", "integers", "convert")),
        (
            lambda: nn.SparseEmbedding(4, 2, 3, 2, rngs=nnx.Rngs(0)),
            ("count=3 with num_rows=2", "one row for every slot", "lower"),
        ),
        (
            lambda: nn.relocate_rows(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), loss),
            ("a Linear without a SparseEmbedding", "a model with one", "use"),
        ),
    ],
)
def test_what_is_wrong_is_told(call, words):
    assert_names_itself_and_its_cure(lambda: nnx.eval_shape(call), *words)
