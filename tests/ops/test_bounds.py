import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from sparse_hyper_jax.ops import bound_means, bound_variances, invert_means, log_densities
from tests.ops.examples import assert_close

SIZE = 16
TABLE = [
    ("sigmoid", 0.0, 7.5),
    ("sigmoid", 100.0, 15.0),
    ("sigmoid", -100.0, 0.0),
    ("sigmoid", np.log(3.0), 11.25),
    ("clamp", -3.0, 0.0),
    ("clamp", 0.0, 0.0),
    ("clamp", 7.25, 7.25),
    ("clamp", 15.0, 15.0),
    ("clamp", 15.5, 15.0),
    ("modulo", 0.0, 0.0),
    ("modulo", 15.0, 15.0),
    ("modulo", 15.75, 15.75),
    ("modulo", 16.0, 0.0),
    ("modulo", 47.0, 15.0),
    ("modulo", -0.25, 15.75),
    ("modulo", -1e-9, 0.0),
    ("modulo", -17.0, 15.0),
    ("modulo", 1e30, float(np.float32(1e30)) % 16),
]


@pytest.mark.parametrize(("method", "raw", "mean"), TABLE)
def test_means_take_the_values_of_the_formula(method, raw, mean):
    assert_close(bound_means(jnp.array([[raw]]), (SIZE,), method=method)[0, 0], mean)


@pytest.mark.parametrize("method", ["sigmoid", "clamp", "modulo"])
def test_every_axis_has_its_own_size(method):
    shape = (1, 2, 5, 1000)
    raw = jnp.concatenate([jnp.linspace(-3000, 3000, 301), jnp.linspace(-20, 20, 101)])
    raw = jnp.concatenate([raw, jnp.array([-1e30, -1e-30, 1e-30, 1e30])])
    means = bound_means(raw[:, None] * jnp.ones((1, 4)), shape, method=method)
    top = np.asarray(shape) - (0 if method == "modulo" else 1)
    assert (means >= 0).all()
    assert (means < top).all() if method == "modulo" else (means <= top).all()
    for axis, size in enumerate(shape):
        alone = bound_means(raw[:, None], (size,), method=method)
        assert_close(means[:, axis], alone[:, 0])


def test_sigmoid_range_is_open_until_float32_ends():
    means = bound_means(jnp.array([[-87.0], [-20.0], [16.0]]), (SIZE,))
    assert (means > 0).all()
    assert (means < SIZE - 1).all()


@pytest.mark.parametrize(
    ("method", "raw", "slope"),
    [
        ("clamp", -0.5, 0.0),
        ("clamp", 3.5, 1.0),
        ("clamp", 15.5, 0.0),
        ("modulo", -0.5, 1.0),
        ("modulo", 40.5, 1.0),
        ("sigmoid", 0.0, 15 / 4),
        ("sigmoid", 100.0, 0.0),
    ],
)
def test_slopes(method, raw, slope):
    grad = jax.grad(lambda raw: bound_means(raw, (SIZE,), method=method).sum())(jnp.array([raw]))
    assert_close(grad, [slope])


@pytest.mark.parametrize("size", [1, 2, 16, 1000])
@pytest.mark.parametrize("margin", [5e-5, 1e-2])
def test_inverse_comes_back_up_to_the_margin(size, margin):
    places = jnp.linspace(0, size - 1, 11)[:, None]
    back = bound_means(invert_means(places, (size,), margin=margin), (size,))
    assert_close(back, margin * (size - 1) + (1 - 2 * margin) * places, rtol=1e-4)


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("floor", [0.0, 0.3])
def test_variances_follow_the_formula(reference, floor):
    raw, shape = np.array([-30.0, -1.0, 0.0, 4.0]), (4, 100)
    options = {"scale": 0.2, "boost": 1.5, "floor": floor, "reference": reference}
    variances = bound_variances(jnp.asarray(raw, jnp.float32), shape, **options)
    spread = np.logaddexp(raw + 1.5, 0)[:, None]
    sizes = 0.2 * np.asarray(shape)
    expected = sizes * (spread + floor) if reference else sizes * spread + floor
    assert_close(variances, expected)
    assert variances.shape == (4, 2)


def test_fresh_variances_average_to_the_documented_number():
    raw = jax.random.normal(jax.random.key(0), (20000,))
    assert_close(bound_variances(raw, (16,)).mean(), 2.18 * 16 * 0.1, rtol=0.01)


def test_a_variance_is_a_squared_standard_deviation():
    variances = bound_variances(jnp.zeros(1), (16,))
    points = jnp.arange(16)[:, None]
    ours = log_densities(points, jnp.array([[5.3]]), variances)[:, 0]
    normal = stats.norm(5.3, np.sqrt(variances[0, 0])).logpdf(np.arange(16))
    assert_close(ours - ours[0], normal - normal[0], rtol=1e-4)


def test_unknown_method_is_an_error():
    with pytest.raises(ValueError, match=r"found method='tanh'.*'sigmoid', 'clamp', 'modulo'"):
        bound_means(jnp.zeros((1, 1)), (4,), method="tanh")


def test_numbers_may_follow_a_schedule():
    numbers = {"scale": 0.2, "boost": 1.0, "floor": 0.5}
    traced = jax.jit(lambda raw, numbers: bound_variances(raw, (4, 8), **numbers))
    assert_close(traced(np.ones(3), numbers), bound_variances([1.0] * 3, (4, 8), **numbers))
    margin = jax.jit(lambda margin: invert_means([3.0], (4,), margin=margin))(0.1)
    assert_close(margin, invert_means([3.0], (4,), margin=0.1))


def test_places_beside_their_axis_have_no_raw_parameters():
    assert jnp.isnan(invert_means([-0.5, 3.5], (4, 4))).all()
