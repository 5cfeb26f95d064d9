import jax
import numpy as np
import optax
import pytest

from sparse_hyper_jax import ops
from sparse_hyper_jax.pruning import (
    ConstantFanIn,
    Prune,
    SRigL,
    gradual,
    magnitude_masks,
    sparse_training,
)
from tests.ops.examples import assert_names_itself_and_its_cure
from tests.pruning.examples import KEY, PARAMS, array, largest, same, train
from tests.pruning.test_regrow import number_replaced

END = 20


def of_each_column(scores, counts, among):
    """The largest of each column, so many as are counted for it."""
    columns = [
        largest([scores[:, at]], count, [among[:, at]])[0] for at, count in enumerate(counts)
    ]
    return np.stack(columns, axis=1)


def changed(method, weights, slope, mask, step):
    """The next mask of a matrix, by sorting: outputs are columns."""
    inputs, outputs = mask.shape
    number, replaced = int(DENSITY * mask.size), number_replaced(mask, 0.6, step, END)
    kept = mask.sum() - replaced
    (stay,) = largest([weights], kept, [mask])
    (new,) = largest([slope], replaced, [~mask])
    salient = (stay | new).sum(axis=0)
    needed = -(-number // inputs)
    least = min(method.ablation * (number // outputs), sorted(salient)[-needed])
    active = salient >= least
    fan_ins = np.where(active, number // active.sum(), 0)
    (stay,) = largest([weights], kept, [mask & active])
    stay = of_each_column(weights, fan_ins, stay)
    return stay | of_each_column(slope, fan_ins - stay.sum(axis=0), ~stay), active


DENSITY = 0.4


@pytest.mark.parametrize("ablation", [0.0, 0.8, 1.0])
def test_every_output_that_is_left_keeps_as_many(ablation):
    method = SRigL(END, every=1, drop_fraction=0.6, grown_size=0.5, ablation=ablation)
    history = train(optax.adam(0.1), method, 8, density=DENSITY)
    alive = []
    for step in range(1, 9):
        for layer, mask in enumerate(history.masks(step - 1)):
            weights, slope = history.kernels(step - 1)[layer], history.slopes(step)[layer]
            expected, active = changed(method, weights, slope, mask, step)
            got = history.masks(step)[layer]
            assert np.array_equal(got, expected), (step, layer)
            number = int(DENSITY * mask.size)
            assert set(got.sum(axis=0)) <= {0, number // active.sum()}
            assert got.sum() <= number
            alive.append(active)
            # Only entries that were not kept before begin anew.
            there = history.kernels(step)[layer]
            assert np.array_equal(there[~(got & ~mask)], weights[~(got & ~mask)])
            assert not (there == weights)[got & ~mask].any()
    dead = sum(int((~one).sum()) for one in alive)
    assert dead == 0 if ablation == 0 else dead > 0


def test_an_ablated_output_comes_back_and_some_always_stay():
    method = SRigL(END, every=1, drop_fraction=0.9, ablation=1.0)
    history = train(optax.sgd(0.01), method, 8, density=DENSITY)
    alive = np.array([history.masks(step)[0].any(axis=0) for step in range(9)])
    assert (alive[1:] & ~alive[:-1]).any()
    assert (alive.sum(axis=1) >= 3).all()  # 16 entries, of which 6 fit into an output


def test_the_first_masks_have_the_fan_in_on_any_axis():
    for axis in (0, 1, 2, -1):
        params = {"kernel": array(4, 6, 5)}
        optimizer = sparse_training(
            optax.sgd(0.1), SRigL(END, every=2, axis=axis), density=0.5, key=KEY
        )
        mask = np.asarray(optimizer.init(params).masks["kernel"])
        counts = np.moveaxis(mask, axis, 0).reshape(mask.shape[axis], -1).sum(axis=1)
        assert set(counts) == {60 // mask.shape[axis]}


def test_the_pattern_keeps_the_largest_of_every_output():
    kernel = PARAMS["one"]["kernel"]
    for density, each in [(0.0, 0), (0.34, 2), (0.5, 3), (0.6, 3), (1.0, 6)]:
        (mask,) = jax.tree.leaves(
            magnitude_masks({"kernel": kernel}, density, pattern=ConstantFanIn())
        )
        expected = of_each_column(kernel, [each] * 7, np.ones_like(kernel, bool))
        assert np.array_equal(mask, expected)
    rows = magnitude_masks(kernel, 0.5, pattern=ConstantFanIn(axis=0))
    assert same([rows], [of_each_column(kernel.T, [3] * 6, np.ones((7, 6), bool)).T])


def test_it_prunes_little_by_little():
    method = Prune(gradual(0, 4, every=1, power=1.0), pattern=ConstantFanIn())
    history = train(optax.sgd(0.01), method, 4, density=0.34)
    counts = [set(history.masks(step)[0].sum(axis=0)) for step in range(5)]
    assert counts == [{6}, {5}, {4}, {3}, {2}]


def test_such_a_kernel_multiplies_without_a_scatter():
    kernel = PARAMS["one"]["kernel"]
    mask = magnitude_masks(kernel, 0.5, pattern=ConstantFanIn())
    entries = ops.from_dense(kernel.T, mask=mask.T)  # output, input
    x = array(5, 6, seed=4)
    got = ops.sparse_multiply(*entries, x.T, (7,), row_layout=True)
    np.testing.assert_allclose(got.T, x @ np.where(mask, kernel, 0), rtol=1e-5, atol=1e-6)


MISTAKES = {
    "too few": (
        lambda: train(optax.sgd(0.1), SRigL(END, every=2), 1, density=0.1),
        "4 entries to keep for 7 outputs",
        "at least one for every output",
        "raise the density",
    ),
    "a percentage": (
        lambda: SRigL(5, every=2, ablation=30),
        "ablation=30",
        "at most 1",
        "change ablation",
    ),
    "no axis": (
        lambda: magnitude_masks(PARAMS, 0.5, pattern=ConstantFanIn(axis=2)),
        "axis=2",
        "an axis of the array",
        "change axis",
    ),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
