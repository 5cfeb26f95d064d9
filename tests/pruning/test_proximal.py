import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.pruning import penalty_2_to_4, prox_2_to_4
from tests.ops.examples import assert_names_itself_and_its_cure

STRENGTHS = [0.05, 0.25, 0.5, 0.8, 1.2, 2.0, 5.0]
prox = jax.jit(prox_2_to_4, static_argnames="axis")


def groups(count=40, seed=0):
    """Random groups, and some with zeros and very different sizes."""
    z = np.random.default_rng(seed).normal(size=(count, 4))
    special = [[0, 0, 0, 0], [2, 1, 1, 1], [3, 1e-3, -2, 1e-4], [-5, 0.1, 0, 0.2]]
    return np.concatenate([z, special]).astype("f")


def alike(count=40):
    """Groups of entries of almost the same size."""
    z = 1 + 0.01 * np.random.default_rng(0).normal(size=(count, 4))
    return np.concatenate([z, [[1, 1, 1, 1], [1, -1, 1, 0]]]).astype("f")


def penalty(w):
    sizes = np.abs(np.asarray(w, np.float64))
    return sum(np.prod(sizes[..., list(three)], axis=-1) for three in THREES)


THREES = list(itertools.combinations(range(4), 3))


def objective(w, z, strength):
    distance = np.sum((np.asarray(w, np.float64) - z.astype(np.float64)) ** 2, axis=-1)
    return 0.5 * distance + strength * penalty(w)


def searched(z, strength):
    """The least objective of a grid, and of descents from every second of its points.

    A minimum has the signs of z and no entry is larger than that of z.
    """
    sizes = np.abs(z.astype(np.float64))[:, None]
    grid = np.array(list(itertools.product(np.linspace(0, 1, 6), repeat=4)))
    points = grid * sizes
    least = objective(points, np.broadcast_to(sizes, points.shape), strength).min(axis=1)
    points = points[:, ::2]
    for _ in range(60):
        for place in range(4):
            a, b, c = (points[..., other] for other in range(4) if other != place)
            points[..., place] = np.maximum(
                0, sizes[..., place] - strength * (a * b + b * c + c * a)
            )
    descents = objective(points, np.broadcast_to(sizes, points.shape), strength).min(axis=1)
    return np.minimum(least, descents)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_no_search_finds_less(strength):
    z = groups()
    found = objective(prox(z, strength), z, strength)
    best = searched(z, strength)
    assert (found <= best + 1e-5).all()
    # The search is no weak opponent: it comes as far.
    np.testing.assert_allclose(found, best, atol=2e-3)


@pytest.mark.parametrize("strength", [0.8, 1.0, 1.1, 1.2])
def test_no_search_finds_less_where_sizes_are_alike(strength):
    z = alike()
    assert (objective(prox(z, strength), z, strength) <= searched(z, strength) + 1e-5).all()


def test_all_three_kinds_of_solution_occur():
    counts = {
        int(count)
        for strength in STRENGTHS
        for count in np.count_nonzero(prox(groups(seed=1), strength), axis=-1)
    }
    assert {2, 3, 4} <= counts


def test_strength_zero_is_the_identity():
    assert np.array_equal(prox(groups(), 0.0), groups())
    assert np.array_equal(prox_2_to_4(groups(), 0), groups())


def test_a_large_strength_leaves_the_two_largest():
    z = np.random.default_rng(0).normal(size=(50, 4)).astype("f")
    z += np.sign(z) * 0.1
    result = np.asarray(prox(z, 100.0))
    order = np.argsort(-np.abs(z), axis=-1, kind="stable")
    expected = z.copy()
    np.put_along_axis(expected, order[:, 2:], 0, axis=-1)
    assert np.array_equal(result, expected)
    assert prox(np.ones((1, 4), "f"), 100.0).tolist() == [[1, 1, 0, 0]]


@pytest.mark.parametrize("scale", [0.25, 4.0, 3.0])
def test_the_scale_law(scale):
    z, strength = groups(), 0.5
    np.testing.assert_allclose(
        prox(scale * z, strength / scale), scale * prox(z, strength), rtol=1e-5, atol=1e-5
    )


def test_signs_and_order_of_the_entries_do_not_matter():
    z, generator = groups()[:40], np.random.default_rng(2)
    signs = generator.choice([-1, 1], z.shape).astype("f")
    order = np.argsort(generator.random(z.shape), axis=-1)
    for strength in [0.3, 1.0]:
        plain = np.asarray(prox(z, strength))
        assert np.array_equal(prox(signs * z, strength), signs * plain)
        mixed = prox(np.take_along_axis(z, order, -1), strength)
        np.testing.assert_allclose(mixed, np.take_along_axis(plain, order, -1), atol=1e-6)


def test_a_group_without_a_third_entry_stays():
    z = np.array([[0, 1.5, 0, -0.2], [0, 0, 3, 0]], "f")
    assert np.array_equal(prox(z, 0.7), z)


@pytest.mark.parametrize(("shape", "axis"), [((3, 8), -1), ((8, 3), 0), ((2, 4, 3), 1), ((4,), 0)])
def test_groups_lie_on_the_axis(shape, axis):
    z = np.random.default_rng(3).normal(size=shape).astype("f")
    moved = np.moveaxis(z, axis, -1)
    rows = np.asarray(prox(moved.reshape(-1, 4), 0.6))
    expected = np.moveaxis(rows.reshape(moved.shape), -1, axis)
    np.testing.assert_allclose(prox(z, 0.6, axis=axis), expected, rtol=1e-6)
    assert float(penalty_2_to_4(z, axis=axis)) == pytest.approx(
        penalty(moved.reshape(-1, 4)).sum(), rel=1e-5
    )


def test_the_penalty_is_zero_for_two_of_four_alone():
    assert penalty_2_to_4(jnp.array([[1.0, 0, 0, -2], [0, 3, 3, 0]])) == 0
    assert penalty_2_to_4(jnp.array([1.0, -2, 0, 3, 0, 0, 0, 1])) == 6
    assert penalty_2_to_4(jnp.array([1.0, -2, -3, 4])) == 6 + 8 + 12 + 24
    large = jnp.array(
        [
            *([1e20, -1e20, 0, 0], [jnp.inf, 1, 0, 0], [1e20, 1e20, 1e-10, 0]),
            *([1e25, 1, 1, 0], [1e-10, 1e30, 1e-10, 0], [2e13, 1, 1, 1]),
        ]
    )
    costs, slopes = jax.vmap(jax.value_and_grad(penalty_2_to_4))(large)
    np.testing.assert_allclose(costs, [0, 0, 1e30, 1e25, 1e10, 6e13], rtol=1e-5)
    assert not slopes[:2].any()
    np.testing.assert_allclose(slopes[3], [1, 1e25, 1e25, 0], rtol=1e-5)
    np.testing.assert_allclose(slopes[5], [3, 4e13, 4e13, 4e13], rtol=1e-5)
    assert penalty_2_to_4(jnp.array([jnp.inf, 1, 1, 0])) == jnp.inf
    assert np.isnan(penalty_2_to_4(jnp.array([jnp.nan, 0, 0, 0])))


def test_it_maps_over_strengths():
    z, strengths = groups(), np.array(STRENGTHS, "f")
    mapped = jax.jit(jax.vmap(prox_2_to_4, in_axes=(None, 0)))(z, strengths)
    for row, strength in zip(mapped, STRENGTHS, strict=True):
        np.testing.assert_allclose(row, prox(z, strength), atol=1e-6)


def test_16_bits_are_solved_in_32():
    z = jnp.asarray(groups(), jnp.bfloat16)
    result = prox(z, 0.5)
    assert result.dtype == jnp.bfloat16
    assert np.array_equal(result, prox(z.astype(jnp.float32), 0.5).astype(jnp.bfloat16))


def test_steps_of_growing_strength_leave_two_of_four():
    weights = groups()[:40]
    for strength in [0.1, 0.3, 1.0, 3.0, 10.0, 100.0]:
        weights = prox(weights, strength)
    assert (np.count_nonzero(weights, axis=-1) <= 2).all()
    assert penalty_2_to_4(weights) == 0


ROW = np.ones((2, 4), "f")
MISTAKES = {
    "negative": (lambda: prox_2_to_4(ROW, -0.1), "strength=-0.1", "at least 0", "change strength"),
    "odd": (lambda: prox_2_to_4(ROW, 1, axis=0), "shape (2, 4) with axis=0", "of 4", "change axis"),
    "no axis": (lambda: penalty_2_to_4(ROW, axis=2), "axis=2", "an axis", "change axis"),
    "a scalar": (lambda: prox_2_to_4(jnp.float32(1), 1), "shape ()", "an axis", "change axis"),
    "known": (
        lambda: prox_2_to_4(ROW, jnp.array(-1.0)),
        "strength=Array(-1.",
        "at least 0",
        "change strength",
    ),
    "in words": (lambda: prox_2_to_4("abcd", 1), "weights='abcd'", "of floats", "convert weights"),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)


def test_what_is_not_a_number_makes_its_four_so():
    row = jnp.array([1.0, jnp.nan, 2, 3, 1, 2, 3, 4])
    assert jnp.isnan(prox_2_to_4(row, 0.1)).tolist() == [True] * 4 + [False] * 4


def test_an_infinite_weight_is_larger_than_all():
    row = jnp.array([1.0, -jnp.inf, 2, 3])
    assert prox_2_to_4(row, 0.1).tolist() == [0, -jnp.inf, 0, 3]


@pytest.mark.parametrize("size", [1e-30, 1e-15, 1e15, 1e30])
def test_the_step_has_no_unit(size):
    """In other units it is the same: neither squares nor cubes overflow or vanish."""
    row = np.array([1.0, -0.75, 0.5, 0.25], "f")
    expected = prox_2_to_4(row, 0.5)
    got = prox_2_to_4(row * np.float32(size), 0.5 / size)
    np.testing.assert_allclose(got / np.float32(size), expected, rtol=1e-5)
    assert np.count_nonzero(expected) > 2


def test_the_strength_may_follow_a_schedule():
    row = jnp.array([1.0, -0.75, 0.5, 0.25])
    strengths = jnp.array([0.0, 0.5, 100.0])
    steps = jax.lax.scan(lambda _, one: (None, prox_2_to_4(row, one)), None, strengths)[1]
    assert jnp.count_nonzero(steps, axis=1).tolist() == [4, 3, 2]
