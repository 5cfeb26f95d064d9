import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax.train.data.epochs import first_order, next_batch


def test_an_epoch_takes_every_row_once_and_keeps_rows_together():
    rows = jnp.arange(10)
    order, seen = first_order(10), []
    step = jax.jit(next_batch, static_argnames="batch")
    for count in range(6):
        key = jax.random.key(count)
        order, (a, b) = step(key, order, jnp.int32(count), (rows, -rows), batch=3)
        np.testing.assert_array_equal(a, -b)
        seen.append(np.asarray(a))
    epochs = np.concatenate(seen[:3]), np.concatenate(seen[3:])
    assert all(len(set(epoch)) == 9 for epoch in epochs)
    assert (epochs[0] != epochs[1]).any()


def test_the_order_changes_only_at_the_beginning_of_an_epoch():
    order = first_order(7)
    for count in range(4):
        later, _ = next_batch(jax.random.key(9), order, jnp.int32(count), jnp.arange(7), batch=2)
        assert bool((later == order).all()) == (count % 3 != 0)
        order = later
