from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.backprop import (
    CandidateTopK,
    Memory,
    Threshold,
    TopK,
    UnifiedTopK,
    init_memory,
    next_memory,
    share_of_units_used,
    sparse_dense,
    sparsify_cotangent,
)
from tests.backprop.examples import (
    KEY,
    MASKING,
    RANDOM,
    ROWS,
    SPARSIFIERS,
    N,
    largest,
    layer_arrays,
    layer_gradients,
    memory_for,
    pull,
    random_array,
)
from tests.ops.examples import all_finite, assert_close, assert_names_itself_and_its_cure


def trajectory(cotangents, memory, **options):
    taken = []
    for number, cotangent in enumerate(cotangents):
        s, following = pull(jax.random.key(number), cotangent, memory, **options)
        memory = next_memory(memory, following)
        taken.append(np.asarray(s))
    return np.stack(taken), memory


def test_two_steps_by_hand():
    options = {"sparsifier": TopK(1), "eta": 0.5}
    first, memory = pull(None, np.float32([[3, -2, 1]]), init_memory("slot", (1, 3)), **options)
    assert first.tolist() == [[3, 0, 0]]
    assert memory.residue.tolist() == [[0, -1, 0.5]]
    second, memory = pull(None, np.float32([[1, -2, 1]]), memory, **options)
    assert second.tolist() == [[0, -3, 0]]
    assert memory.residue.tolist() == [[0.5, 0, 0.75]]


def test_choosing_by_the_gradient_propagates_corrected_components():
    options = {"sparsifier": TopK(1), "eta": 0.5, "select_on": "gradient"}
    _, memory = pull(None, np.float32([[3, -2, 1]]), init_memory("slot", (1, 3)), **options)
    second, memory = pull(None, np.float32([[2, -1.5, 1]]), memory, **options)
    assert second.tolist() == [[2, 0, 0]]
    assert memory.residue.tolist() == [[0, -1.25, 0.75]]


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_it_does_not_matter_which_side_of_the_step_eta_is_on(eta):
    cotangents = random_array(6, ROWS, N)
    ours, memory = trajectory(
        cotangents, init_memory("slot", (ROWS, N)), sparsifier=TopK(2), eta=eta
    )
    kept = np.zeros((ROWS, N), np.float32)
    for cotangent, s in zip(cotangents, ours, strict=True):
        corrected = cotangent + eta * kept
        expected = np.where(largest(np.abs(corrected), 2), corrected, 0)
        kept = corrected - expected
        assert_close(s, expected)
    assert_close(memory.residue, eta * kept)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(
            (name, "slot")
            for name in ("TopK", "BlockTopK", "UnifiedRandomK, unscaled", "AdaptiveLadder")
        ),
        *((name, "shared") for name in ("UnifiedTopK", "RandomK, unscaled", "AdaptiveTopK")),
    ],
)
def test_with_eta_one_nothing_is_lost(name, kind):
    with jax.enable_x64(True):
        cotangents = random_array(5, ROWS, N, dtype=np.float64)
        memory = memory_for(SPARSIFIERS[name], kind, dtype=np.float64)
        ours, memory = trajectory(cotangents, memory, sparsifier=SPARSIFIERS[name], eta=1.0)
        kept = np.asarray(memory.residue)
        axis = 0 if kind == "slot" else (0, 1)
        assert np.abs(ours.sum(axis) - (cotangents.sum(axis) - kept)).max() < 1e-12
        assert np.abs(kept).max() > 0.1


@pytest.mark.parametrize(
    ("name", "select_on"),
    [
        *((name, "corrected") for name in MASKING),
        *((name, "gradient") for name in ("TopK", "UnifiedTopK", "RandomK, unscaled")),
    ],
)
def test_each_step_conserves_the_corrected_cotangent(name, select_on):
    options = {"sparsifier": SPARSIFIERS[name], "eta": 0.5, "select_on": select_on}
    cotangent, residue = random_array(ROWS, N), random_array(ROWS, N, seed=1)
    memory = memory_for(SPARSIFIERS[name])._replace(residue=residue)
    ours, following = pull(KEY, cotangent, memory, **options)
    assert_close(ours + following.residue / 0.5, cotangent + residue)
    propagated = np.asarray(ours) != 0
    assert propagated.any()
    assert (np.asarray(following.residue)[propagated] == 0).all()
    assert (np.asarray(ours)[propagated] == (cotangent + residue)[propagated]).all()


@pytest.mark.parametrize("name", ["RandomK", "UnifiedRandomK", "ImportanceSampling"])
def test_what_an_unbiased_sparsifier_leaves_over_is_not_kept(name):
    cotangent = random_array(ROWS, N)
    memory = init_memory("slot", (ROWS, N))
    assert_names_itself_and_its_cure(
        lambda: pull(KEY, cotangent, memory, sparsifier=RANDOM[name]),
        f"{name}(k=3",
        "no such memory",
        "rescale=False",
    )


@pytest.mark.parametrize("name", MASKING)
@pytest.mark.parametrize("kind", ["slot", "shared"])
def test_a_memory_stays_bounded(name, kind):
    cotangents = random_array(200, ROWS, N)
    memory = memory_for(SPARSIFIERS[name], kind)
    _, memory = trajectory(cotangents, memory, sparsifier=SPARSIFIERS[name], eta=0.8)
    # A component that is never propagated reaches |g| / (1 - eta) at the most.
    bound = np.abs(cotangents).max() / (1 - 0.8)
    assert np.abs(memory.residue).max() <= bound * (ROWS if kind == "shared" else 1)


@pytest.mark.parametrize("fault", [np.inf, np.nan])
@pytest.mark.parametrize("name", ["TopK", "UnifiedTopK", "CandidateTopK"])
def test_a_fault_that_is_propagated_does_not_stay(name, fault):
    cotangent = random_array(ROWS, N)
    cotangent[1, 2] = fault
    ours, following = pull(
        KEY, cotangent, memory_for(SPARSIFIERS[name]), sparsifier=SPARSIFIERS[name], eta=1.0
    )
    assert not np.isfinite(ours).all()
    assert np.isfinite(following.residue).all()


def test_without_eta_no_fault_stays():
    cotangent = np.full((ROWS, N), np.inf, np.float32)
    memory = init_memory("slot", (ROWS, N))
    _, following = pull(None, cotangent, memory, sparsifier=TopK(2), eta=0.0)
    assert not following.residue.any()


def test_a_peak_leaves_out_what_is_not_finite():
    memory = init_memory("none", adaptive=True)
    cotangent = np.float32([[1, 2], [np.inf, 1], [np.nan, 5]])
    _, following = pull(None, cotangent, memory, sparsifier=TopK(1), eta=0.0)
    assert following.peak == 3


@pytest.mark.parametrize("uses", [0.3, 0.5, 1 / 1024, 1.2, 2.0])
def test_a_memory_that_was_scaled_is_caught(uses):
    memory = init_memory("slot", (2, 3))
    gradient = memory._replace(uses=jnp.float32(uses))
    assert_names_itself_and_its_cure(
        lambda: next_memory(memory, gradient), f"{uses:g} backward", "one call", "clipping"
    )
    following = jax.jit(next_memory)(memory, gradient)
    assert np.isnan(following.residue).all()


@pytest.mark.parametrize("sparsifier", [TopK(3), UnifiedTopK(3)])
def test_a_shared_memory_is_spread_evenly(sparsifier):
    cotangent, residue = random_array(ROWS, N), random_array(N, seed=1)
    shared = init_memory("shared", (ROWS, N))._replace(residue=residue)
    slot = init_memory("slot", (ROWS, N))._replace(residue=np.tile(residue / ROWS, (ROWS, 1)))
    ours, following = pull(None, cotangent, shared, sparsifier=sparsifier)
    other, single = pull(None, cotangent, slot, sparsifier=sparsifier)
    assert_close(ours, other)
    assert_close(following.residue, single.residue.sum(0))


def test_with_one_row_shared_and_slot_are_the_same():
    cotangents = random_array(4, 1, N)
    shared = trajectory(cotangents, init_memory("shared", (1, N)), sparsifier=TopK(2))
    slot = trajectory(cotangents, init_memory("slot", (1, N)), sparsifier=TopK(2))
    assert (shared[0] == slot[0]).all()
    assert (shared[1].residue == slot[1].residue[0]).all()


def test_without_a_residue_nothing_is_remembered():
    cotangents = random_array(3, ROWS, N)
    ours, memory = trajectory(cotangents, init_memory("none"), sparsifier=TopK(2))
    for cotangent, s in zip(cotangents, ours, strict=True):
        assert (s == pull(None, cotangent, None, sparsifier=TopK(2))[0]).all()
    assert memory == Memory(None, None, None, 1.0)


def test_units_are_counted_over_rows_and_steps():
    for sparsifier in (TopK(3), UnifiedTopK(3), CandidateTopK(2, 4), Threshold(0.7)):
        memory = init_memory("slot", (ROWS, N), count=True)
        ours, memory = trajectory(random_array(4, ROWS, N), memory, sparsifier=sparsifier)
        assert memory.counts.tolist() == (ours != 0).sum((0, 1)).tolist()


@pytest.mark.parametrize("name", RANDOM)
def test_random_units_are_counted(name):
    memory = init_memory("none", (ROWS, N), count=True)
    ours, memory = trajectory(random_array(3, ROWS, N), memory, sparsifier=RANDOM[name])
    assert memory.counts.tolist() == (ours != 0).sum((0, 1)).tolist()


def test_the_peak_is_the_largest_row_so_far():
    cotangents = np.float32([2, 5, 3])[:, None, None] * random_array(3, ROWS, N)
    memory, top = init_memory("none", adaptive=True), 0
    for cotangent in cotangents:
        _, memory = trajectory([cotangent], memory, sparsifier=SPARSIFIERS["AdaptiveTopK"])
        top = max(top, np.abs(cotangent).sum(-1).max())
        assert memory.peak == pytest.approx(top)


@partial(jax.jit, static_argnums=2)
def run(x, memory, depth=1):
    def loss(memory):
        layers = (sparsify_cotangent(None, x, memory, sparsifier=TopK(1)) for _ in range(depth))
        return sum(jnp.sum(y * x) for y in layers) + 0.0 * memory.uses

    return jax.grad(loss)(memory)


def test_a_memory_that_took_no_part_stays():
    memory = init_memory("slot", (2, 3), count=True)._replace(residue=jnp.ones((2, 3)))
    following = next_memory(memory, run(jnp.ones((2, 3)), memory, depth=0))
    assert (following.residue == 1).all()
    assert following.uses == 0


@pytest.mark.parametrize("depth", [2, 3])
def test_a_memory_used_more_than_once_is_an_error(depth):
    memory = init_memory("slot", (2, 3))
    assert_names_itself_and_its_cure(
        lambda: next_memory(memory, run(jnp.ones((2, 3)), memory, depth)),
        f"{depth} backward passes",
        "one call of the layer per gradient",
        "one memory per call site",
    )


@pytest.mark.parametrize("kind", ["slot", "shared", "none"])
def test_inside_jit_a_memory_used_twice_poisons_the_next_gradient(kind):
    memory = init_memory(kind, (2, 3), count=True)
    step = jax.jit(lambda memory: next_memory(memory, run(jnp.ones((2, 3)), memory, 2)))
    poisoned = step(memory)
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(poisoned))
    ours, following = pull(None, jnp.ones((2, 3)), poisoned, sparsifier=TopK(1))
    assert np.isnan(ours).any(axis=-1).all()
    assert np.isnan(jax.jit(next_memory)(poisoned, following).uses)


def test_a_raw_gradient_of_two_uses_poisons_as_well():
    raw = run(jnp.ones((2, 3)), init_memory("slot", (2, 3)), 2)
    ours, _ = pull(None, jnp.ones((2, 3)), raw, sparsifier=TopK(1))
    assert np.isnan(ours).any(axis=-1).all()


def scanned_loss(xs, memory, *, per_step):
    def step(total, inputs):
        x, one = inputs
        y = sparsify_cotangent(None, x, one if per_step else memory, sparsifier=TopK(1))
        return total + jnp.sum(y * y), None

    return jax.lax.scan(step, 0.0, (xs, memory if per_step else None))[0]


def test_one_memory_for_all_steps_of_a_scan_is_caught():
    xs, memory = random_array(3, 2, 4), init_memory("slot", (2, 4))
    gradient = jax.grad(lambda memory: scanned_loss(xs, memory, per_step=False))(memory)
    assert gradient.uses == 3
    with pytest.raises(ValueError, match="3 backward passes"):
        next_memory(memory, gradient)


def test_one_memory_per_step_of_a_scan_works():
    xs, one = random_array(3, 2, 4), init_memory("slot", (2, 4), count=True)
    memory = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), one)
    gradient = jax.grad(lambda memory: scanned_loss(xs, memory, per_step=True))(memory)
    following = next_memory(memory, gradient)
    for number, x in enumerate(xs):
        _, expected = pull(None, 2 * x, one, sparsifier=TopK(1))
        assert_close(jax.tree.map(lambda leaf, at=number: leaf[at], following), expected)


def test_the_sum_over_microbatches_is_caught():
    memory, xs = init_memory("shared", (2, 3)), random_array(2, 2, 3)
    summed = jax.tree.map(jnp.add, *(run(x, memory) for x in xs))
    with pytest.raises(ValueError, match="2 backward passes"):
        next_memory(memory, summed)


def test_evaluation_may_have_another_batch_size():
    x, kernel, bias = layer_arrays(rows=7)
    memory = init_memory("slot", (ROWS, N))
    y = sparse_dense(None, x, kernel, bias, memory, sparsifier=TopK(3))
    assert_close(y, x @ kernel.T + bias)


def test_training_with_another_batch_size_is_an_error():
    memory = init_memory("slot", (ROWS, N), count=True)
    mistakes = [
        lambda: layer_gradients(
            None, layer_arrays(rows=7), random_array(7, N), memory, sparsifier=TopK(3)
        ),
        lambda: pull(None, random_array(7, N), memory, sparsifier=TopK(3)),
    ]
    for mistake in mistakes:
        assert_names_itself_and_its_cure(
            mistake, "memory of shape (4, 8) for an output of shape (7, 8)", "(shared)", "drop"
        )


def test_a_memory_that_is_not_differentiated_is_an_error():
    x, kernel, bias = layer_arrays()
    memory = init_memory("slot", (ROWS, N))

    def loss(kernel):
        return jnp.sum(sparse_dense(None, x, kernel, bias, memory, sparsifier=TopK(3)))

    assert_names_itself_and_its_cure(
        lambda: jax.grad(loss)(kernel),
        "outside the differentiated arguments",
        "gradient with respect to the memory",
        "memory=None",
    )


@pytest.mark.parametrize(
    ("arguments", "options", "found"),
    [
        (("slots", (2, 3)), {}, "kind='slots'"),
        (("slot",), {}, "shape=()"),
        (("slot", (3,)), {"event_ndim": 2}, "shape=(3,) with event_ndim=2"),
        (("shared", (3, 0)), {}, "shape=(3, 0)"),
        (("slot", (3,)), {"event_ndim": 0}, "event_ndim=0"),
        (("none",), {"count": True}, "shape=()"),
    ],
)
def test_a_memory_names_its_mistakes(arguments, options, found):
    assert_names_itself_and_its_cure(lambda: init_memory(*arguments, **options), found, "", "")


def test_a_new_memory_is_zero():
    memory = init_memory("shared", (2, 3, 4), event_ndim=2, adaptive=True, count=True)
    assert jax.tree.map(jnp.shape, memory) == Memory((3, 4), (), (12,), ())
    assert all_finite(memory)
    assert not any(leaf.any() for leaf in jax.tree.leaves(memory))


def test_used_units_are_counted():
    memory = init_memory("none", (2, 4), count=True)
    assert share_of_units_used(memory) == 0
    assert share_of_units_used(memory._replace(counts=jnp.array([0.0, 3, 0, 1]))) == 0.5


def test_without_counts_there_is_no_share():
    assert_names_itself_and_its_cure(
        lambda: share_of_units_used(init_memory("none")),
        "a memory without counts",
        "one that counts",
        "count=True",
    )


@pytest.mark.parametrize(
    "sparsifier", [TopK(2), UnifiedTopK(2), CandidateTopK(2, 4), Threshold(0.7)]
)
def test_a_memory_works_under_strict_promotion(sparsifier):
    y = jax.ShapeDtypeStruct((3, 6), jnp.bfloat16)

    def slopes(y):
        def loss(y, memory):
            kept = sparsify_cotangent(None, y, memory, sparsifier=sparsifier, eta=0.8)
            return jnp.sum(kept)

        memory = init_memory("slot", (3, 6))
        return jax.grad(loss, argnums=(0, 1))(y, memory)

    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        assert jax.eval_shape(slopes, y)[0].dtype == jnp.bfloat16
