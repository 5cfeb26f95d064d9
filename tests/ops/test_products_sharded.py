"""The two products on several devices: in a ``shard_map``, and where the compiler spreads them."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from sparse_hyper_jax.ops.device_axes import vary_alike
from sparse_hyper_jax.ops.products import sddmm, spmm
from tests.ops.test_products import (
    PAIRS,
    batched,
    bent,
    close,
    each_product,
    grad,
    has_loop,
    operands,
    pick,
)

DEVICES = 4
MIXED = [own for own in product((False, True), repeat=4) if any(own)]


def mesh(*axes, explicit=False):
    kind = AxisType.Explicit if explicit else AxisType.Auto
    names = axes or ("data",)
    lengths = (DEVICES,) if len(names) == 1 else (2, 2)
    return jax.make_mesh(lengths, names, axis_types=(kind,) * len(names))


def spread(function, own, out_specs):
    """Map over devices those arguments that are their own, with a leading axis of length 1."""

    def inside(*arguments):
        return function(
            *(one[0] if mine else one for one, mine in zip(arguments, own, strict=True))
        )

    specs = tuple(P("data") if mine else P() for mine in own)
    return jax.jit(
        jax.shard_map(inside, mesh=mesh(), in_specs=specs, out_specs=out_specs, check_vma=True)
    )


@pytest.mark.parametrize("own", MIXED, ids=str)
@pytest.mark.parametrize("features", [3, 40])
@each_product
def test_devices_multiply_what_is_their_own_and_what_they_share(name, features, own):
    ours, dense = PAIRS[name]
    axes = [0 if mine else None for mine in own]
    arguments = batched(name, axes, count=DEVICES, features=features)
    result = spread(lambda *parts: ours(*parts)[None], own, P("data"))(*arguments)
    expected = [dense(*pick(arguments, axes, number)) for number in range(DEVICES)]
    close(result, jnp.stack(expected))


@pytest.mark.parametrize("own", MIXED, ids=str)
@each_product
def test_gradients_of_what_devices_share_are_summed_over_them(name, own):
    ours, dense = PAIRS[name]
    axes = [0 if mine else None for mine in own]
    arguments = batched(name, axes, count=DEVICES)

    def slopes(target, source, *floats):
        found = grad(bent(ours, target, source))(*floats)
        return tuple(one[None] if mine else one for one, mine in zip(found, own[2:], strict=True))

    out_specs = tuple(P("data") if mine else P() for mine in own[2:])
    result = spread(slopes, own, out_specs)(*arguments)

    def total(*floats):
        pairs = (pick((*arguments[:2], *floats), axes, number) for number in range(DEVICES))
        return sum(bent(dense, *one[:2])(*one[2:]) for one in pairs)

    close(result, jax.jit(jax.grad(total, argnums=(0, 1)))(*arguments[2:]), rtol=1e-3)


def test_devices_run_a_loop_of_their_own():
    own = (False, False, False, True)
    arguments = batched("spmm", (None, None, None, 0), count=DEVICES)
    function = spread(lambda *parts: PAIRS["spmm"][0](*parts)[None], own, P("data"))
    assert has_loop(function.lower(*arguments))


@pytest.mark.parametrize("spec", [P("data"), P(None, "data"), P()], ids=str)
@pytest.mark.parametrize("way", ["values", "gradient"])
@each_product
def test_where_the_compiler_spreads_the_work_there_is_no_loop(name, way, spec):
    ours, dense = PAIRS[name]
    target, source, left, right = operands(name, columns=8)

    def run(product, left, right):
        function = partial(product, target, source)
        return (
            function(left, right)
            if way == "values"
            else grad(bent(product, target, source))(left, right)
        )

    placed = jax.device_put(right, NamedSharding(mesh(), spec))
    lowered = jax.jit(partial(run, ours)).lower(left, placed)
    assert not has_loop(lowered)
    close(lowered.compile()(left, placed), run(dense, left, right))


@pytest.mark.parametrize("manual", [("data",), ("data", "rows")], ids=str)
def test_a_loop_runs_only_where_all_axes_are_mapped(manual):
    both = mesh("data", "rows")
    target, source, values, x = operands("spmm")
    xs = jnp.stack([x, 2 * x])

    def inside(xs):
        return PAIRS["spmm"][0](target, source, values, xs[0])[None]

    specs = {"in_specs": P("data"), "out_specs": P("data"), "axis_names": set(manual)}
    function = jax.jit(jax.shard_map(inside, mesh=both, **specs))
    lowered = function.lower(xs)
    assert has_loop(lowered) == (len(manual) == 2)
    expected = PAIRS["spmm"][1](target, source, values, x)
    close(function(xs), jnp.stack([expected, 2 * expected]))


def test_arrays_vary_alike_over_the_axes_over_which_any_does():
    both = mesh("data", "rows")
    seen = []

    def inside(one, two, three):
        alike = vary_alike(one, two, three)
        seen.extend(jax.typeof(array).manual_axis_type.varying for array in alike)
        return sum(alike)

    specs = (P("data"), P("rows"), P())
    mapped = jax.shard_map(inside, mesh=both, in_specs=specs, out_specs=P(("data", "rows")))
    result = jax.jit(mapped)(jnp.arange(2.0), jnp.arange(2.0), jnp.ones(1))
    assert set(seen) == {frozenset({"data", "rows"})}
    close(result, [1.0, 2.0, 2.0, 3.0])


def test_outside_of_a_mesh_nothing_varies():
    arrays = [jnp.ones(2), jnp.zeros(3)]
    assert all(one is two for one, two in zip(arrays, vary_alike(*arrays), strict=True))


@pytest.mark.parametrize("function", [spmm, sddmm], ids=["spmm", "sddmm"])
def test_batches_of_each_device_are_those_of_all(function):
    name = "spmm" if function is spmm else "sddmm"
    ours, dense = PAIRS[name]
    arguments = batched(name, (None, None, None, 0), count=8)
    specs = (P(), P(), P(), P("data"))
    inside = jax.vmap(ours, in_axes=(None, None, None, 0))
    mapped = jax.jit(jax.shard_map(inside, mesh=mesh(), in_specs=specs, out_specs=P("data")))
    expected = [dense(*arguments[:3], arguments[3][number]) for number in range(8)]
    close(mapped(*arguments), jnp.stack(expected))
