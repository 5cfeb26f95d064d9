import jax
import numpy as np
import optax
import pytest
from flax import nnx

from sparse_hyper_jax.parameter_paths import (
    is_kernel,
    is_left_out,
    map_selected,
    path_name,
    replace_selected,
    selected_leaves,
)
from tests.ops.examples import assert_names_itself_and_its_cure

TREE = {"a": [{"kernel": np.full((2, 3), 1.0), "bias": np.full(3, 2.0)}], "kernel": np.eye(2)}


def names(tree):
    return [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


@pytest.mark.parametrize(
    ("path", "shape", "expected"),
    [
        ("kernel", (2, 3), True),
        ("layers/0/kernel", (3, 3, 2, 4), True),
        ("layers/0/kernel", (3,), False),
        ("layers/0/bias", (2, 3), False),
        ("kernel/scale", (2, 3), False),
        ("my_kernel", (2, 3), False),
        ("embedding", (2, 3), False),
    ],
)
def test_kernels_are_told_by_name_and_axes(path, shape, expected):
    assert is_kernel(path, np.zeros(shape)) is expected


def test_paths_read_alike_in_nnx_and_in_dicts():
    assert names(TREE) == ["a/0/bias", "a/0/kernel", "kernel"]
    layers = nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    assert names(nnx.split(layers, nnx.Param)[1]) == ["layers/0/bias", "layers/0/kernel"]
    # A parameter of that name is no attribute of a variable.
    assert names({"value": np.ones(2)}) == ["value"]


def test_selected_leaves_change_and_others_are_the_same_objects():
    mapped = map_selected(lambda leaf: -leaf, is_kernel, TREE)
    assert (mapped["a"][0]["kernel"] == -1).all()
    assert (mapped["kernel"] == -np.eye(2)).all()
    assert mapped["a"][0]["bias"] is TREE["a"][0]["bias"]


def test_other_trees_may_have_subtrees_in_the_place_of_leaves():
    rest = {"a": [{"kernel": (3, 4), "bias": optax.MaskedNode()}], "kernel": (5, 6)}
    mapped = map_selected(lambda leaf, pair: pair[1], is_kernel, TREE, rest, other="left out")
    assert mapped == {"a": [{"kernel": 4, "bias": "left out"}], "kernel": 6}


def test_leaves_are_listed_and_put_back_in_one_order():
    leaves = selected_leaves(is_kernel, TREE)
    assert [leaf.shape for leaf in leaves] == [(2, 3), (2, 2)]
    replaced = replace_selected(is_kernel, TREE, ["one", "two"])
    assert (replaced["a"][0]["kernel"], replaced["kernel"]) == ("one", "two")
    assert replaced["a"][0]["bias"] is TREE["a"][0]["bias"]


def test_what_is_left_out_has_no_leaves():
    assert is_left_out(optax.MaskedNode())
    assert not any(is_left_out(one) for one in (None, (), np.ones(2), 0.0))
    assert jax.tree.leaves({"a": optax.MaskedNode(), "b": 1.0}) == [1.0]


MANY = {f"layer{number}": np.ones(2) for number in range(9)}
MISTAKES = {
    "nothing": ({"bias": np.ones(2)}, "no selected leaf among bias", "at least one"),
    "no tree": ({}, "no selected leaf among none", "at least one"),
    "a long list": (MANY, "layer0, layer1, layer2, layer3, layer4, layer5", "at least one"),
}


@pytest.mark.parametrize(("tree", "found", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(tree, found, expected):
    def call():
        map_selected(lambda leaf: leaf, is_kernel, tree)

    assert_names_itself_and_its_cure(call, found, expected, "pass select=lambda")
