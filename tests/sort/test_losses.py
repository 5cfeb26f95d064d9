from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.sort import Sorted, cross_entropy, quicksort, sort_loss, squared_error
from sparse_hyper_jax.sort.losses import KINDS, MARGIN, safe_log
from tests.sort import oracle

KEY = jax.random.key(0)
hard_sort = jax.jit(partial(quicksort, None, hard=True))
jit_loss = jax.jit(lambda out, target, kind: sort_loss(out, target, kind=kind), static_argnums=2)


def uniform(shape, seed=0):
    return np.random.default_rng(seed).uniform(0.05, 0.95, shape).astype(np.float32)


def made_up(n, kind="floats"):
    """A sort result with independent random stages and targets."""
    levels = (n - 1).bit_length() + 1
    stages = tuple(uniform((n, 2), seed) for seed in range(levels))
    targets = tuple(uniform((n, 2), seed + 50) for seed in range(levels))
    return Sorted(stages[-1], np.zeros(n, np.float32), stages, targets)


def plain_xent(y, t):
    y, t = np.asarray(y, np.float64), np.asarray(t, np.float64)
    return -t * np.log(y) - (1 - t) * np.log(1 - y)


def test_cross_entropy_values():
    y, t = uniform((50,)), uniform((50,), 1)
    np.testing.assert_allclose(cross_entropy(y, t), plain_xent(y, t), rtol=1e-5)
    corners = cross_entropy(jnp.array([0.0, 1.0, 0.0, 1.0]), jnp.array([0.0, 1.0, 1.0, 0.0]))
    np.testing.assert_array_equal(corners[:2], 0)
    np.testing.assert_allclose(corners[2:], 1 - np.log(MARGIN), rtol=1e-6)
    assert cross_entropy(jnp.bfloat16(0.5), jnp.bfloat16(1.0)).dtype == jnp.float32
    np.testing.assert_allclose(squared_error(jnp.array([3.0]), jnp.array([1])), 4)


value_and_slopes = jax.jit(jax.value_and_grad(cross_entropy, (0, 1)))
curvature = jax.jit(jax.grad(jax.grad(cross_entropy)))


@pytest.mark.parametrize("y", [-1e-7, 0.0, 1e-30, 1e-6, 0.5, 1 - 6e-8, 1.0, 1 + 1e-7])
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_cross_entropy_is_finite_and_falls_towards_the_target(y, t):
    both = value_and_slopes(y, t)
    assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(both))
    slope = both[1][0]
    if abs(y - t) > 0.1:
        assert np.sign(slope) == np.sign(y - t)
    assert np.isfinite(curvature(y, t))


def test_safe_log_is_smooth_at_the_margin():
    edge = jnp.array([0.999, 1.0, 1.001]) * MARGIN
    np.testing.assert_allclose(safe_log(edge), np.log(edge), rtol=1e-6)
    slopes = jax.vmap(jax.grad(safe_log))(edge)
    np.testing.assert_allclose(slopes, 1 / MARGIN, rtol=2e-3)


@pytest.mark.parametrize("distance", [cross_entropy, squared_error])
def test_minimum_at_the_target(distance):
    target = uniform((6, 2))

    @jax.jit
    def loss(output):
        return sort_loss(Sorted(output, None, (), None), target, kind="plain", distance=distance)

    best, slope = jax.jit(jax.value_and_grad(loss))(target)
    np.testing.assert_allclose(slope, 0, atol=1e-6)
    for seed in range(5):
        moved = target + np.float32(0.1) * (uniform((6, 2), seed + 1) - np.float32(0.5))
        assert loss(np.clip(moved, 0, 1)) > best


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 4, 7])
def test_sorted_input_has_the_least_loss(kind, n):
    # Binary payloads in the right order: every stage equals its target, and the loss is zero.
    target = np.round(uniform((n, 3)))
    keys = np.arange(n, dtype=np.float32)
    right, swapped = (
        jit_loss(hard_sort(k, target, target=target), target, kind) for k in (keys, -keys)
    )
    assert right == 0 or kind == "means"
    if n > 1:
        assert swapped > right


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_formulas(n):
    result = made_up(n)
    levels, target = len(result.stages) - 1, uniform((n, 2), 99)
    targets = [*result.targets[:-1], target]
    separate, means = 0.0, 0.0
    for level, (stage, pulled) in enumerate(zip(result.stages, targets, strict=True)):
        separate += plain_xent(stage, pulled).mean()
        for start, stop in oracle.buckets(n, level):
            pair = (np.asarray(a)[start:stop].mean(0) for a in (stage, pulled))
            means += (stop - start) / n * plain_xent(*pair).mean()
    expected = {
        "plain": plain_xent(result.payload, target).mean(),
        "separate": separate,
        "means": means,
    }
    assert levels == int(np.ceil(np.log2(n)))
    for kind in KINDS:
        ours = jit_loss(result, target, kind)
        np.testing.assert_allclose(ours, expected[kind], rtol=1e-5)


@pytest.mark.parametrize("kind", ["separate", "means"])
@pytest.mark.parametrize("n", [5, 8])
def test_every_depth_is_used(kind, n):
    result, target = made_up(n), uniform((n, 2), 99)

    @jax.jit
    def loss(stages, targets):
        return sort_loss(result._replace(stages=stages, targets=targets), target, kind=kind)

    stages, targets = jax.jit(jax.grad(loss, (0, 1)))(result.stages, result.targets)
    assert all(np.abs(stage).min() > 1e-4 for stage in stages)
    # The last target is the one that is passed in.
    assert all(np.abs(pulled).min() > 1e-4 for pulled in targets[:-1])
    np.testing.assert_array_equal(targets[-1], 0)
    for level in range(len(result.stages)):
        moved = [stage.copy() for stage in result.stages]
        moved[level][1, 0] += 0.02
        change = float(loss(tuple(moved), result.targets)) - float(
            loss(result.stages, result.targets)
        )
        assert abs(change) > 1e-5


def test_plain_uses_the_end_only():
    result, target = made_up(8), uniform((8, 2), 99)
    slope = jax.jit(jax.grad(lambda out: sort_loss(out, target, kind="plain")))(result)
    assert np.abs(slope.payload).min() > 0
    np.testing.assert_array_equal(jax.tree.leaves(slope.stages), 0)
    without = result._replace(targets=None)
    assert jit_loss(without, target, "plain") == jit_loss(result, target, "plain")


@pytest.mark.parametrize("kind", KINDS)
def test_keys_get_a_gradient_from_every_loss(kind):
    x = uniform((6, 2))
    target = x[::-1]

    @jax.jit
    def slope(keys):
        def loss(keys):
            out = quicksort(KEY, keys, x, certainty=1.0, target=target)
            return sort_loss(out, target, kind=kind)

        return jax.grad(loss)(keys)

    for keys in (np.zeros(6, np.float32), np.linspace(-1.0, 1.0, 6, dtype=np.float32)):
        assert np.isfinite(slope(keys)).all()
        assert np.abs(slope(keys)).max() > 1e-4


def test_trees_average_over_leaves():
    x, y = uniform((4, 2)), uniform((4, 5), 1)
    wanted = {"x": x[::-1], "y": y[::-1]}

    @jax.jit
    def plain(payload, target):
        return sort_loss(Sorted(payload, None, (), None), target, kind="plain")

    both = plain({"x": x, "y": y}, wanted)
    np.testing.assert_allclose(both, (plain(x, x[::-1]) + plain(y, y[::-1])) / 2, rtol=1e-6)


def test_wrong_input():
    result, target = made_up(4), uniform((4, 2))
    with pytest.raises(ValueError, match="kind='other'"):
        sort_loss(result, target, kind="other")
    for kind in ("separate", "means"):
        with pytest.raises(ValueError, match="pass target"):
            sort_loss(result._replace(targets=None), target, kind=kind)
    with pytest.raises(ValueError, match="target leaf of shape"):
        sort_loss(result, target[:, :1])
    with pytest.raises(ValueError, match="the payload's tree"):
        sort_loss(result, (target, target))
