"""Optimizers by rows: Adam where all rows are touched, Adam of each row by itself otherwise."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_hyper_jax import conv, memory
from tests.ops.examples import assert_names_itself_and_its_cure

RNG = np.random.default_rng(2)
ROWS, WIDTH, STEPS = 6, 2, 8
RATE, B1, B2, EPSILON, DECAY = 0.1, 0.9, 0.99, 1e-8, 0.01
TABLE = RNG.normal(size=(ROWS, WIDTH)).astype(np.float32)
GRADIENTS = RNG.normal(size=(STEPS, ROWS, WIDTH)).astype(np.float32)
TOUCHED = RNG.random((STEPS, ROWS)) < 0.4
TOUCHED[:, 5] = False
INNER = optax.adamw(RATE, B1, B2, EPSILON, weight_decay=DECAY)
READ = np.where(TOUCHED, np.arange(ROWS), -1).astype(np.int32)


def train(optimizer, gradients, parameters):
    def step(carried, gradient):
        parameters, state = carried
        updates, state = optimizer.update(gradient, state, parameters)
        return (optax.apply_updates(parameters, updates), state), None

    return jax.lax.scan(step, (parameters, optimizer.init(parameters)), gradients)[0]


@jax.jit
def computed():
    lazy = memory.lazy_rows(INNER)
    sparse = np.where(TOUCHED[..., None], GRADIENTS, 0)
    tree = {"grid": TABLE.reshape(2, 3, WIDTH), "bias": jnp.ones(3)}
    slopes = {"grid": sparse.reshape(STEPS, 2, 3, WIDTH), "bias": jnp.ones((STEPS, 3))}

    def by_rows(carried, parts):
        rows, gradient = parts
        # Each in two halves, at two places, so that equal rows have to be added up.
        twice = jnp.concatenate([rows, rows]), jnp.concatenate([gradient, gradient]) / 2
        table, state = memory.update_rows(INNER, *twice, carried[1], carried[0])
        return (table, state), None

    start = (TABLE, lazy.init(TABLE))
    return {
        "all": (train(lazy, GRADIENTS, TABLE)[0], train(INNER, GRADIENTS, TABLE)[0]),
        "some": train(lazy, sparse, TABLE),
        "tree": train(lazy, slopes, tree),
        "bias": train(INNER, slopes["bias"], tree["bias"])[0],
        "by rows": jax.lax.scan(by_rows, start, (READ, GRADIENTS))[0],
        "plain": train(memory.lazy_rows(optax.sgd(RATE)), sparse, TABLE),
        "in 16 bits": memory.update_rows(
            INNER,
            [1, 1],
            jnp.ones((2, WIDTH), jnp.bfloat16),
            lazy.init(TABLE.astype(jnp.bfloat16)),
            TABLE.astype(jnp.bfloat16),
        )[0],
    }


def adam_of_rows():
    """AdamW of every row by itself, over the steps in which it was touched."""
    table, moments, squares = TABLE.astype(float), np.zeros(TABLE.shape), np.zeros(TABLE.shape)
    counts = np.zeros(ROWS, int)
    for gradient, touched in zip(GRADIENTS, TOUCHED, strict=True):
        for row in np.flatnonzero(touched):
            counts[row] += 1
            moments[row] = B1 * moments[row] + (1 - B1) * gradient[row]
            squares[row] = B2 * squares[row] + (1 - B2) * gradient[row] ** 2
            mean = moments[row] / (1 - B1 ** counts[row])
            size = np.sqrt(squares[row] / (1 - B2 ** counts[row]))
            table[row] -= RATE * (mean / (size + EPSILON) + DECAY * table[row])
    return table, moments, squares, counts


def test_with_all_rows_in_all_steps_it_is_the_optimizer_itself():
    lazy, plain = computed()["all"]
    np.testing.assert_allclose(lazy, plain, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("case", ["some", "by rows"])
def test_rows_have_moments_and_counts_of_their_own(case):
    table, state = computed()[case]
    expected, moments, squares, counts = adam_of_rows()
    assert counts.min() == 0
    assert counts.max() >= 3
    np.testing.assert_allclose(table, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state[0].mu, moments, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(state[0].nu, squares, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(state[0].count, counts)
    np.testing.assert_array_equal(table[5], TABLE[5])


def test_cells_of_a_grid_are_rows_and_a_bias_is_one():
    (parameters, state), found = computed()["tree"], computed()
    np.testing.assert_allclose(parameters["grid"].reshape(ROWS, WIDTH), found["some"][0], 1e-5)
    np.testing.assert_allclose(parameters["bias"], found["bias"], rtol=1e-6)
    assert state[0].mu["grid"].shape == (2, 3, WIDTH)
    assert state[0].count["grid"].shape == (2, 3)
    assert state[0].count["bias"] == STEPS


def test_without_moments_there_is_nothing_to_keep():
    table, _ = computed()["plain"]
    change = np.where(TOUCHED[..., None], GRADIENTS, 0).sum(0)
    np.testing.assert_allclose(table, TABLE - RATE * change, rtol=1e-5, atol=1e-6)


def test_halves_are_added_in_float32_and_rounded_once():
    table = computed()["in 16 bits"]
    assert table.dtype == jnp.bfloat16
    before = TABLE.astype(jnp.bfloat16).astype(np.float32)
    changed = before[1] - RATE * (1 + DECAY * before[1])
    np.testing.assert_allclose(table[1].astype(np.float32), changed, rtol=1e-2)
    np.testing.assert_array_equal(np.delete(table, 1, 0), np.delete(before, 1, 0))


@pytest.mark.parametrize("inner", [optax.adam(RATE), optax.add_noise(1.0, 0.5, 0)])
def test_sums_stay_wide_and_keys_stay_keys(inner):
    """In float16, 1e5 is infinite and 1e-9 is 0, a row that was not read."""
    table, gradients = jnp.ones((3, 1), jnp.float16), jnp.array([[1e-9], [5e4], [5e4]])
    lazy = memory.lazy_rows(inner)
    state = lazy.init(table)
    sums = jnp.zeros((3, 1)).at[jnp.array([1, 2, 2])].add(gradients)
    with jax.numpy_dtype_promotion("standard"):  # optax promotes by itself
        updates, expected = lazy.update(sums, state, table)
        found, after = memory.update_rows(inner, [1, 2, 2], gradients, state, table)
        np.testing.assert_array_equal(found, optax.apply_updates(table, updates))
    assert found.dtype == jnp.float16
    counts = [jax.tree.leaves(tree)[0] for tree in (after, expected)]
    np.testing.assert_array_equal(*counts)
    np.testing.assert_array_equal(counts[0], [0, 1, 1])


def test_keys_of_noise_are_read_by_rows_that_are_spread_over_devices():
    inner, table = optax.add_noise(1.0, 0.5, 0), jnp.ones((3, 1))
    state = memory.lazy_rows(inner).init(table)

    def step(row):
        return memory.update_rows(inner, row, jnp.ones((1, 1)), state, table)[0]

    mesh = jax.make_mesh((2,), ("batch",), (jax.sharding.AxisType.Explicit,))
    rows = jnp.array([[1], [2]])
    with jax.set_mesh(mesh), jax.numpy_dtype_promotion("standard"):
        spread = jax.device_put(rows, jax.NamedSharding(mesh, jax.P("batch")))
        found = jax.jit(jax.vmap(step))(spread)
    changed = np.asarray(found)[..., 0] != 1
    np.testing.assert_array_equal(changed, np.arange(3) == rows)


def test_moments_of_slots_are_cleared_as_those_of_any_optimizer():
    lazy, parameters = memory.lazy_rows(optax.adam(RATE)), {"values": TABLE, "table": TABLE[:2]}
    state = jax.tree.map(lambda leaf: leaf + 1, lazy.init(parameters))
    fresh = {"values": np.arange(ROWS * WIDTH).reshape(ROWS, WIDTH) % 2 == 0, "table": False}
    cleared = conv.clear_moments(lazy, state, fresh)
    np.testing.assert_array_equal(cleared[0].mu["values"], np.where(fresh["values"], 0, 1))
    assert (cleared[0].nu["table"] == 1).all()
    assert (cleared[0].count["values"] == 1).all()


def test_the_program_by_rows_holds_no_second_table():
    """What it needs beside its arguments, given away, does not grow with the table."""

    def temporary(rows):
        table = jax.ShapeDtypeStruct((rows, WIDTH), jnp.float32)
        state = jax.eval_shape(memory.lazy_rows(INNER).init, table)
        names = jax.ShapeDtypeStruct((4,), jnp.int32)
        gradients = jax.ShapeDtypeStruct((4, WIDTH), jnp.float32)
        step = jax.jit(
            lambda table, state, *read: memory.update_rows(INNER, *read, state, table),
            donate_argnums=(0, 1),
        )
        compiled = step.lower(table, state, names, gradients).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(2**20) <= temporary(2**10) + 4096


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: memory.lazy_rows(3), ("inner=3", "GradientTransformation", "change")),
        (
            lambda: memory.lazy_rows(INNER).init(jnp.ones(())),
            ("of shape ()", "at least one axis", "optax.partition"),
        ),
        (
            lambda: memory.lazy_rows(INNER).update(TABLE, INNER.init(()), TABLE),
            ("a state of shapes", "count=(6,)", "lazy_rows(inner).init"),
        ),
        (
            lambda: memory.lazy_rows(INNER).update(
                TABLE, memory.lazy_rows(INNER).init(TABLE), TABLE[:3]
            ),
            ("params of shape (3, 2)", "the same shape", "reshape"),
        ),
        (
            lambda: memory.lazy_rows(INNER).update(
                {"a": TABLE}, memory.lazy_rows(INNER).init({"a": TABLE}), {"b": TABLE}
            ),
            ("params of structure", "that of updates", "pass the parameters"),
        ),
        (
            lambda: memory.update_rows(INNER, [0], TABLE[:1], (), TABLE.astype(int)),
            ("table of dtype int32", "floats", "convert table"),
        ),
        (
            lambda: memory.update_rows(INNER, [0], TABLE, INNER.init(TABLE), TABLE),
            ("gradients of shape (6, 2)", "(1, 2)", "reshape"),
        ),
        (
            lambda: memory.update_rows(INNER, [0], TABLE[:1], INNER.init(TABLE), TABLE),
            ("count=()", "count=(6,)", "lazy_rows(inner).init"),
        ),
    ],
)
def test_what_is_wrong_is_told(call, words):
    assert_names_itself_and_its_cure(lambda: jax.eval_shape(call), *words)
