from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import dist, ops
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure, make_tuples

from .examples import (
    BATCH,
    COMMON,
    COUNT,
    FEW,
    KINDS,
    POINTS,
    SAMPLING,
    SHAPE,
    collectives,
    inputs,
    key,
    on_mesh,
    placed,
    value_and_gradients,
)

OPTIONS = {
    "gaussian": SAMPLING,
    "chunks": SAMPLING | {"chunk_size": 2},
    "circle": SAMPLING | {"wrap": True, "density": "student_t"},
    "neighbours": {"chunk_size": 1},
    "blocks": SAMPLING | {"block_size": 5},
}


def template(chunk_size, *, in_order=False):
    outputs = np.arange(COUNT) // chunk_size % SHAPE[0]
    if in_order:
        outputs = np.arange(COUNT) // 2
    rows = np.stack([outputs, np.zeros(COUNT, int)], axis=1)
    return ops.make_template(rows, [1], chunk_size=chunk_size)


def compare(axes, given, **options):
    mesh = dist.make_mesh(axes)
    expected = value_and_gradients(ops.hyperlayer, **options)(*given, key())
    function = value_and_gradients(on_mesh(dist.hyperlayer, mesh), **options)
    assert_close(function(*placed(mesh, *given), key()), expected, **COMMON)


def pass_and_entries(room, **options):
    """Outputs, gradients and sampled entries, in one program."""

    def everything(tuples, x, key):
        entries = room.relax(key, tuples, SHAPE, **options)
        return value_and_gradients(room.hyperlayer, **options)(tuples, x, key), entries

    return jax.jit(everything)


@pytest.fixture(scope="module")
def one_device():
    return pass_and_entries(ops, **SAMPLING)(*inputs(), key())


@pytest.mark.parametrize("axes", KINDS)
def test_samples_are_identical_and_numbers_equal(axes, one_device):
    mesh = dist.make_mesh(axes)
    found = pass_and_entries(dist, mesh=mesh, **SAMPLING)(*placed(mesh, *inputs()), key())
    assert_close(found, one_device, **COMMON)
    ((_, y), (gradients, _)), entries = found
    np.testing.assert_array_equal(entries.indices, one_device[1].indices)
    assert y.dtype == jnp.float32
    for part in (*gradients, *entries):
        assert part.sharding.is_equivalent_to(dist.tuple_shardings(part, mesh), part.ndim)


def test_samples_of_chunks_are_identical():
    mesh, options = dist.make_mesh("data=2,tuples=4"), OPTIONS["chunks"]
    tuples, x = inputs()
    spread = placed(mesh, tuples, x)[0]
    found = jax.jit(partial(dist.relax, shape=SHAPE, mesh=mesh, **options))(key(), spread)
    expected = jax.jit(partial(ops.relax, shape=SHAPE, **options))(key(), tuples)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.values, expected.values, **COMMON)


@pytest.mark.parametrize("axes", FEW[-1:])
@pytest.mark.parametrize(
    ("name", "features"), [("chunks", ()), ("circle", (3,)), ("neighbours", ()), ("blocks", ())]
)
def test_options_reach_every_device_and_features_stand_before_the_batch(axes, name, features):
    compare(axes, inputs(features=features), **OPTIONS[name])


@pytest.mark.parametrize("axes", FEW[-1:])
@pytest.mark.parametrize(("chunk_size", "in_order"), [(COUNT, False), (2, True)])
def test_template_rows_go_with_their_tuples(axes, chunk_size, in_order):
    tuples, x = make_tuples(COUNT, SHAPE[1:], variance=3.0), inputs()[1]
    options = {"num_global": 2, "template": template(chunk_size, in_order=in_order)}
    assert options["template"].groups_by_output((8,)) == in_order
    mesh = dist.make_mesh(axes)

    def results(room, **options):
        def both(tuples, x):
            entries = room.relax(key(), tuples, (8, SHAPE[1]), **options)
            return entries, room.hyperlayer(key(), tuples, x, (8,), **options)

        return jax.jit(both)

    entries, y = results(ops, **options)(tuples, x)
    found = results(dist, mesh=mesh, **options)(*placed(mesh, tuples, x))
    np.testing.assert_array_equal(found[0].indices, entries.indices)
    assert_close(found, (entries, y), **COMMON)


def test_gradient_of_a_template():
    tuples, x = make_tuples(COUNT, SHAPE[1:], variance=3.0), inputs()[1]
    compare("data=2,tuples=4", (tuples, x), num_global=2, template=template(4))


@jax.jit
def settled(tuples, x):
    return ops.hyperlayer_hard(tuples, x, (6,))


def on_both(axes, tuples, x):
    """Outputs on a mesh and on one device."""
    mesh = dist.make_mesh(axes)
    found = jax.jit(partial(dist.hyperlayer, out_shape=(6,), mesh=mesh))(key(), tuples, x)
    return found, jax.jit(partial(ops.hyperlayer, out_shape=(6,)))(key(), tuples, x)


def test_input_without_batch():
    tuples, x = inputs()
    np.testing.assert_allclose(*on_both("tuples=4", tuples, x[:, 0]), **COMMON)


def test_arrays_that_lie_elsewhere_are_moved_without_jit():
    tuples, x = inputs()
    found = dist.hyperlayer_hard(tuples, x, (6,), mesh=dist.make_mesh("data=2,tuples=2"))
    np.testing.assert_allclose(found, settled(tuples, x), **COMMON)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.int32])
def test_sums_are_rounded_once(dtype):
    tuples, x = inputs()
    found, expected = on_both("data=2,tuples=4", tuples, (8 * x).astype(dtype))
    assert found.dtype == expected.dtype
    tolerance = {"rtol": 1e-2} if dtype == jnp.bfloat16 else COMMON
    np.testing.assert_allclose(np.float32(found), np.float32(expected), **tolerance)


def test_pass_is_hard_where_the_coin_says_so():
    tuples, x = inputs()
    mesh = dist.make_mesh("data=2,tuples=4")

    def passes(function, **options):
        function = jax.jit(partial(function, out_shape=(6,), sample_probability=0.5, **options))
        return np.stack([function(key, tuples, x) for key in jax.random.split(key(), 4)])

    found = passes(dist.hyperlayer, mesh=mesh)
    np.testing.assert_allclose(found, passes(ops.hyperlayer), **COMMON)
    hard = np.isclose(found, settled(tuples, x), **COMMON).all(axis=(1, 2))
    assert 0 < hard.sum() < 4


@pytest.fixture(scope="module")
def wide_batch_on_one_device():
    return value_and_gradients(ops.hyperlayer, num_global=1)(*inputs(batch=64), key())


@pytest.mark.parametrize("room", ["dist", "ops"])
def test_wide_batches(room, wide_batch_on_one_device):
    # Wide enough, also on each device, for the loop over entries that a CPU runs.
    tuples, x = inputs(batch=64)
    mesh = dist.make_mesh("data=2,tuples=2")
    function = ops.hyperlayer if room == "ops" else on_mesh(dist.hyperlayer, mesh)
    found = value_and_gradients(function, num_global=1)(*placed(mesh, tuples, x), key())
    assert_close(found, wide_batch_on_one_device, **COMMON)


@pytest.mark.parametrize("axes", FEW[-1:])
def test_hard_pass_is_that_of_one_device(axes):
    mesh = dist.make_mesh(axes)
    given = placed(mesh, *inputs())
    function = jax.jit(partial(dist.hyperlayer_hard, out_shape=(6,), mesh=mesh))
    np.testing.assert_allclose(function(*given), settled(*inputs()), **COMMON)


@pytest.mark.parametrize("transform", ["vmap", "jvp", "hessian"])
def test_transforms(transform):
    tuples, x = inputs()

    def transformed(function):
        def y(values, key=key()):  # noqa: B008
            return function(key, tuples._replace(values=values), x, (6,), **SAMPLING)

        if transform == "vmap":
            keys = jax.random.split(key(), 3)
            return jax.jit(jax.vmap(y, in_axes=(None, 0)))(tuples.values, keys)
        if transform == "jvp":
            return jax.jit(lambda v: jax.jvp(y, (v,), (jnp.sin(v),)))(tuples.values)
        return jax.jit(jax.hessian(lambda v: jnp.mean(y(v) ** 3)))(tuples.values)

    mesh = dist.make_mesh("data=2,tuples=4")
    found = transformed(on_mesh(dist.hyperlayer, mesh))
    assert_close(found, transformed(ops.hyperlayer), **COMMON)


def compiled(axes, *, gradient, optimized, **options):
    """Compile a pass, with the optimizations that users have or without."""
    mesh = dist.make_mesh(axes)
    options = SAMPLING | options
    function = value_and_gradients(on_mesh(dist.hyperlayer, mesh), **options)
    if not gradient:
        function = jax.jit(
            lambda tuples, x, key: dist.hyperlayer(key, tuples, x, (6,), mesh=mesh, **options)
        )
    before = jax.config.read("jax_disable_most_optimizations")
    try:
        jax.config.update("jax_disable_most_optimizations", not optimized)
        return collectives(function.lower(*placed(mesh, *inputs()), key()).compile())
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


@pytest.mark.parametrize("optimized", [False, True])
def test_only_points_and_outputs_travel_forwards(optimized):
    exchanged = compiled("data=2,tuples=4", gradient=False, optimized=optimized)
    assert sorted(exchanged) == [
        ("all-gather", f"s32[{COUNT},{POINTS // COUNT},2]"),
        ("all-reduce", f"f32[6,{BATCH // 2}]"),
        ("reduce-scatter", f"f32[{POINTS // 4}]"),
    ]


@pytest.mark.parametrize(("axes", "optimized"), [("tuples=4", True), ("data=2,tuples=4", False)])
def test_tuples_are_never_gathered(axes, optimized):
    exchanged = compiled(axes, gradient=True, optimized=optimized)
    gathered = [kind for name, kind in exchanged if name == "all-gather"]
    # The gradient of the points' values goes to all devices, as their values came from all.
    assert sorted(gathered) == [f"f32[{POINTS}]", f"s32[{COUNT},{POINTS // COUNT},2]"]
    # Parameters are exchanged between copies alone, a device's own rows of their gradients.
    own = [*[f"f32[{COUNT // 4},2]"] * 2, f"f32[{COUNT // 4}]"]
    parameters = [kind for _, kind in exchanged if kind in own or kind.startswith(f"f32[{COUNT}")]
    assert sorted(parameters) == (own if "data" in axes else [])


def test_chunks_stay_on_their_devices():
    exchanged = compiled("data=2,tuples=4", gradient=True, optimized=True, chunk_size=2)
    assert {name for name, _ in exchanged} == {"all-reduce"}
    kinds = {kind for _, kind in exchanged}
    assert not [kind for kind in kinds if str(POINTS // 4) in kind or kind.startswith("s32")]


def test_an_axis_of_one_device_costs_no_exchange():
    exchanged = compiled("data=4", gradient=True, optimized=False)
    assert {name for name, _ in exchanged} == {"all-reduce"}
    assert not [kind for _, kind in exchanged if kind.startswith(f"f32[{SHAPE[1]},")]


@pytest.mark.parametrize(
    ("options", "found", "expected", "change"),
    [
        ({"chunk_size": 8}, "chunks of 8 tuples on devices with 4", "whole chunks", "divisor of 4"),
        ({"chunk_size": 3}, "16 tuples in chunks of 3", "divides the number", "chunk_size"),
        ({"chunk_size": 0}, "chunk_size=0", "at least 1", "chunk_size"),
        ({"num_global": -1}, "num_global=-1", "an int of at least 0", "num_global"),
        ({"x": jnp.ones(10)}, "x of shape (10,) without a batch", "a last axis", "data=1"),
        ({"x": jnp.ones((10, 3))}, "3 instances on a mesh with data=2", "multiple of 2", "mesh"),
        ({"tuples": make_tuples(6, SHAPE)}, "6 tuples on a mesh with tuples=4", "of 4", "the mesh"),
        ({"tuples": make_tuples(8, (3,) * 4)}, "tuples of rank 4, out", "+ the number", "means"),
        ({"mesh": jax.make_mesh((2,), ("rows",))}, "the axes ('rows',)", "'tuples'", "make_mesh"),
    ],
)
def test_mistakes_are_named(options, found, expected, change):
    tuples, x = inputs()
    good = {"tuples": tuples, "x": x, "mesh": dist.make_mesh("data=2,tuples=4")}
    call = partial(dist.hyperlayer, key(), out_shape=(6,), **(good | options))
    assert_names_itself_and_its_cure(call, found, expected, change)


@pytest.mark.parametrize("name", ["num_gobal", "active", "debug", "locality"])
def test_options_that_do_not_exist_or_not_on_several_devices_are_refused(name):
    tuples, x = inputs()
    mesh = dist.make_mesh("tuples=4")
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
        partial(dist.hyperlayer, mesh=mesh, **{name: 1})(key(), tuples, x, (6,))
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
        partial(dist.relax, mesh=mesh, **{name: 1})(key(), tuples, SHAPE)


def test_uneven_hard_pass_is_refused():
    tuples, x = inputs()
    with pytest.raises(ValueError, match="16 tuples on a mesh with tuples=3"):
        dist.hyperlayer_hard(tuples, x, (6,), mesh=dist.make_mesh("tuples=3"))


RELAX = {"shape": SHAPE, "num_global": 1}
MULTIPLY = {"x": jnp.ones((SHAPE[1], BATCH)), "out_shape": SHAPE[:1]}
WRONG = {
    "tuples": (None, 3, "abc", (1.0, 2.0)),
    "mesh": (None, 8, "data=2"),
    "template": (3, "a", ops.Template),
    "wrap": ("no", 1),
}
WRONG_X = {"x": (None, "x", [[1.0], [2.0, 3.0]], 1j * jnp.ones((4, 4))), "out_shape": (5, "ab")}
WRONG_DRAWS = {
    "key": (None, 0, "key"),
    "num_global": (-1, 1.5),
    "num_local": (1, -1),
    "chunk_size": (0, 3),
    "density": ("foo", None),
    "block_size": (0, 1.5),
}


@pytest.mark.parametrize(
    ("function", "options", "wrong"),
    [
        (partial(dist.relax, key()), RELAX, WRONG | WRONG_DRAWS),
        (
            dist.hyperlayer,
            MULTIPLY | {"num_global": 1},
            WRONG | WRONG_X | WRONG_DRAWS | {"sample_probability": (2, -1, "a", np.nan)},
        ),
        (dist.hyperlayer_hard, MULTIPLY, WRONG | WRONG_X),
    ],
    ids=["relax", "hyperlayer", "hyperlayer_hard"],
)
def test_the_wrong_kind_of_thing_is_told_in_three_parts(function, options, wrong):
    tuples, _ = inputs()
    given = {"tuples": tuples, "mesh": dist.make_mesh("tuples=2")} | options
    if function is dist.hyperlayer:
        given["key"] = key()
    silent = []
    for name, values in wrong.items():
        for value in values:
            if name == "key" and function is not dist.hyperlayer:
                continue
            try:
                with pytest.raises(ValueError, match=r"found .*; expected .*; "):
                    jax.eval_shape(lambda name=name, value=value: function(**given | {name: value}))
            except BaseException as error:
                silent.append((name, value, f"{error!r:.80}"))
    assert not silent
