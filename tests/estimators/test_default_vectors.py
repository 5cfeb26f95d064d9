import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.estimators import (
    balance_loss,
    fill_with_defaults,
    top_route,
    update_defaults,
)
from tests.ops.examples import assert_close

EXPERTS, FEATURES = 5, 3


def defaults_example():
    generator = np.random.default_rng(0)
    defaults = generator.normal(size=(EXPERTS, FEATURES)).astype(np.float32)
    outputs = generator.normal(size=(2, 4, FEATURES)).astype(np.float32)
    index = np.array([[0, 3, 3, 1], [0, 0, 3, 1]], np.int32)
    logits = generator.normal(size=(2, 4, EXPERTS)).astype(np.float32)
    return logits, outputs, index, defaults


def test_default_vectors_stand_for_the_others():
    logits, outputs, index, defaults = defaults_example()
    pi = np.asarray(jax.nn.softmax(logits))
    expected = np.zeros_like(outputs)
    for token in np.ndindex(index.shape):
        for expert in range(EXPERTS):
            own = expert == index[token]
            expected[token] += pi[(*token, expert)] * (outputs[token] if own else defaults[expert])
    assert_close(fill_with_defaults(logits, outputs, index, defaults), expected)


def test_default_vectors_give_the_router_a_dense_gradient_and_get_none():
    logits, outputs, index, defaults = defaults_example()

    def total(logits, outputs, defaults):
        return jnp.sum(fill_with_defaults(logits, outputs, index, defaults) ** 2)

    def written_out(logits, outputs, defaults):
        chosen = jax.nn.one_hot(index, EXPERTS)[..., None]
        rows = chosen * outputs[..., None, :] + (1 - chosen) * defaults
        return jnp.sum(jnp.sum(jax.nn.softmax(logits)[..., None] * rows, axis=-2) ** 2)

    found = jax.jit(jax.grad(total, argnums=(0, 1, 2)))(logits, outputs, defaults)
    expected = jax.jit(jax.grad(written_out, argnums=(0, 1)))(logits, outputs, defaults)
    assert_close(found[:2], expected, rtol=1e-4, atol=1e-5)
    assert np.all(found[2] == 0)


@pytest.mark.parametrize("decay", [0.0, 0.9, 1.0])
def test_default_vectors_move_like_numpy_s_and_keep_still_without_tokens(decay):
    _, outputs, index, defaults = defaults_example()
    found = np.asarray(
        jax.jit(update_defaults, static_argnames="decay")(defaults, outputs, index, decay=decay)
    )
    for expert in range(EXPERTS):
        own = outputs[index == expert]
        if len(own):
            assert_close(found[expert], decay * defaults[expert] + (1 - decay) * own.mean(axis=0))
        else:
            assert found[expert].tobytes() == defaults[expert].tobytes()
    total = jax.grad(lambda *data: jnp.sum(update_defaults(*data, index, decay=decay)), (0, 1))
    assert all(np.all(slope == 0) for slope in jax.jit(total)(defaults, outputs))


def test_tokens_outside_count_for_nothing():
    logits, outputs, _, defaults = (np.float32(part) for part in defaults_example())
    logits, outputs = logits[0], outputs[0].copy()
    index = np.array([2, -1, EXPERTS, 2], np.int32)
    logits[1], outputs[1] = np.nan, np.nan

    def total(logits, outputs, index):
        filled = fill_with_defaults(logits, outputs, index, defaults)
        return jnp.sum(jnp.sin(filled)), filled

    @jax.jit
    def both(logits, outputs, index):
        moved = update_defaults(defaults, outputs, index, decay=0.5)
        return moved, jax.grad(total, (0, 1), has_aux=True)(logits, outputs, index)

    moved, (slopes, filled) = both(logits, outputs, index)
    alone, (its_slopes, its) = both(logits[::3], outputs[::3], index[::3])
    assert_close(moved, alone)
    assert_close(moved[2], (defaults[2] + outputs[::3].mean(0)) / 2)
    assert_close(filled[::3], its)
    assert not np.any(filled[1:3])
    for slope, other in zip(slopes, its_slopes, strict=True):
        assert_close(slope[::3], other)
        assert not np.any(slope[1:3])


def test_the_number_of_experts_may_exceed_short_indices():
    logits = jnp.zeros((2, 300))
    filled = fill_with_defaults(logits, jnp.ones((2, 1)), np.uint8([0, 255]), jnp.zeros((300, 1)))
    assert_close(filled, jnp.full((2, 1), 1 / 300))


def test_products_with_defaults_are_exact_on_every_device():
    arguments = defaults_example()
    assert "HIGHEST" in str(jax.make_jaxpr(fill_with_defaults)(*arguments))


@pytest.mark.parametrize("kind", ["Explicit", "Auto"])
def test_tokens_may_be_spread_over_devices(kind):
    logits, outputs, index, defaults = defaults_example()
    mesh = jax.make_mesh((2,), ("d",), axis_types=(getattr(jax.sharding.AxisType, kind),))

    @jax.jit
    def run(logits, outputs, index):
        filled = fill_with_defaults(logits, outputs, index, defaults)
        moved = update_defaults(defaults, outputs, index, decay=0.5)
        return filled, moved, balance_loss(logits, index), top_route(logits)

    expected = run(logits, outputs, index)
    with jax.set_mesh(mesh):
        placed = jax.device_put((logits, outputs, index), jax.NamedSharding(mesh, jax.P("d")))
        assert_close(jax.device_get(run(*placed)), jax.device_get(expected))


def test_default_vectors_of_short_floats_do_not_stall():
    # Plain bfloat16 sums of 4096 ones end at 256.
    outputs, index = jnp.ones((4096, 1), jnp.bfloat16), jnp.zeros(4096, jnp.int32)
    moved = update_defaults(jnp.zeros((2, 1), jnp.bfloat16), outputs, index, decay=0.5)
    assert moved.dtype == jnp.bfloat16
    assert moved.tolist() == [[0.5], [0.0]]
