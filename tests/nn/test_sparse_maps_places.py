"""Where the tuples of a layer lie: modulo, templates, nearby points."""

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax.ops import (
    Locality,
    make_template,
)
from tests.ops.examples import assert_close

from .examples import X, at_once, never_run, new_layer


def test_modulo_wraps_and_other_methods_do_not():
    assert never_run(mean_method="modulo").wrap
    assert not never_run().wrap
    assert not never_run(mean_method="modulo", wrap=False).wrap

    @at_once
    def outputs():
        layer = new_layer(count=1, mean_method="modulo", fixed_values=1.0)
        layer.source.raw_means[...] = jnp.array([[3.75, 4.75]])
        layer.source.raw_variances[...] = jnp.array([-20.0])
        return layer(X, deterministic=True), layer(X)

    for y in outputs:
        assert_close(y, X[:, :1] * [1, 0, 0, 0], atol=1e-4)


def test_template_of_fixed_outputs_is_a_gather_per_row():
    rows = np.stack([np.repeat(np.arange(4), 2), np.zeros(8, int)], axis=1)
    template = make_template(rows, (1,), chunk_size=2)
    assert template.groups_by_output((4,))

    @at_once
    def results():
        layer = new_layer(count=8, template=template, num_global=60, num_local=0, region=None)
        return layer.source(), layer(X, deterministic=True), layer(X)

    tuples, settled, sampled = results
    means, variances, values = (np.asarray(leaf, np.float64) for leaf in tuples)
    assert means.shape == (8, 1)
    hard, soft = np.zeros((4, 5)), np.zeros((4, 5))
    np.add.at(hard, (rows[:, 0], np.round(means[:, 0]).astype(int)), values)
    assert_close(settled, X @ hard.T)
    # With all cells among the points the relaxation is that of the whole row, whatever the key.
    shares = np.exp(-((np.arange(5) - means) ** 2) / (2 * variances))
    shares /= shares.sum(axis=1, keepdims=True)
    np.add.at(soft, rows[:, 0], shares * values[:, None])
    assert_close(sampled, X @ soft.T, atol=1e-5)


def test_half_precision_comes_out_as_it_went_in():
    @jax.jit
    def call(x):
        return new_layer(bias="dense")(x, rngs=jax.random.key(0))

    y = call(X.astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    assert_close(np.float32(y), call(X), rtol=0.05, atol=0.05)


def test_tuples_that_see_everything_nearby_are_the_same_layer():
    def call(**options):
        return new_layer(**options)(X, deterministic=False, rngs=jax.random.key(0))

    @at_once
    def results():
        near = call(locality=Locality(radius=5, capacities=(6 * 8,)))
        return near, call(), call(locality=Locality(radius=1, capacities=(1,)))

    near, everywhere, blind = results
    assert_close(near, everywhere)
    assert np.isnan(blind).any()
