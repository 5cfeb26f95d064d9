import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sparse_hyper_jax.estimators import cell_expectation, sample_cells, score_function_loss
from sparse_hyper_jax.nn import FreeTuples
from sparse_hyper_jax.ops import bound_means, bound_variances
from tests.ops.examples import all_finite, assert_close

SHAPE = (3, 3)
MEANS = jnp.array([[0.3, 1.2], [1.9, 0.6]])
VARIANCES = jnp.array([[0.5, 0.8], [1.5, 0.3]])
# A loss for every pair of cells of two tuples, without any structure.
TABLE = jax.random.normal(jax.random.key(0), SHAPE + SHAPE) + 3.0


def table_loss(cells):
    return TABLE[tuple(cells.reshape(-1))]


def cell_probabilities(mean, variance, size):
    """Mass of each rounding interval; the first and the last reach to infinity."""
    edges = (jnp.arange(size - 1) + 0.5 - mean) / jnp.sqrt(variance)
    inner = jax.scipy.stats.norm.cdf(edges)
    return jnp.diff(inner, prepend=0.0, append=1.0)


def exact_loss(means, variances):
    parts = [
        cell_probabilities(mean, variance, 3)
        for mean, variance in zip(means.reshape(-1), variances.reshape(-1), strict=True)
    ]
    return jnp.einsum("a,b,c,d,abcd->", *parts, TABLE)


def estimates(baseline, repetitions=4000, num_samples=4):
    """Give value and gradients of many independent estimates."""

    def estimate(key):
        return jax.value_and_grad(
            lambda means, variances: cell_expectation(
                key,
                means,
                variances,
                SHAPE,
                table_loss,
                num_samples=num_samples,
                baseline=baseline,
            ),
            argnums=(0, 1),
        )(MEANS, VARIANCES)

    return jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(1), repetitions))


def standard_errors(samples):
    return np.asarray(samples).std(axis=0) / np.sqrt(len(samples))


def test_the_oracle_is_a_distribution():
    probabilities = cell_probabilities(0.3, 0.5, 3)
    assert_close(probabilities.sum(), 1.0)
    cells, _ = jax.vmap(lambda key: sample_cells(key, MEANS, VARIANCES, SHAPE))(
        jax.random.split(jax.random.key(2), 10_000)
    )
    counted = np.bincount(np.asarray(cells[:, 0, 0]), minlength=3) / 10_000
    # A share lies within 4 standard errors, at most 4 * sqrt(0.25 / 10,000) = 0.02.
    assert np.abs(counted - probabilities).max() < 0.02


@pytest.mark.parametrize("baseline", ["none", "leave_one_out"])
def test_gradient_agrees_with_exact_enumeration(baseline):
    value, gradients = estimates(baseline)
    exact, exact_gradients = jax.value_and_grad(exact_loss, argnums=(0, 1))(MEANS, VARIANCES)
    assert abs(value.mean() - exact) < 4 * standard_errors(value)
    for estimate, expected in zip(gradients, exact_gradients, strict=True):
        errors = standard_errors(estimate)
        assert (np.abs(estimate.mean(axis=0) - expected) < 4 * errors).all()
        # Far from 0 and of the right sign in at least the larger components.
        clear = np.abs(expected) > 5 * errors
        assert clear.any()
        assert (np.sign(estimate.mean(axis=0)) == np.sign(expected))[clear].all()


def test_leaving_one_out_lowers_the_variance():
    plain, better = (estimates(name)[1] for name in ("none", "leave_one_out"))
    for one, two in zip(plain, better, strict=True):
        assert (np.var(two, axis=0) < 0.5 * np.var(one, axis=0)).all()


@pytest.mark.parametrize("floor", [0.0, 1e4])
def test_deviation_squared_is_the_variance_of_the_layer(floor):
    shape, draws = (100_000, 50_000), 20_000
    source = FreeTuples(shape, 3, floor=floor, rngs=nnx.Rngs(0))
    source.raw_means[...] = jnp.zeros((3, 2))
    tuples = source()
    cells, _ = jax.jit(jax.vmap(lambda key: sample_cells(key, *tuples[:2], shape)))(
        jax.random.split(jax.random.key(3), draws)
    )
    cells = np.asarray(cells, np.float64)
    # The sample variance of n normal numbers has the relative standard error sqrt(2 / n); rounding
    # to whole cells adds 1/12, nothing beside these variances.
    relative = cells.var(axis=0, ddof=1) / np.asarray(tuples.variances) - 1
    assert np.abs(relative).max() < 4 * np.sqrt(2 / draws)
    error = np.abs(cells.mean(axis=0) - np.asarray(tuples.means))
    assert (error < 4 * np.sqrt(np.asarray(tuples.variances) / draws)).all()
    assert tuples.variances.min() > 1000


def test_cells_lie_inside_and_far_draws_on_the_edge():
    means = jnp.array([[-50.0, 50.0], [1.0, 1.0]])
    cells, _ = sample_cells(jax.random.key(0), means, jnp.full((2, 2), 1.0), SHAPE)
    assert cells.dtype == jnp.int32
    assert cells[0].tolist() == [0, 2]
    wide, _ = sample_cells(jax.random.key(0), jnp.ones((500, 2)), jnp.full((500, 2), 1e6), (3, 7))
    assert wide.min(axis=0).tolist() == [0, 0]
    assert wide.max(axis=0).tolist() == [2, 6]


def test_log_probability_is_that_of_the_draw():
    # Cells far apart tell the draw up to its rounding, which a wide density does not feel.
    shape, means, variances = (10**6,), jnp.array([[5e5]]), jnp.array([[1e8]])
    cells, log_probability = sample_cells(jax.random.key(4), means, variances, shape)
    expected = jax.scipy.stats.norm.logpdf(cells, means, 1e4).sum()
    assert_close(log_probability, expected, rtol=1e-4)


@pytest.mark.parametrize("variance", [0.0, 1e-30, 1e-12, 1e6])
def test_extreme_variances_stay_finite(variance):
    def estimate(means, variances):
        return cell_expectation(jax.random.key(0), means, variances, SHAPE, table_loss)

    variances = jnp.full((2, 2), variance)
    value, gradients = jax.value_and_grad(estimate, argnums=(0, 1))(MEANS, variances)
    assert all_finite((value, gradients))


@pytest.mark.parametrize("baseline", ["none", "leave_one_out"])
def test_value_is_the_mean_loss_of_the_draws(baseline):
    losses = jnp.array([1.0, 4.0, 1.0])
    logs = jnp.array([-100.0, 3.0, 5.0])
    assert_close(score_function_loss(losses, logs, baseline=baseline), 2.0)


@pytest.mark.parametrize(
    ("baseline", "expected"), [("none", [1.0, 4.0, 1.0]), ("leave_one_out", [-1.5, 3.0, -1.5])]
)
def test_rewards_are_constants_beside_the_ordinary_gradient(baseline, expected):
    losses, logs = jnp.array([1.0, 4.0, 1.0]), jnp.array([-1.0, 2.0, 5.0])

    def surrogate(losses, logs):
        return score_function_loss(losses, logs, baseline=baseline)

    by_loss, by_log = jax.grad(surrogate, argnums=(0, 1))(losses, logs)
    assert_close(by_loss, jnp.full(3, 1 / 3))
    assert_close(by_log, jnp.array(expected) / 3)


def test_whole_losses_are_not_rounded_to_the_precision_of_the_logs():
    losses = np.array([1001, 1003, 1002, 1000])

    def slope(losses):
        def of(t):
            logs = t * jnp.arange(4, dtype=jnp.bfloat16)
            return score_function_loss(losses, logs, baseline="leave_one_out")

        return jax.grad(of)(jnp.bfloat16(1))

    # mean of (L_i - mean of the others) i = 4/3 (-.5 * 0 + 1.5 * 1 + .5 * 2 - 1.5 * 3) / 4
    found = jax.jit(lambda: [slope(losses), slope(losses.astype(np.float32))])()
    assert_close(found, [-2 / 3] * 2, rtol=4e-3)


def test_many_losses_of_16_bits_have_their_mean():
    losses = jnp.where(jnp.arange(4096) % 2, 1.0078125, 1.0).astype(jnp.bfloat16)
    value = score_function_loss(losses, jnp.zeros(4096, jnp.bfloat16))
    assert value.dtype == jnp.float32
    assert_close(value, 1.00390625, rtol=1e-6)


def test_a_large_constant_in_the_losses_cancels():
    def slope(losses):
        logs = jnp.arange(3.0)
        return jax.grad(lambda x: score_function_loss(losses, x, baseline="leave_one_out"))(logs)

    plain, shifted = (slope(jnp.array([1.0, 2.0, 4.0]) + by) for by in (0.0, 2.0**21))
    assert_close(plain, shifted)


def test_means_that_are_not_a_number_spoil_the_loss():
    means = MEANS.at[0, 0].set(jnp.nan)
    assert jnp.isnan(cell_expectation(jax.random.key(0), means, VARIANCES, SHAPE, table_loss))


@pytest.mark.parametrize("baseline", ["none", "leave_one_out"])
def test_free_values_get_their_ordinary_gradient(baseline):
    values, key = jnp.array([0.5, -1.5]), jax.random.key(5)

    def loss(cells, values):
        return jnp.sum(values * TABLE[cells[:, 0], cells[:, 1], 0, 0]) ** 2

    def estimate(values):
        return cell_expectation(
            key,
            MEANS,
            VARIANCES,
            SHAPE,
            lambda cells: loss(cells, values),
            num_samples=5,
            baseline=baseline,
        )

    draws = [sample_cells(key, MEANS, VARIANCES, SHAPE)[0] for key in jax.random.split(key, 5)]
    expected = jnp.mean(jnp.stack([jax.grad(loss, 1)(cells, values) for cells in draws]), axis=0)
    assert_close(jax.grad(estimate)(values), expected)


def test_loss_falls_on_a_small_identity():
    size = 3
    optimizer = optax.adam(0.02)

    def tuples(parameters):
        shape = (size, size)
        return bound_means(parameters["means"], shape), bound_variances(parameters["raw"], shape)

    def loss(cells):
        dense = jnp.zeros((size, size)).at[cells[:, 0], cells[:, 1]].add(1.0)
        return jnp.mean(jnp.square(dense - jnp.eye(size)))

    def surrogate(parameters, key):
        return cell_expectation(key, *tuples(parameters), (size, size), loss, num_samples=32)

    def step(state, key):
        parameters, moments = state
        value, gradient = jax.value_and_grad(surrogate)(parameters, key)
        updates, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(parameters, updates), moments), value

    parameters = {"means": jax.random.normal(jax.random.key(6), (size, 2)), "raw": jnp.zeros(size)}
    keys = jax.random.split(jax.random.key(7), 1500)
    state = parameters, optimizer.init(parameters)
    _, losses = jax.jit(lambda state: jax.lax.scan(step, state, keys))(state)
    assert losses[-50:].mean() < 0.3 * losses[:50].mean()


def test_every_pair_of_cells_counts_once():
    # The enumeration itself: a sum over all pairs, written out.
    total = 0.0
    for cells in itertools.product(range(3), repeat=4):
        mass = 1.0
        for cell, mean, variance in zip(
            cells, MEANS.reshape(-1), VARIANCES.reshape(-1), strict=True
        ):
            mass *= float(cell_probabilities(mean, variance, 3)[cell])
        total += mass * float(TABLE[cells])
    assert_close(exact_loss(MEANS, VARIANCES), total)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: score_function_loss(jnp.ones(2), jnp.ones(2), baseline="mean"), "baseline='mean'"),
        (lambda: score_function_loss(jnp.ones(2), jnp.ones(3)), "log_probabilities of shape"),
        (lambda: score_function_loss(jnp.ones(()), jnp.ones(())), "losses of shape"),
        (
            lambda: score_function_loss(jnp.ones(1), jnp.ones(1), baseline="leave_one_out"),
            "draw more samples",
        ),
        (
            lambda: cell_expectation(
                jax.random.key(0), MEANS, VARIANCES, SHAPE, table_loss, num_samples=0
            ),
            "num_samples=0",
        ),
        (
            lambda: cell_expectation(
                jax.random.key(0), MEANS, VARIANCES, SHAPE, table_loss, num_samples=1
            ),
            "draw more samples",
        ),
        (lambda: sample_cells(jax.random.key(0), MEANS, VARIANCES, (3,)), "means of shape"),
        (lambda: sample_cells(jax.random.key(0), MEANS, VARIANCES[:1], SHAPE), "variances of"),
        (lambda: sample_cells(jax.random.key(0), MEANS, VARIANCES, (3, 0)), "shape="),
    ],
)
def test_wrong_calls_are_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()
