"""What callers pass: what is taken, and what is told in three parts before anything is computed."""

from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.sort import (
    Sorted,
    apply_split,
    cross_entropy,
    draw_sort,
    element_match,
    exact_match,
    half_split,
    neural_sort,
    order_loss,
    quicksort,
    rank_loss,
    reverse_split,
    soft_ranks,
    soft_sort,
    soft_top_k,
    sort_loss,
    squared_error,
    standardise,
)
from tests.ops.examples import assert_names_itself_and_its_cure

KEY, KEYS = jax.random.key(0), jnp.array([0.5, -1, 2, 0])
HALF = Sorted(KEYS, KEYS, (KEYS,) * 3, (KEYS,) * 3)

SOFT = {
    "soft_sort": lambda keys=KEYS, **options: soft_sort(keys, KEYS, **options),
    "soft_ranks": lambda keys=KEYS, **options: soft_ranks(keys, **options),
    "soft_top_k": lambda keys=KEYS, **options: soft_top_k(keys, 2, **options),
    "order_loss": lambda keys=KEYS, **options: order_loss(keys, KEYS, **options),
    "rank_loss": lambda keys=KEYS, **options: rank_loss(keys, KEYS, **options),
}
MIXED = {
    "quicksort": lambda keys=KEYS, key=KEY, **options: quicksort(key, keys, KEYS, **options),
    "half_split": lambda keys=KEYS, key=KEY, **options: half_split(key, keys, KEYS, **options),
    "draw_sort": lambda keys=KEYS, key=KEY, **options: draw_sort(key, keys, KEYS, **options),
}
EVERY = SOFT | MIXED
HARD = ("soft_sort", "soft_ranks", "soft_top_k", "quicksort", "half_split")


@pytest.mark.parametrize("certainty", [-1, 0, -1.0, np.float32(-1), np.inf, jnp.nan, "10", None])
@pytest.mark.parametrize("name", EVERY)
def test_a_certainty_is_one_number_above_zero(name, certainty):
    call = partial(EVERY[name], certainty=certainty)
    assert_names_itself_and_its_cure(call, "certainty=", "one number above 0", "change certainty")


@pytest.mark.parametrize("temperature", [0, -1.0, np.float32(-1), 1e-39, np.inf, [1.0], "1"])
def test_a_temperature_is_a_divisor(temperature):
    call = partial(neural_sort, KEYS, temperature=temperature)
    assert_names_itself_and_its_cure(call, "temperature=", "one number at least", "change")


@pytest.mark.parametrize("hard", ["yes", "no", 1, None, np.ones(1, bool)])
@pytest.mark.parametrize("name", HARD)
def test_a_flag_is_true_or_false(name, hard):
    call = partial(EVERY[name], hard=hard)
    assert_names_itself_and_its_cure(call, "hard=", "True or False", "change hard")


@pytest.mark.parametrize("key", [None, 0, 1.5, "key", jax.random, jnp.zeros(2)])
@pytest.mark.parametrize("name", MIXED)
def test_a_key_is_a_random_key(name, key):
    call = partial(MIXED[name], key=key)
    assert_names_itself_and_its_cure(call, "key=", "one random key", "jax.random.key")


@pytest.mark.parametrize(
    "keys", [None, "abcd", {"keys": 1}, [1.0, None], [[1.0], [2.0, 3.0]], jnp.ones(4, complex)]
)
@pytest.mark.parametrize("name", [*EVERY, "neural_sort", "standardise", "element_match"])
def test_keys_are_real_numbers(name, keys):
    others = {
        "neural_sort": neural_sort,
        "standardise": standardise,
        "element_match": lambda keys: element_match(keys, keys),
    }
    call = partial((EVERY | others)[name], keys)
    expected = "floats" if name == "standardise" else "real numbers"
    assert_names_itself_and_its_cure(call, "keys", expected, "convert keys")


@pytest.mark.parametrize("counts", [{"num_candidates": 2.0}, {"num_candidates": True}])
@pytest.mark.parametrize("name", MIXED)
def test_counts_are_ints(name, counts):
    call = partial(MIXED[name], **counts)
    assert_names_itself_and_its_cure(call, "num_candidates=", "an int of at least 1", "static")


# The call, then a fragment of each part: what was found, what was expected, what to change.
MISTAKES = {
    "complex payload": (
        lambda: soft_sort(KEYS, {"x": jnp.ones(4, complex)}),
        "payload leaf of dtype complex",
        "real numbers",
        "convert payload leaf",
    ),
    "complex payload, hard": (
        lambda: quicksort(None, KEYS, jnp.ones(4, complex), hard=True),
        "payload leaf of dtype complex",
        "real numbers",
        "convert payload leaf",
    ),
    "names as payload": (
        lambda: draw_sort(KEY, KEYS, ["one", "two", "three", "four"]),
        "payload leaf='one'",
        "an array of real numbers",
        "convert payload leaf",
    ),
    "lists of fractions": (
        lambda: soft_ranks(KEYS, segment_ids=[0.0, 0, 1, 1]),
        "segment_ids of dtype float32",
        "integers",
        "convert segment_ids",
    ),
    "lists of flags": (
        lambda: order_loss(KEYS, KEYS, segment_ids=[True, False, True, True]),
        "segment_ids of dtype bool",
        "integers",
        "convert segment_ids",
    ),
    "names as labels": (
        lambda: rank_loss(KEYS, ["one", "two", "three", "four"]),
        "labels=['one'",
        "an array of real numbers",
        "convert labels",
    ),
    "complex labels": (
        lambda: exact_match(KEYS, jnp.ones(4, complex)),
        "labels of dtype complex",
        "real numbers",
        "convert labels",
    ),
    "no level": (lambda: half_split(KEY, KEYS, KEYS, level=[0]), "level=[0]", "an int", "level"),
    "level of a float": (lambda: half_split(KEY, KEYS, KEYS, level=1.0), "1.0", "0 to 2", "level"),
    "no split": (
        lambda: apply_split(jnp.eye(4), KEYS),
        "split=Array",
        "an instance of HalfPermutation",
        "change split",
    ),
    "the class of a split": (
        lambda: reverse_split(type(half_split(None, KEYS, None, hard=True)[2]), KEYS),
        "HalfPermutation",
        "an instance of HalfPermutation",
        "write HalfPermutation(...)",
    ),
    "no result": (
        lambda: sort_loss(KEYS, KEYS),
        "result=Array",
        "an instance of Sorted",
        "change result",
    ),
    "stages that were cut": (
        lambda: sort_loss(HALF._replace(stages=(KEYS,)), KEYS),
        "1 stages and 3 targets",
        "3 of both",
        "quicksort",
    ),
    "nothing to compare": (
        lambda: sort_loss(Sorted({}, KEYS, (), None), {}, kind="plain"),
        "a payload of shapes []",
        "something",
        "leave",
    ),
    "the name of a distance": (
        lambda: sort_loss(HALF, KEYS, distance="squared_error"),
        "distance='squared_error'",
        "an elementwise loss",
        "pass a function as distance",
    ),
    "a distance that is a mean": (
        lambda: sort_loss(HALF, KEYS, distance=lambda y, t: jnp.mean(y - t)),
        "distance of shape ()",
        "the same shape",
        "reshape",
    ),
    "a kind": (lambda: sort_loss(HALF, KEYS, kind=["means"]), "kind=['means']", "one of", "choose"),
    "no key to standardise": (
        lambda: standardise(jnp.zeros((3, 0))),
        "(3, 0)",
        "at least",
        "leave",
    ),
    "whole keys to standardise": (lambda: standardise([3, 1]), "int32", "floats", "convert keys"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_name_themselves_and_their_cure(mistake):
    assert_names_itself_and_its_cure(*MISTAKES[mistake])


@pytest.mark.parametrize("distance", [cross_entropy, squared_error])
def test_nothing_is_broadcast_by_accident(distance):
    def call():
        distance(jnp.zeros((3, 1)), jnp.zeros(3))

    assert_names_itself_and_its_cure(call, "output of shape (3, 1)", "the same shape", "reshape")


def test_counts_of_numpy_and_lists_of_numbers_are_taken():
    counts = {"num_candidates": np.int64(3), "num_near": np.prod([1, 1])}
    keys, payload = [0.5, -1.0, 2.0], [[1.0, 2], [3, 4], [5, 6]]
    done = jax.eval_shape(lambda: quicksort(KEY, keys, {"x": payload}, target=payload, **counts))
    assert done.payload["x"].shape == done.targets[0].shape == (3, 2)
    moved = jax.eval_shape(lambda: half_split(KEY, keys, payload, level=np.int32(1), **counts))
    assert moved[1].shape == (3, 2)
    assert jax.eval_shape(lambda: soft_top_k(keys, np.int8(2))).shape == (3,)
    # A list of arrays is a tree, as ever.
    trees = jax.eval_shape(lambda: soft_sort(keys, [jnp.ones(3), jnp.ones((3, 2))]))
    assert [leaf.shape for leaf in trees] == [(3,), (3, 2)]


def test_keys_may_be_flags_if_the_sort_is_hard():
    keys, order = [True, False, True, False], [1, 3, 0, 2]
    done = jax.jit(lambda: quicksort(None, keys, jnp.arange(4), hard=True))()
    np.testing.assert_array_equal(done.payload, order)
    np.testing.assert_array_equal(done.keys, np.sort(keys))
    np.testing.assert_array_equal(
        jax.jit(lambda: soft_sort(keys, np.arange(4), hard=True))(), order
    )


def functions_of_a_batch(key, keys, payload):
    """One instance through all sorts, with options that keep the programs small."""
    options = {"num_candidates": 2}
    return {
        "soft": soft_sort(keys, payload),
        "ranks": soft_ranks(keys),
        "shares": soft_top_k(keys, 1),
        "losses": (order_loss(keys, payload), rank_loss(keys, payload)),
        "quicksort": quicksort(key, keys, payload, **options),
        "drawn": draw_sort(key, keys, payload, **options),
    }


def test_the_batch_may_be_symbolic():
    (batch,) = jax.export.symbolic_shape("b")
    floats = jax.ShapeDtypeStruct((batch, 3), jnp.float32)
    keys = jax.ShapeDtypeStruct((batch,), KEY.dtype)
    program = jax.jit(jax.vmap(functions_of_a_batch))
    exported = jax.export.export(program)(keys, floats, floats)
    example = jax.random.split(KEY, 2), jnp.ones((2, 3)).at[0, 1].set(3.0), jnp.eye(3)[:2]
    expected = program(*example)
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
        jax.device_get(exported.call(*example)),
        jax.device_get(expected),
    )
    read = jax.export.deserialize(exported.serialize())
    assert jax.tree.structure(read.call(*example)) == jax.tree.structure(expected)


@pytest.mark.parametrize("sort", [soft_sort, partial(quicksort, KEY), partial(half_split, KEY)])
def test_the_number_of_elements_is_known(sort):
    (n,) = jax.export.symbolic_shape("n")
    keys = jax.ShapeDtypeStruct((n,), jnp.float32)

    def call():
        jax.export.export(jax.jit(sort))(keys, keys)

    assert_names_itself_and_its_cure(call, "n keys", "a number of elements", "symbolic batch")
