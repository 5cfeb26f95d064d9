"""What callers pass: taken where it is meant, refused in three parts where it is not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_hyper_jax import checks, graph, ops, spiking
from sparse_hyper_jax.entrance import (
    as_array,
    as_int32,
    check_instance,
    check_optimizer_state,
    check_random_key,
    check_same_shape,
)

THREE_PARTS = "found .*; expected .*; "


def refused(function, *arguments, **options):
    with pytest.raises(ValueError, match=THREE_PARTS):
        function(*arguments, **options)


@pytest.mark.parametrize("count", [3, np.int64(3), np.prod((3, 1)), np.array(3), jnp.array(3)])
def test_counts_are_whatever_counts(count):
    found = checks.check_count("n", count, 3, 3)
    assert found == 3
    assert type(found) is int


@pytest.mark.parametrize("count", [True, np.bool_(1), 2.0, "2", None, [2], -1, 5, jnp.array([2])])
def test_other_counts_are_refused(count):
    refused(checks.check_count, "n", count, 0, 4)


@pytest.mark.parametrize("number", [1, 0.5, np.float32(0.5), np.int8(1), jnp.array(0.5)])
def test_numbers_between_limits(number):
    checks.check_number("rate", number, above=0, at_most=1)
    checks.check_number("rate", number, at_least=number, at_most=number)


@pytest.mark.parametrize(
    "number",
    [
        *(0, -1.0, 1.5, np.float32(-1), jnp.array(-1.0), np.nan, np.inf),
        *("1", True, jnp.array(True), None, [0.5], jnp.array([0.5]), 1j, float),
    ],
)
def test_other_numbers_are_refused(number):
    refused(checks.check_number, "rate", number, above=0, at_most=1)


def test_infinity_is_a_number_where_no_limit_excludes_it():
    checks.check_number("rate", np.inf, at_least=0)
    refused(checks.check_number, "rate", np.inf, below=np.inf, at_most=1e30)


def test_a_traced_number_is_checked_for_its_type_alone():
    def step(number):
        checks.check_number("rate", number, above=0, at_most=1)
        refused(checks.check_count, "n", number)
        return number

    jax.eval_shape(step, 7.0)
    refused(jax.eval_shape, step, jnp.ones(2))
    refused(jax.eval_shape, step, True)


def test_numbers_beyond_all_floats_and_shapes_without_axes():
    refused(checks.check_number, "rate", 10**400, at_least=0)
    refused(checks.check_index_shape, "shape", np.array(8))
    refused(checks.check_index_shape, "shape", ((1, 2), (3,)))


def test_flags():
    assert [checks.check_flag("hard", flag) for flag in (True, np.bool_(0))] == [True, False]
    for flag in ("no", 1, 0, None):
        refused(checks.check_flag, "hard", flag)


@pytest.mark.parametrize("array", [1, 2.5, [1, 2], ((1, 2), [3, 4]), [], np.ones(2, np.float16)])
def test_arrays_and_lists_become_arrays(array):
    found = as_array("x", array)
    assert isinstance(found, jax.Array)
    np.testing.assert_array_equal(found, np.asarray(array))


@pytest.mark.parametrize(
    "array",
    [
        *(None, "x", {"a": 1}, [None, 1.0], [[1], [2, 3]], 1j, object(), float, ["word"]),
        *(
            2**40,
            [np.array([2**33])],
            np.array([2**33]),
            np.array([-(2**31) - 1]),
            np.array([None]),
        ),
    ],
)
def test_what_is_no_array_of_real_numbers_is_refused(array):
    refused(as_array, "x", array)


def test_kinds_of_arrays():
    for kind, array in {"floats": [1.0], "integers": [1], "flags": [True]}.items():
        as_array("x", array, kind)
        for other in {"floats", "integers", "flags"} - {kind}:
            refused(as_array, "x", array, other)


def test_lists_of_traced_numbers_become_arrays():
    assert jax.eval_shape(lambda x: as_array("x", [x, 1.0]), 2.0).shape == (2,)


def test_keys():
    check_random_key(jax.random.key(0))
    check_random_key(jax.random.PRNGKey(0))
    jax.eval_shape(check_random_key, jax.random.key(0))
    for key in (None, 0, 1.5, jnp.ones(2), jax.random.split(jax.random.key(0)), "key"):
        refused(check_random_key, key)


def test_instances_and_shapes():
    check_instance("sizes", (1,), tuple, list)
    for value in (tuple, 1, None):
        refused(check_instance, "sizes", value, tuple, list)
    assert check_same_shape(x=np.ones((2, 1)), y=jnp.ones((2, 1))) == (2, 1)
    refused(check_same_shape, x=np.ones((3, 1)), y=np.ones(3))


def test_an_empty_list_holds_numbers_of_any_kind():
    kinds = {"integers": jnp.int32, "flags": jnp.bool_, "floats": jnp.float32}
    for kind, dtype in kinds.items():
        assert as_array("x", [], kind).dtype == dtype
        assert as_array("x", [[], []], kind).shape == (2, 0)
    refused(as_array, "x", np.zeros(0), "integers")
    h = jnp.ones((3, 2))
    assert (graph.aggregate([], [], None, h) == 0).all()


def test_numbers_that_32_bits_do_not_hold_stay_outside():
    beyond = 2**32
    with jax.enable_x64(True):
        found = as_int32("n", jnp.array([beyond + 2, -beyond, 7]))
        assert found.tolist() == [2**31 - 1, -(2**31), 7]
        assert found.dtype == jnp.int32
        gains = graph.EdgeGains(
            jnp.array([[beyond + 2], [beyond], [1]]), jnp.ones((3, 1)), jnp.ones(3)
        )
        edges = graph.place_edges(graph.empty_edges(3, 1), gains)
        assert edges.placed.tolist() == [[False], [False], [True]]
        event, state = jnp.array([[beyond + 3, 3]]), spiking.activity_state((8, 8), memory=2)
        assert spiking.follow_activity(state, event)[1].tolist() == [4, 4]
        moved = spiking.readdress(event, [3, 3], shape=(8, 8), window=(4, 4))
        assert moved.tolist() == [[-1, -1]]
        taps = ops.Taps(jnp.array([[beyond], [0]]), jnp.array([True, False]))
        assert ops.pursue(jnp.array([5.0, 1.0]), taps).positions[1].tolist() == [0]
    assert as_int32("n", np.array([200, 3], np.uint8)).tolist() == [200, 3]
    refused(as_int32, "n", [1.5])


def test_a_state_of_another_optimizer_or_of_other_parameters_is_refused():
    weights, adam = {"w": jnp.ones(3)}, optax.adam(0.1)
    check_optimizer_state(adam.init(weights), adam.init, weights)
    refused(check_optimizer_state, optax.sgd(0.1).init(weights), adam.init, weights)
    refused(check_optimizer_state, adam.init({"w": jnp.ones(4)}), adam.init, weights)
