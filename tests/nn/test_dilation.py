import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sparse_hyper_jax.nn import HyperLayer
from sparse_hyper_jax.ops import ContinuousTuples, bound_means, make_template
from tests.ops.examples import assert_close

OUTPUTS, TAPS, INPUTS = 6, 3, 14
DILATION, KERNEL = 3, np.float32([1.0, 2.0, 3.0])
CONTROLS, SHIFTED = 1, 4


class DilatedRows(nnx.Module):
    """The tuples of a convolution: row o reads columns o + i * dilation."""

    def __init__(self, dilation):
        self.dilation = nnx.Param(jnp.float32(dilation))
        self.spread = nnx.Param(jnp.float32(5.0))
        self.kernel = nnx.Param(jnp.ones(TAPS))

    def __call__(self, x):
        rows, taps = np.divmod(np.arange(OUTPUTS * TAPS), TAPS)
        means = (rows + taps * self.dilation[...])[:, None]
        variances = jnp.full_like(means, jax.nn.softplus(self.spread[...]))
        return ContinuousTuples(means, variances, jnp.tile(self.kernel[...], OUTPUTS))


def dilated_layer(dilation):
    rows = np.stack([np.repeat(np.arange(OUTPUTS), TAPS), np.zeros(OUTPUTS * TAPS, int)], axis=1)
    return HyperLayer(
        DilatedRows(dilation),
        (OUTPUTS,),
        template=make_template(rows, (1,), chunk_size=TAPS),
        num_global=4,
        num_local=4,
        region=(7,),
        rngs=nnx.Rngs(0),
    )


def convolve(x):
    return sum(
        weight * x[:, tap * DILATION : tap * DILATION + OUTPUTS]
        for tap, weight in enumerate(KERNEL)
    )


def shifts_of_the_input(x, numbers=jnp):
    """The first number says which neighbour every output copies."""
    rolled = numbers.roll(x[:, CONTROLS:], -1, axis=1)
    return numbers.where(x[:, :1] > 0, rolled, x[:, CONTROLS:])


class ChosenShift(nnx.Module):
    """A linear source network: from the control to one column per output."""

    def __init__(self, rngs):
        self.means = nnx.Linear(CONTROLS, SHIFTED, rngs=rngs)
        self.spread = nnx.Param(jnp.full(SHIFTED, 3.0))

    def __call__(self, x):
        means = bound_means(self.means(x[:, :CONTROLS])[..., None], (CONTROLS + SHIFTED,))
        variances = jnp.broadcast_to(jax.nn.softplus(self.spread[...])[:, None], means.shape)
        return ContinuousTuples(means, variances, jnp.ones(means.shape[:2]))


def shift_layer():
    rows = np.stack([np.arange(SHIFTED), np.zeros(SHIFTED, int)], axis=1)
    return HyperLayer(
        ChosenShift(nnx.Rngs(0)),
        (SHIFTED,),
        template=make_template(rows, (1,), chunk_size=1),
        num_global=4,
        rngs=nnx.Rngs(1),
    )


def fit(layer, draw, target, *, steps, rate, batch=32):
    """Train by Adam in one scan; give the losses."""
    optimizer = nnx.Optimizer(layer, optax.adam(rate), wrt=nnx.Param)

    @nnx.scan(in_axes=(nnx.Carry, 0))
    def step(state, key):
        layer, optimizer = state
        x = draw(key, batch)
        value, gradient = nnx.value_and_grad(
            lambda layer: jnp.mean(jnp.square(layer(x) - target(x)))
        )(layer)
        optimizer.update(layer, gradient)
        return state, value

    keys = jax.random.split(jax.random.key(1), steps)
    return np.asarray(nnx.jit(step)((layer, optimizer), keys)[1])


@nnx.jit
def evaluate(layer, x):
    return layer(x, deterministic=True)


def test_one_number_learns_the_dilation_of_a_convolution():
    layer = nnx.jit(lambda: dilated_layer(1.4))()
    assert not np.allclose(layer.source.dilation[...], DILATION, atol=1)
    losses = fit(
        layer,
        lambda key, batch: jax.random.normal(key, (batch, INPUTS)),
        convolve,
        steps=600,
        rate=0.05,
    )
    assert losses[-20:].mean() < 1e-3 * losses[:20].mean()
    assert abs(float(layer.source.dilation[...]) - DILATION) < 0.1
    assert_close(layer.source.kernel[...], KERNEL, rtol=0.02)
    x = np.random.default_rng(2).normal(size=(3, INPUTS)).astype(np.float32)
    assert_close(evaluate(layer, x), convolve(x), atol=0.1)
    # With the kernel itself nothing is left of the error: every cell is the right one.
    layer.source.kernel[...] = jnp.asarray(KERNEL)
    assert_close(evaluate(layer, x), convolve(x), atol=1e-5)


def test_the_input_chooses_its_shift():
    layer = nnx.jit(shift_layer)()

    def draw(key, batch):
        sign_key, data_key = jax.random.split(key)
        control = jax.random.rademacher(sign_key, (batch, CONTROLS), jnp.float32)
        return jnp.concatenate([control, jax.random.normal(data_key, (batch, SHIFTED))], axis=1)

    losses = fit(layer, draw, shifts_of_the_input, steps=800, rate=0.05)
    assert losses[-50:].mean() < 0.05 * losses[:50].mean()
    x = np.random.default_rng(3).normal(size=(16, CONTROLS + SHIFTED)).astype(np.float32)
    x[:, 0] = np.sign(x[:, 0])
    assert len(np.unique(x[:, 0])) == 2
    assert_close(evaluate(layer, x), shifts_of_the_input(x, np))


class LastEntries(nnx.Module):
    """Outputs 0 and 1 read the two last columns of an input of any length."""

    def __init__(self):
        self.place = nnx.Param(jnp.zeros(2))

    def __call__(self, x):
        last = x.shape[1] - 1
        columns = last - jnp.arange(2.0) + self.place[...]
        means = jnp.stack([jnp.arange(2.0), jnp.clip(columns, 0, last)], axis=1)
        means = jnp.broadcast_to(means, (len(x), 2, 2))
        return ContinuousTuples(means, jnp.ones_like(means), jnp.ones(means.shape[:2]))


def last_entries():
    return HyperLayer(LastEntries(), (2,), num_global=2, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("length", [2, 9])
def test_one_layer_takes_inputs_of_any_length(length):
    x = np.random.default_rng(0).normal(size=(3, length)).astype(np.float32)

    @jax.jit
    def slopes_and_hard_pass(x):
        layer = last_entries()
        loss = nnx.grad(lambda layer: jnp.sum(jnp.square(layer(x) - x[:, :2])))
        return loss(layer)["source"]["place"][...], layer(x, deterministic=True)

    gradient, hard = jax.device_get(slopes_and_hard_pass(x))
    assert_close(hard, x[:, :-3:-1])
    assert np.isfinite(gradient).all()
    assert (gradient != 0).any()


def test_adaptive_samples_differ_between_instances():
    x = np.broadcast_to(np.arange(9, dtype=np.float32), (4, 9))

    @jax.jit
    def call(x):
        return last_entries()(x)

    y = call(x)
    assert np.asarray(y).std(axis=0).max() > 1e-2
