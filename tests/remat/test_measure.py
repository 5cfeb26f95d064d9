"""Compiled programs under every plan; memory in processes of their own, compiled as users do."""

import functools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from sparse_hyper_jax import remat
from sparse_hyper_jax.remat.gradients import gradient_maker, pullback
from sparse_hyper_jax.remat.traced import traced
from tests.remat.examples import KEY, X, dropout, elementwise, trees
from tests.test_types import ROOT


def layers(x):
    for _ in range(16):
        x = jnp.sin(x)
    return jnp.sum(x)


def test_a_reading_for_every_plan():
    x = jnp.ones(64)
    plans = remat.plan(layers, x, points=3)
    found = remat.measure(layers, plans, x)
    assert [one.plan for one in found] == list(plans)
    assert found[0].residual_bytes == 16 * 256
    assert found[-1].residual_bytes < 8 * 256
    for one in found:
        assert one.argument_bytes == one.output_bytes == 256
        assert one.compile_seconds > 0


def test_another_gradient_is_measured():
    def loss(x, y):
        return layers(x) * layers(y)

    plain = remat.plan(loss, X, X)[:1]
    both = remat.measure(loss, plain, X, X, of=lambda fn: jax.grad(fn, argnums=(0, 1)))
    assert both[0].output_bytes >= 2 * X.nbytes


def test_plans_of_another_function_are_refused():
    with pytest.raises(ValueError, match=r"found a plan of 17 nodes for a function of 15; expect"):
        remat.measure(elementwise, remat.plan(layers, X), X)
    with pytest.raises(ValueError, match="found barrier='wall'; expected one of"):
        remat.measure(layers, remat.plan(layers, X), X, barrier="wall")


PLAN = remat.Plan
WRONG = [
    ((PLAN((2, 7), 0, 0.0),), {}, "found a plan of 3 nodes for a function of 3, in another order"),
    ((PLAN((3, 1, 7), 0, 0.0),), {}, "found a plan of 3 nodes for a function of 3, in another"),
    ((PLAN((), 0, 0.0),), {}, "found a plan of 0 nodes for a function of 3; expected plans"),
    (PLAN((7,), 0, 0.0), {}, "found a plan of frontier="),
    ("thin", {}, "found frontier='thin'; expected"),
    ((), {}, "found an empty frontier; expected at least one plan"),
    ((), {"of": None}, "found of=None; expected a function"),
]


@pytest.mark.parametrize(("frontier", "options", "message"), WRONG)
def test_what_is_no_plan_is_told_in_three_parts(frontier, options, message):
    with pytest.raises(ValueError, match=message):
        remat.measure(lambda x: jnp.sum(jnp.sin(jnp.sin(x))), frontier, X, **options)


def test_a_part_of_a_map_is_refused():
    def part(x):
        remat.measure(lambda x: jax.lax.psum(x, "rows"), (), x)
        return x

    with pytest.raises(ValueError, match="found a function that names axes of a mesh or of a map"):
        jax.vmap(part, axis_name="rows")(X)


@pytest.mark.parametrize(
    ("fn", "args", "maker"),
    [
        (layers, (X,), jax.grad),
        (elementwise, (X,), pullback),
        (trees, ([X, {"b": X}], (X, X)), pullback),
        (dropout, (KEY, X), pullback),
        (lambda n, x: jnp.sum(x), (1, X), pullback),
        (lambda x: (jnp.sum(x),), (X,), pullback),
        (lambda: 1.0, (), pullback),
    ],
)
def test_which_gradient_counts(fn, args, maker):
    whole = traced(fn, args, {})
    assert gradient_maker(whole) is maker
    jax.eval_shape(maker(fn), *args)


PROGRAM = """
import json, sys
import jax, jax.numpy as jnp
from sparse_hyper_jax import remat

def loss(weights, x):
    for inner, outer in weights:
        x = x + jax.nn.silu(x @ inner) @ outer
    return jnp.mean(x * x)

args = [(jnp.eye(64), jnp.eye(64))] * 12, jnp.ones((512, 64))
barrier = sys.argv[1]
plans = remat.plan(loss, *args, points=3)
found = remat.measure(loss, plans, *args, barrier=barrier)
rows = [(one.temporary_bytes, one.flops) for one in found]
lean = remat.budgeted_checkpoint(loss, 0.4, points=3, barrier=barrier)
value, slopes = jax.jit(jax.value_and_grad(lean))(*args)
expected, plain = jax.jit(jax.value_and_grad(loss))(*args)
same = all(bool((a == b).all()) for a, b in zip(jax.tree.leaves(slopes), jax.tree.leaves(plain)))
print(json.dumps([rows, len(lean.plan(*args).chain), same and bool(value == expected)]))
"""


HYPERLAYER = """
from sparse_hyper_jax import ops

def loss(layer, key, x):
    y = ops.hyperlayer(key, layer, x, (256,), num_global=4, num_local=4, region=(4, 4))
    return jnp.mean(y * y)

keys = jax.random.split(jax.random.key(0), 2)
means = jax.random.uniform(keys[0], (256, 2)) * 255
layer = ops.ContinuousTuples(means, jnp.full((256, 2), 32.0), jax.random.normal(keys[1], (256,)))
args = layer, jax.random.key(5), jnp.ones((256, 16))
lean = remat.budgeted_checkpoint(loss, 1.0, objective="memory", points=2)
print(json.dumps([len(lean.plan(*args).chain), len(remat.plan(loss, *args, points=2)[-1].chain)]))
"""
"""Goes on where ``PROGRAM`` has ended."""


@functools.cache
def compiled_as_users_do(barrier):
    """What the programs print, in a process without the settings of these tests."""
    old = jax.__version_info__ < (0, 11, 1) and barrier == "checkpoint"
    flags = "--xla_disable_hlo_passes=cse_barrier_expander" if old else ""
    program = PROGRAM + HYPERLAYER * (barrier == "checkpoint")
    keep = {k: v for k, v in os.environ.items() if not k.upper().startswith(("JAX_", "XLA_"))}
    ended = subprocess.run(
        [sys.executable, "-c", program, barrier],
        env=keep | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.mark.parametrize("barrier", ["checkpoint", "cond"])
def test_twelve_layers_take_three_fifths_less_memory(barrier):
    rows, segments, same = compiled_as_users_do(barrier)[0]
    (plain, work), *others = rows
    assert min(temporary for temporary, _ in others) <= 0.4 * plain
    assert all(flops <= 1.35 * work for _, flops in others)
    assert segments > 1
    assert same


def test_a_single_hyperlayer_gains_nothing_and_stays_plain():
    taken, tightest = compiled_as_users_do("checkpoint")[1]
    assert taken == 1
    assert tightest > 1
