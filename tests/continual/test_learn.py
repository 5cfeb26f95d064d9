"""The invariants of EfficientPackNet and PackNet, with real training of a tiny network."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_hyper_jax.continual import (
    PackedNetwork,
    add_task,
    efficient_packnet,
    empty_network,
    freeze_entries,
    freeze_updates,
    packnet,
    redraw_free,
    share_used,
    task_weights,
)
from sparse_hyper_jax.pruning import apply_masks, unpack_masks
from sparse_hyper_jax.reparam import powerprop, scale_by_power_jacobian
from tests.ops.examples import assert_names_itself_and_its_cure

INPUTS, UNITS, OUTPUTS = 8, 12, 3
OPTIMIZERS = {
    "momentum": optax.sgd(0.05, momentum=0.9),
    "adam and decay": optax.adamw(1e-2, weight_decay=0.1),
    "clipping": optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1)),
}


def init(seed):
    keys = jax.random.split(jax.random.key(seed), 2)
    return {
        "hidden": {
            "kernel": jax.random.normal(keys[0], (INPUTS, UNITS)) / INPUTS**0.5,
            "bias": jnp.zeros(UNITS),
        },
        "head": {"kernel": jax.random.normal(keys[1], (UNITS, OUTPUTS)) / UNITS**0.5},
    }


def apply(weights, x):
    hidden = jax.nn.relu(x @ weights["hidden"]["kernel"] + weights["hidden"]["bias"])
    return hidden @ weights["head"]["kernel"]


def is_shared(path, leaf):
    return path == "hidden/kernel"


def data_of(number):
    x = jax.random.normal(jax.random.key(100 + number), (64, INPUTS))
    return x, jnp.argmax(x[:, number : number + OUTPUTS], axis=1)


def accuracy(weights, number):
    x, y = data_of(number)
    return float(jnp.mean(jnp.argmax(apply(weights, x), axis=1) == y))


def make_train(optimizer, reparam, alpha, traces):
    inner = freeze_entries(optax.chain(scale_by_power_jacobian(alpha), optimizer))

    @jax.jit
    def run(theta, frozen, masks, x, y):
        traces.append(1)

        def step(carry, _):
            theta, state = carry

            def loss(weights):
                logits = apply(weights, x)
                return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

            weights = apply_masks(reparam.to_weights(theta), masks)
            updates, state = inner.update(jax.grad(loss)(weights), state, theta, frozen=frozen)
            return (optax.apply_updates(theta, updates), state), None

        return jax.lax.scan(step, (theta, inner.init(theta)), None, length=150)[0][0]

    return lambda number: lambda *arguments: run(*arguments, *data_of(number))


def logits_of(network, number, reparam):
    weights = task_weights(network, number, reparam=reparam)
    return np.asarray(apply(weights, data_of(number)[0])).view(np.uint32)


def learn(name, alpha, tasks=3):
    reparam, traces = powerprop(alpha), []
    train = make_train(OPTIMIZERS[name], reparam, alpha, traces)
    networks, searches = [empty_network(reparam.to_theta(init(0)), select=is_shared)], []
    for number in range(tasks):
        network, search = efficient_packnet(
            networks[-1],
            reparam.to_theta(init(number)),
            train(number),
            lambda weights, number=number: accuracy(weights, number),
            accept=lambda score, whole: score >= 0.95 * whole,
            sparsities=[0.2, 0.4, 0.6, 0.8],
            reparam=reparam,
        )
        networks.append(network)
        searches.append(search)
    return reparam, networks, searches, traces


@pytest.mark.parametrize(
    ("name", "alpha"), [(name, 2.0) for name in OPTIMIZERS] + [("clipping", 1.0)]
)
def test_old_tasks_keep_every_bit(name, alpha):
    reparam, networks, searches, traces = learn(name, alpha)
    for number in range(3):
        first = logits_of(networks[number + 1], number, reparam)
        for network in networks[number + 1 :]:
            np.testing.assert_array_equal(logits_of(network, number, reparam), first)
    shares = [share_used(network) for network in networks]
    assert shares == sorted(shares)
    assert shares[0] == 0 < shares[1]
    for number, search in enumerate(searches):
        weights = task_weights(networks[-1], number, reparam=reparam)
        score = accuracy(weights, number)
        assert score == pytest.approx(search.curve[search.sparsity])
        assert score >= 0.95 * search.curve[0.0] > 0.6
    assert len(traces) == 1  # masks are arrays: no task compiles anew


def test_masks_choose_among_old_and_new_weights():
    reparam, networks, searches, _ = learn("clipping", 2.0)
    network = networks[-1]
    kernel = np.abs(np.asarray(reparam.to_weights(network.params)["hidden"]["kernel"]))
    masks = unpack_masks(network.tasks[-1].masks, network.params)["hidden"]["kernel"]
    kept = int((1 - searches[-1].sparsity) * kernel.size + 1e-9)
    assert int(masks.sum()) == kept
    assert kernel[np.asarray(masks)].min() >= kernel[~np.asarray(masks)].max()
    before = np.asarray(networks[-2].used["hidden"]["kernel"])
    assert (np.asarray(masks) & before).any()
    np.testing.assert_array_equal(network.used["hidden"]["kernel"], before | np.asarray(masks))


def test_packnet_takes_a_share_of_what_is_free_and_trains_it_again():
    reparam, traces, calls = powerprop(1.0), [], []
    train = make_train(OPTIMIZERS["momentum"], reparam, 1.0, traces)
    networks = [empty_network(init(0), select=is_shared)]
    for number in range(3):

        def recorded(*arguments, number=number):
            calls.append(arguments)
            return train(number)(*arguments)

        networks.append(packnet(networks[-1], init(number), recorded, keep=0.25))
    size, free = INPUTS * UNITS, INPUTS * UNITS
    for network in networks[1:]:
        free -= int(0.25 * free)
        assert round(share_used(network) * size) == size - free
    _, frozen, masks = (leaf["hidden"]["kernel"] for leaf in calls[3])
    used, wider = (np.asarray(networks[n].used["hidden"]["kernel"]) for n in (1, 2))
    np.testing.assert_array_equal(masks, wider)
    np.testing.assert_array_equal(frozen, used | ~wider)
    for number in range(3):
        first = logits_of(networks[number + 1], number, reparam)
        np.testing.assert_array_equal(logits_of(networks[-1], number, reparam), first)


def test_without_freezing_the_old_task_changes():
    reparam = powerprop(1.0)
    train = make_train(OPTIMIZERS["momentum"], reparam, 1.0, [])
    network = empty_network(init(0), select=is_shared)
    everything = jax.tree.map(jnp.ones_like, network.used)
    first = add_task(network, train(0)(init(0), network.used, everything), everything, freeze=False)
    theta = train(1)(first.params, first.used, everything)
    second = add_task(first, theta, everything, freeze=False)
    assert share_used(second) == 0
    assert (logits_of(first, 0, reparam) != logits_of(second, 0, reparam)).any()


def test_redraw_keeps_old_entries_and_nothing_else():
    network = empty_network(init(0), select=is_shared)
    used = {
        "hidden": {
            "kernel": jnp.arange(96).reshape(8, 12) % 3 == 0,
            "bias": network.used["hidden"]["bias"],
        },
        "head": network.used["head"],
    }
    fresh = init(1)
    theta = redraw_free(PackedNetwork(network.params, used, ()), fresh)
    mask = np.asarray(used["hidden"]["kernel"])
    np.testing.assert_array_equal(
        theta["hidden"]["kernel"],
        np.where(mask, network.params["hidden"]["kernel"], fresh["hidden"]["kernel"]),
    )
    np.testing.assert_array_equal(theta["head"]["kernel"], fresh["head"]["kernel"])


def test_blank_tasks_have_the_structure_of_learned_ones():
    _, networks, _, _ = learn("clipping", 2.0)
    blank = empty_network(init(0), select=is_shared, tasks=3)
    shapes = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)  # noqa: E731
    assert jax.tree.structure(blank) == jax.tree.structure(networks[-1])
    assert shapes(blank) == shapes(networks[-1])
    assert blank.tasks[0].masks["hidden"]["kernel"].dtype == jnp.uint8


def test_training_that_moves_what_is_frozen():
    network = empty_network(init(0), select=is_shared)
    options = {
        "accept": lambda score, whole: score >= 0.9 * whole,
        "sparsities": [0.2, 0.4],
    }
    evaluate = lambda weights: accuracy(weights, 0)  # noqa: E731
    careless = lambda params, frozen, masks: jax.tree.map(lambda leaf: 0.9 * leaf, params)  # noqa: E731
    network, _ = efficient_packnet(network, init(0), careless, evaluate, **options)
    for call in (
        lambda: efficient_packnet(network, init(1), careless, evaluate, **options),
        lambda: packnet(network, init(1), careless, keep=0.5),
    ):
        assert_names_itself_and_its_cure(
            call, "entries of earlier tasks changed", "stay as they were", "freeze_entries"
        )


def test_groups_cannot_be_frozen_entry_by_entry():
    reparam = powerprop(2.0, axes=(0,), select=is_shared)
    network = empty_network(init(0), select=is_shared)
    options = {"accept": lambda score, whole: True, "sparsities": [0.5]}
    for call in (
        lambda: packnet(network, init(0), never, keep=0.5, reparam=reparam),
        lambda: efficient_packnet(network, init(0), never, never, reparam=reparam, **options),
    ):
        assert_names_itself_and_its_cure(
            call, "a reparametrisation of groups", "single entries", "without axes"
        )


def never(*arguments):
    raise AssertionError("trained before the options were checked")


def test_wrong_sparsities_are_found_before_training():
    network = empty_network(init(0), select=is_shared)
    options = {"accept": lambda score, whole: True, "sparsities": [0.5, 0.2]}
    assert_names_itself_and_its_cure(
        lambda: efficient_packnet(network, init(0), never, never, **options),
        "sparsities=[0.5, 0.2]",
        "increasing",
        "sort them",
    )


def test_a_changed_sign_of_zero_counts_as_a_change():
    params = {"kernel": jnp.array([[0.0, 1.0]])}
    masks = {"kernel": jnp.ones((1, 2), bool)}
    network = add_task(empty_network(params), params, masks)
    add_task(network, params, masks)
    assert_names_itself_and_its_cure(
        lambda: add_task(network, {"kernel": jnp.array([[-0.0, 1.0]])}, masks),
        "changed: {'kernel': 1}",
        "stay as they were",
        "freeze_entries",
    )


def test_masks_of_a_task_have_the_shape_of_the_parameters():
    params = {"kernel": jnp.ones((3, 4))}
    assert_names_itself_and_its_cure(
        lambda: add_task(empty_network(params), params, {"kernel": jnp.ones((1, 4), bool)}),
        "a mask bool[1, 4] for kernel",
        "bool[3, 4]",
        "make masks",
    )


def test_parameters_keep_their_dtype_from_task_to_task():
    network = empty_network({"kernel": jnp.ones((3, 4), jnp.bfloat16)})
    assert redraw_free(network, {"kernel": jnp.ones((3, 4))})["kernel"].dtype == jnp.bfloat16


def test_packnet_counts_as_all_else_counts():
    params = {"kernel": jnp.arange(1.0, 301).reshape(30, 10)}
    network = packnet(empty_network(params), params, lambda *a: a[0], keep=0.21)
    assert int(network.used["kernel"].sum()) == 63


def test_what_is_not_a_number_may_be_frozen():
    params = {"kernel": jnp.array([[jnp.nan, 1.0, -jnp.inf]])}
    masks = {"kernel": jnp.ones((1, 3), bool)}
    network = add_task(empty_network(params), params, masks)
    assert len(add_task(network, params, masks).tasks) == 2


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_number_that_was_flushed_to_zero_comes_back(dtype):
    """Adding -0.0 to a number below the smallest normal one gives 0 on a CPU."""
    tiny = jax.lax.bitcast_convert_type(
        jnp.array([[3, 1, 2]], f"int{8 * jnp.dtype(dtype).itemsize}"), dtype
    )
    params, masks = {"kernel": tiny}, {"kernel": jnp.array([[True, True, False]])}
    network = add_task(empty_network(params), params, masks)
    frozen = freeze_updates({"kernel": jnp.ones_like(tiny)}, masks)
    trained = optax.apply_updates(params, frozen)
    again = add_task(network, trained, masks)
    before, after = (
        np.asarray(jax.lax.bitcast_convert_type(one, f"int{8 * one.dtype.itemsize}"))
        for one in (tiny, again.params["kernel"])
    )
    assert before[0, :2].tolist() == after[0, :2].tolist() == [3, 1]
    assert after[0, 2] != before[0, 2]
    # Another sign, or a larger number, is a change.
    for other in (-tiny, jnp.full_like(tiny, 1e-30)):
        with pytest.raises(ValueError, match="earlier tasks changed"):
            add_task(network, {"kernel": other}, masks)


def test_wrong_input():
    network = empty_network(init(0), select=is_shared)
    assert_names_itself_and_its_cure(
        lambda: task_weights(network, 0), "task 0 of 0", "learned", "count tasks"
    )
    assert_names_itself_and_its_cure(
        lambda: packnet(network, init(0), lambda *a: a[0], keep=0.0), "keep=0.0", "(0, 1]", "keep"
    )
    assert_names_itself_and_its_cure(
        lambda: empty_network(init(0), select=lambda path, leaf: False),
        "no selected leaf",
        "at least one",
        "select=",
    )
