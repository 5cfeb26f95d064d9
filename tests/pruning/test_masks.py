from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from sparse_hyper_jax.parameter_paths import is_left_out
from sparse_hyper_jax.pruning import (
    Channels,
    apply_masks,
    combine_masks,
    density_report,
    erk,
    global_magnitude_masks,
    magnitude_masks,
    pack_masks,
    uniform,
    unpack_masks,
)
from tests.ops.examples import assert_names_itself_and_its_cure
from tests.pruning.examples import NAMES, PARAMS, SIZES, array, kernels_of, largest, same, sharded

LEFT_OUT = optax.MaskedNode()


def in_linen():
    class Model(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.Dense(3)(linen.LayerNorm()(linen.Dense(7)(x)))

    return Model().init(jax.random.key(0), np.ones((1, 4), "f"))


def in_nnx():
    layers = [nnx.Linear(4, 7, rngs=nnx.Rngs(0)), nnx.Linear(7, 3, rngs=nnx.Rngs(1))]
    return nnx.split(nnx.Sequential(*layers), nnx.Param)[1]


TREES = {"dict": lambda: PARAMS, "linen": in_linen, "nnx": in_nnx}


@pytest.mark.parametrize("make", TREES.values(), ids=TREES)
def test_trees_of_all_kinds(make):
    params = make()
    masks = magnitude_masks(params, uniform(params, 0.3))
    kernels = kernels_of(params)
    expected = [largest([one], int(0.3 * one.size))[0] for one in kernels]
    assert same(jax.tree.leaves(masks), expected)
    masked = apply_masks(params, masks)
    assert jax.tree.structure(masked) == jax.tree.structure(params)
    assert same(
        kernels_of(masked), [np.where(*pair, 0) for pair in zip(expected, kernels, strict=True)]
    )
    untouched = [leaf for leaf in jax.tree.leaves(masked) if leaf.ndim == 1]
    assert same(untouched, [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 1])
    again = unpack_masks(pack_masks(masks), params)
    assert jax.tree.structure(again) == jax.tree.structure(masks)
    assert same(jax.tree.leaves(again), expected)


@pytest.mark.parametrize("density", [0.0, 0.29, 0.5, 1.0])
def test_exactly_as_many_are_kept_in_spite_of_ties(density):
    params = jax.tree.map(np.ones_like, PARAMS)
    params["one"]["kernel"][2] = 0
    masks = magnitude_masks(params, uniform(params, density))
    counts = [int(masks[name]["kernel"].sum()) for name in NAMES]
    assert counts == [int(density * size) for size in SIZES]
    together = global_magnitude_masks(params, uniform(params, density))
    assert sum(int(leaf.sum()) for leaf in jax.tree.leaves(together)) == sum(counts)


def test_one_density_stands_for_that_of_all_kernels():
    for masks_of in (magnitude_masks, global_magnitude_masks):
        one, tree = (masks_of(PARAMS, share) for share in (0.3, uniform(PARAMS, 0.3)))
        assert jax.tree.structure(one) == jax.tree.structure(tree)
        assert same(jax.tree.leaves(one), jax.tree.leaves(tree))
    # Of a single array it is the density, whatever the array is called.
    assert int(magnitude_masks(PARAMS["one"]["bias"], np.float32(0.5)).sum()) == 3


def test_the_output_layer_may_keep_twice_as_much():
    for share in [0.1, 0.4, 0.8]:
        densities = uniform(PARAMS, share)
        densities["two"]["kernel"] = min(1.0, 2 * share)
        masks = magnitude_masks(PARAMS, densities)
        assert int(masks["two"]["kernel"].sum()) == min(35, int(2 * share * 35))


def test_all_arrays_together_share_what_erk_gives_each():
    densities = erk(PARAMS, 0.3)
    kernels = [PARAMS[name]["kernel"] for name in NAMES]
    each = [int(one * size) for one, size in zip(jax.tree.leaves(densities), SIZES, strict=True)]
    masks = global_magnitude_masks(PARAMS, densities)
    assert same(jax.tree.leaves(masks), largest(kernels, sum(each)))
    separate = magnitude_masks(PARAMS, densities)
    assert not same(jax.tree.leaves(masks), jax.tree.leaves(separate))


def test_all_arrays_together_may_have_different_dtypes():
    weights = {"a": array(5, 4), "b": jnp.asarray(array(6, 3, seed=1), jnp.bfloat16), "c": array(3)}
    densities = {"a": 0.25, "b": 0.5, "c": LEFT_OUT}
    masks = global_magnitude_masks(weights, densities)
    expected = largest([weights["a"], np.asarray(weights["b"], np.float32)], 5 + 9)
    assert is_left_out(masks["c"])
    assert same([masks["a"], masks["b"]], expected)


@pytest.mark.parametrize("make_masks", [magnitude_masks, global_magnitude_masks])
def test_masks_are_sharded_like_the_weights(make_masks):
    weights = {"kernel": array(8, 6), "bias": array(6)}
    densities = uniform(weights, 0.3)
    mask = make_masks(sharded(weights), densities)["kernel"]
    assert same([mask], largest([weights["kernel"]], 14))
    assert mask.sharding.is_equivalent_to(sharded(weights)["kernel"].sharding, 2)


@jax.jit
def masked_and_gradient(weights, masks):
    def total(weights):
        return sum(jnp.sum(3 * leaf) for leaf in jax.tree.leaves(apply_masks(weights, masks)))

    return apply_masks(weights, masks), jax.grad(total)(weights)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dropped_entries_are_zero_and_so_are_their_gradients(dtype):
    weights = jnp.array([[1, np.nan, np.inf], [-np.inf, -2, np.nan]], dtype)
    masks = {"kernel": np.array([[True, False, False], [False, True, False]]), "bias": LEFT_OUT}
    masked, gradient = masked_and_gradient({"kernel": weights, "bias": weights[0, :1]}, masks)
    assert masked["kernel"].tolist() == [[1, 0, 0], [0, -2, 0]]
    assert gradient["kernel"].tolist() == [[3, 0, 0], [0, 3, 0]]
    assert (masked["bias"].tolist(), gradient["bias"].tolist()) == ([1], [3])
    assert masked["kernel"].dtype == weights.dtype


@pytest.mark.parametrize("shape", [(3, 7), (8,), (2, 4), (), (17,), (1, 1, 3), (0, 4)])
def test_packed_masks_take_a_bit_an_entry(shape):
    mask = np.random.default_rng(0).random(shape) < 0.4
    masks = {"kernel": jnp.asarray(mask), "bias": LEFT_OUT}
    packed = pack_masks(masks)
    assert packed["kernel"].dtype == jnp.uint8
    assert packed["kernel"].nbytes == (mask.size + 7) // 8
    assert np.array_equal(packed["kernel"], np.packbits(mask))
    unpacked = unpack_masks(packed, {"kernel": np.zeros(shape), "bias": np.zeros(2)})
    assert is_left_out(unpacked["bias"])
    assert unpacked["kernel"].dtype == bool
    assert same([unpacked["kernel"]], [mask])


def test_packed_masks_are_read_back_by_shapes_alone():
    masks = {"kernel": jnp.arange(15).reshape(3, 5) % 4 == 0}
    shapes = {"kernel": jax.ShapeDtypeStruct((3, 5), jnp.float32)}
    assert same(unpack_masks(pack_masks(masks), shapes)["kernel"], masks["kernel"])


def test_a_report_counts_pruned_and_all_parameters():
    masks = {
        "one": {"kernel": np.arange(42).reshape(6, 7) < 10, "bias": LEFT_OUT},
        "two": {"kernel": np.arange(35).reshape(7, 5) < 5, "bias": LEFT_OUT},
    }
    report = density_report(PARAMS, masks)
    assert report.pruned == pytest.approx(15 / 77)
    assert report.total == pytest.approx((15 + 12) / (77 + 12))
    assert report.by_leaf == {"one/kernel": 10 / 42, "two/kernel": 5 / 35}


def test_of_an_empty_leaf_everything_is_kept():
    params = {"a": {"kernel": jnp.zeros((0, 3))}, "b": {"kernel": jnp.arange(4.0)[None]}}
    report = density_report(params, magnitude_masks(params, 0.5))
    assert (report.pruned, report.by_leaf) == (0.5, {"a/kernel": 1.0, "b/kernel": 0.5})
    alone = {"a": params["a"]}
    assert density_report(alone, magnitude_masks(alone, 0.5))[:2] == (1.0, 1.0)


def test_masks_are_combined_entry_by_entry():
    one, two = (
        {"kernel": np.random.default_rng(seed).random((3, 4)) < 0.5, "bias": LEFT_OUT}
        for seed in (0, 1)
    )
    for function in (np.logical_or, np.logical_and):
        combined = combine_masks(function, one, two)
        assert is_left_out(combined["bias"])
        assert np.array_equal(combined["kernel"], function(one["kernel"], two["kernel"]))
    assert np.array_equal(combine_masks(np.logical_not, one)["kernel"], ~one["kernel"])
    three = combine_masks(lambda *all_of: sum(map(np.int32, all_of)) >= 2, one, two, two)
    assert np.array_equal(three["kernel"], two["kernel"])


def test_masks_work_under_jit():
    @jax.jit
    def prune(params):
        masks = magnitude_masks(params, uniform(params, 0.3), pattern=Channels())
        return apply_masks(params, masks)

    kernel = PARAMS["one"]["kernel"]
    norms = np.sum(kernel**2, axis=0)
    expected = np.where(largest([norms], 2)[0], kernel, 0)
    assert np.array_equal(prune(PARAMS)["one"]["kernel"], expected)


WEIGHTS = {"kernel": np.ones((4, 4), "f")}
NO_MASKS = jax.tree.map(lambda _: LEFT_OUT, PARAMS)
SHORT = {"kernel": np.zeros(2, np.uint8)}
MISTAKES = {
    "no mask": (partial(density_report, PARAMS, NO_MASKS), "no mask", "at least one", "select="),
    "too short": (
        partial(unpack_masks, SHORT, {"kernel": np.zeros((3, 7))}),
        "packed of shape (2,)",
        "packed of shape (3), eight entries per byte",
        "reshape packed",
    ),
    "another shape": (
        lambda: apply_masks({"kernel": np.ones((4, 1))}, {"kernel": np.ones((4, 4), bool)}),
        "a mask bool[4, 4] for kernel of shape (4, 1)",
        "bool[4, 1]",
        "make masks from the parameters",
    ),
    "numbers": (
        lambda: apply_masks({"kernel": np.ones((2, 2))}, {"kernel": np.ones((2, 2), "f")}),
        "float32[2, 2]",
        "bool[2, 2]",
        "make masks",
    ),
}


def test_arrays_of_density_one_stay_whole_in_the_global_ranking():
    weights = {"small": np.full((2, 3), 1e-3, "f"), "large": np.arange(1.0, 11, dtype="f")}
    masks = global_magnitude_masks(weights, {"small": 1.0, "large": 0.3})
    assert masks["small"].all()
    np.testing.assert_array_equal(masks["large"], np.arange(1, 11) > 7)
    assert all(
        mask.all() for mask in global_magnitude_masks(weights, dict.fromkeys(weights, 1.0)).values()
    )


MISTAKES |= {
    "one density and no kernel": (
        lambda: magnitude_masks({"w": np.ones((2, 2))}, 0.5),
        "one density, 0.5, for a tree without kernels",
        "leaves named 'kernel'",
        "densities=uniform(weights, density, select=",
    ),
    "another tree": (
        lambda: apply_masks(PARAMS, {"one": np.ones((6, 7), bool)}),
        "masks of structure {'one': *}",
        "{'one': {'bias': *, 'kernel': *}",
        "make both from the same parameters",
    ),
    "no masks": (
        lambda: apply_masks(PARAMS, None),
        "masks of structure None",
        "'kernel': *",
        "make both",
    ),
    "no densities": (
        lambda: magnitude_masks(PARAMS, np.ones(3)),
        "densities of structure *",
        "'kernel': *",
        "make both",
    ),
    "a percentage": (
        lambda: magnitude_masks(WEIGHTS, {"kernel": 50}),
        "the density of kernel=50",
        "from 0 to 1",
        "change the density",
    ),
    "a percentage of all": (
        lambda: global_magnitude_masks(WEIGHTS, {"kernel": 50}),
        "the density of kernel=50",
        "from 0 to 1",
        "change the density",
    ),
    "a pattern in words": (
        lambda: magnitude_masks(WEIGHTS, {"kernel": 0.5}, pattern="2:4"),
        "pattern='2:4'",
        "a pattern",
        "NofM",
    ),
    "a class": (
        lambda: magnitude_masks(WEIGHTS, {"kernel": 0.5}, pattern=Channels),
        "pattern=<class",
        "a pattern",
        "make one of",
    ),
    "a larger mask": (
        lambda: density_report(WEIGHTS, {"kernel": np.ones((9, 9), bool)}),
        "a mask bool[9, 9] for kernel of shape (4, 4)",
        "bool[4, 4]",
        "make masks",
    ),
    "two shapes": (
        lambda: combine_masks(
            jnp.logical_or, {"kernel": np.ones(4, bool)}, {"kernel": np.ones((4, 4), bool)}
        ),
        "mask of shape (4,), other of shape (4, 4)",
        "the same shape",
        "reshape",
    ),
    "words": (
        lambda: apply_masks(WEIGHTS, {"kernel": "all"}),
        "the mask of kernel='all'",
        "an array",
        "convert the mask",
    ),
}


def test_masks_may_be_lists():
    masked = apply_masks({"a": np.ones(3, "f")}, {"a": [True, False, True]})
    assert masked["a"].tolist() == [1, 0, 1]


def test_16_and_32_bits_are_ranked_together():
    weights = {"a": jnp.array([1.0, 3.0], jnp.bfloat16), "b": jnp.array([2.0, 4.0])}
    masks = global_magnitude_masks(weights, {"a": 0.5, "b": 0.5})
    assert [mask.tolist() for mask in masks.values()] == [[False, True], [False, True]]


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
