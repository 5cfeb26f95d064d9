from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import backprop
from sparse_hyper_jax.backprop import (
    add_compact,
    empty_compact,
    init_memory,
    sparse_dense,
    sparsify_cotangent,
)
from tests.backprop.examples import (
    BY_NUMPY,
    COLUMNS,
    FIXED,
    KEY,
    N_IN,
    RANDOM,
    ROWS,
    SPARSIFIERS,
    WHOLE,
    N,
    layer_arrays,
    layer_gradients,
    memory_for,
    random_array,
)
from tests.ops.examples import all_finite, assert_close

COTANGENT = random_array(ROWS, N, seed=7)


def with_residue(memory, residue):
    return memory if memory.residue is None else memory._replace(residue=residue)


@partial(jax.jit, static_argnames=("sparsifier", "eta", "select_on"))
def masked(key, arrays, cotangent, memory, **options):
    def layer(arrays, memory):
        x, kernel, bias = arrays
        return sparsify_cotangent(key, x @ kernel.T, memory, **options) + bias

    return jax.vjp(layer, arrays, memory)[1](cotangent)


@pytest.mark.parametrize(
    ("name", "eta"), [*((name, 0.8) for name in WHOLE), ("TopK", 0.0), ("UnifiedTopK", 1.0)]
)
def test_with_all_components_it_is_the_dense_layer(name, eta):
    with jax.enable_x64(True):
        arrays, cotangent = layer_arrays(dtype=np.float64), COTANGENT.astype(np.float64)
        memory = memory_for(WHOLE[name], dtype=np.float64)
        ours, memory = layer_gradients(
            KEY, arrays, cotangent, memory, sparsifier=WHOLE[name], eta=eta
        )
        dense = jax.vjp(lambda x, kernel, bias: x @ kernel.T + bias, *arrays)[1](cotangent)
        assert_close(ours, dense, rtol=1e-12, atol=1e-13)
        assert memory.residue is None or not memory.residue.any()
        assert (memory.counts == ROWS).all()


@pytest.mark.parametrize(
    ("name", "dense_bias"),
    [*((name, True) for name in FIXED), ("TopK", False), ("CandidateTopK", False)],
)
def test_gradients_are_those_of_the_propagated_components(name, dense_bias):
    arrays, memory = layer_arrays(), memory_for(FIXED[name])
    options = {} if dense_bias else {"dense_bias": False}
    ours, memory = layer_gradients(
        KEY, arrays, COTANGENT, memory, sparsifier=FIXED[name], **options
    )
    s = np.where(BY_NUMPY[name](COTANGENT), COTANGENT, 0)
    dbias = COTANGENT.sum(0) if dense_bias else s.sum(0)
    assert_close(ours, (s @ arrays[1], s.T @ arrays[0], dbias))
    assert_close(memory.residue, 0.8 * (COTANGENT - s))


@pytest.mark.parametrize("name", ["TopK", "UnifiedTopK", "AdaptiveLadder"])
def test_eta_zero_forgets(name):
    cotangents, arrays = random_array(2, ROWS, N), layer_arrays()
    memory = plain = memory_for(SPARSIFIERS[name])
    options = {"sparsifier": SPARSIFIERS[name]}
    for cotangent in cotangents:
        ours, memory = layer_gradients(KEY, arrays, cotangent, memory, eta=0.0, **options)
        # The same layer, whose residue is thrown away after every step.
        stateless, plain = layer_gradients(KEY, arrays, cotangent, plain, **options)
        plain = plain._replace(residue=np.zeros((ROWS, N), np.float32))
        assert_close(ours, stateless)
        assert_close(memory, plain)


@pytest.mark.parametrize("name", SPARSIFIERS)
def test_smaller_products_equal_masked_ones(name):
    arrays, memory = layer_arrays(), memory_for(SPARSIFIERS[name])
    memory = with_residue(memory, random_array(ROWS, N, seed=9))
    options = {"sparsifier": SPARSIFIERS[name]}
    ours = layer_gradients(KEY, arrays, COTANGENT, memory, **options)
    assert_close(ours, masked(KEY, arrays, COTANGENT, memory, **options))


@pytest.mark.parametrize("name", ["TopK", "CandidateTopK", "UnifiedRandomK", "AdaptiveLadder"])
def test_smaller_products_equal_masked_ones_with_a_shared_memory(name):
    arrays, memory = layer_arrays(), memory_for(SPARSIFIERS[name], "shared")
    memory = with_residue(memory, random_array(N, seed=9))
    options = {"sparsifier": SPARSIFIERS[name], "eta": 0.7, "select_on": "gradient"}
    ours = layer_gradients(KEY, arrays, COTANGENT, memory, **options)
    assert_close(ours, masked(KEY, arrays, COTANGENT, memory, **options))


@pytest.mark.parametrize("name", ["TopK", "UnifiedTopK", "UnifiedRandomK", "AdaptiveLadder"])
def test_the_layouts_agree(name):
    (x, kernel, bias), memory = layer_arrays(), memory_for(SPARSIFIERS[name])
    options = {"sparsifier": SPARSIFIERS[name]}
    ours = layer_gradients(KEY, (x, kernel, bias), COTANGENT, memory, **options)
    other = layer_gradients(
        KEY, (x, kernel.T.copy(), bias), COTANGENT, memory, layout="in_out", **options
    )
    assert_close(ours[0], (other[0][0], other[0][1].T, other[0][2]))
    assert_close(ours[1], other[1])
    y = sparse_dense(KEY, x, kernel.T, bias, memory, layout="in_out", **options)
    assert_close(y, x @ kernel.T + bias)


@pytest.mark.parametrize("name", ["UnifiedTopK", "BlockTopK"])
def test_only_the_chosen_rows_of_the_kernel_have_a_gradient(name):
    (_, dkernel, _), memory = layer_gradients(
        KEY, layer_arrays(), COTANGENT, memory_for(FIXED[name]), sparsifier=FIXED[name]
    )
    chosen = BY_NUMPY[name](COTANGENT)[0]
    assert (np.asarray(dkernel).any(1) == chosen).all()
    assert (memory.counts == ROWS * chosen).all()


def test_a_bias_is_optional():
    x, kernel, bias = layer_arrays()
    ours, _ = layer_gradients(None, (x, kernel), COTANGENT, sparsifier=FIXED["UnifiedTopK"])
    other, _ = layer_gradients(None, (x, kernel, bias), COTANGENT, sparsifier=FIXED["UnifiedTopK"])
    assert_close(ours, other[:2])


@pytest.mark.parametrize("name", ["TopK", "UnifiedTopK", "AdaptiveLadder"])
def test_leading_axes_are_rows(name):
    x, kernel, bias = layer_arrays(rows=6)
    cotangent, sparsifier = random_array(6, N), SPARSIFIERS[name]
    flat, memory = layer_gradients(
        None, (x, kernel, bias), cotangent, memory_for(sparsifier, shape=(6, N)),
        sparsifier=sparsifier,
    )  # fmt: skip
    ours, other = layer_gradients(
        None, (x.reshape(2, 3, N_IN), kernel, bias), cotangent.reshape(2, 3, N),
        memory_for(sparsifier, shape=(2, 3, N)), sparsifier=sparsifier,
    )  # fmt: skip
    assert_close((ours[0].reshape(6, N_IN), *ours[1:]), flat)
    assert_close(other.residue.reshape(6, N), memory.residue)


def test_one_row_and_one_component():
    (x, kernel, bias), cotangent = layer_arrays(rows=1), random_array(1, N)
    at = np.abs(cotangent[0]).argmax()
    for kind in (backprop.TopK, backprop.UnifiedTopK):
        (dx, dkernel, _), _ = layer_gradients(
            None, (x, kernel, bias), cotangent, init_memory("slot", (1, N)), sparsifier=kind(1)
        )
        assert_close(dx[0], cotangent[0, at] * kernel[at])
        assert_close(dkernel, np.outer(np.eye(N)[at] * cotangent[0, at], x))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("TopK", jnp.bfloat16),
        ("UnifiedTopK", jnp.bfloat16),
        ("UnifiedTopK", jnp.float16),
        ("ImportanceSampling", jnp.bfloat16),
        ("AdaptiveLadder", jnp.float16),
    ],
)
def test_half_precision_gives_gradients_of_its_own_and_a_wide_memory(name, dtype):
    arrays = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), layer_arrays())
    cotangent, memory = jnp.asarray(COTANGENT, dtype), memory_for(SPARSIFIERS[name])
    options = {"sparsifier": SPARSIFIERS[name]}
    ours, following = layer_gradients(KEY, arrays, cotangent, memory, **options)
    wide = jax.tree.map(lambda leaf: leaf.astype(np.float32), (arrays, cotangent))
    expected, remembered = layer_gradients(KEY, *wide, memory, **options)
    assert all(leaf.dtype == dtype for leaf in ours)
    assert following.counts.dtype == np.float32
    assert following.residue is None or following.residue.dtype == np.float32
    assert_close(
        jax.tree.map(lambda leaf: leaf.astype(np.float32), ours), expected, rtol=0.05, atol=0.05
    )
    assert_close(following, remembered)


@pytest.mark.parametrize("name", SPARSIFIERS)
def test_a_cotangent_of_zeros_gives_zeros(name):
    memory = memory_for(SPARSIFIERS[name])
    ours, following = layer_gradients(
        KEY, layer_arrays(), np.zeros_like(COTANGENT), memory, sparsifier=SPARSIFIERS[name]
    )
    assert all_finite((ours, following))
    assert not any(leaf.any() for leaf in jax.tree.leaves((ours, following.residue)))


@pytest.mark.parametrize("fault", [np.nan, np.inf])
@pytest.mark.parametrize("name", [one for one in SPARSIFIERS if "RandomK" not in one])
def test_what_is_not_finite_reaches_the_gradients(name, fault):
    cotangent = COTANGENT.copy()
    cotangent[2, 5] = fault
    memory = memory_for(SPARSIFIERS[name])
    (dx, dkernel, _), _ = layer_gradients(
        KEY, layer_arrays(), cotangent, memory, sparsifier=SPARSIFIERS[name]
    )
    assert not np.isfinite(dx[2]).any()
    assert not np.isfinite(dkernel[5]).any()


@pytest.mark.parametrize("name", [one for one in RANDOM if "unscaled" in one])
def test_random_components_do_not_depend_on_what_is_not_finite(name):
    (dx, _, _), memory = layer_gradients(
        KEY, layer_arrays(), np.full_like(COTANGENT, np.nan), memory_for(RANDOM[name]),
        sparsifier=RANDOM[name],
    )  # fmt: skip
    assert np.isnan(dx).all()
    assert np.isnan(memory.residue).any()


@pytest.mark.parametrize(
    ("name", "layout"), [*((name, "out_in") for name in COLUMNS), ("UnifiedTopK", "in_out")]
)
def test_a_compact_gradient_makes_the_same_step(name, layout):
    x, kernel, bias = layer_arrays()
    kernel = kernel if layout == "out_in" else kernel.T.copy()
    options = {"sparsifier": COLUMNS[name], "layout": layout}
    memory = with_residue(memory_for(COLUMNS[name]), random_array(ROWS, N, seed=9))
    (dx, dkernel, dbias), following = layer_gradients(
        KEY, (x, kernel, bias), COTANGENT, memory, **options
    )

    def layer(x, bias, memory, compact):
        return sparse_dense(KEY, x, kernel, bias, memory, compact=compact, **options)

    compact = empty_compact(kernel, COLUMNS[name], layout=layout)
    ours = jax.jit(lambda *at: jax.vjp(layer, *at)[1](COTANGENT))(x, bias, memory, compact)
    assert_close(ours[:3], (dx, dbias, following))
    assert ours[3].rows.shape == (len(ours[3].columns), N_IN)
    assert len(ours[3].columns) < N
    stepped = add_compact(jnp.asarray(kernel), ours[3], -0.1, layout=layout)
    assert_close(stepped, kernel - 0.1 * dkernel)


@partial(jax.jit, static_argnums=1)
@jax.value_and_grad
def nonlinear_loss(kernel, sparsifier):
    y = sparse_dense(KEY, random_array(ROWS, N_IN), kernel, sparsifier=sparsifier)
    return jnp.sum(jnp.tanh(y) ** 2)


@pytest.mark.parametrize(
    ("k", "right"), [(N, True), (N // 2, False)], ids=["all components", "half of them"]
)
@pytest.mark.parametrize("kind", [backprop.TopK, backprop.UnifiedTopK, backprop.RandomK])
def test_finite_differences_agree_only_with_all_components(kind, k, right):
    with jax.enable_x64(True):
        kernel = random_array(N, N_IN, seed=1, dtype=np.float64)
        direction = random_array(N, N_IN, seed=2, dtype=np.float64)
        slope = np.sum(nonlinear_loss(kernel, kind(k))[1] * direction)
        ends = [nonlinear_loss(kernel + step * direction, kind(k))[0] for step in (1e-6, -1e-6)]
        difference = (ends[0] - ends[1]) / 2e-6
        assert (abs(slope - difference) < 1e-6 * abs(difference)) == right


def test_the_precision_of_the_products_can_be_chosen():
    def layer(x, kernel):
        return sparse_dense(None, x, kernel, sparsifier=FIXED["UnifiedTopK"], precision="highest")

    x, kernel, _ = layer_arrays()
    text = str(jax.make_jaxpr(lambda: jax.vjp(layer, x, kernel)[1](COTANGENT))())
    assert text.count("dot_general") == text.count("(Precision.HIGHEST, Precision.HIGHEST)") == 3
