import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_hyper_jax.pruning import (
    Fixed,
    apply_masks,
    magnitude_masks,
    pack_masks,
    sparse_training,
    uniform,
    unpack_masks,
)
from sparse_hyper_jax.reparam import powerprop
from tests.ops.examples import assert_names_itself_and_its_cure
from tests.pruning.examples import NAMES, PARAMS, same, train, unchanged

MASKS = magnitude_masks(PARAMS, 0.3)
KERNELS = [np.asarray(MASKS[name]["kernel"]) for name in NAMES]


def test_the_masks_stay_and_only_their_entries_move_as_under_momentum():
    """The oracle is the optimizer itself, given gradients that are zero at dropped entries."""
    history = train(optax.sgd(0.1, momentum=0.9), Fixed(MASKS), 4, density=None)
    for name, mask in zip(NAMES, KERNELS, strict=True):
        kernel, trace = PARAMS[name]["kernel"].copy(), 0.0
        for step in range(4):
            trace = 0.9 * trace + history.gradients[name]["kernel"][step] * mask
            kernel = kernel - 0.1 * trace
            got = np.asarray(history.params[name]["kernel"][step + 1])
            np.testing.assert_allclose(got, kernel, rtol=1e-5, atol=1e-6)
            assert unchanged(got, PARAMS[name]["kernel"])[~mask].all()
    for step in range(5):
        assert same(history.masks(step), KERNELS)
        assert same(history.updated(step), KERNELS)


def test_masks_from_a_file_go_on_under_a_power():
    reparam = powerprop(2.0)
    masks = unpack_masks(jax.tree.map(np.asarray, pack_masks(MASKS)), PARAMS)
    optimizer = sparse_training(optax.adam(0.1), Fixed(masks), reparam=reparam)
    theta = reparam.to_theta(PARAMS)
    state = jax.jit(optimizer.init)(theta)
    assert same([state.masks[name]["kernel"] for name in NAMES], KERNELS)
    weights = apply_masks(reparam.to_weights(theta), state.masks)
    assert np.count_nonzero(weights["one"]["kernel"]) <= KERNELS[0].sum()


def test_other_leaves_than_kernels():
    def select(path, leaf):
        return path.endswith("bias")

    masks = magnitude_masks(PARAMS, uniform(PARAMS, 0.5, select=select))
    state = sparse_training(optax.sgd(0.1), Fixed(masks), select=select).init(PARAMS)
    assert same(jax.tree.leaves(state.masks), jax.tree.leaves(masks))


def start(masks, **options):
    return lambda: sparse_training(optax.sgd(0.1), Fixed(masks), **options).init(PARAMS)


FLOATS = jax.tree.map(lambda mask: mask.astype(jnp.float32), MASKS)
WHOLE = magnitude_masks(PARAMS, uniform(PARAMS, 0.5, select=lambda path, leaf: True))
TURNED = jax.tree.map(lambda mask: mask.T, MASKS)
MISTAKES = {
    "a density": (start(MASKS, density=0.1), "density=0.1", "its masks say", "leave them out"),
    "a distribution": (
        start(MASKS, distribution=lambda *_, **__: None),
        "with Fixed",
        "neither",
        "leave them out",
    ),
    "other leaves": (start(WHOLE), "masks for 4 leaves where 2", "for no other", "select="),
    "floats": (start(FLOATS), "a mask of dtype float32", "flags", "convert a mask"),
    "a shape": (start(TURNED), "a mask bool[7, 6] for one/kernel", "bool[6, 7]", "make masks"),
    "nothing": (start(optax.MaskedNode()), "masks=MaskedNode()", "at least one", "select="),
    "half a tree": (start(MASKS["one"]), "masks of structure", "that of", "the same parameters"),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
