"""Bytes that live while equations run, counted by hand."""

import jax
import jax.numpy as jnp

from sparse_hyper_jax import remat
from sparse_hyper_jax.remat.live import live_curve, live_peak

X = jax.ShapeDtypeStruct((10,), jnp.float32)


def test_a_value_lives_until_its_last_reader():
    def fn(x):
        a = jnp.sin(x)  # read again at the end
        b = jnp.cos(x)
        c = jnp.tanh(b)
        return c * a

    # The result is none of the temporaries.
    assert live_curve(fn, X) == [40, 80, 120, 80]
    assert live_peak(fn, X) == 120


def test_views_live_in_what_they_look_at():
    def fn(x):
        a = jnp.sin(x)
        view = a.reshape(2, 5)
        b = jnp.cos(x)
        return view[0] * b[:5]

    assert live_curve(fn, X)[:3] == [40, 40, 80]


def test_bodies_count_where_they_run():
    def body(x):
        return jnp.sin(jnp.cos(jnp.tanh(x)))

    def fn(x):
        kept = jnp.exp(x)
        return jax.checkpoint(body)(x) + kept

    # Inside of the body two values live beside the one that is kept.
    assert live_peak(fn, X) == 120
    assert live_peak(lambda x: jax.lax.scan(lambda c, _: (body(c), None), x, length=3)[0], X) == 80


def test_nothing_lives_where_nothing_is_computed():
    assert live_peak(lambda x: x, X) == 0


def test_estimates_fall_with_the_plans():
    def layers(x):
        for _ in range(64):
            x = jnp.sin(x)
        return jnp.sum(x)

    def estimate(fn):
        return live_peak(jax.grad(fn), jax.ShapeDtypeStruct((1000,), jnp.float32))

    plain = estimate(layers)
    assert plain >= 64 * 4000
    shape = jax.ShapeDtypeStruct((1000,), jnp.float32)
    lean = remat.budgeted_checkpoint(layers, 0.5, measure=False)
    assert len(lean.plan(shape).chain) > 1
    assert estimate(lean) <= 0.5 * plain
    least = remat.budgeted_checkpoint(layers, 1.0, measure=False, objective="memory")
    assert estimate(least) < 0.4 * plain
