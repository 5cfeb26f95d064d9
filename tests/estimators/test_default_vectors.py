import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.estimators import fill_with_defaults, update_defaults
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


def test_default_vectors_of_short_floats_do_not_stall():
    # Plain bfloat16 sums of 4096 ones end at 256.
    outputs, index = jnp.ones((4096, 1), jnp.bfloat16), jnp.zeros(4096, jnp.int32)
    moved = update_defaults(jnp.zeros((2, 1), jnp.bfloat16), outputs, index, decay=0.5)
    assert moved.dtype == jnp.bfloat16
    assert moved.tolist() == [[0.5], [0.0]]
