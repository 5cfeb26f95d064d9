from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.recurrent import checkpointed_scan
from tests.folding import folded
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

from .examples import INPUTS, gated, numbers, params_of, start_of

CASES = [(1, None), (2, None), (7, None), (7, 1), (7, 7), (7, 3), (12, None), (12, 4), (13, 5)]


def total(scan, params, h, xs):
    """A scan with outputs of its own, and a loss of everything."""

    def step(carry, x):
        h, count = carry
        h = gated(params, h, x["read"])
        return (h, count + 1), {"both": h[0] * x["scale"], "count": count}

    (h, count), ys = scan(step, (h, jnp.int32(0)), xs)
    return sum(jnp.sum(leaf**2) for leaf in h) + jnp.sum(jnp.sin(ys["both"])), (count, ys)


def arguments(length):
    xs = {"read": numbers(length, INPUTS), "scale": numbers(length, seed=5)}
    return params_of(gated), start_of(gated), xs


def with_slopes(scan):
    return jax.value_and_grad(partial(total, scan), argnums=(0, 1), has_aux=True)


@folded
def runs():
    plain = {
        (length, "plain"): (with_slopes(jax.lax.scan), *arguments(length)) for length, _ in CASES
    }
    return plain | {
        (length, cut): (
            with_slopes(partial(checkpointed_scan, segments=cut)),
            *arguments(length),
        )
        for length, cut in CASES
    }


@pytest.mark.parametrize(("length", "segments"), CASES)
def test_values_and_gradients_are_those_of_a_scan(length, segments):
    assert_close(runs(length, segments), runs(length, "plain"), rtol=1e-4, atol=1e-5)


def test_a_batch_and_both_modes_agree_with_a_scan():
    params, h, xs = arguments(7)
    batch = jax.tree.map(lambda leaf: np.stack([leaf, leaf / 2]), xs)

    @jax.jit
    def run(params, xs):
        def summed(scan, params):
            one = partial(total, scan)
            return jnp.sum(jax.vmap(one, in_axes=(None, None, 0))(params, h, xs)[0])

        return [
            (
                jax.grad(partial(summed, scan))(params),
                jax.jvp(partial(summed, scan), (params,), (params,)),
            )
            for scan in (checkpointed_scan, jax.lax.scan)
        ]

    found, expected = run(params, batch)
    assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_without_inputs_there_is_a_length():
    def double(carry, x):
        return carry * 2, carry

    carry, ys = jax.jit(partial(checkpointed_scan, double, length=5))(1.0)
    assert float(carry) == 32
    assert ys.tolist() == [1, 2, 4, 8, 16]


def temporary(scan, length, width):
    params = {"state": jnp.zeros((width, 3 * width)), "input": jnp.zeros((width, 3 * width))}
    h = (jnp.zeros((8, width)),) * 2

    def loss(params, xs):
        return jnp.sum(scan(lambda h, x: (gated(params, h, x), None), h, xs)[0][1] ** 2)

    xs = jnp.zeros((length, 8, width))
    program = jax.jit(jax.grad(loss)).lower(params, xs).compile()
    return program.memory_analysis().temp_size_in_bytes


def test_the_memory_of_long_scans_is_a_fifteenth_at_most():
    nested, plain = (temporary(scan, 256, 32) for scan in (checkpointed_scan, jax.lax.scan))
    assert 15 * nested <= plain
    # It grows like the root.
    assert temporary(checkpointed_scan, 1024, 32) <= 2.5 * nested


WRONG = [
    (lambda: checkpointed_scan(3, 0.0, jnp.ones(2)), "f=3"),
    (lambda: checkpointed_scan(max, 0.0), "no xs and no length"),
    (lambda: checkpointed_scan(max, 0.0, length=0), "length=0"),
    (lambda: checkpointed_scan(max, 0.0, jnp.ones(2), length=3), "length=3 with xs of 2"),
    (lambda: checkpointed_scan(max, 0.0, (jnp.ones(2), jnp.ones(3))), "inputs of shapes"),
    (lambda: checkpointed_scan(max, 0.0, jnp.ones(2), segments=3), "segments=3"),
    (lambda: checkpointed_scan(max, 0.0, jnp.ones(2), segments=0), "segments=0"),
    (lambda: checkpointed_scan(lambda h, x: h, 0.0, jnp.ones(2)), "a step that returns float32[]"),
    (lambda: checkpointed_scan(lambda h, x: (h, "y"), 0.0, jnp.ones(2)), "a step that returns 'y'"),
    (
        lambda: checkpointed_scan(lambda h, x: (h[:1], x), jnp.ones(2), jnp.ones(2)),
        "a step that makes the carry float32[1] of float32[2]",
    ),
    (
        lambda: checkpointed_scan(lambda h, x: (h + x, x), jnp.ones(2, int), jnp.ones(2)),
        "a step that makes the carry float32[2] of int32[2]",
    ),
    (lambda: checkpointed_scan(max, "text", jnp.ones(2)), "an array of init='text'"),
]


def test_a_carry_may_be_a_number_or_nothing_and_hold_keys():
    key = jax.random.key(0)

    def step(carry, x):
        count, key, none = carry
        return (count + x, jax.random.split(key)[0], none), None

    run = jax.jit(lambda key, xs: checkpointed_scan(step, (0, key, None), xs))
    (count, last, none), ys = run(key, np.ones(3, np.float32))
    assert (float(count), none, ys) == (3.0, None, None)
    assert last.dtype == key.dtype


@pytest.mark.parametrize(("call", "found"), WRONG, ids=[found for _, found in WRONG])
def test_mistakes_are_told_in_three_parts(call, found):
    assert_names_itself_and_its_cure(call, found, "", "")
