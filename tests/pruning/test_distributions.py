import math

import jax
import numpy as np
import pytest

from sparse_hyper_jax.parameter_paths import is_left_out
from sparse_hyper_jax.pruning import count_kept, erk, uniform
from tests.ops.examples import assert_names_itself_and_its_cure

NETWORKS = {
    "mlp": [(784, 300), (300, 100), (100, 10)],
    "convolutions": [(3, 3, 3, 16), (3, 3, 16, 32), (1, 1, 16, 32), (32, 10)],
    "one": [(7, 3)],
    "alike": [(20, 20)] * 3 + [(2, 2)],
    "narrow": [(1, 1), (2, 3), (1, 500), (300, 2), (400, 400)],
}
DENSITIES = [0, 0.003, 0.1, 0.29, 0.5, 0.8, 0.97, 1]


def tree(shapes):
    return {
        f"layer{i}": {"kernel": np.zeros(s), "bias": np.zeros(s[-1])} for i, s in enumerate(shapes)
    }


def kernels(densities):
    return [layer["kernel"] for layer in densities.values()]


def last(path, leaf):
    return path == "layer2/kernel"


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("shapes", NETWORKS.values(), ids=NETWORKS)
def test_erk_keeps_as_many_as_asked_for(shapes, density):
    found = kernels(erk(tree(shapes), density))
    sizes = [math.prod(shape) for shape in shapes]
    assert all(0 <= one <= 1 for one in found)
    kept = [count_kept(one, size) for one, size in zip(found, sizes, strict=True)]
    target = density * sum(sizes)
    assert math.isclose(math.fsum(np.multiply(found, sizes)), target, abs_tol=1e-6)
    # Every array rounds down by less than one.
    assert target - len(shapes) < sum(kept) <= target + 1e-6


@pytest.mark.parametrize("density", DENSITIES[1:])
@pytest.mark.parametrize("shapes", NETWORKS.values(), ids=NETWORKS)
def test_erk_follows_the_shapes_except_where_an_array_is_whole(shapes, density):
    found = kernels(erk(tree(shapes), density))
    ratios = [sum(shape) / math.prod(shape) for shape in shapes]
    epsilons = [one / ratio for one, ratio in zip(found, ratios, strict=True) if one < 1 - 1e-9]
    if epsilons:
        assert max(epsilons) - min(epsilons) < 1e-9 * max(epsilons)
        assert all(
            one < 1 - 1e-9 or ratio * epsilons[0] >= 1 - 1e-9
            for one, ratio in zip(found, ratios, strict=True)
        )


def test_erk_by_hand():
    # epsilon (6 + 8) = 0.25 (8 + 16), so 3/7 * 6/8 and 3/7 * 8/16.
    found = kernels(erk(tree([(2, 4), (4, 4)]), 0.25))
    np.testing.assert_allclose(found, [9 / 28, 3 / 14], rtol=1e-12)
    # The first one is whole, and 20 - 8 of 16 are left for the second.
    np.testing.assert_allclose(kernels(erk(tree([(2, 4), (4, 4)]), 5 / 6)), [1, 0.75])


def test_whole_arrays_do_not_count():
    params = tree(NETWORKS["mlp"])
    *others, whole = kernels(erk(params, 0.1, dense=last))
    assert whole == 1
    assert others == kernels(erk(tree(NETWORKS["mlp"][:2]), 0.1))
    assert kernels(uniform(params, 0.1, dense=last)) == [0.1, 0.1, 1.0]
    assert kernels(erk(params, 0.1, dense=lambda path, leaf: True)) == [1.0] * 3


@pytest.mark.parametrize("distribution", [uniform, erk])
def test_what_is_not_pruned_has_no_density(distribution):
    params = tree([(4, 4), (4, 2)])
    densities = distribution(params, 0.5)
    assert all(is_left_out(layer["bias"]) for layer in densities.values())
    assert len(jax.tree.leaves(densities)) == 2
    only = distribution(params, 0.5, select=lambda path, leaf: path == "layer1/bias")
    assert only["layer1"]["bias"] == 0.5
    assert is_left_out(only["layer1"]["kernel"])


def test_uniform_densities_are_those_asked_for():
    assert kernels(uniform(tree(NETWORKS["mlp"]), 0.29)) == [0.29] * 3


def test_shapes_are_enough():
    shapes = {"kernel": jax.ShapeDtypeStruct((4, 4), np.float32)}
    assert uniform(shapes, 0.5) == erk(shapes, 0.5) == {"kernel": 0.5}


@pytest.mark.parametrize(
    ("density", "units", "kept"),
    [
        (0.29, 100, 29),  # a product of 28.999999999999996
        (0.57, 100, 57),
        (0.1 + 0.2, 10, 3),
        (0.3, 42, 12),
        (0.999, 10, 9),
        (0.05, 10, 0),
        (0.0, 10, 0),
        (1.0, 10, 10),
        (1, 7, 7),
        (0.5, 0, 0),
    ],
)
def test_the_number_kept_is_rounded_down(density, units, kept):
    assert count_kept(density, units) == kept
    assert isinstance(count_kept(density, units), int)


def test_every_whole_percentage_of_many_sizes_is_exact():
    for units in [100, 1000, 10_000]:
        for percent in range(101):
            assert count_kept(percent / 100, units) == percent * units // 100


PARAMS = tree([(2, 2)])
MISTAKES = {
    "a percentage": (lambda: uniform(PARAMS, 90), "density=90", "from 0 to 1", "1 - sparsity"),
    "negative": (lambda: erk(PARAMS, -0.1), "density=-0.1", "from 0 to 1", "1 - sparsity"),
    "nan": (lambda: erk(PARAMS, np.nan), "density=nan", "from 0 to 1", "1 - sparsity"),
    "an array": (lambda: uniform(PARAMS, np.ones(1)), "density=array", "static number", "1 -"),
    "many units": (lambda: count_kept(0.5, 1.5), "units=1.5", "an int", "pass a static int"),
    "half a hundred": (lambda: count_kept(50, 8), "density=50", "from 0 to 1", "1 - sparsity"),
    "a name": (
        lambda: uniform(PARAMS, 0.5, select="kernel"),
        "select='kernel'",
        "a function",
        "pass select=",
    ),
    "nothing": (lambda: uniform({"bias": np.ones(3)}, 0.5), "among bias", "at least", "select="),
    "none": (
        lambda: erk(PARAMS, 0.5, select=lambda path, leaf: False),
        "no selected leaf",
        "at least one",
        "pass select=",
    ),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
