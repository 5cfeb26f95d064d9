"""A batch spread over a mesh of Explicit axes, in the ways that the table does not try."""

from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import ops
from tests.ops.examples import assert_close, make_tuples

TUPLES = make_tuples(6, (5, 4))
X = np.cos(np.arange(96.0, dtype=np.float32)).reshape(8, 4, 3)
BATCH_LAST = np.moveaxis(X, 0, -1)


def layer(tuples, x):
    return ops.hyperlayer(jax.random.key(1), tuples, x, (5,), num_global=2)


def loss(function):
    return jax.jit(jax.value_and_grad(lambda *args: (function(*args) ** 2).sum(), argnums=(0, 1)))


@pytest.mark.parametrize("with_context", [True, False])
@pytest.mark.parametrize(
    ("function", "x", "place"),
    [
        (layer, BATCH_LAST, jax.P(None, None, "batch")),
        (jax.vmap(layer, in_axes=(None, 0)), X, jax.P("batch")),
    ],
    ids=["last axis", "vmap"],
)
def test_tuples_that_the_batch_shares(function, x, place, with_context):
    mesh = jax.make_mesh((4,), ("batch",), devices=jax.devices()[:4])
    context = jax.set_mesh(mesh) if with_context else nullcontext()
    expected = loss(layer)(TUPLES, BATCH_LAST)
    with context:
        spread = jax.device_put(x, jax.NamedSharding(mesh, place))
        whole = jax.device_put(TUPLES, jax.NamedSharding(mesh, jax.P()))
        value, (by_tuples, by_x) = loss(function)(whole, spread)
    by_x = by_x if x is BATCH_LAST else jnp.moveaxis(jnp.asarray(jax.device_get(by_x)), 0, -1)
    assert_close(jax.device_get((value, (by_tuples, by_x))), expected, rtol=1e-4)
