"""Functions cut into segments: the same values and derivatives, whatever their structure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import remat
from sparse_hyper_jax.remat.costs import bytes_of, is_free
from sparse_hyper_jax.remat.segments import segments_of
from sparse_hyper_jax.remat.traced import traced
from tests.folding import folded
from tests.remat.examples import BACKWARD_ONLY, EXACT, EXAMPLES, OTHERS, X, dots


def inexact(leaf):
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def square(leaf):
    return jnp.sum(jnp.real(leaf * jnp.conj(leaf)).astype(jnp.float32))


def everything(fn, *, forward=True):
    """Make a function of arguments that gives value, gradient, tangents and curvature."""

    def run(*args):
        def first(moving):
            return loss(moving)[0]

        leaves, tree = jax.tree.flatten(args)
        moving = {n: jnp.asarray(leaf) for n, leaf in enumerate(leaves) if inexact(leaf)}

        def loss(moving):
            args = tree.unflatten([moving.get(n, leaf) for n, leaf in enumerate(leaves)])
            value = fn(*args)
            return sum(map(square, filter(inexact, jax.tree.leaves(value)))), value

        (_, value), slopes = jax.value_and_grad(loss, has_aux=True)(moving)
        found = {"value": value, "slopes": slopes}
        if forward:
            ones = jax.tree.map(jnp.ones_like, moving)
            found["tangent"] = jax.jvp(first, (moving,), (ones,))[1]
            found["curvature"] = jax.jvp(jax.grad(first), (moving,), (ones,))[1]
        return found

    return run


def chain_of(count, segments):
    """Cut nodes in their order into equal parts."""
    ends = sorted({count * part // segments for part in range(1, segments + 1)} - {0} or {count})
    return tuple((1 << end) - 1 for end in ends)


def cut(fn, args, chain=None, barrier="checkpoint"):
    """The function by segments: of one node each, or along a chain."""
    whole = traced(fn, args, {})
    count = len(whole.nodes.step_of)
    chain = chain or chain_of(count, max(count, 1))
    return whole.cut(chain, barrier, list(whole.program.constants.values()))


def least(fn, args):
    return remat.plan(fn, *args, family="closures")[-1].chain


WAYS = {
    "plain": lambda fn, args: fn,
    "finest": cut,
    "least": lambda fn, args: cut(fn, args, least(fn, args)),
}


@folded
def results():
    return {
        (name, way): (everything(make(fn, args), forward=name not in BACKWARD_ONLY), *args)
        for name, (fn, args) in EXAMPLES.items()
        for way, make in WAYS.items()
    }


def compare(one, two, exact):
    one, two = np.asarray(one, np.complex64), np.asarray(two, np.complex64)
    if exact:
        np.testing.assert_array_equal(one, two)
    else:
        np.testing.assert_allclose(one, two, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("way", ["finest", "least"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_values_and_derivatives_are_those_of_the_function(name, way):
    expected, found = results(name, "plain"), results(name, way)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    kinds = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(expected)]
    assert [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(found)] == kinds
    for part, value in expected.items():
        exact = name in EXACT and part in ("value", "slopes")
        jax.tree.map(lambda a, b, e=exact: compare(a, b, e), found[part], value)


def test_the_table_is_long_enough():
    assert len(EXACT | OTHERS | BACKWARD_ONLY) >= 20


@pytest.mark.parametrize("segments", [1, 2, 5])
@pytest.mark.parametrize("name", EXAMPLES)
def test_segments_part_the_nodes_and_read_what_was_written(name, segments):
    fn, args = EXAMPLES[name]
    whole = traced(fn, args, {})
    count = len(whole.nodes.step_of)
    found = segments_of(whole.program, whole.nodes, chain_of(count, segments))
    known = {*whole.program.inputs, *whole.program.constants}
    known.update(value for step in whole.program.keys for value in step.writes)
    owners = []
    for segment in found:
        assert set(segment.reads) <= known
        own = set(segment.reads)
        for step in segment.steps:
            assert {one for one in step.reads if isinstance(one, int)} <= own
            own.update(step.writes)
            if not is_free(step.equation):
                owners.append(step)
        assert set(segment.writes) <= own
        known.update(segment.writes)
    assert owners == [whole.program.steps[number] for number in whole.nodes.step_of]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_kept_are_boundaries_and_inputs(seed):
    def layers(x):
        for _ in range(12):
            x = jnp.sin(x)
        return x

    x = jnp.ones((5 + seed, 3))
    chain = chain_of(12, 4)
    planned = cut(layers, (x,), chain)
    kept = jax.tree.leaves(jax.eval_shape(lambda x: jax.vjp(planned, x)[1], x))
    # The input, three boundaries, of which the last segment reads one, and its own two values.
    assert sum(map(bytes_of, kept)) == (3 + 3) * x.nbytes


def test_a_view_is_made_again_instead_of_kept():
    def wide(x):
        row = jnp.sum(jnp.sin(x), axis=0)
        spread = jnp.broadcast_to(row, (64, 4))
        return jnp.sum(jnp.tanh(spread) * 2.0)

    whole = traced(wide, (X,), {})
    names = [step.equation.primitive.name for step in whole.program.steps]
    first, second, *_ = segments_of(whole.program, whole.nodes, (0b11, 0b11111))
    assert "broadcast_in_dim" in names
    assert "broadcast_in_dim" not in [step.equation.primitive.name for step in first.steps]
    assert [whole.program.types[value].shape for value in first.writes] == [(4,)]
    assert second.steps[0].equation.primitive.name == "broadcast_in_dim"


def test_thousands_of_equations_are_no_depth_of_recursion():
    def deep(x):
        for _ in range(3000):
            x = jnp.sin(x)
        return x

    whole = traced(deep, (1.0,), {})
    assert len(segments_of(whole.program, whole.nodes, chain_of(3000, 50))) == 50


def test_dots_example_has_a_scalar_loss():
    assert jax.eval_shape(dots, *EXACT["dots"][1]).shape == ()
