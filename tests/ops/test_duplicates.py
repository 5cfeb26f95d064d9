import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.ops import first_occurrence

find = jax.jit(first_occurrence, static_argnums=1)


def by_numpy(points):
    mask = np.zeros(len(points), bool)
    mask[np.unique(points, axis=0, return_index=True)[1]] = True
    return mask


def random_points(rank, size, *, count=300, distinct=60, seed=0):
    generator = np.random.default_rng(seed)
    few = generator.integers(0, size, (distinct, rank))
    few[: distinct // 2, :-1] = few[0, :-1]
    return few[generator.integers(0, distinct, count)].astype(np.int32)


@pytest.mark.parametrize("rank", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("size", [1, 2, 30, 10**4])
def test_agrees_with_numpy_unique(rank, size):
    points = random_points(rank, size, seed=rank)
    assert (find(points, (size,) * rank) == by_numpy(points)).all()


@pytest.mark.parametrize("shape", [(46340, 46340), (46341, 46341), (2**31 - 1,), (2**31 - 1,) * 3])
def test_is_exact_on_both_sides_of_int32(shape):
    points = random_points(len(shape), shape[0])
    points[:4] = np.asarray(shape) - 1
    points[4:8] = 0
    assert (find(points, shape) == by_numpy(points)).all()


@pytest.mark.parametrize(
    ("points", "mask"),
    [
        ([[1, 2], [1, 2], [2, 1]], [True, False, True]),
        ([[0, 0], [0, 1], [1, 0], [0, 1]], [True, True, True, False]),
        ([[3, 3]] * 4, [True, False, False, False]),
        ([[2, 1], [1, 2]], [True, True]),
        ([[5, 0]], [True]),
    ],
)
def test_the_first_survives(points, mask):
    assert first_occurrence(jnp.array(points), (6, 6)).tolist() == mask


def test_no_points():
    assert first_occurrence(jnp.zeros((0, 2), jnp.int32), (3, 3)).shape == (0,)


def test_a_tensor_without_axes_has_one_point():
    assert first_occurrence(jnp.zeros((3, 0), jnp.int32), ()).tolist() == [True, False, False]


def test_every_distinct_point_is_kept_once():
    points = random_points(2, 12)
    kept = points[np.asarray(find(points, (12, 12)))]
    assert sorted(map(tuple, kept)) == sorted({tuple(point) for point in points})
