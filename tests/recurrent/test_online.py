import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import recurrent
from sparse_hyper_jax.diagnostics import gradient_report
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

from .examples import (
    INPUTS,
    UNITS,
    dense,
    elementwise,
    gated,
    linear,
    numbers,
    params_of,
    start_of,
)

LENGTH = 6
XS, TARGETS = numbers(LENGTH, INPUTS), numbers(LENGTH, UNITS, seed=6)


def loss_of(target):
    return lambda h: jnp.sum((jax.tree.leaves(h)[-1] - target) ** 2)


def online(rule, params, h, key=None):
    """Sum losses and gradients over a sequence; also give what the last step left."""
    trace, total, summed = rule.init(params, h), 0.0, jax.tree.map(jnp.zeros_like, params)
    for number, (x, target) in enumerate(zip(XS, TARGETS, strict=True)):
        own = None if key is None else jax.random.fold_in(key, number)
        h, loss, gradient, trace = rule.step(trace, params, h, x, loss_of(target), key=own)
        total, summed = total + loss, jax.tree.map(jnp.add, summed, gradient)
    return total, summed, h, trace


def backpropagated(cell, params, h):
    """The same by backpropagation through the whole sequence."""

    def total(params):
        state, losses = h, 0.0
        for x, target in zip(XS, TARGETS, strict=True):
            state = cell(params, state, x)
            losses += loss_of(target)(state)
        return losses, state

    (losses, state), gradient = jax.value_and_grad(total, has_aux=True)(params)
    return losses, gradient, state


def jacobian(cell, params, h):
    """How the last state depends on the parameters, all of it."""

    def last(params):
        state = h
        for x in XS:
            state = cell(params, state, x)
        return jnp.concatenate(jax.tree.leaves(state))

    return jax.jacrev(last)(params)


@pytest.mark.parametrize("cell", [dense, elementwise, gated])
def test_rtrl_is_backpropagation_through_the_whole_sequence(cell):
    params, h = params_of(cell), start_of(cell)

    @jax.jit
    def run(params):
        *found, trace = online(recurrent.rtrl(cell), params, h)
        return found, backpropagated(cell, params, h), trace, jacobian(cell, params, h)

    found, expected, trace, exact = run(params)
    assert_close(tuple(found), expected, rtol=1e-5, atol=1e-5)
    assert_close(trace, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("diagonal", [False, True])
def test_snap1_is_exact_where_the_recurrence_is_elementwise(diagonal):
    params, h = params_of(elementwise), start_of(elementwise)

    @jax.jit
    def run(params):
        rule = recurrent.snap1(elementwise, elementwise=diagonal)
        return online(rule, params, h)[:3], backpropagated(elementwise, params, h)

    found, expected = run(params)
    assert_close(tuple(found), expected, rtol=1e-5, atol=1e-5)


def masked_rtrl(cell, params, h):
    """J of which only what a parameter does to its own unit is kept: dense, with a mask."""
    flat = jnp.concatenate(jax.tree.leaves(h))
    own = jax.tree.map(
        lambda leaf: (
            (np.arange(leaf.shape[-1]) % UNITS)
            == (np.arange(flat.size) % UNITS).reshape(-1, *(1,) * leaf.ndim)
        ),
        params,
    )
    trace = jax.tree.map(lambda leaf: jnp.zeros((flat.size, *leaf.shape)), params)
    summed = jax.tree.map(jnp.zeros_like, params)
    structure = jax.tree.structure(h)

    def run(params, flat, x):
        h = jax.tree.unflatten(structure, jnp.split(flat, flat.size // UNITS))
        return jnp.concatenate(jax.tree.leaves(cell(params, h, x)))

    for x, target in zip(XS, TARGETS, strict=True):
        immediate, inner = jax.jacrev(run, argnums=(0, 1))(params, flat, x)
        trace = jax.tree.map(
            lambda old, new, mask, inner=inner: mask * (jnp.tensordot(inner, old, 1) + new),
            trace,
            immediate,
            own,
        )
        flat = run(params, flat, x)
        slope = jax.grad(lambda flat, t=target: loss_of(t)((flat[-UNITS:],)))(flat)
        summed = jax.tree.map(
            lambda total, leaf, slope=slope: total + jnp.tensordot(slope, leaf, 1), summed, trace
        )
    return summed


@pytest.mark.parametrize("cell", [dense, gated])
def test_snap1_keeps_what_a_parameter_does_to_its_own_unit_and_no_more(cell):
    params, h = params_of(cell), start_of(cell)

    @jax.jit
    def run(params):
        _, found, *_ = online(recurrent.snap1(cell), params, h)
        return found, masked_rtrl(cell, params, h), backpropagated(cell, params, h)[1]

    found, expected, exact = run(params)
    assert_close(found, expected, rtol=1e-4, atol=1e-5)
    # Where units read each other it is another gradient than the exact one.
    assert np.max(np.abs(found["state"] - exact["state"])) > 0.05


@pytest.mark.parametrize("cell", [dense, gated])
def test_uoro_is_right_on_average(cell):
    params, h = params_of(cell), start_of(cell)

    @jax.jit
    def run(params):
        def estimate(key):
            return online(recurrent.uoro(cell), params, h, key)[1]

        exact = backpropagated(cell, params, h)[1]
        keys = jax.random.split(jax.random.key(1), 4000)
        return gradient_report(exact, estimate, keys, batch_size=1000)

    report = run(params)
    assert report.largest_z < 4
    assert report.variance > 0.01  # it is an estimate


def test_uoro_of_nothing_is_nothing_and_of_one_number_exact():
    rule = recurrent.uoro(linear)
    key = jax.random.key(0)

    @jax.jit
    def step_from(h, x):
        return rule.step(rule.init(0.5, h), 0.5, h, x, jnp.sum, key=key)

    # A state of zero and no input: neither D s nor the immediate part is there.
    step = step_from(np.zeros(1, np.float32), np.zeros(1, np.float32))
    assert float(step.gradient) == 0
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(step.trace))
    step = step_from(np.ones(1, np.float32), np.ones(1, np.float32))
    assert float(step.gradient) == pytest.approx(1.0)


def test_a_batch_is_vmap_over_states_and_traces():
    params, xs = params_of(dense), numbers(4, INPUTS)
    h = start_of(dense, 4)

    @jax.jit
    def run(params):
        found = []
        for rule in (recurrent.rtrl(dense), recurrent.snap1(dense)):
            trace = jax.vmap(rule.init, in_axes=(None, 0))(params, h)
            step = jax.vmap(
                lambda *own, rule=rule: rule.step(*own, jnp.sum), in_axes=(0, None, 0, 0)
            )
            both = step(trace, params, h, xs)
            alone = rule.step(rule.init(params, h[2]), params, h[2], xs[2], jnp.sum)
            found.append((jax.tree.map(lambda leaf: leaf[2], tuple(both)), tuple(alone)))
        return found

    for both, alone in run(params):
        assert_close(both, alone)


def test_short_floats_keep_long_traces():
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params_of(dense))
    h, x = jnp.ones(UNITS, jnp.bfloat16), jnp.ones(INPUTS, jnp.bfloat16)
    for rule in (recurrent.rtrl(dense), recurrent.snap1(dense), recurrent.uoro(dense)):
        trace = jax.eval_shape(rule.init, params, h)
        assert {leaf.dtype for leaf in jax.tree.leaves(trace)} == {jnp.dtype(jnp.float32)}
        step = jax.eval_shape(
            lambda key, trace, rule=rule: rule.step(trace, params, h, x, jnp.sum, key=key),
            jax.random.key(0),
            trace,
        )
        assert {leaf.dtype for leaf in jax.tree.leaves(step.gradient)} == {jnp.dtype(jnp.bfloat16)}
        assert step.h.dtype == jnp.bfloat16
        assert jax.tree.map(jnp.shape, step.trace) == jax.tree.map(jnp.shape, trace)


@jax.jit
def slope_of_size(size):
    rule = recurrent.uoro(lambda a, h, x: size * a * h + x)
    return step_of(rule, 0.5, *np.ones((2, 1), np.float32), key=jax.random.key(0)).gradient


@pytest.mark.parametrize("size", [1e-25, 1e-10, 1e25])
def test_noise_is_balanced_also_for_very_small_and_large_derivatives(size):
    # Of one unit and one parameter the product of the two factors is exact.
    np.testing.assert_allclose(slope_of_size(size), size, rtol=1e-5)


def step_of(rule, params, h, x, loss=jnp.sum, **options):
    return rule.step(rule.init(params, h), params, h, x, loss, **options)


ONE = jnp.ones(2)
WRONG = [
    (lambda: recurrent.rtrl(3), "cell=3"),
    (lambda: recurrent.uoro(None), "cell=None"),
    (lambda: recurrent.snap1(linear, elementwise="yes"), "elementwise='yes'"),
    (lambda: recurrent.rtrl(linear).init(1, ONE), "a parameter of dtype int32"),
    (lambda: recurrent.rtrl(linear).init(1.0, ()), "a state ()"),
    (lambda: step_of(recurrent.rtrl(linear), 0.5, ONE, ONE, lambda h: h), "a loss of shape (2,)"),
    (lambda: step_of(recurrent.rtrl(linear), 0.5, ONE, ONE, 3), "loss=3"),
    (lambda: step_of(recurrent.rtrl(lambda a, h, x: h[:1]), 0.5, ONE, ONE), "a cell that makes"),
    (
        lambda: step_of(recurrent.rtrl(lambda a, h, x: "h"), 0.5, ONE, ONE),
        "a cell that returns 'h'",
    ),
    (lambda: step_of(recurrent.rtrl(linear), 0.5, ONE, "x"), "inputs='x'"),
    (lambda: step_of(recurrent.uoro(linear), 0.5, ONE, ONE), "key=None"),
    (lambda: recurrent.snap1(linear).init(ONE, jnp.ones((3, 2))), "states of shapes [(3, 2)]"),
    (lambda: recurrent.snap1(linear).init(jnp.ones(3), ONE), "a parameter of shape (3,) with 2"),
    (lambda: recurrent.snap1(linear).init(0.5, ONE), "a parameter of shape () with 2"),
    (lambda: recurrent.snap1(linear).init(ONE, jnp.ones(0)), "states of shapes [(0,)]"),
    (lambda: recurrent.rtrl(linear).init(None, ONE), "params=None"),
    *(
        (
            lambda rule=rule: rule.step(
                rule.init(jnp.ones((1, 2)), ONE), ONE, ONE, ONE, jnp.sum, key=jax.random.key(0)
            ),
            "a trace of shapes",
        )
        for rule in (recurrent.rtrl(linear), recurrent.snap1(linear), recurrent.uoro(linear))
    ),
]


@pytest.mark.parametrize(("call", "found"), WRONG, ids=[found for _, found in WRONG])
def test_mistakes_are_told_in_three_parts(call, found):
    assert_names_itself_and_its_cure(call, found, "", "")
