import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from sparse_hyper_jax import dist, ops
from tests.ops.examples import assert_close

from .examples import COMMON, KINDS, SAMPLING, SHAPE, inputs, key, placed, value_and_gradients


@pytest.fixture(scope="module")
def one_device():
    return value_and_gradients(ops.hyperlayer, **SAMPLING)(*inputs(), key())


@pytest.mark.parametrize("axes", KINDS[1:])
def test_jit_of_placed_inputs_has_the_numbers_of_one_device(axes, one_device):
    given = placed(dist.make_mesh(axes), *inputs())
    found = value_and_gradients(ops.hyperlayer, **SAMPLING)(*given, key())
    assert_close(found, one_device, **COMMON)


@jax.jit
def relax(key, tuples):
    return ops.relax(key, tuples, SHAPE, **SAMPLING)


@pytest.mark.parametrize("axes", KINDS[2:])
def test_jit_of_placed_tuples_draws_the_same_points(axes):
    tuples, x = inputs()
    expected = relax(key(), tuples).indices
    given, _ = placed(dist.make_mesh(axes), tuples, x)
    np.testing.assert_array_equal(relax(key(), given).indices, expected)


def test_tuples_are_spread_by_rows():
    mesh = dist.make_mesh("data=2,tuples=4")
    tuples, _ = inputs()
    state = (tuples, jax.jit(optax.adam(0.1).init)(tuples))
    spread = dist.shard_tuples(state, mesh)
    assert_close(spread, state, rtol=0, atol=0)
    shardings = dist.tuple_shardings(state, mesh)
    jax.tree.map(lambda leaf, sharding: leaf.sharding == sharding or 1 / 0, spread, shardings)
    assert spread[0].means.sharding.spec == P("tuples")
    assert {shard.data.shape for shard in spread[0].means.addressable_shards} == {(4, 2)}
    assert spread[1][0].count.sharding.is_fully_replicated


@pytest.mark.parametrize(("axis", "shape"), [(-1, (4, 6, 2)), (1, (4, 3, 4)), (0, (2, 6, 4))])
def test_batch_is_spread_along_its_axis(axis, shape):
    mesh = dist.make_mesh("data=2,tuples=4")
    x = np.arange(96, dtype=np.float32).reshape(4, 6, 4)
    spread = dist.shard_batch({"x": x}, mesh, axis=axis)["x"]
    np.testing.assert_array_equal(spread, x)
    assert {shard.data.shape for shard in spread.addressable_shards} == {shape}


def test_placement_works_inside_jit():
    mesh = dist.make_mesh("data=2,tuples=4")

    @jax.jit  # uniform: exact bits, however the compiler orders its arithmetic
    def place(key):
        x = jax.random.uniform(key, (4, 8))
        return x, dist.shard_batch(x, mesh), dist.shard_tuples(x, mesh)

    x, batch, tuples = place(key())
    np.testing.assert_array_equal(x, jax.random.uniform(key(), (4, 8)))
    np.testing.assert_array_equal(batch, x)
    np.testing.assert_array_equal(tuples, x)
    assert batch.sharding.spec == P(None, "data")
    assert tuples.sharding.spec == P("tuples")


def test_copies_are_whole_on_every_device():
    mesh = dist.make_mesh("data=2,tuples=4")
    tuples, x = inputs()
    whole = dist.replicate(placed(mesh, tuples, x), mesh)
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(whole))
    assert all(len(leaf.sharding.device_set) == 8 for leaf in jax.tree.leaves(whole))
    assert_close(whole, (tuples, x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda mesh: dist.shard_tuples({"means": jnp.ones((6, 2))}, mesh),
            "found 6 tuples on a mesh with tuples=4; expected a multiple of 4",
        ),
        (
            lambda mesh: dist.shard_batch(jnp.ones((4, 3)), mesh),
            "found 3 instances on a mesh with data=2; expected a multiple of 2",
        ),
        (
            lambda mesh: dist.shard_batch(jnp.ones(4), mesh, axis=1),
            r"found an array of shape \(4,\) with axis=1; expected a batch axis",
        ),
        (lambda mesh: dist.shard_batch(jnp.float32(1), mesh), r"shape \(\) with axis=-1"),
    ],
)
def test_uneven_parts_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(dist.make_mesh("data=2,tuples=4"))


@pytest.mark.parametrize("tree", [None, "x", {"a": "b"}, {"a": object()}, [[1.0], [None, 1j]]])
@pytest.mark.parametrize("place", [dist.shard_tuples, dist.shard_batch, dist.replicate])
def test_what_is_no_array_is_not_placed(place, tree):
    with pytest.raises(ValueError, match=r"found .*; expected .*; "):
        place(tree, dist.make_mesh("data=1"))


@pytest.mark.parametrize("axis", ["0", 0.0, None, True])
def test_an_axis_is_an_int(axis):
    with pytest.raises(ValueError, match=f"found axis={axis!r}; expected an int"):
        dist.shard_batch(jnp.ones(4), dist.make_mesh("data=1"), axis=axis)


def test_numbers_keys_and_empty_fields_are_placed():
    mesh = dist.make_mesh("data=2,tuples=2")
    tree = {"number": 1.5, "key": jax.random.key(0), "none": None, "numpy": np.ones(4, np.int32)}
    spread = dist.shard_tuples(tree, mesh)
    assert spread["none"] is None
    assert spread["number"] == 1.5
    assert spread["key"] == jax.random.key(0)
    assert spread["numpy"].sharding.spec == P("tuples")
