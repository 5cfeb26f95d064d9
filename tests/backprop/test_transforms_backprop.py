from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.backprop import (
    TopK,
    UnifiedTopK,
    init_memory,
    next_memory,
    sparse_dense,
    sparsify_cotangent,
)
from tests.backprop.examples import (
    KEY,
    N_IN,
    ROWS,
    SPARSIFIERS,
    N,
    largest,
    layer_arrays,
    memory_for,
    random_array,
)
from tests.ops.examples import assert_close

TARGET = random_array(ROWS, N, seed=5)
SOME = ["TopK", "UnifiedTopK", "UnifiedRandomK, unscaled", "AdaptiveLadder"]
each = pytest.mark.parametrize("name", SOME)


def loss(parameters, memory, key, x, sparsifier):
    y = sparse_dense(key, x, *parameters, memory, sparsifier=sparsifier)
    return jnp.mean((jnp.tanh(y) - TARGET) ** 2)


def step(carry, inputs, sparsifier, loss=loss):
    parameters, memory = carry
    gradient, following = jax.grad(loss, argnums=(0, 1))(parameters, memory, *inputs, sparsifier)
    parameters = jax.tree.map(lambda leaf, slope: leaf - 0.5 * slope, parameters, gradient)
    return (parameters, next_memory(memory, following)), None


jitted = jax.jit(step, static_argnums=2)


def start(name):
    x, *parameters = layer_arrays()
    return (tuple(map(jnp.asarray, parameters)), memory_for(SPARSIFIERS[name])), (KEY, x)


def many(count=3):
    return jax.random.split(KEY, count), random_array(count, ROWS, N_IN)


@pytest.mark.parametrize("name", ["TopK", "UnifiedRandomK, unscaled"])
def test_jit_changes_nothing(name):
    eager = step(*start(name), SPARSIFIERS[name])
    assert_close(jitted(*start(name), SPARSIFIERS[name]), eager)


@each
def test_a_scan_over_steps_is_a_loop(name):
    carry, _ = start(name)
    scanned, _ = jax.lax.scan(partial(step, sparsifier=SPARSIFIERS[name]), carry, many())
    for inputs in zip(*many(), strict=True):
        carry, _ = jitted(carry, inputs, SPARSIFIERS[name])
    assert_close(scanned, carry)
    assert carry[1].residue.any()
    assert carry[1].uses == 1


@pytest.mark.parametrize("name", ["TopK", "UnifiedRandomK, unscaled", "AdaptiveLadder"])
def test_vmap_over_seeds_is_a_loop(name):
    (parameters, memory), _ = start(name)
    memories = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), memory)
    memories = memories._replace(residue=random_array(3, ROWS, N, seed=4))

    def run(memory, *inputs):
        return step((parameters, memory), inputs, SPARSIFIERS[name])[0]

    together = jax.jit(jax.vmap(run))(memories, *many())
    for number, inputs in enumerate(zip(*many(), strict=True)):
        alone = jax.tree.map(lambda leaf, at=number: leaf[at], memories)
        expected, _ = jitted((parameters, alone), inputs, SPARSIFIERS[name])
        assert_close(jax.tree.map(lambda leaf, at=number: leaf[at], together), expected)


@each
def test_recomputing_the_forward_pass_changes_nothing(name):
    again = jax.checkpoint(loss, static_argnums=4)
    carry, inputs = start(name)
    ours, _ = jax.jit(partial(step, loss=again), static_argnums=2)(carry, inputs, SPARSIFIERS[name])
    assert_close(ours, jitted(carry, inputs, SPARSIFIERS[name])[0])
    assert ours[1].uses == 1


@pytest.mark.parametrize("name", ["TopK", "AdaptiveLadder"])
def test_steps_compile_once(name):
    chex.clear_trace_counter()
    once = jax.jit(chex.assert_max_traces(step, n=1), static_argnums=2)
    carry, _ = start(name)
    before = carry[1].residue
    for key, x in zip(*many(), strict=True):
        carry, _ = once(carry, (key, x), SPARSIFIERS[name])
    assert (carry[1].residue != before).any()


def test_memory_can_be_donated():
    carry, inputs = start("UnifiedTopK")
    expected = jax.tree.map(np.array, jitted(carry, inputs, SPARSIFIERS["UnifiedTopK"])[0])
    donating = jax.jit(step, static_argnums=2, donate_argnums=0)
    ours, _ = donating(carry, inputs, SPARSIFIERS["UnifiedTopK"])
    assert_close(ours, expected)
    assert carry[1].residue.is_deleted()
    assert not ours[1].residue.is_deleted()


def test_forward_mode_is_refused():
    x, kernel, _ = layer_arrays()
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: sparse_dense(None, x, kernel, sparsifier=TopK(2)), (x,), (x,))
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: sparsify_cotangent(None, x, sparsifier=TopK(2)), (x,), (x,))


def convolve(image, filters):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(image, filters, (1, 1), "SAME", dimension_numbers=numbers)


@jax.jit
def dense_gradients(image, filters, cotangent):
    return jax.vjp(convolve, image, filters)[1](cotangent)


@pytest.mark.parametrize("event_ndim", [1, 3])
@pytest.mark.parametrize("kind", ["slot", "shared"])
def test_a_convolution_gets_the_largest_components(event_ndim, kind):
    image, filters = random_array(2, 4, 3, 2), random_array(3, 3, 2, 5)
    shape = (2, 4, 3, 5)
    cotangent = random_array(*shape, seed=1)
    memory = init_memory(kind, shape, event_ndim=event_ndim)

    def layer(image, filters, memory):
        y = convolve(image, filters)
        return sparsify_cotangent(
            None, y, memory, sparsifier=TopK(3), eta=0.5, event_ndim=event_ndim
        )

    *ours, following = jax.jit(lambda *at: jax.vjp(layer, *at)[1](cotangent))(
        image, filters, memory
    )
    units = shape[4 - event_ndim :]
    rows = cotangent.reshape(-1, np.prod(units))
    s = np.where(largest(np.abs(rows), 3), rows, 0).reshape(shape)
    assert_close(tuple(ours), dense_gradients(image, filters, s))
    rest = 0.5 * (cotangent - s)
    axes = tuple(range(4 - event_ndim))
    assert_close(following.residue, rest if kind == "slot" else rest.sum(axes))


def attend(queries, keys, values):
    scores = jnp.einsum("bqhd,bkhd->bhqk", queries, keys)
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), values)


def test_projections_of_attention_are_sparsified_one_by_one():
    x, cotangent = random_array(2, 3, 4), random_array(2, 3, 2, 5, seed=1)
    kernels = random_array(3, 4, 2, 5, seed=2)
    memories = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), init_memory("slot", (2, 3, 2, 5)))

    def layer(kernels, memories):
        def project(kernel, memory):
            y = jnp.einsum("bti,ihd->bthd", x, kernel)
            return sparsify_cotangent(None, y, memory, sparsifier=UnifiedTopK(4), event_ndim=2)

        return attend(*jax.vmap(project)(kernels, memories))

    ours, following = jax.jit(lambda: jax.vjp(layer, kernels, memories)[1](cotangent))()
    projected = jnp.einsum("bti,nihd->nbthd", x, kernels)
    for number, g in enumerate(jax.vjp(attend, *projected)[1](cotangent)):
        rows = np.asarray(g).reshape(6, 10)
        s = np.where(largest(np.abs(rows).sum(0), 4), rows, 0).reshape(g.shape)
        assert_close(ours[number], np.einsum("bti,bthd->ihd", x, s))
        assert_close(following.residue[number], 0.8 * (g - s))
    assert (next_memory(memories, following).uses == 1).all()
