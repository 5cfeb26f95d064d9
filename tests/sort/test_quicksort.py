from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_hyper_jax.sort import quicksort, sort_loss, standardise
from sparse_hyper_jax.sort.buckets import num_levels
from sparse_hyper_jax.sort.permutations import invert
from tests.folding import folded, stacked
from tests.sort import oracle

KEY = jax.random.key(0)
OPTIONS = ("num_candidates", "num_near", "hard")
jit_sort = jax.jit(quicksort, static_argnames=OPTIONS)
hard_sort = jax.jit(partial(quicksort, None, hard=True))
jit_standardise = jax.jit(standardise)


def normal(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def uniform(shape, seed=0):
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


SIZES = [*range(1, 18), 64, 150, 256]


def example(n):
    """Keys of three kinds, a payload for all, and the orders of the keys."""
    keys = np.stack([normal((n,)), np.round(normal((n,))), np.zeros(n, np.float32)])
    payload = {"x": normal((n, 2), 1), "i": np.arange(n, dtype=np.int32)}
    return keys, payload, np.argsort(keys, axis=1, kind="stable")


@folded
def sorts():
    def sort(keys, payload, targets):
        return jax.vmap(lambda keys, target: hard_sort(keys, payload, target=target))(keys, targets)

    examples = {n: example(n) for n in SIZES}
    return {(n,): (sort, k, p, p["x"][orders]) for n, (k, p, orders) in examples.items()}


@pytest.mark.parametrize("n", SIZES)
def test_hard_equals_stable_argsort(n):
    (keys, payload, orders), out = example(n), sorts(n)
    np.testing.assert_array_equal(out.keys, np.sort(keys, axis=1))
    np.testing.assert_array_equal(out.payload["i"], orders)
    np.testing.assert_array_equal(out.payload["x"], payload["x"][orders])
    # The target, pulled back through every split, is the input order.
    for number, (stage, pulled) in enumerate(zip(out.stages, out.targets, strict=True)):
        stages = np.broadcast_to(stage["x"], pulled.shape)
        np.testing.assert_array_equal(stages, pulled, err_msg=f"stage {number}")


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32])
def test_hard_with_special_keys(dtype):
    keys = jnp.array([jnp.nan, 1, jnp.inf, -jnp.inf, jnp.nan, 1, -0.0, 0, jnp.inf, -3])
    if dtype == jnp.int32:
        keys = jnp.array([3, 1, 2**31 - 1, -(2**31), 3, 2**31 - 1, 0])
    keys = keys.astype(dtype)
    out = hard_sort(keys, jnp.arange(len(keys)))
    np.testing.assert_array_equal(out.payload, jnp.argsort(keys, stable=True))
    assert out.keys.dtype == dtype


FEW = [1, 2, 3, 5, 8]


@folded
def all_levels():
    def sort(keys, x, target):
        return quicksort(KEY, keys, x, num_candidates=70, certainty=2.0, target=target)

    return {(n,): (sort, normal((n,)), normal((n, 3), 1), normal((n, 3), 2)) for n in FEW}


@pytest.mark.parametrize("n", FEW)
def test_all_levels_match_brute_force(n):
    keys, x, target = normal((n,)), normal((n, 3), 1), normal((n, 3), 2)
    out = all_levels(n)
    matrices = oracle.sort_matrices(keys, 2.0)
    stages, targets = [np.asarray(x)], [np.asarray(target)]
    for matrix in matrices:
        stages.append(matrix @ stages[-1])
    for matrix in reversed(matrices):
        targets.insert(0, matrix.T @ targets[0])
    assert len(out.stages) == len(out.targets) == num_levels(n) + 1
    for ours, theirs in zip([*out.stages, *out.targets], [*stages, *targets], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    np.testing.assert_array_equal(out.payload, out.stages[-1])


@pytest.mark.parametrize("n", [3, 8, 13])
def test_great_certainty_is_hard(n):
    keys, x = normal((n,)), normal((n, 2), 1)
    out = jit_sort(KEY, keys, x, certainty=1e4)
    np.testing.assert_allclose(out.payload, x[np.argsort(keys)], atol=1e-5)
    np.testing.assert_allclose(out.keys, np.sort(keys), atol=1e-5)


def test_same_key_same_result():
    keys, x = normal((5,)), normal((5, 2), 1)
    options = {"num_candidates": 4, "certainty": 0.5}
    first = jit_sort(KEY, keys, x, **options).payload
    np.testing.assert_array_equal(first, jit_sort(KEY, keys, x, **options).payload)
    assert not jnp.array_equal(first, jit_sort(jax.random.key(1), keys, x, **options).payload)
    # Mixtures of permutations keep column sums.
    np.testing.assert_allclose(first.sum(0), x.sum(0), atol=1e-5)


def gradients(keys, x, certainty):
    def loss(keys, x, certainty):
        target = x[jnp.argsort(x[:, 0])]
        out = quicksort(KEY, keys, x, num_candidates=4, certainty=certainty, target=target)
        return sort_loss(out, target) + jnp.tanh(out.keys).sum()

    return jax.value_and_grad(loss, (0, 1, 2))(keys, x, certainty)


AWKWARD = {
    "32": normal((32,)),
    "undecided": np.zeros(19, np.float32),
    "ties": np.round(normal((19,))),
    "1e8": 1e8 * normal((19,)),
    "mixed": np.array([1e8, 0, -1e8, 1, 1, 5e-8, 2, -2], np.float32),
    "inf": np.array([1e30, -1e30, 1e30, 0, 2, np.inf, -np.inf, np.inf], np.float32),
    "one": np.full(1, 0.5, np.float32),
    "two": np.full(2, 0.5, np.float32),
    "float16": jnp.asarray(normal((8,)) * 6e4, jnp.float16),
    "bfloat16": (normal((8,)) * 1e38).astype(jnp.bfloat16),
}


@stacked
def slopes():
    x = {name: uniform((len(keys), 2)).astype(keys.dtype) for name, keys in AWKWARD.items()}
    return {(name,): (gradients, keys, x[name], 10.0) for name, keys in AWKWARD.items()}


@pytest.mark.parametrize("name", AWKWARD)
def test_finite_gradients(name):
    (value, grads), keys = slopes(name), AWKWARD[name]
    assert all(np.isfinite(leaf.astype(np.float32)).all() for leaf in (value, *grads))
    assert grads[0].dtype == keys.dtype
    if len(keys) > 8 and np.ptp(keys) < 1e3:
        assert np.abs(grads[0]).max() > 0


def test_gradient_separates_two_keys_in_the_wanted_direction():
    x = jnp.array([0.0, 1.0])

    @jax.jit
    @jax.grad
    def slope(keys, target):
        return sort_loss(quicksort(KEY, keys, x, certainty=1.0), target, kind="plain")

    for keys in (jnp.zeros(2), jnp.array([0.3, -0.3]), jnp.array([-0.3, 0.3])):
        kept, swapped = slope(keys, x), slope(keys, x[::-1])
        # Descent lowers the first key and raises the second, if the order is to be kept.
        assert kept[0] > 0 > kept[1]
        assert swapped[0] < 0 < swapped[1]


@pytest.mark.parametrize("kind", ["plain", "means"])
def test_descent_sorts(kind):
    # Which element belongs where is told by the payload alone: one-hot rows in another order.
    places = jnp.array([5, 2, 7, 0, 1, 6, 3, 4])
    target = jnp.eye(8)[jnp.argsort(places)]
    optimizer = optax.adam(0.1)

    def loss(keys, key):
        keys = standardise(keys)
        out = quicksort(key, keys, jnp.eye(8), certainty=4.0, target=target)
        return sort_loss(out, target, kind=kind)

    @jax.jit
    def descend(keys):
        def step(carry, key):
            keys, state = carry
            update, state = optimizer.update(jax.grad(loss)(keys, key), state)
            return (optax.apply_updates(keys, update), state), None

        return jax.lax.scan(step, (keys, optimizer.init(keys)), jax.random.split(KEY, 200))[0][0]

    keys = descend(0.1 * normal((8,)))
    np.testing.assert_array_equal(invert(jnp.argsort(keys)), places)


def test_transforms_agree():
    keys, x = normal((3, 5)), normal((3, 5, 2), 1)
    seeds = jax.random.split(KEY, 3)

    def f(key, keys, x, certainty):
        return quicksort(key, keys, x, num_candidates=4, certainty=certainty).payload

    one = jax.jit(f)
    one_by_one = np.stack([one(*args, 2.0) for args in zip(seeds, keys, x, strict=True)])
    batched = jax.jit(jax.vmap(f, (0, 0, 0, None)))
    np.testing.assert_allclose(batched(seeds, keys, x, 2.0), one_by_one, atol=1e-6)

    def total(keys, certainty):
        return jnp.sin(batched(seeds, keys, x, certainty)).sum()

    tangent = normal((3, 5), 5)
    slope = jax.jit(lambda: jax.jvp(total, (keys, 2.0), (tangent, 1.0))[1])()
    to_keys, to_certainty = jax.jit(jax.grad(total, (0, 1)))(keys, 2.0)
    np.testing.assert_allclose(slope, (to_keys * tangent).sum() + to_certainty, rtol=1e-3)
    assert to_certainty != 0


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_sixteen_bits_accumulate_in_float32(dtype):
    # 70 candidates of nearly equal weights: summed in 16 bits, the error would be some per cent.
    keys = (0.01 * normal((8,))).astype(dtype)
    x = jax.random.uniform(KEY, (8, 3)).astype(dtype)
    out = jit_sort(KEY, keys, x, num_candidates=70)
    wide = jit_sort(KEY, *(a.astype(jnp.float32) for a in (keys, x)), num_candidates=70)
    assert out.payload.dtype == out.keys.dtype == out.stages[1].dtype == dtype
    step = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(out.payload.astype(jnp.float32), wide.payload, atol=2 * step)


def test_double_precision():
    with jax.enable_x64(True):
        keys = jnp.linspace(1.0, -1.0, 6)
        out = jit_sort(KEY, keys, keys, certainty=1.0, target=keys)
        assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {np.dtype("float64")}
        expected = np.linalg.multi_dot(oracle.sort_matrices(keys, 1.0)[::-1]) @ np.asarray(keys)
        np.testing.assert_allclose(
            jit_sort(KEY, keys, keys, num_candidates=20, certainty=1.0).keys, expected
        )


def test_trees_and_empty_payloads():
    payload = {"a": normal((5, 2, 3)), "b": (normal((5,)), None)}
    out = jit_sort(KEY, normal((5,), 3), payload)
    assert jax.tree.map(jnp.shape, out.payload) == {"a": (5, 2, 3), "b": ((5,), None)}
    assert out.targets is None
    assert jit_sort(KEY, normal((5,)), None).keys.shape == (5,)
    assert jit_sort(KEY, normal((5,)), normal((5, 0))).payload.shape == (5, 0)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_standardise(scale):
    keys = normal((4, 7))
    out = jit_standardise(scale * keys + 0 * scale)
    np.testing.assert_allclose(np.mean(out, -1), 0, atol=1e-6)
    np.testing.assert_allclose(np.std(out, -1), 1, rtol=1e-5)
    np.testing.assert_allclose(out, jit_standardise(keys), atol=1e-5)
    np.testing.assert_array_equal(np.argsort(out), np.argsort(keys))


def test_standardise_equal_keys():
    slope = jax.jit(jax.grad(lambda k: standardise(k).ravel()[0]))
    for keys in (np.full(150, 0.1, np.float32), np.ones(1, np.float32), np.zeros((2, 3))):
        gradient = slope(keys.astype(np.float32))
        np.testing.assert_array_equal(jit_standardise(keys.astype(np.float32)), 0 * keys)
        assert np.isfinite(gradient).all()
    # Scale invariance: no gradient along the keys themselves, nor along a common shift.
    keys = normal((6,))
    gradient = np.asarray(jax.jit(jax.grad(lambda k: standardise(k) @ jnp.arange(6.0)))(keys))
    np.testing.assert_allclose([gradient @ keys, gradient.sum()], 0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys": jnp.zeros((2, 4))}, r"keys of shape \(2, 4\)"),
        ({"keys": jnp.zeros(())}, r"keys of shape \(\)"),
        ({"keys": jnp.zeros(0), "payload": None}, "no element"),
        ({"keys": jnp.arange(4)}, "floating-point keys"),
        ({"payload": jnp.zeros((5, 2))}, "leading axis 4"),
        ({"target": jnp.zeros((3, 2))}, "leading axis 4"),
        ({"payload": jnp.arange(4)}, "floating-point payload"),
        ({"num_candidates": 0}, "num_candidates=0"),
        ({"key": None}, "one random key"),
        ({"certainty": jnp.ones(4)}, "certainty=Array"),
    ],
)
def test_wrong_input(change, message):
    args = {"key": KEY, "keys": jnp.zeros(4), "payload": jnp.zeros((4, 2))} | change
    with pytest.raises(ValueError, match=message):
        quicksort(args.pop("key"), args.pop("keys"), args.pop("payload"), **args)
