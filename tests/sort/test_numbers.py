"""Numbers that computing must not lose: wide sums, NaN, infinities, small divisors, schedules."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.sort import (
    draw_sort,
    neural_sort,
    order_loss,
    quicksort,
    rank_loss,
    soft_ranks,
    soft_sort,
    soft_top_k,
    sort_loss,
    squared_error,
    standardise,
)
from sparse_hyper_jax.sort.recurrence import decaying_sums, decaying_sums_ahead
from sparse_hyper_jax.sort.split import half_split, mix
from tests.compiling import programs_compiled
from tests.ops.examples import all_finite
from tests.sort import dense

KEY = jax.random.key(0)
KEYS = np.array([0.3, -0.9, 0.8, 0.1, 2.0], np.float32)


def test_double_payloads_are_mixed_in_double_by_single_keys():
    payload = np.random.default_rng(0).normal(size=(5, 2))

    @jax.jit
    def mixed(keys, payload):
        ones = jnp.ones_like(payload)
        done = quicksort(KEY, keys, (payload, ones), num_candidates=3, certainty=2.0)
        return soft_sort(keys, (payload, ones), certainty=2.0), done

    with jax.enable_x64(True):
        (soft, ones), done = mixed(KEYS, payload)
        exact = dense.soft_sort(jnp.asarray(KEYS, jnp.float64), jnp.asarray(payload), 2.0)
        np.testing.assert_allclose(soft, exact, rtol=1e-12)
        np.testing.assert_allclose(ones, 1, rtol=1e-14)
        # Columns of a mixture of permutations keep their sums.
        np.testing.assert_allclose(done.payload[0].sum(0), payload.sum(0), rtol=1e-13)
        np.testing.assert_allclose(done.payload[1], 1, rtol=1e-14)
        assert done.keys.dtype == np.float32


def test_means_of_whole_and_of_narrow_numbers_are_wide():
    x = jnp.asarray(np.arange(8)[:, None] / 8 + 1000, jnp.float16)
    target = jnp.arange(8)[::-1, None] + 1000

    @jax.jit
    def losses(x, target):
        done = quicksort(None, -x[:, 0], x, target=x, hard=True)
        return [sort_loss(done, target, kind=kind, distance=squared_error) for kind in
                ("plain", "means")]  # fmt: skip

    wide = losses(x.astype(jnp.float32), target.astype(jnp.float32))
    found = losses(x, target)
    assert {loss.dtype for loss in found} == {np.dtype(np.float32)}
    np.testing.assert_allclose(found, wide, rtol=1e-6)


def test_infinite_keys_are_standardised_as_large_ones():
    keys = [[1, jnp.inf, 2], [1, 1e30, 2], [-jnp.inf, 0, jnp.inf], [-3e38, 0, 3e38]]
    value, slope = jax.jit(jax.value_and_grad(lambda k: standardise(k)[:, 0].sum(), has_aux=False))(
        jnp.array(keys, jnp.float32)
    )
    found = jax.jit(standardise)(jnp.array(keys, jnp.float32))
    up, out = 2**0.5, 1.5**0.5
    np.testing.assert_allclose(
        found, [[-up / 2, up, -up / 2]] * 2 + [[-out, 0, out]] * 2, rtol=1e-5, atol=1e-6
    )
    assert all_finite((value, slope))


def test_a_spread_below_the_normal_numbers_is_none():
    keys = jnp.array([0, 1e-39, 1e-41])
    value, slope = jax.jit(jax.value_and_grad(lambda keys: standardise(keys)[0]))(keys)
    assert abs(float(value)) < 1e-30
    assert all_finite(slope)


@jax.jit
def with_nan(keys, labels):
    def both(keys):
        return order_loss(keys, labels), rank_loss(keys, labels)

    losses, pull = jax.vjp(both, keys)
    drawn = draw_sort(KEY, keys, keys, num_candidates=2)
    return losses, pull((jnp.ones(()), jnp.zeros(())))[0], drawn.log_probability


@pytest.mark.parametrize("where", ["labels", "keys"])
def test_nan_comes_out(where):
    arguments = {"keys": KEYS.copy(), "labels": KEYS.copy()}
    arguments[where][1] = np.nan
    losses, slopes, log_probability = with_nan(**arguments)
    assert np.isnan(losses).all()
    assert np.isnan(slopes).any()
    assert np.isnan(log_probability) == (where == "keys")
    assert all_finite(with_nan(KEYS, KEYS))


@jax.jit
def relaxed(keys, temperature):
    def mean(keys, temperature):
        return (neural_sort(keys, temperature=temperature) @ jnp.arange(5.0)).max()

    along = jax.jvp(mean, (keys, temperature), (jnp.ones(5), jnp.ones(())))
    return along, jax.grad(mean, (0, 1))(keys, temperature), neural_sort(keys)


@pytest.mark.parametrize("temperature", [1.2e-38, 1e-25, 1e-10, 1.0, 1e30])
def test_a_small_temperature_has_finite_slopes(temperature):
    for keys in (KEYS, np.round(KEYS), np.array([np.inf, 0, 1, -np.inf, 2], np.float32)):
        *slopes, matrix = relaxed(keys, np.float32(temperature))
        assert all_finite(slopes)
        np.testing.assert_array_equal(
            np.argmax(np.asarray(matrix), axis=1)[[0, -1]], np.argsort(keys)[[0, -1]]
        )


def test_certainties_and_temperatures_follow_a_schedule():
    def everything(certainty):
        options = {"certainty": certainty}
        few = {"num_candidates": 4, "num_near": 1}
        return {
            "sort": soft_sort(KEYS, KEYS, **options),
            "ranks": soft_ranks(KEYS, **options),
            "shares": soft_top_k(KEYS, 2, **options),
            "order": order_loss(KEYS, -KEYS, **options),
            "rank": rank_loss(KEYS, -KEYS, **options),
            "quicksort": quicksort(KEY, KEYS, KEYS, **few, **options).payload,
            "split": half_split(KEY, KEYS, KEYS, **few, **options)[1],
            "drawn": draw_sort(KEY, KEYS, KEYS, num_candidates=4, **options).log_probability,
            "neural": neural_sort(KEYS, temperature=certainty),
        }

    schedule = jnp.array([0.5, 2.0])
    scan = jax.jit(lambda steps: jax.lax.scan(lambda _, c: (None, everything(c)), None, steps)[1])
    found = scan(schedule)
    for step, certainty in enumerate(schedule.tolist()):
        constant = jax.jit(partial(everything, certainty))()
        jax.tree.map(
            lambda many, one, step=step: np.testing.assert_allclose(many[step], one, rtol=1e-4),
            found,
            constant,
        )


def test_nothing_is_compiled_again_by_a_second_eager_call():
    decays, split = jnp.full(4, 0.5), half_split(KEY, jnp.arange(4.0), None, num_candidates=2)[2]

    def calls():
        mix(decays, split), decaying_sums(decays, decays), decaying_sums_ahead(decays, decays)

    calls()
    with programs_compiled() as compiled:
        calls()
    assert compiled == []


@pytest.mark.parametrize("kind", ["Explicit", "Auto"])
def test_what_a_batch_shares_may_stay_on_every_device(kind):
    shared, wide, lists = jnp.eye(5)[:, :2], jnp.ones((5, 9)), jnp.array([0, 0, 1, 1, 1])

    def of_keys(keys):
        options = {"num_candidates": 2}
        return {
            "soft": soft_sort(keys, (shared, wide)),
            "hard": soft_sort(keys, lists, hard=True),
            "lists": soft_ranks(keys, segment_ids=lists),
            "losses": rank_loss(keys, lists, segment_ids=lists) + order_loss(KEYS, keys),
            "quicksort": quicksort(KEY, keys, shared, target=shared, **options),
            "drawn": draw_sort(KEY, keys, shared, **options),
            "payload": soft_sort(KEYS, keys),
            "slopes": jax.grad(lambda keys: soft_ranks(keys, segment_ids=lists)[1:].sum())(keys),
        }

    keys = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    mesh = jax.make_mesh((8,), ("d",), axis_types=(getattr(jax.sharding.AxisType, kind),))
    program = jax.jit(jax.vmap(of_keys))
    alone = jax.device_get(program(keys))
    with jax.set_mesh(mesh):
        spread = program(jax.device_put(keys, jax.NamedSharding(mesh, jax.P("d"))))
        jax.tree.map(
            partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
            jax.device_get(spread),
            alone,
        )
