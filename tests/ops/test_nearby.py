"""Mixing among nearby points: exact where the radius covers the space, else within its bound."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import ops
from sparse_hyper_jax.ops import Locality, mix_nearby, mix_values
from sparse_hyper_jax.types import ContinuousTuples
from tests.ops.examples import all_finite, assert_close, make_tuples

SHAPES = {1: (40,), 2: (12, 9), 3: (6, 5, 7), 4: (4, 3, 5, 4)}


@partial(jax.jit, static_argnames=("shape", "num_global"))
def sampled(seed, means, *, shape, num_global):
    points = ops.sample_tuples(jax.random.key(seed), means, shape, num_global=num_global)
    points = points.reshape(-1, len(shape))
    return points, ops.first_occurrence(points, shape)


def example(shape, *, count=12, seed=0, variance=1.0, clustered=False, num_global=3):
    """Tuples with the points they sample; clustered ones lie in a corner of the space."""
    tuples = make_tuples(count, shape, seed=seed, variance=variance)
    tuples = ContinuousTuples(*(np.asarray(part) for part in tuples))
    if clustered:
        tuples = tuples._replace(means=tuples.means / 4)
    points, mask = sampled(seed, tuples.means, shape=shape, num_global=num_global)
    return np.asarray(points), np.asarray(mask), tuples


def everything(points, shape, parts=1):
    """A locality that covers the space and has room for all points."""
    return Locality(max(shape), (len(points),) * parts, tolerance=None)


def waves(count):
    return jnp.sin(1.0 + jnp.arange(count))


@partial(jax.jit, static_argnames=("shape", "locality"))
def near(points, mask, tuples, *, shape, locality):
    return mix_nearby(points, mask, *tuples, shape=shape, locality=locality)


@partial(jax.jit, static_argnames=("shape", "locality"))
def value_and_slopes(points, mask, tuples, *, shape, locality):
    loss = loss_of(points, mask, shape, locality)
    return jax.value_and_grad(loss, argnums=(0, 1, 2))(*tuples)


def total_error(values, points, mask, tuples):
    """Sum of the errors, and that of the values' sizes."""
    error = np.abs(np.asarray(values) - np.asarray(exact(points, mask, tuples))).sum()
    return error, np.abs(np.asarray(tuples.values)).sum()


exact = jax.jit(lambda points, mask, tuples: mix_values(points, mask, *tuples))


def loss_of(points, mask, shape=None, locality=None):
    def loss(*tuples):
        if locality is None:
            mixed = mix_values(points, mask, *tuples)
        else:
            mixed = mix_nearby(points, mask, *tuples, shape=shape, locality=locality).values
        return jnp.sum(waves(len(mixed)) * jnp.sin(mixed))

    return loss


@pytest.mark.parametrize(("rank", "parts"), [(1, 1), (2, 1), (2, 3), (3, 1), (4, 1)])
def test_a_radius_that_covers_the_space_is_exact(rank, parts):
    shape = SHAPES[rank]
    points, mask, tuples = example(shape, variance=3.0)
    locality = everything(points, shape, parts)
    nearby = near(points, mask, tuples, shape=shape, locality=locality)
    assert_close(nearby.values, exact(points, mask, tuples))
    assert nearby.neglected == 0
    assert nearby.longest_runs.shape == (parts,)
    ours = value_and_slopes(points, mask, tuples, shape=shape, locality=locality)
    expected = value_and_slopes(points, mask, tuples, shape=shape, locality=None)
    assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("radius", [1, 3])
@pytest.mark.parametrize("shape", [(40,), (12, 9), (6, 5, 7)])
def test_the_error_keeps_to_the_bound(shape, radius, clustered):
    for seed, variance in ((0, 0.3), (1, 2.0), (2, 30.0)):
        points, mask, tuples = example(shape, seed=seed, variance=variance, clustered=clustered)
        locality = Locality(radius, (len(points),), tolerance=None)
        values, _, neglected = near(points, mask, tuples, shape=shape, locality=locality)
        error, size = total_error(values, points, mask, tuples)
        assert error <= 2 * size * float(neglected) + 1e-5 * size
        assert (np.asarray(values)[~mask] == 0).all()


def oracle(points, mask, tuples, reach, radius):
    """Share out among what every tuple has to see, and bound the share of the rest, in float64."""
    points, keep = np.asarray(points, np.float64), np.asarray(mask)
    means, variances, _ = (np.asarray(part, np.float64) for part in tuples)
    seen = (np.abs(points[:, None] - np.round(means)) <= reach).all(axis=2)
    squares = ((points[:, None] - means) ** 2 / variances).sum(axis=2)
    density = np.exp(-0.5 * squares) * keep[:, None]
    shares = density / density.sum(axis=0)
    missing = np.where(seen, 0, shares).sum(axis=0)
    unseen = (keep[:, None] & ~seen).sum(axis=0)
    return missing, unseen * np.exp(-radius * (radius + 1) / (2 * variances.max(axis=1)))


@pytest.mark.parametrize("radius", [1, 2, 4])
def test_a_tuple_lacks_at_most_the_share_that_the_formula_states(radius):
    shape = (12, 9)
    for seed in range(5):
        points, mask, tuples = example(shape, seed=seed, variance=2.0)
        missing, bound = oracle(points, mask, tuples, radius, radius)
        assert (missing <= bound).all()
        locality = Locality(radius, (len(points),), tolerance=None)
        stated = near(points, mask, tuples, shape=shape, locality=locality).neglected
        # Strips are wider than the radius: more is seen, and less neglected.
        assert float(stated) <= bound.max() * (1 + 1e-5)


@pytest.mark.parametrize("tolerance", [1e-1, 1e-5])
@pytest.mark.parametrize("shape", [(40,), (12, 9)])
def test_narrow_tuples_that_see_less_far_keep_to_the_tolerance(shape, tolerance):
    points, mask, tuples = example(shape, count=20)
    scales = np.logspace(-3, 0, 20, dtype=np.float32)[:, None]
    tuples = tuples._replace(variances=tuples.variances * scales)
    locality = Locality(max(shape), (len(points),), tolerance)
    nearby = near(points, mask, tuples, shape=shape, locality=locality)
    assert nearby.neglected <= tolerance
    error, size = total_error(nearby.values, points, mask, tuples)
    assert error <= (2 * tolerance + 1e-5) * size
    full = Locality(max(shape), (len(points),), None)
    longest = near(points, mask, tuples, shape=shape, locality=full).longest_runs
    assert nearby.longest_runs.tolist() <= longest.tolist()


def test_a_tolerance_of_0_accepts_exact_values_only():
    shape = (12, 9)
    points, mask, tuples = example(shape)
    wide = Locality(12, (len(points),), 0)
    assert_close(
        near(points, mask, tuples, shape=shape, locality=wide).values, exact(points, mask, tuples)
    )
    narrow = near(points, mask, tuples, shape=shape, locality=Locality(2, (len(points),), 0))
    assert np.isnan(narrow.values).all()


def test_more_than_the_tolerance_missing_is_reported_and_all_nan():
    shape = (30, 30)
    points, mask, tuples = example(shape, variance=50.0)
    locality = Locality(2, (len(points),), 1e-3)
    nearby = near(points, mask, tuples, shape=shape, locality=locality)
    assert nearby.neglected > 1e-3
    assert np.isnan(nearby.values).all()
    accepted = Locality(2, (len(points),), float(nearby.neglected) * 1.01)
    assert all_finite(near(points, mask, tuples, shape=shape, locality=accepted))


@pytest.mark.parametrize("capacities", [(4,), (1, 4), (3, 3, 4)])
def test_one_run_too_long_is_reported_and_all_nan(capacities):
    shape = (4, 100)
    crowd = np.stack([np.full(9, 2), 50 + np.arange(9)], axis=1)
    points = np.concatenate([[[0, 5], [1, 90]], crowd]).astype(np.int32)
    mask = np.ones(len(points), bool)
    means = np.array([[0.0, 5.0], [1.0, 90.0], [2.0, 54.0]], np.float32)
    tuples = ContinuousTuples(means, np.ones((3, 2), np.float32), np.ones(3, np.float32))
    nearby = near(points, mask, tuples, shape=shape, locality=Locality(6, capacities, None))
    longest = np.asarray(nearby.longest_runs)[-1]
    assert longest == 9
    assert longest > capacities[-1]
    assert np.isnan(nearby.values).all()
    enough = (*capacities[:-1], 9)
    nearby = near(points, mask, tuples, shape=shape, locality=Locality(6, enough, None))
    assert_close(nearby.values, exact(points, mask, tuples))


def longest_run(points, mask, tuples, shape, radius):
    """The longest run by counting: per strip and tuple, those near on the last axis."""
    places = np.asarray(points)[np.asarray(mask)]
    cells = np.asarray(jax.jit(ops.round_means, static_argnums=1)(tuples.means, shape))
    strips = places[:, :-1] // radius
    few = np.asarray([-(-size // radius) <= 3 for size in shape[:-1]], bool)
    longest = 0
    for cell in cells:
        close = np.abs(places[:, -1] - cell[-1]) <= radius
        for strip in np.unique(strips, axis=0):
            if (few | (np.abs(strip - cell[:-1] // radius) <= 1)).all():
                longest = max(longest, (close & (strips == strip).all(axis=1)).sum())
    return longest


@pytest.mark.parametrize("radius", [1, 2])
@pytest.mark.parametrize("shape", [(40,), (12, 9), (8, 9, 10)])
def test_the_longest_run_is_the_one_that_counting_finds(shape, radius):
    points, mask, tuples = example(shape, clustered=True)
    locality = Locality(radius, (len(points),), None)
    found = near(points, mask, tuples, shape=shape, locality=locality).longest_runs
    assert found.tolist()[0] == longest_run(points, mask, tuples, shape, radius)


@pytest.mark.parametrize("place", ["one cell", "corners", "anywhere"])
@pytest.mark.parametrize("variance", [1e-12, 0.0, 1.0, 1e12])
def test_adversaries_are_finite_and_exact(place, variance):
    shape = (12, 9)
    tuples = make_tuples(8, shape)
    if place != "anywhere":
        ends = np.array([[11.0, 8.0]]) * (np.arange(8)[:, None] % 2 if place == "corners" else 1)
        tuples = tuples._replace(means=np.broadcast_to(ends, (8, 2)).astype(np.float32))
    tuples = tuples._replace(variances=np.full((8, 2), variance, np.float32))
    points, mask = sampled(0, tuples.means, shape=shape, num_global=0)
    locality = everything(points, shape)

    ours = value_and_slopes(points, mask, tuples, shape=shape, locality=locality)
    expected, slopes = value_and_slopes(points, mask, tuples, shape=shape, locality=None)
    assert all_finite(ours)
    scale = max(1.0, *(float(np.abs(leaf).max()) for leaf in slopes))
    assert_close(ours, (expected, slopes), rtol=1e-4, atol=1e-5 * scale)


HUGE = [(2**20, 2**20), (100_000, 100_000, 100_000), (2**30, 2), (3, 2**30), (1, 2**20, 1)]


@pytest.mark.parametrize(
    ("shape", "radius"),
    [*((shape, 1) for shape in HUGE), (HUGE[0], 1000), (HUGE[1], 1000)],
    ids=str,
)
def test_strips_of_spaces_beyond_int32_are_found(shape, radius):
    # Away from 2**24, up to which float32 tells cells apart.
    within = tuple(min(size, 2**20) for size in shape)
    points, mask, tuples = example(within, num_global=0, count=40, seed=1)
    locality = Locality(radius, (len(points),), None)
    nearby = near(points, mask, tuples, shape=shape, locality=locality)
    error, size = total_error(nearby.values, points, mask, tuples)
    assert error <= (2 * float(nearby.neglected) + 1e-4) * size
    assert_close(np.sum(nearby.values), tuples.values.sum(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "radius"),
    [
        ((2**31 - 1,), 3),
        ((2**31 - 1, 2**30), 3),
        ((5, 2**31 - 1), 2**31 - 1),
        ((5, 5), 2**31),
        ((5, 5), 10**10),
    ],
    ids=str,
)
def test_lengths_and_radii_up_to_and_beyond_int32_are_accepted(shape, radius):
    ones = np.ones((3, len(shape)), np.float32)
    tuples = ContinuousTuples(ones, ones, np.ones(3, np.float32))
    points = np.array([[1] * len(shape), [3] * len(shape)], np.int32)
    mask = np.ones(2, bool)
    nearby = near(points, mask, tuples, shape=shape, locality=Locality(radius, (2,), None))
    assert_close(nearby.values, exact(points, mask, tuples))


@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (1,), (1, 5, 1)], ids=str)
@pytest.mark.parametrize("radius", [1, 20])
def test_axes_of_length_1_are_no_exception(shape, radius):
    points, mask, tuples = example(shape, variance=0.1)
    locality = Locality(radius, (len(points),), None)
    nearby = near(points, mask, tuples, shape=shape, locality=locality)
    error, size = total_error(nearby.values, points, mask, tuples)
    assert error <= (2 * float(nearby.neglected) + 1e-5) * size


@pytest.mark.parametrize("capacity", [1, 5])
def test_a_single_point_gets_everything(capacity):
    tuples = make_tuples(3, (1, 4))._replace(means=np.array([[0.0, 2.2]] * 3, np.float32))
    points, mask = np.array([[0, 2]], np.int32), np.ones(1, bool)
    locality = Locality(2, (capacity,), 1e-3)
    nearby = near(points, mask, tuples, shape=(1, 4), locality=locality)
    assert_close(nearby.values, np.sum(tuples.values, keepdims=True))
    assert nearby.longest_runs.tolist() == [1]


def test_several_capacities_equal_one():
    shape = (12, 9)
    points, mask, tuples = example(shape, count=11, clustered=True)
    single = near(points, mask, tuples, shape=shape, locality=Locality(3, (60,), None))
    for parts in (2, 3):
        capacities = tuple(range(60, 60 + parts))
        nearby = near(points, mask, tuples, shape=shape, locality=Locality(3, capacities, None))
        assert_close(nearby.values, single.values)
        assert nearby.neglected == single.neglected
        runs = np.asarray(nearby.longest_runs)
        assert runs[-1] == single.longest_runs.tolist()[0]
        assert (np.diff(runs) >= 0).all()


def test_dropped_points_get_0_and_may_lie_anywhere():
    shape = (12, 9)
    points, mask, tuples = example(shape)
    assert not mask.all()
    locality = Locality(3, (len(points),), None)
    plain = near(points, mask, tuples, shape=shape, locality=locality)
    assert (np.asarray(plain.values)[~mask] == 0).all()
    slopes = partial(value_and_slopes, mask=mask, tuples=tuples, shape=shape, locality=locality)
    for far in (-5, 2**30, 2**31 - 1, -(2**31)):
        moved = np.where(mask[:, None], points, np.int32(far))
        nearby = near(moved, mask, tuples, shape=shape, locality=locality)
        assert_close(nearby, plain)
        assert_close(slopes(moved), slopes(points), atol=1e-5)


def test_points_in_another_order_give_values_in_that_order():
    shape = (12, 9)
    points, mask, tuples = example(shape)
    order = np.random.default_rng(0).permutation(len(points))
    locality = Locality(3, (len(points),), None)
    mixed = near(points, mask, tuples, shape=shape, locality=locality).values
    moved = near(points[order], mask[order], tuples, shape=shape, locality=locality).values
    assert_close(moved, np.asarray(mixed)[order])


def test_a_tuple_that_sees_no_point_is_reported_and_shares_nothing_out():
    points, mask = np.array([[0, 0], [0, 1]], np.int32), np.ones(2, bool)
    means, values = np.array([[0, 0.5], [50, 50]]), np.array([1, 7])
    tuples = [part.astype(np.float32) for part in (means, np.ones((2, 2)), values)]
    tuples = ContinuousTuples(*tuples)
    options = {"shape": (60, 60), "locality": Locality(3, (2,), None)}
    nearby = near(points, mask, tuples, **options)
    assert_close(nearby.values, [0.5, 0.5])
    assert nearby.neglected == jnp.inf
    assert all_finite(value_and_slopes(points, mask, tuples, **options))
    refused = near(points, mask, tuples, shape=(60, 60), locality=Locality(3, (2,), 0.5))
    assert np.isnan(refused.values).all()


@pytest.mark.parametrize("locality", [Locality(12, (1,), None), Locality(1, (99,), 1e-9)], ids=str)
def test_gradients_of_refused_values_are_nan_too(locality):
    points, mask, tuples = example((12, 9), variance=4.0)
    value, slopes = value_and_slopes(points, mask, tuples, shape=(12, 9), locality=locality)
    assert all(np.isnan(leaf).all() for leaf in (value, *slopes))


def test_with_fewer_tuples_than_capacities_the_last_ones_count():
    shape = (12, 9)
    points, mask, tuples = example(shape, count=2)
    nearby = near(points, mask, tuples, shape=shape, locality=Locality(12, (1, 1, 90, 99), None))
    assert_close(nearby.values, exact(points, mask, tuples))
    assert nearby.longest_runs.shape == (2,)


def test_dtypes_that_differ_meet_at_the_widest():
    shape = (12, 9)
    with jax.enable_x64(True):
        points, mask, tuples = example(shape)
        mixed = tuples._replace(means=tuples.means.astype(jnp.float64))
        values = near(points, mask, mixed, shape=shape, locality=everything(points, shape)).values
        assert values.dtype == exact(points, mask, mixed).dtype == jnp.float64
        assert_close(values, exact(points, mask, mixed))
