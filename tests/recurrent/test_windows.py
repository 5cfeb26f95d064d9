import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import recurrent
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

from .examples import INPUTS, dense, gated, linear, numbers, params_of, start_of

GRID = [
    (length, lag, form)
    for length in (1, 2, 7, 9, 12)
    for lag in (1, 2, 3, 5, 20)
    for form in ("buffer", "disjoint")
]


@pytest.mark.parametrize(("length", "lag", "form"), GRID)
def test_every_loss_counts_once_and_states_are_handed_on(length, lag, form):
    windows = recurrent.tbptt_windows(length, lag, form=form)
    steps, losses, carry = windows
    assert steps.shape == losses.shape
    assert sorted(steps[losses].tolist()) == list(range(length))
    # A window runs steps in a row, with padding around them.
    for row in steps:
        run = row[row >= 0]
        assert np.array_equal(run, np.arange(run[0], run[0] + len(run)))
    # What is carried is the state that the next window begins after.
    for before, after in itertools.pairwise(steps):
        assert before[carry] == after[after >= 0][0] - 1
    # Every loss has K steps behind it in the buffer form, its own included, where there are any.
    for row, counts in zip(steps, losses, strict=True):
        first = row[row >= 0][0]
        for step in row[counts]:
            kept = step - first + 1
            assert kept >= min(step + 1, lag if form == "buffer" else 1)
            assert kept <= (2 * lag - 1 if form == "buffer" else lag)
    if lag >= length:
        assert steps.tolist() == [list(range(length))]


LENGTH = 9


def sum_of_squares(params, states):
    return jnp.sum(jax.tree.leaves(states)[-1] ** 2, axis=-1)


def windowed(cell, params, h, xs, *, lag, form):
    """Losses of all steps in their order, and the last state, window by window."""
    windows = recurrent.tbptt_windows(LENGTH, lag, form=form)

    def body(h, row):
        steps, counts = row
        states, carried = recurrent.window_scan(cell, params, h, xs, steps, carry=windows.carry)
        last = jax.tree.map(lambda leaf: leaf[-1], states)
        return carried, (sum_of_squares(params, states), steps, counts, last)

    table = jnp.asarray(windows.steps), jnp.asarray(windows.losses)
    _, (losses, steps, counts, last) = jax.lax.scan(body, h, table)
    told = jnp.zeros(LENGTH).at[jnp.where(counts, steps, LENGTH)].add(losses, mode="drop")
    return told, jax.tree.map(lambda leaf: leaf[-1], last)


def whole(cell, params, h, xs):
    h, states = jax.lax.scan(lambda h, x: (cell(params, h, x),) * 2, h, xs)
    return sum_of_squares(params, states), h


@pytest.mark.parametrize("cell", [dense, gated])
def test_windows_are_the_forward_pass_and_at_full_length_its_gradient(cell):
    params, h, xs = params_of(cell), start_of(cell), numbers(LENGTH, INPUTS)

    @jax.jit
    def run(params):
        exact = whole(cell, params, h, xs)
        cut = [
            windowed(cell, params, h, xs, lag=lag, form=form)
            for lag in (2, 4)
            for form in ("buffer", "disjoint")
        ]
        full = jax.grad(lambda params: jnp.sum(whole(cell, params, h, xs)[0]))(params)
        long = jax.grad(
            lambda params: jnp.sum(windowed(cell, params, h, xs, lag=LENGTH, form="buffer")[0])
        )(params)
        scanned = jax.grad(
            lambda params: jnp.sum(
                sum_of_squares(params, recurrent.tbptt_scan(cell, params, h, xs, lag=LENGTH + 1)[1])
            )
        )(params)
        return exact, cut, full, long, scanned

    exact, cut, full, long, scanned = run(params)
    for one in cut:
        assert_close(one, exact)
    assert_close(long, full, rtol=1e-4, atol=1e-5)
    assert_close(scanned, full, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["buffer", "disjoint"])
def test_gradients_go_back_as_far_as_the_form_says(form):
    """Each loss by itself, against one cut by hand."""
    lag, a, xs = 3, 0.7, numbers(LENGTH)

    def by_hand(a, number):
        first = lag * (number // lag)
        begin = max(first - lag + 1, 0) if form == "buffer" else first
        h = jnp.zeros(())
        for step in range(number + 1):
            h = linear(a, jax.lax.stop_gradient(h) if step == begin else h, xs[step])
        return h**2

    def in_windows(a):
        windows = recurrent.tbptt_windows(LENGTH, lag, form=form)

        def body(h, row):
            steps, counts = row
            states, h = recurrent.window_scan(linear, a, h, xs, steps, carry=windows.carry)
            return h, (states**2, jnp.where(counts, steps, LENGTH))

        table = jnp.asarray(windows.steps), jnp.asarray(windows.losses)
        _, (losses, places) = jax.lax.scan(body, jnp.zeros(()), table)
        return jnp.zeros(LENGTH).at[places].add(losses, mode="drop")

    def in_one_scan(a):
        return recurrent.tbptt_scan(linear, a, jnp.zeros(()), xs, lag=lag)[1] ** 2

    @jax.jit
    def run(a):
        expected = [jax.grad(by_hand)(a, number) for number in range(LENGTH)]
        return jnp.stack(expected), jax.jacrev(in_windows)(a), jax.jacrev(in_one_scan)(a)

    expected, found, scanned = run(a)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    if form == "disjoint":
        np.testing.assert_allclose(scanned, expected, rtol=1e-5)


def test_padding_does_nothing_and_a_window_takes_no_gradient_to_its_start():
    def last(h, steps):
        return recurrent.window_scan(linear, 0.5, h, jnp.ones(4), steps, carry=0)[0][-1]

    run = jax.jit(last)
    for outside in (-1, 4, -1000, 1000):
        assert float(run(2.0, np.array([outside, 0, outside]))) == 2.0
    assert float(jax.jit(jax.grad(last))(2.0, np.array([0, 1]))) == 0


def test_padding_has_no_slope_where_other_steps_cannot_be_differentiated():
    xs = jnp.array([jnp.nan, 1.0, 2.0, 3.0])

    def total(a, steps):
        def cell(a, h, x):
            return jnp.tanh(a * h + x)

        return jnp.sum(recurrent.window_scan(cell, a, 0.0, xs, steps, carry=1)[0][:2])

    steps = np.array([2, 3, -1]), np.array([2, 3])
    both = jax.jit(lambda a, *steps: [jax.grad(total)(a, one) for one in steps])
    np.testing.assert_allclose(*both(0.5, *steps), rtol=1e-6)


def test_padding_has_no_slope_where_the_cell_is_not_defined():
    def total(a, steps):
        def cell(a, h, x):
            return a * jnp.sqrt(x - h)  # of the last state and the first input: not a number

        xs = jnp.array([1.0, 5.0])
        return jnp.sum(recurrent.window_scan(cell, a, 0.0, xs, steps, carry=1)[0][-1])

    steps = np.array([-1, 0, 1, 2, -1]), np.array([0, 1])
    both = jax.jit(lambda a, *steps: [jax.value_and_grad(total)(a, one) for one in steps])
    np.testing.assert_allclose(*both(2.0, *steps), rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8, jnp.uint32])
def test_steps_may_be_narrow_or_unsigned(dtype):
    scan = jax.jit(partial(recurrent.window_scan, lambda a, h, x: h + x, None, carry=1))
    states, _ = scan(0.0, np.arange(500, dtype=np.float32), np.array([3, 4], dtype))
    assert states.tolist() == [3.0, 7.0]


WRONG = [
    (lambda: recurrent.tbptt_windows(0, 2), "length=0"),
    (lambda: recurrent.tbptt_windows(5, 0), "lag=0"),
    (lambda: recurrent.tbptt_windows(5, 2.0), "lag=2.0"),
    (lambda: recurrent.tbptt_windows(5, 2, form="sliding"), "form='sliding'"),
    (
        lambda: recurrent.window_scan(linear, 0.5, 0.0, jnp.ones(4), [0.5], carry=0),
        "steps of dtype float32",
    ),
    (
        lambda: recurrent.window_scan(linear, 0.5, 0.0, jnp.ones(4), [[0]], carry=0),
        "steps of shape (1, 1)",
    ),
    (lambda: recurrent.window_scan(linear, 0.5, 0.0, jnp.ones(4), [0], carry=1), "carry=1"),
    (
        lambda: recurrent.window_scan(lambda a, h, x: (h, x), 0.5, 0.0, jnp.ones(4), [0], carry=0),
        "a cell that makes the state",
    ),
]


@pytest.mark.parametrize(("call", "found"), WRONG, ids=[found for _, found in WRONG])
def test_mistakes_are_told_in_three_parts(call, found):
    assert_names_itself_and_its_cure(lambda: jax.eval_shape(call), found, "", "")
