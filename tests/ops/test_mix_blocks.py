"""Mixing in blocks of tuples equals mixing from one table of all tuples, in every derivative."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from sparse_hyper_jax import ops
from sparse_hyper_jax.ops import DENSITIES, first_occurrence, mix_values
from sparse_hyper_jax.ops import mix as mix_module
from sparse_hyper_jax.types import ContinuousTuples
from tests.ops.examples import all_finite, assert_close, make_tuples
from tests.ops.test_mix import closed_form

SHAPE, COUNT, POINTS = (5, 7), 7, 24
BLOCKS = [1, 3, COUNT - 1, COUNT + 5]
FEW = 3

each_density = pytest.mark.parametrize("density", DENSITIES)


def example(*, count=COUNT, num_points=POINTS, seed=0):
    generator = np.random.default_rng(seed)
    points = jnp.asarray(generator.integers(0, SHAPE, (num_points, 2)), jnp.int32)
    mask = first_occurrence(points, SHAPE)
    return points, mask, make_tuples(count, SHAPE, seed=seed, variance=2.0)


# Of five arguments the first two are the points', the others the tuples'.
WHOSE = (0, 0, 1, 1, 1)


def waves(count):
    return jnp.sin(1.0 + jnp.arange(count))


@partial(jax.jit, static_argnames=("block_size", "density", "period"))
def mixed_and_slopes(points, mask, tuples, *, block_size, density="gaussian", period=None):
    def loss(tuples):
        options = {"density": density, "period": period, "block_size": block_size}
        mixed = mix_values(points, mask, *tuples, **options)
        return jnp.sum(waves(len(mixed)) * jnp.sin(mixed) + jnp.square(mixed)), mixed

    slopes, mixed = jax.grad(loss, has_aux=True)(tuples)
    return mixed, slopes


def loss_of(points, mask, block_size, **options):
    def loss(*tuples):
        mixed = mix_values(points, mask, *tuples, block_size=block_size, **options)
        return jnp.sum(waves(len(mixed)) * jnp.sin(mixed))

    return loss


def scans(function, *arguments):
    return str(jax.make_jaxpr(function)(*arguments)).count(" scan[")


def assert_blocks_equal_the_table(points, mask, tuples, *, block_size, rtol=1e-5, **options):
    ours = mixed_and_slopes(points, mask, tuples, block_size=block_size, **options)
    table = mixed_and_slopes(points, mask, tuples, block_size=len(tuples.values), **options)
    assert all_finite(table)
    for one, two in zip(jax.tree.leaves(ours), jax.tree.leaves(table), strict=True):
        assert one.dtype == two.dtype
        # Rounding goes with the largest number that was added up.
        scale = max(1.0, float(jnp.max(jnp.abs(two.astype(jnp.float32)))))
        assert_close(one.astype(jnp.float32), two.astype(jnp.float32), rtol, rtol * scale)


@pytest.mark.parametrize(
    ("density", "period", "block_size"),
    [
        *(("gaussian", None, block_size) for block_size in BLOCKS),
        ("gaussian", SHAPE, FEW),
        ("laplace", SHAPE, FEW),
        ("student_t", None, FEW),
        ("student_t", SHAPE, COUNT - 1),
    ],
)
def test_values_and_gradients_are_those_of_one_table(density, period, block_size):
    for seed in range(3):
        points, mask, tuples = example(seed=seed)
        assert_blocks_equal_the_table(
            points, mask, tuples, block_size=block_size, density=density, period=period
        )


@pytest.mark.parametrize("block_size", [1, FEW])
def test_gradients_agree_with_the_closed_form(block_size):
    points, mask, tuples = example()
    jacobian = jax.jacobian(
        lambda *parts: mix_values(points, mask, *parts, block_size=block_size), argnums=(0, 1, 2)
    )
    by_mean, by_variance, by_value = jax.jit(jacobian)(*tuples)
    shares, expected_mean, expected_variance = closed_form(points, mask, tuples)
    assert_close(by_value, shares)
    assert_close(by_mean, expected_mean, rtol=1e-4)
    assert_close(by_variance, expected_variance, rtol=1e-4)


def adversaries():
    """Name examples that once broke softmaxes: points, mask, tuples."""
    points, mask, tuples = example()
    one_cell = tuples._replace(means=jnp.full_like(tuples.means, 2.0))
    cell = jnp.full_like(points, 2)
    alone = jnp.zeros(POINTS, bool).at[5].set(True)
    return {
        "all tuples on one cell": (points, mask, one_cell),
        "all points on one cell": (cell, first_occurrence(cell, SHAPE), one_cell),
        "variance 1e-12": (points, mask, tuples._replace(variances=jnp.full((COUNT, 2), 1e-12))),
        "variance 0": (points, mask, tuples._replace(variances=jnp.zeros((COUNT, 2)))),
        "variance 1e12": (points, mask, tuples._replace(variances=jnp.full((COUNT, 2), 1e12))),
        "one point kept": (points, alone, tuples),
        "values 0": (points, mask, tuples._replace(values=jnp.zeros(COUNT))),
        "far from the origin": (points + 100_000, mask, tuples._replace(means=tuples.means + 1e5)),
        "far from all points": (points + 100_000, mask, tuples),
    }


@each_density
@pytest.mark.parametrize("name", adversaries())
def test_adversaries_are_finite_and_those_of_one_table(name, density):
    points, mask, tuples = adversaries()[name]
    # Others than the Gaussian round log densities of 1e5, by far from all points.
    rtol = 0.1 if name == "far from all points" and density != "gaussian" else 1e-5
    assert_blocks_equal_the_table(points, mask, tuples, block_size=FEW, rtol=rtol, density=density)


@pytest.mark.parametrize(
    ("density", "dtype"),
    [("gaussian", jnp.bfloat16), ("gaussian", jnp.float16), ("laplace", jnp.bfloat16)],
)
def test_inputs_of_16_bits_are_those_of_one_table(density, dtype):
    points, mask, tuples = example()
    narrow = jax.tree.map(lambda leaf: leaf.astype(dtype), tuples)
    mixed, slopes = mixed_and_slopes(points, mask, narrow, block_size=FEW, density=density)
    assert mixed.dtype == jnp.float32
    assert {leaf.dtype for leaf in slopes} == {jnp.dtype(dtype)}
    rounding = float(jnp.finfo(dtype).eps)
    options = {"block_size": FEW, "rtol": rounding, "density": density}
    assert_blocks_equal_the_table(points, mask, narrow, **options)


@pytest.mark.parametrize("block_size", [1, FEW])
def test_value_is_shared_out_and_none_is_lost(block_size):
    points, mask, tuples = example()
    mixed = mix_values(points, mask, *tuples, block_size=block_size)
    assert_close(mixed.sum(), tuples.values.sum(), rtol=1e-4)
    assert (mixed[~mask] == 0).all()


def test_double_precision_stays_double_and_agrees_to_it():
    with jax.enable_x64(True):
        points, mask, tuples = example()
        double = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), tuples)
        ours = mixed_and_slopes(points, mask, double, block_size=FEW)
        table = mixed_and_slopes(points, mask, double, block_size=COUNT)
        assert {leaf.dtype for leaf in jax.tree.leaves(ours)} == {jnp.dtype(jnp.float64)}
        assert_close(ours, table, rtol=1e-13, atol=1e-14)


SECOND = {
    "hessian": jax.hessian,
    "forward over reverse": lambda loss, argnums: jax.jacfwd(jax.grad(loss, argnums), argnums),
    "reverse over reverse": lambda loss, argnums: jax.jacrev(jax.grad(loss, argnums), argnums),
    "forward over forward": lambda loss, argnums: jax.jacfwd(jax.jacfwd(loss, argnums), argnums),
}


@cache
def second_derivative(way, density, period, block_size):
    points, mask, tuples = example(count=4, num_points=9)
    loss = loss_of(points, mask, block_size, density=density, period=period)
    return jax.jit(SECOND[way](loss, (0, 1, 2)))(*tuples)


@pytest.mark.parametrize(
    ("density", "period", "way"),
    [
        *(("gaussian", None, way) for way in SECOND),
        ("gaussian", SHAPE, "reverse over reverse"),
        ("laplace", SHAPE, "forward over reverse"),
        ("student_t", None, "reverse over reverse"),
    ],
)
def test_second_derivatives_are_those_of_one_table_in_all_modes(density, period, way):
    table = second_derivative("hessian", density, period, 4)
    assert all_finite(table)
    assert_close(second_derivative(way, density, period, FEW), table, rtol=1e-4, atol=1e-5)


def test_third_derivatives_are_those_of_one_table():
    points, mask, tuples = example(count=4, num_points=9)

    def third(block_size):
        loss = loss_of(points, mask, block_size)
        return jax.jit(jax.jacfwd(jax.hessian(lambda means: loss(means, *tuples[1:]))))(tuples[0])

    assert_close(third(FEW), third(4), rtol=1e-4, atol=1e-4)


@each_density
def test_tangents_are_those_of_one_table_and_of_the_gradient(density):
    points, mask, tuples = example()
    along = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), tuples)

    def tangent(block_size):
        loss = loss_of(points, mask, block_size, density=density)
        slopes = jax.grad(loss, argnums=(0, 1, 2))(*tuples)
        total = sum(jnp.vdot(one, two) for one, two in zip(slopes, along, strict=True))
        return (*jax.jvp(loss, tuples, along), total)

    tangent = jax.jit(tangent, static_argnums=0)
    (value, ours, total), (table, slope, _) = tangent(FEW), tangent(COUNT)
    assert_close((value, ours, total), (table, slope, slope), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axes", [(0, 0, 0), (0, None, None), (None, None, 0)])
def test_batches_equal_a_loop(axes):
    points, mask, tuples = example()
    mix = partial(mix_values, points, mask, block_size=FEW)
    arguments = [
        part if axis is None else jnp.stack([part, part / 2 + 0.1])
        for part, axis in zip(tuples, axes, strict=True)
    ]
    batch = jax.jit(jax.vmap(mix, in_axes=axes))(*arguments)
    for number in range(2):
        one = [
            part if axis is None else part[number]
            for part, axis in zip(arguments, axes, strict=True)
        ]
        assert_close(batch[number], mix_values(points, mask, *one, block_size=COUNT))


def test_gradients_of_a_batch_over_points_equal_a_loop():
    examples = [example(seed=seed) for seed in range(3)]
    points, mask = (jnp.stack([one[part] for one in examples]) for part in (0, 1))
    tuples = examples[0][2]

    def slopes(points, mask, block_size=FEW):
        return jax.grad(loss_of(points, mask, block_size), argnums=(0, 1, 2))(*tuples)

    batch = jax.jit(jax.vmap(slopes))(points, mask)
    single = jax.jit(partial(slopes, block_size=COUNT))
    for number in range(3):
        alone = single(points[number], mask[number])
        assert_close(jax.tree.map(lambda leaf, at=number: leaf[at], batch), alone, rtol=1e-4)


def test_blocks_are_a_loop_and_one_block_is_none():
    points, mask, tuples = example()
    for block_size, expected in ((1, 1), (COUNT - 1, 1), (COUNT, 0), (COUNT + 5, 0), (None, 0)):
        assert scans(partial(mix_values, points, mask, block_size=block_size), *tuples) == expected


@pytest.mark.parametrize(("cells", "expected"), [(1, 1), (2 * POINTS, 2), (5 * POINTS, 4)])
def test_by_default_a_table_too_large_is_cut_into_a_power_of_two(monkeypatch, cells, expected):
    monkeypatch.setattr(mix_module, "TABLE_CELLS", cells)
    points, mask, tuples = example()
    mixed = mix_values(points, mask, *tuples)
    trace = str(jax.make_jaxpr(partial(mix_values, points, mask))(*tuples))
    assert f"length={-(-COUNT // expected)}" in trace
    assert_close(mixed, mix_values(points, mask, *tuples, block_size=COUNT))


@pytest.mark.parametrize(("count", "expected"), [(16, 0), (17, 1)])
def test_the_default_keeps_to_the_table_it_promises(count, expected):
    points = jnp.zeros((mix_module.TABLE_CELLS // 16, 1), jnp.int32)
    mask = jnp.ones(len(points), bool)
    parts = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((count, 1), (count, 1))]
    values = jax.ShapeDtypeStruct((count,), jnp.float32)
    assert scans(partial(mix_values, points, mask), *parts, values) == expected


@each_density
@pytest.mark.parametrize("way", ["values", "gradient", "curvature"])
def test_memory_is_a_block_and_no_table(way, density):
    count, num_points = 2048, 8192

    def loss(points, mask, *tuples):
        return jnp.sum(jnp.square(mix_values(points, mask, *tuples, density=density)))

    slopes = jax.grad(loss, argnums=(2, 3, 4))

    def curvature(points, mask, *tuples):
        along = partial(slopes, points, mask)
        return jax.jvp(along, tuples, tuples)[1]

    function = {"values": loss, "gradient": slopes, "curvature": curvature}[way]
    shapes = [((num_points, 2), jnp.int32), ((num_points,), bool)]
    shapes += [((count, 2), jnp.float32), ((count, 2), jnp.float32), ((count,), jnp.float32)]
    arguments = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
    needed = jax.jit(function).lower(*arguments).compile().memory_analysis().temp_size_in_bytes
    # Of 64 blocks that make up the whole table, in numbers of 4 bytes. Steps are counted from an
    # origin near each mean, which takes up to three of them in derivatives.
    blocks = {"values": 3, "gradient": 15.5, "curvature": 25}[way]
    if density == "gaussian":
        blocks = {"values": 3, "gradient": 6.4, "curvature": 12.5}[way]
    assert needed < blocks * 4 * mix_module.TABLE_CELLS


@pytest.mark.parametrize("options", [{}, {"num_global": 3}, {"wrap": True}])
def test_relax_and_hyperlayer_pass_the_block_size_on(options):
    key, x = jax.random.key(0), waves(7)

    def both(tuples, *, block_size):
        chosen = options | {"block_size": block_size}
        entries = ops.relax(key, tuples, SHAPE, **chosen)
        return *entries, ops.hyperlayer(key, tuples, x, SHAPE[:1], **chosen)

    both = jax.jit(both, static_argnames="block_size")
    tuples = make_tuples(6, SHAPE)
    (ours, *numbers), (alone, *expected) = both(tuples, block_size=4), both(tuples, block_size=None)
    assert (ours == alone).all()
    assert_close(numbers, expected, rtol=1e-4)
    assert [scans(partial(both, block_size=size), tuples) for size in (4, None)] == [2, 0]


@pytest.mark.parametrize(
    "varying",
    [
        "points",
        "tuples",
        "both",
    ],
)
def test_each_device_of_a_shard_map_mixes_its_own(varying):
    examples = [example(seed=seed) for seed in range(4)]
    points, mask, means, variances, values = (
        jnp.stack([jax.tree.leaves(one)[part] for one in examples]) for part in range(5)
    )
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    own = {"points": (True, False), "tuples": (False, True), "both": (True, True)}[varying]
    arguments = [
        part if own[place] else part[0]
        for part, place in zip((points, mask, means, variances, values), WHOSE, strict=True)
    ]
    specs = tuple(P("data") if own[place] else P() for place in WHOSE)

    def inside(*arguments):
        parts = [part[0] if spec else part for part, spec in zip(arguments, specs, strict=True)]
        mixed, slopes = mixed_and_slopes(*parts[:2], ContinuousTuples(*parts[2:]), block_size=FEW)
        # A gradient towards what all devices share is their sum already.
        return mixed[None], slopes.values[None] if own[1] else slopes.values

    out_specs = (P("data"), P("data") if own[1] else P())
    spread = jax.jit(jax.shard_map(inside, mesh=mesh, in_specs=specs, out_specs=out_specs))
    mixed, slopes = spread(*arguments)
    alone, both = [], list(zip(arguments, specs, strict=True))
    for number in range(4):
        parts = [part[number] if spec else part for part, spec in both]
        alone.append(mixed_and_slopes(*parts[:2], ContinuousTuples(*parts[2:]), block_size=COUNT))
    assert_close(mixed, jnp.stack([one[0] for one in alone]))
    expected = jnp.stack([one[1].values for one in alone])
    assert_close(slopes, expected if own[1] else expected.sum(axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block_size", [0, -1, 2.0, True])
def test_a_block_size_that_is_no_count_is_refused(block_size):
    points, mask, tuples = example()
    with pytest.raises(ValueError, match=r"^found block_size=.*; expected an int of at least 1"):
        mix_values(points, mask, *tuples, block_size=block_size)
