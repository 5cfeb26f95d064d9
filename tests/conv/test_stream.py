import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import conv
from tests.conv.examples import normal
from tests.folding import folded
from tests.ops.examples import assert_names_itself_and_its_cure

STEPS, CHANNELS, OUT, REACH = 23, 3, 2, 7
X = normal(2, STEPS, CHANNELS)
OWN = np.random.default_rng(1).integers(0, REACH + 2, (4, CHANNELS)).astype(np.int32)
LAGS = {"shared": np.array([0, 6, 2, 9]), "own": OWN}
PLACED = np.array([True, True, False, True])
CASES = [(name, mixed, strict) for name in LAGS for mixed in (True, False) for strict in (0, 1)]


@folded
def streamed():
    def of_case(name, mixed, strict):
        weights = normal(4, CHANNELS, OUT, seed=2) if mixed else normal(4, CHANNELS, seed=2)
        placed = PLACED if name == "shared" else np.broadcast_to(PLACED[:, None], OWN.shape)
        options = {"placed": placed, "strict": bool(strict)}

        def both(x, lags):
            def step(stream, now):
                return conv.lag_conv_step(stream, now, weights, lags, **options)

            empty = conv.init_lag_stream(REACH, CHANNELS, (2,))
            stream, y = jax.lax.scan(step, empty, jnp.moveaxis(x, 1, 0))
            whole = conv.lag_conv(x, weights, lags, reach=REACH, **options)
            return stream, jnp.moveaxis(y, 0, 1), whole

        return both

    return {case: (of_case(*case), X, LAGS[case[0]]) for case in CASES}


@pytest.mark.parametrize(("name", "mixed", "strict"), CASES)
def test_steps_are_the_whole_pass(name, mixed, strict):
    stream, y, whole = streamed(name, mixed, strict)
    np.testing.assert_allclose(y, whole, atol=1e-5)
    last = [X[:, step] for step in range(STEPS - REACH, STEPS)]
    np.testing.assert_array_equal(np.roll(stream.past, -int(stream.at), axis=1), np.stack(last, 1))


def test_streams_keep_their_dtype_and_sums_are_wide():
    def run():
        stream = conv.init_lag_stream(3, 4, dtype=jnp.bfloat16)
        return conv.lag_conv_step(stream, np.ones(4), np.ones((1, 4, 2)), [0])

    stream, y = jax.eval_shape(run)
    assert (stream.past.dtype, y.dtype) == (jnp.bfloat16, jnp.float32)


EMPTY = conv.init_lag_stream(3, 2)
ONE = np.ones((1, 2))
# The call, then a fragment of each part: what was found, what was expected, what to change.
MISTAKES = {
    "reach": (lambda: conv.init_lag_stream(0, 1), "reach=0", "from 1", "reach"),
    "channels": (lambda: conv.init_lag_stream(1, 0), "channels=0", "at least 1", "channels"),
    "batch": (lambda: conv.init_lag_stream(1, 1, (0,)), "batch_shape", "ints from 1", "static"),
    "number": (lambda: conv.init_lag_stream(1, 1, 7), "batch_shape=7", "ints from 1", "static"),
    "stream": (lambda: conv.lag_conv_step(1, [1.0], ONE, [0]), "stream=1", "tuple", "change"),
    "parts": (lambda: conv.lag_conv_step((1,), [1.0], ONE, [0]), "1 parts", "past", "init_lag"),
    "shapes": (
        lambda: conv.lag_conv_step((np.ones(3), 0), [1.0], ONE, [0]),
        "stream.past of shape (3,)",
        "(..., reach, C)",
        "init_lag_stream",
    ),
    "x": (lambda: conv.lag_conv_step(EMPTY, np.ones(3), ONE, [0]), "(3,)", "(2)", "reshape x"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_name_themselves_and_their_cure(mistake):
    assert_names_itself_and_its_cure(*MISTAKES[mistake])
