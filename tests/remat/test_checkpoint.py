"""Functions under a budget: which plan is taken, what is refused, and every transformation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import remat
from sparse_hyper_jax.remat import choice
from sparse_hyper_jax.remat.measure import Measured
from tests.remat.examples import KERNELS, KEY, W, X, Y, dots, dropout, elementwise, python_numbers

DEEP = (KERNELS * 3, KERNELS[0])


def bytes_by_plan(monkeypatch, *sizes):
    """Let the plans of a function take these bytes, without compiling; count the calls."""
    calls = []

    def compile_plan(whole, plan, of, barrier):
        calls.append((plan, barrier))
        return Measured(plan, sizes[len(calls) - 1], 0, 0.0, 0, 0, 0.0)

    monkeypatch.setattr(choice, "compile_plan", compile_plan)
    return calls


def plans_of(points=6):
    return remat.plan(dots, *DEEP, points=points)


def test_plain_is_taken_if_it_fits(monkeypatch):
    calls = bytes_by_plan(monkeypatch, 100)
    assert remat.budgeted_checkpoint(dots, 100).plan(*DEEP) == plans_of()[0]
    assert len(calls) == 1


def test_the_first_plan_that_fits_is_taken(monkeypatch):
    calls = bytes_by_plan(monkeypatch, 100, 120, 50, 40)
    assert remat.budgeted_checkpoint(dots, 0.5).plan(*DEEP) == plans_of()[2]
    assert len(calls) == 3


def test_memory_takes_the_least_of_all_even_if_that_is_plain(monkeypatch):
    count = len(plans_of())
    assert count >= 4
    bytes_by_plan(monkeypatch, *range(100, 100 + count))
    lean = remat.budgeted_checkpoint(dots, 1.0, objective="memory")
    assert lean.plan(*DEEP) == plans_of()[0]
    bytes_by_plan(monkeypatch, *range(100, 100 - count, -1))
    lean = remat.budgeted_checkpoint(dots, 100, objective="memory")
    assert lean.plan(*DEEP) == plans_of()[-1]


def test_memory_does_not_compute_again_for_less_than_a_hundredth(monkeypatch):
    for first, taken in ((1009, 0), (1011, 1)):
        bytes_by_plan(monkeypatch, first, *(1000 for _ in plans_of()[1:]))
        lean = remat.budgeted_checkpoint(dots, 1.0, objective="memory")
        assert lean.plan(*DEEP) == plans_of()[taken]
    bytes_by_plan(monkeypatch, 1009, *(1000 for _ in plans_of()[1:]))
    assert remat.budgeted_checkpoint(dots, 1005, objective="memory").plan(*DEEP) == plans_of()[1]


def test_no_more_plans_are_compiled_than_points_and_once_per_signature(monkeypatch):
    calls = bytes_by_plan(monkeypatch, 100, 99, 98, 97, 96, 95)
    lean = remat.budgeted_checkpoint(dots, 1000, objective="memory", points=3)
    for _ in range(2):
        lean.plan(*DEEP)
    assert len(calls) == len(plans_of(points=3)) == 3
    lean.plan(DEEP[0], DEEP[1][:2])
    assert len(calls) == 6


def test_what_no_plan_keeps_to_is_told_with_the_least_possible(monkeypatch):
    bytes_by_plan(monkeypatch, 100, 90, 50, 60, 70, 80)
    lean = remat.budgeted_checkpoint(dots, 0.25, barrier="cond")
    message = (
        r"found a budget of 25 bytes for a gradient that takes 100 as it is, and 50 with the best "
        r"of \d plans; expected at least 50 bytes; raise the budget"
    )
    with pytest.raises(ValueError, match=message):
        lean(*DEEP)


@pytest.mark.parametrize(
    "budget", [0, -1, True, None, "1", 0.0, -0.5, 1.5, float("nan"), float("inf"), np.float32(2)]
)
def test_wrong_budgets_are_refused(budget):
    with pytest.raises(ValueError, match=r"found budget=.*; expected .*; "):
        remat.budgeted_checkpoint(dots, budget)


@pytest.mark.parametrize("budget", [np.int64(10**9), np.float32(0.5), 0.5, 1])
def test_numbers_of_numpy_are_budgets(budget):
    assert remat.budgeted_checkpoint(dots, budget).options.budget == budget


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"objective": "speed"}, "objective='speed'"),
        ({"points": 1}, "points=1"),
        ({"measure": "no"}, "measure='no'"),
        ({"family": "some"}, "family='some'"),
        ({"barrier": "none"}, "barrier='none'"),
        ({"of": 3}, "of=3"),
    ],
)
def test_wrong_options_are_refused(options, found):
    with pytest.raises(ValueError, match=f"found {found}.*; expected .*; "):
        remat.budgeted_checkpoint(dots, 0.5, **options)


def test_what_is_no_function_or_no_array_is_refused():
    with pytest.raises(ValueError, match="found fn=3; expected a function"):
        remat.budgeted_checkpoint(3, 0.5)
    with pytest.raises(ValueError, match="found the argument 'sin'; expected arrays"):
        remat.budgeted_checkpoint(lambda x, name: x, 0.5)(X, "sin")


def printing(x):
    jax.debug.print("{}", x)
    return x


def referring(x):
    cell = jax.new_ref(x)
    cell[...] = x * 2
    return cell[...]


@pytest.mark.parametrize("fn", [printing, referring])
def test_effects_are_refused(fn):
    with pytest.raises(ValueError, match=r"found a function with effects: .*; expected a pure one"):
        jax.eval_shape(remat.budgeted_checkpoint(fn, 0.5), X)


def test_results_that_are_no_arrays_are_refused():
    with pytest.raises(ValueError, match="found the result 'a'; expected arrays and numbers"):
        jax.eval_shape(remat.budgeted_checkpoint(lambda x: (x, "a"), 0.5), X)


def lean_of(fn, **options):
    """Cut it as finely as estimates tell, without compiling."""
    return remat.budgeted_checkpoint(fn, 1.0, objective="memory", measure=False, **options)


def test_the_tightest_plan_has_segments():
    assert len(lean_of(dots).plan(*DEEP).chain) > 1


def test_under_jit_scan_and_vmap():
    lean = lean_of(elementwise)

    def gradient(fn):
        def scanned(xs):
            return jax.lax.scan(lambda total, x: (total + jnp.sum(fn(x)), None), 0.0, xs)[0]

        def mapped(xs):
            return jnp.sum(jax.vmap(fn)(xs))

        return jax.jit(lambda xs: (jax.grad(scanned)(xs), jax.grad(mapped)(xs)))

    xs = jnp.stack([X, Y, W])
    for one, two in zip(gradient(lean)(xs), gradient(elementwise)(xs), strict=True):
        np.testing.assert_array_equal(one, two)


def test_one_key_draws_the_same_mask_in_both_passes():
    lean = lean_of(dropout)
    assert len(lean.plan(KEY, X).chain) > 1
    values, slopes = jax.jit(
        lambda x: (lean(KEY, x), jax.grad(lambda x: jnp.sum(lean(KEY, x)))(x))
    )(X + 2.0)
    np.testing.assert_array_equal(values != 0, slopes != 0)
    assert 0 < (values != 0).mean() < 1


@pytest.mark.parametrize("check_vma", [True, False])
def test_inside_of_shard_map(check_vma):
    mesh = jax.make_mesh((4,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))

    def loss(fn):
        def local(weights, x):
            return jax.lax.psum(fn(weights, x), "rows")

        specs = {"in_specs": (jax.P(), jax.P("rows")), "out_specs": jax.P()}
        return jax.shard_map(local, mesh=mesh, check_vma=check_vma, **specs)

    planned = []

    def lean(weights, x):
        inside = remat.budgeted_checkpoint(dots, 1.0, objective="memory")
        planned.append(inside.plan(weights, x))
        return inside(weights, x)

    found, expected = jax.jit(
        lambda *args: (jax.grad(loss(lean))(*args), jax.grad(loss(dots))(*args))
    )(*DEEP)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-4), found, expected)
    if check_vma:
        assert len(planned[0].chain) > 1


def test_axes_may_be_named_inside():
    def normalised(x):
        for _ in range(4):
            x = jnp.sin(x) / jax.lax.psum(jnp.sum(jnp.square(x)), "batch")
        return x

    lean = lean_of(normalised)

    def gradient(fn):
        return jax.grad(lambda xs: jnp.sum(jax.vmap(fn, axis_name="batch")(xs)))

    found, expected = jax.jit(lambda xs: (gradient(lean)(xs), gradient(normalised)(xs)))(X)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_what_is_closed_over_may_be_traced_and_may_change():
    held = {}

    def with_held(x):
        return jnp.sum(jnp.sin(jnp.sin(x * held["scale"])) * held["scale"])

    lean = lean_of(with_held)

    def outer(scale):
        held["scale"] = scale
        return lean(X)

    def plain(scale):
        held["scale"] = scale
        return with_held(X)

    both = jax.jit(lambda scale: (jax.grad(outer)(scale), jax.grad(plain)(scale)))
    for scale in (2.0, 3.0):
        np.testing.assert_allclose(*both(scale), rtol=1e-6)


def test_keywords_numbers_and_names_pass():
    lean = lean_of(functools.partial(python_numbers, power=2))
    both = jax.jit(lambda x: (lean(x, factor=0.5), python_numbers(x, 0.5, 2)))
    np.testing.assert_allclose(*both(X), rtol=1e-6)
    assert remat.budgeted_checkpoint(dots, 0.5).__name__ == "dots"


def test_shapes_are_enough_for_a_plan():
    shapes = jax.tree.map(lambda one: jax.ShapeDtypeStruct(one.shape, one.dtype), DEEP)
    assert lean_of(dots).plan(*shapes) == lean_of(dots).plan(*DEEP)
