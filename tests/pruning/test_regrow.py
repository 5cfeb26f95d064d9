import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_hyper_jax.pruning import SET, DropAndGrow, RigL, sparse_training
from sparse_hyper_jax.reparam import powerprop
from tests.ops.examples import assert_names_itself_and_its_cure
from tests.pruning.examples import (
    KEY,
    NAMES,
    PARAMS,
    SIZES,
    array,
    gradients,
    largest,
    same,
    train,
    unchanged,
)

KEPT = [int(0.3 * size) for size in SIZES]
END = 10


def number_replaced(mask, fraction, count, end=END):
    share = fraction * 0.5 * (1 + np.cos(np.pi * count / end))
    return min(int(share * mask.sum()), int((~mask).sum()))


def by_gradient(weights, slope, mask, number):
    (stay,) = largest([weights], mask.sum() - number, [mask])
    (new,) = largest([slope], number, [~mask])
    return stay, new


def new_ones(history, step):
    pairs = zip(history.masks(step - 1), history.masks(step), strict=True)
    return [after & ~before for before, after in pairs]


@pytest.mark.parametrize(("density", "fraction"), [(0.3, 0.5), (0.8, 1.0)])
def test_rigl_drops_the_smallest_and_grows_where_the_gradient_is_largest(density, fraction):
    method = RigL(END, every=2, drop_fraction=fraction, grown_size=0.5)
    history = train(optax.adam(0.1), method, 13, density=density)
    for step in range(1, 14):
        before, after = history.masks(step - 1), history.masks(step)
        if step % 2 or step >= END:
            assert same(after, before), step
            continue
        for layer, mask in enumerate(before):
            weights, slope = history.kernels(step - 1)[layer], history.slopes(step)[layer]
            number = number_replaced(mask, fraction, step)
            stay, new = by_gradient(weights, slope, mask, number)
            assert number > 0 or step > 6
            assert np.array_equal(after[layer], stay | new), step
            there = history.kernels(step)[layer]
            start = 0.5 * np.abs(weights[mask]).mean() * np.where(slope > 0, -1, 1)
            np.testing.assert_allclose(there[new], start[new], rtol=1e-5)
            assert unchanged(there, weights)[~new].all()


def test_the_number_kept_is_constant():
    for method in (RigL(END, every=1, drop_fraction=0.7), SET(END, every=1, drop_fraction=0.7)):
        history = train(optax.sgd(0.1), method, 6)
        for step in range(7):
            assert [int(mask.sum()) for mask in history.masks(step)] == KEPT
        assert not same(history.masks(0), history.masks(6))


def test_moments_of_grown_entries_begin_at_zero_and_others_stay():
    inner = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1))
    history = train(inner, RigL(40, every=2, drop_fraction=0.9), 8, density=0.5)
    moments, old = history.state.inner[1][0], 0
    for step in (2, 4, 6, 8):
        for layer, (name, new) in enumerate(zip(NAMES, new_ones(history, step), strict=True)):
            assert new.any()
            for part in (moments.mu, moments.nu):
                before, after = (np.asarray(part[name]["kernel"][at]) for at in (step - 1, step))
                assert not after[new].any()
                assert unchanged(before, after)[~new].all()
                assert after[history.masks(step)[layer] & ~new].all()
                assert unchanged(*part[name]["bias"][step - 1 : step + 1]).all()
                old += np.count_nonzero(before[new])
    assert old > 0  # some had been kept before, and dropped
    # A change of the masks takes the place of a step.
    assert moments.count.tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert unchanged(*history.params["one"]["bias"][1:3]).all()


def test_grown_entries_begin_at_zero_by_default():
    history = train(optax.sgd(0.1), RigL(END, every=2, drop_fraction=0.5), 3)
    for kernel, later, new in zip(
        history.kernels(2), history.kernels(3), new_ones(history, 2), strict=True
    ):
        assert new.any()
        assert not kernel[new].any()
        assert later[new].all()


def test_set_grows_by_chance():
    method = SET(END, every=2, drop_fraction=0.6, grown_size=0.5)
    one, again = (train(optax.sgd(0.1), method, 5) for _ in range(2))
    other = train(optax.sgd(0.1), method, 5, key=jax.random.key(1))
    signs = set()
    for step in (2, 4):
        assert same(one.masks(step), again.masks(step))
        for layer, new in enumerate(new_ones(one, step)):
            mask, weights = one.masks(step - 1)[layer], one.kernels(step - 1)[layer]
            number = number_replaced(mask, 0.6, step)
            stay, by_slope = by_gradient(weights, one.slopes(step)[layer], mask, number)
            assert new.sum() == number
            assert np.array_equal(one.masks(step)[layer] & ~new, stay)
            assert not np.array_equal(new, by_slope)
            size = 0.5 * np.abs(weights[mask]).mean()
            np.testing.assert_allclose(np.abs(one.kernels(step)[layer][new]), size, rtol=1e-5)
            signs |= set(np.sign(one.kernels(step)[layer][new]))
    assert signs == {-1, 1}
    assert not same(one.masks(0), other.masks(0))
    assert not same(new_ones(one, 2), new_ones(one, 4))


def test_the_first_masks_are_random():
    masks = []
    for seed in range(2):
        optimizer = sparse_training(
            optax.sgd(0.1), RigL(END, every=2), density=0.3, key=jax.random.key(seed)
        )
        start = jax.tree.leaves(optimizer.init(PARAMS).masks)
        assert [int(mask.sum()) for mask in start] == KEPT
        masks.append(start)
    assert not same(*masks)
    assert not same(masks[0], [largest([PARAMS[name]["kernel"]], 10)[0] for name in NAMES])


def test_grown_weights_move_under_a_power_because_they_do_not_begin_at_zero():
    method = RigL(END, every=3, drop_fraction=0.5, grown_size=0.25)
    history = train(optax.sgd(0.1), method, 5, reparam=powerprop(2.0))
    for layer, new in enumerate(new_ones(history, 3)):
        before, mask = history.kernels(2)[layer], history.masks(2)[layer]
        theta, later = history.kernels(3)[layer], history.kernels(4)[layer]
        weights = theta * np.abs(theta)
        start = 0.25 * np.mean(before[mask] ** 2) * np.where(history.slopes(3)[layer] > 0, -1, 1)
        np.testing.assert_allclose(weights[new], start[new], rtol=1e-5)
        assert unchanged(before, theta)[~new].all()
        step = 0.1 * 2 * np.abs(theta) * history.slopes(4)[layer]
        np.testing.assert_allclose(later[new], (theta - step)[new], rtol=1e-4)
        assert (later != theta)[new].all()


def test_entries_grow_where_the_running_mean_of_gradients_is_largest():
    decay = 0.75
    method = RigL(END, every=2, drop_fraction=0.9, grown_size=0.5, momentum=decay)
    history = train(optax.sgd(0.1), method, 6)
    means, by_the_last = [0.0, 0.0], False
    for step in range(1, 7):
        for layer, (name, mask) in enumerate(zip(NAMES, history.masks(step - 1), strict=True)):
            slope, weights = history.slopes(step)[layer], history.kernels(step - 1)[layer]
            means[layer] = decay * means[layer] + (1 - decay) * slope
            average = history.state.average[name]["kernel"][step]
            np.testing.assert_allclose(average, means[layer], rtol=1e-5, atol=1e-7)
            if step % 2:
                continue
            number = number_replaced(mask, 0.9, step)
            stay, new = by_gradient(weights, means[layer], mask, number)
            assert np.array_equal(history.masks(step)[layer], stay | new)
            there = history.kernels(step)[layer]
            assert np.array_equal(np.sign(there[new]), np.where(means[layer] > 0, -1, 1)[new])
            by_the_last |= not np.array_equal(new, by_gradient(weights, slope, mask, number)[1])
    assert by_the_last
    assert isinstance(history.state.average["one"]["bias"], optax.MaskedNode)


def test_accumulated_gradients_train_as_one_large_batch():
    """Batches of powers of two of numbers with few bits: the sums are exact."""
    method = RigL(END, every=2, drop_fraction=0.5, grown_size=0.5)
    whole = sparse_training(optax.sgd(0.125, momentum=0.5), method, density=0.3, key=KEY)
    parts = optax.MultiSteps(whole, every_k_schedule=2)
    given = jax.tree.map(lambda leaf: np.round(8 * leaf) / 8, gradients(12))

    def run(optimizer, given):
        def step(carry, gradient):
            params, state = carry
            updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (PARAMS, optimizer.init(PARAMS)), given)[0]

    large = jax.tree.map(lambda leaf: (leaf[::2] + leaf[1::2]) / 2, given)
    (params, state), (again, small) = jax.jit(lambda: (run(whole, large), run(parts, given)))()
    assert int(state.steps) == int(small.inner_opt_state.steps) == 6
    assert same(jax.tree.leaves(state.masks), jax.tree.leaves(small.inner_opt_state.masks))
    assert same(jax.tree.leaves(params), jax.tree.leaves(again))
    first_masks = whole.init(PARAMS).masks
    assert not same(jax.tree.leaves(state.masks), jax.tree.leaves(first_masks))


def test_scores_are_those_of_the_weights_under_a_power():
    # The slope of theta at a dropped zero is zero; that of the weight is not.
    params = jax.tree.map(np.zeros_like, PARAMS)
    method = RigL(END, every=1, drop_fraction=0.5, grown_size=1.0)
    history = train(optax.sgd(0.1), method, 1, params=params, reparam=powerprop(2.0))
    for layer, mask in enumerate(history.masks(0)):
        number = number_replaced(mask, 0.5, 1)
        (new,) = largest([history.slopes(1)[layer]], number, [~mask])
        assert np.array_equal(new_ones(history, 1)[layer], new)


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_nothing_is_replaced_where_nothing_is_kept_or_nothing_is_free(density):
    history = train(optax.adam(0.1), RigL(END, every=1, grown_size=0.5), 3, density=density)
    for step in range(4):
        assert all(mask.all() == mask.any() == bool(density) for mask in history.masks(step))
        pairs = zip(history.kernels(step), history.kernels(0), strict=True)
        assert all(unchanged(*pair).all() for pair in pairs)


@pytest.mark.parametrize("end", [0, 1, 4])
def test_no_change_at_the_end_or_before_the_first_step(end):
    due = RigL(end, every=2).schedule.due
    assert [count for count in range(9) if due(count)] == [count for count in (2,) if count < end]


def two_updates(inner, params, gradient, **options):
    method = RigL(END, every=2, drop_fraction=0.5, grown_size=0.5)
    optimizer = sparse_training(inner, method, density=0.3, key=KEY, **options)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for _ in range(2):
        updates, state = update(gradient, state, params)
    return optax.apply_updates(params, updates), state


def first(seed=10, params=PARAMS):
    return jax.tree.map(lambda leaf: leaf[0], gradients(1, params, seed))


def test_weights_of_16_bits_from_theta_of_32():
    reparam = powerprop(2.0, dtype=jnp.bfloat16)
    weights = reparam.to_weights(PARAMS)
    gradient = jax.tree.map(lambda one, leaf: jnp.asarray(one, leaf.dtype), first(), weights)
    params, _ = two_updates(optax.sgd(0.1), PARAMS, gradient, reparam=reparam)
    assert params["one"]["kernel"].dtype == np.float32


def test_different_optimizers_for_different_leaves():
    labels = {name: {"kernel": "adam", "bias": "sgd"} for name in NAMES}
    inner = optax.partition({"adam": optax.adam(0.1), "sgd": optax.sgd(0.1, momentum=0.9)}, labels)
    _, state = two_updates(inner, PARAMS, first())
    assert [int(leaf.sum()) for leaf in jax.tree.leaves(state.masks)] == KEPT


def test_factored_moments():
    inner = optax.adafactor(0.1, min_dim_size_to_factor=2)
    _, state = two_updates(inner, PARAMS, first())
    assert [int(leaf.sum()) for leaf in jax.tree.leaves(state.masks)] == KEPT


def test_16_bits_throughout():
    params = {"kernel": jnp.asarray(array(6, 7), jnp.bfloat16)}
    gradient = {"kernel": jnp.asarray(array(6, 7, seed=1), jnp.bfloat16)}
    after, state = two_updates(optax.adam(0.1), params, gradient)
    assert after["kernel"].dtype == jnp.bfloat16
    assert int(state.masks["kernel"].sum()) == 12


MISTAKES = {
    "an end": (lambda: RigL(-1), "end=-1", "at least 0", "pass a static int"),
    "a percentage": (
        lambda: SET(500, drop_fraction=30),
        "drop_fraction=30",
        "at least 0 and at most 1",
        "change drop_fraction",
    ),
    "a size": (
        lambda: RigL(500, grown_size=-0.1),
        "grown_size=-0.1",
        "at least 0 and at most 1",
        "change grown_size",
    ),
    "never": (lambda: RigL(6, every=100), "never change", "before the end", "lower every"),
    "a place": (lambda: DropAndGrow(5, grow="all"), "grow='all'", "'random'", "choose grow"),
    "a momentum": (
        lambda: RigL(5, every=2, momentum=1),
        "momentum=1",
        "below 1",
        "change momentum",
    ),
    "momentum and chance": (
        lambda: DropAndGrow(5, every=2, grow="random", momentum=0.5),
        "momentum=0.5 with grow='random'",
        "no running mean",
        "leave momentum out",
    ),
    "a period": (lambda: RigL(5, every=0).schedule, "every=0", "at least 1", "pass a static int"),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)


def test_names_of_methods_have_the_options_of_the_method():
    """What makes a method repeats its defaults; equal ones are one static argument for jit."""
    assert SET(900) == DropAndGrow(900, grow="random")
    assert RigL(900) == DropAndGrow(900)
    assert hash(RigL(900, every=3)) == hash(RigL(900, every=3))
    options = {"every": 4, "drop_fraction": 0.2, "grown_size": 0.5}
    assert SET(900, **options) == DropAndGrow(900, grow="random", **options)
    options["momentum"] = 0.9
    assert RigL(900, **options) == DropAndGrow(900, **options)
