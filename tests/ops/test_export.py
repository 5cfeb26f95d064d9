"""Programs that are exported once, for any batch and any number of tuples."""

import jax
import numpy as np
from jax import export

from sparse_hyper_jax import ops
from tests.ops.examples import assert_close, make_tuples

KEY = jax.random.key(3)


def step(key, tuples, x):
    def loss(tuples):
        y = ops.hyperlayer(key, tuples, x, (5,), num_global=2)
        return (y**2).sum(), y

    slopes, y = jax.grad(loss, has_aux=True)(tuples)
    each = jax.vmap(lambda x: ops.hyperlayer_hard(tuples, x, (5,)), in_axes=-1)(x)
    return ops.settle(tuples, (5, 4)), slopes, y, each


def any_size():
    count, batch = export.symbolic_shape("k, b")
    tuples = [jax.ShapeDtypeStruct(shape, np.float32) for shape in ((count, 2),) * 2 + ((count,),)]
    x = jax.ShapeDtypeStruct((4, batch), np.float32)
    return export.export(jax.jit(step))(KEY, ops.ContinuousTuples(*tuples), x)


def assert_same_numbers(exported):
    for count, batch in ((3, 1), (6, 5)):
        tuples = make_tuples(count, (5, 4))
        x = np.cos(np.arange(4.0 * batch, dtype=np.float32)).reshape(4, batch)
        assert_close(exported.call(KEY, tuples, x), jax.jit(step)(KEY, tuples, x), rtol=1e-4)


def test_one_program_for_any_batch_and_number_of_tuples():
    assert_same_numbers(any_size())


def test_it_can_be_written_and_read_back():
    assert_same_numbers(export.deserialize(bytearray(any_size().serialize())))
