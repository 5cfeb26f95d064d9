"""Bytes and operations of equations, counted by hand."""

import jax
import jax.numpy as jnp
import pytest

from sparse_hyper_jax.remat.costs import bytes_of, cost_of

S = jax.ShapeDtypeStruct
A, B = S((3, 4), jnp.float32), S((4, 5), jnp.float32)


def costs(fn, *args):
    return [cost_of(equation) for equation in jax.make_jaxpr(fn)(*args).eqns]


CASES = {
    "product": (jnp.matmul, (A, B), [2 * 3 * 4 * 5]),
    "batched product": (
        lambda a, b: jnp.einsum("nij,njk->nik", a, b),
        (S((7, 3, 4), jnp.float32), S((7, 4, 5), jnp.float32)),
        [7 * 2 * 3 * 4 * 5],
    ),
    "convolution": (
        lambda x, k: jax.lax.conv_general_dilated(
            x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        (S((2, 8, 8, 3), jnp.float32), S((3, 3, 3, 5), jnp.float32)),
        [2 * (2 * 8 * 8 * 5) * (3 * 3 * 3)],
    ),
    "elementwise": (jnp.sin, (A,), [12]),
    "sum": (lambda a: jax.lax.reduce_sum_p.bind(a, axes=(0, 1), out_sharding=None), (A,), [12]),
    "view": (lambda a: a.T.reshape(2, 6), (A,), [0, 0]),
    "sort": (jax.lax.sort, (A,), [12 * 4]),
    "scan": (
        lambda x: jax.lax.scan(lambda c, _: (jnp.sin(jnp.sin(c)), None), x, length=10)[0],
        (A,),
        [10 * 24],
    ),
    "branches": (
        lambda x: jax.lax.cond(True, jnp.sin, lambda x: jnp.sin(jnp.cos(x)), x),
        (A,),
        [24],
    ),
    "checkpoint": (jax.checkpoint(lambda x: jnp.sin(jnp.cos(x))), (A,), [24]),
}


@pytest.mark.parametrize("name", CASES)
def test_operations(name):
    fn, args, expected = CASES[name]
    assert costs(fn, *args)[-len(expected) :] == expected


@pytest.mark.parametrize(
    ("aval", "expected"),
    [
        (S((3, 4), jnp.float32), 48),
        (S((), jnp.bfloat16), 2),
        (S((0, 5), jnp.float32), 0),
        (S((2,), jax.dtypes.float0), 0),
        (jax.random.split(jax.random.key(0), 5), 0),
    ],
)
def test_bytes(aval, expected):
    assert bytes_of(aval) == expected
