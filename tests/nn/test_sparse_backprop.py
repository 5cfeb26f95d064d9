import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training.train_state import TrainState

from sparse_hyper_jax.backprop import (
    AdaptiveTopK,
    Memory,
    RandomK,
    TopK,
    UnifiedTopK,
    share_of_units_used,
    sparse_dense,
)
from sparse_hyper_jax.nn import (
    TRAINED,
    BackpropMemory,
    SparseBackpropLinear,
    carry_memory,
    reset_memory,
)
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

from .examples import at_once

B, N_IN, N_OUT = 5, 6, 8
X, TARGET = (
    jnp.asarray(np.random.default_rng(seed).normal(size=(B, size)), jnp.float32)
    for seed, size in enumerate((N_IN, N_OUT))
)
SLOT = {"sparsifier": TopK(2), "memory": "slot", "batch_shape": (B,)}
FOUND_OUTSIDE = ("a memory outside", "a gradient with respect", "DiffState(0, TRAINED)")


def make(**options):
    return SparseBackpropLinear(N_IN, N_OUT, **options, rngs=nnx.Rngs(0, sample=1))


def never_run(call):
    """Trace what would be computed."""
    return nnx.eval_shape(call)


def all_finite(tree):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


def loss_of(model):
    return jnp.mean((model(X) - TARGET) ** 2)


def gradient_of(model, loss=loss_of):
    return nnx.grad(loss, argnums=nnx.DiffState(0, TRAINED))(model)


class Network(nnx.Module):
    def __init__(self, rngs, **options):
        self.first = SparseBackpropLinear(N_IN, 7, **options, rngs=rngs)
        self.second = SparseBackpropLinear(7, 7, sparsifier=RandomK(2), rngs=rngs)
        self.last = nnx.Linear(7, N_OUT, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.relu(self.second(nnx.relu(self.first(x)))))


@pytest.mark.parametrize("use_bias", [True, False])
def test_drop_in_has_the_parameters_and_the_output_of_a_linear_layer(use_bias):
    @at_once
    def results():
        layers = [
            kind(N_IN, N_OUT, use_bias=use_bias, rngs=nnx.Rngs(3))
            for kind in (nnx.Linear, SparseBackpropLinear)
        ]
        return [(nnx.to_pure_dict(nnx.state(layer)), layer(X)) for layer in layers]

    (dense, expected), (sparse, y) = results
    assert_close(sparse, dense)
    np.testing.assert_array_equal(y, expected)


def test_a_transposed_kernel_is_the_same_layer():
    @at_once
    def results():
        layers = make(), make(layout="out_in")
        return [
            (layer.kernel[...], gradient_of(layer)["kernel"][...], layer(X)) for layer in layers
        ]

    (kernel, gradient, y), (other_kernel, other_gradient, other_y) = results
    np.testing.assert_array_equal(kernel, other_kernel.T)
    assert_close(y, other_y)
    assert_close(gradient, other_gradient.T)


def test_gradients_are_those_of_the_function():
    def loss(kernel, bias, memory):
        y = sparse_dense(
            None, X, kernel, bias, memory, sparsifier=TopK(2), eta=0.5, layout="in_out"
        )
        return jnp.mean((y - TARGET) ** 2)

    @at_once
    def results():
        layer = make(**SLOT, eta=0.5)
        arrays = layer.kernel[...], layer.bias[...], layer.memory.get_value()
        gradient = gradient_of(layer)
        found = gradient["kernel"][...], gradient["bias"][...], gradient["memory"].get_value()
        return found, jax.grad(loss, argnums=(0, 1, 2))(*arrays)

    assert_close(*results)


def test_evaluation_has_the_exact_gradient():
    def deterministic_loss(layer):
        return jnp.mean((layer(X, deterministic=True) - TARGET) ** 2)

    @at_once
    def gradients():
        layer, dense = make(**SLOT), nnx.Linear(N_IN, N_OUT, rngs=nnx.Rngs(0))
        layer.eval()
        found = {"dense": nnx.grad(loss_of)(dense), "evaluated": nnx.grad(loss_of)(layer)}
        layer.train()
        found |= {"trained": gradient_of(layer), "called": nnx.grad(deterministic_loss)(layer)}
        return {name: gradient["kernel"][...] for name, gradient in found.items()}

    assert_close(gradients["evaluated"], gradients["dense"])
    assert_close(gradients["called"], gradients["dense"])
    assert not np.allclose(gradients["trained"], gradients["dense"])


def test_evaluation_takes_any_batch():
    layer = nnx.eval_shape(lambda: make(**SLOT))

    def shape_of(x):
        return nnx.eval_shape(lambda layer, x: layer(x), layer, x).shape

    assert shape_of(X[:2]) == (2, N_OUT)
    layer.eval()
    assert shape_of(X[0]) == (N_OUT,)


@pytest.mark.parametrize("options", [SLOT, {"memory": "shared"}, {}, {"count": True}])
def test_training_moves_memories_on_and_keeps_them_from_the_optimizer(options):
    @nnx.jit
    def train():
        model = Network(nnx.Rngs(0, sample=1), **options)
        optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

        @nnx.scan(in_axes=nnx.Carry, length=150)
        def steps(state):
            model, optimizer = state
            loss, gradient = nnx.value_and_grad(loss_of, argnums=nnx.DiffState(0, TRAINED))(model)
            optimizer.update(model, carry_memory(model, gradient))
            return state, loss

        (model, optimizer), losses = steps((model, optimizer))
        return model, nnx.state(optimizer), losses

    model, optimizer, losses = train()
    assert losses[-1] < 0.3 * losses[0]
    memory = nnx.state(model, BackpropMemory)
    assert all_finite(memory)
    if options:
        kept = model.first.memory.get_value()
        assert kept.uses == 1
        assert kept.residue is None or np.any(np.asarray(kept.residue) != 0)
    moments = jax.tree.leaves(optimizer)
    parameters = jax.tree.leaves(nnx.state(model, nnx.Param))
    assert len(moments) == 2 * len(parameters) + 2  # two moments of each, two counts
    reset_memory(model)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(nnx.state(model, BackpropMemory)))


def test_counts_are_those_of_the_rows():
    @at_once
    def counts_and_share():
        layer = make(sparsifier=UnifiedTopK(2), count=True)
        carry_memory(layer, gradient_of(layer))
        memory = layer.memory.get_value()
        return memory.counts, share_of_units_used(memory)

    counts, share = counts_and_share
    assert sorted(counts.tolist()) == [0] * 6 + [B] * 2
    assert share == 2 / N_OUT


def test_adaptive_sparsifiers_get_their_peak():
    @at_once
    def peak_and_output():
        layer = make(sparsifier=AdaptiveTopK())
        carry_memory(layer, gradient_of(layer))
        return layer.memory.get_value().peak, layer(X)

    peak, y = peak_and_output
    cotangent = 2 * (y - np.asarray(TARGET)) / TARGET.size
    assert_close(peak, np.abs(cotangent).sum(axis=1).max())


def test_random_sparsifiers_use_the_stream_or_the_key_they_are_given():
    @jax.jit
    def gradients(key):
        layer = make(sparsifier=RandomK(2))

        def loss(layer, rngs):
            return jnp.mean((layer(X, rngs=rngs) - TARGET) ** 2)

        sources = key, nnx.Rngs(sample=4), None, None
        return [nnx.grad(loss)(layer, rngs)["kernel"][...] for rngs in sources]

    one, two = (jax.device_get(gradients(jax.random.key(seed))) for seed in (3, 5))
    assert not np.allclose(one[0], two[0])
    np.testing.assert_array_equal(one[1:], two[1:])
    assert not np.allclose(one[0], one[1])
    assert not np.allclose(one[2], one[3])


def test_types_are_those_of_a_linear_layer():
    options = {"dtype": jnp.bfloat16, "param_dtype": jnp.float32}

    @at_once
    def results():
        dense = nnx.Linear(N_IN, N_OUT, **options, rngs=nnx.Rngs(0))
        layer = make(**SLOT, **options)
        gradient = gradient_of(layer)
        return layer(X), dense(X), nnx.to_pure_dict(gradient)

    y, expected, gradient = results
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, expected)
    assert gradient["kernel"].dtype == jnp.float32
    assert gradient["memory"].residue.dtype == jnp.float32
    assert all_finite(gradient)


def test_a_gradient_of_parameters_alone_is_an_error():
    assert_names_itself_and_its_cure(
        lambda: never_run(lambda: nnx.grad(loss_of)(make(**SLOT))), *FOUND_OUTSIDE
    )


def test_a_gradient_without_memories_is_an_error():
    def carry():
        layer = make(**SLOT)
        carry_memory(layer, nnx.filter_state(gradient_of(layer), nnx.Param))

    assert_names_itself_and_its_cure(
        lambda: never_run(carry), "0 arrays", "every memory", "TRAINED"
    )


def test_a_layer_called_twice_is_an_error():
    @nnx.jit
    def layer_and_gradient():
        layer = SparseBackpropLinear(N_OUT, N_OUT, **SLOT, rngs=nnx.Rngs(0))
        return layer, gradient_of(layer, lambda layer: jnp.sum(layer(layer(TARGET))))

    layer, gradient = layer_and_gradient()
    assert_names_itself_and_its_cure(
        lambda: carry_memory(layer, gradient), "2 backward passes", "one call", "per call site"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sparsifier": 0.04}, ("sparsifier=0.04", "Sparsifier", "make one")),
        ({"memory": "slot"}, ("without batch_shape", "lengths", "shared")),
        ({"memory": "big"}, ("memory='big'", "'slot'", "choose")),
        ({"layout": "io"}, ("layout='io'", "'in_out'", "choose")),
        ({"eta": 2.0}, ("eta=2.0", "1", "")),
        ({"select_on": "x"}, ("select_on='x'", "'corrected'", "choose")),
        ({"sparsifier": TopK(9)}, ("k=9 of 8", "at most 8", "lower k")),
        ({"sparsifier": UnifiedTopK(9, "data")}, ("k=9 of 8", "at most 8", "lower k")),
        (SLOT | {"batch_shape": 5}, ("batch_shape=5", "a tuple of ints", "(8, 8)")),
        (SLOT | {"sparsifier": RandomK(2)}, ("RandomK", "grow without bound", "no residue")),
    ],
)
def test_nonsense_is_refused_when_the_layer_is_made(options, words):
    assert_names_itself_and_its_cure(lambda: make(**options), *words)


def test_inputs_of_another_width_or_batch_are_refused():
    assert_names_itself_and_its_cure(
        lambda: never_run(lambda: make(**SLOT)(X[:, 1:])), "(5, 5)", "length 6", "6"
    )

    def short(layer):
        return jnp.sum(layer(X[:3]))

    assert_names_itself_and_its_cure(
        lambda: never_run(lambda: gradient_of(make(**SLOT), short)),
        *("(5, 8) for an output of shape (3, 8)", "(3, 8)", "drop"),
    )


def test_forgetting_may_change_the_batch():
    def squares(layer):
        return jnp.sum(layer(X[:3]) ** 2)

    @nnx.jit
    def gradients():
        layer = make(**SLOT)
        gradient = gradient_of(layer)
        reset_memory(layer, batch_shape=(3,))
        return gradient, gradient_of(layer, squares)

    # Outside of jit, where the number of backward passes is known.
    layer, (first, second) = nnx.jit(lambda: make(**SLOT))(), gradients()
    carry_memory(layer, first)
    reset_memory(layer, batch_shape=(3,))
    carry_memory(layer, second)
    assert layer.memory.get_value().residue.shape == (3, N_OUT)
    shared = nnx.jit(lambda: make(memory="shared"))()
    reset_memory(shared)
    assert shared.memory.get_value().residue.shape == (N_OUT,)
    with pytest.raises(ValueError, match="without memories of slots"):
        reset_memory(shared, batch_shape=(3,))


def test_microbatches_with_a_memory_each_are_steps_of_their_own():
    def residue(batch_shape, x):
        layer = make(sparsifier=TopK(2), memory="slot", batch_shape=batch_shape)
        gradient = gradient_of(layer, lambda layer: jnp.sum((layer(x) - 1) ** 2))
        carry_memory(layer, gradient)
        return layer.memory.get_value().residue

    @at_once
    def residues():
        both = jnp.stack([X, 2 * X])
        return residue((2, B), both), jax.lax.map(lambda x: residue((B,), x), both)

    assert_close(*residues)


def test_wide_parameters_have_a_wide_memory():
    with jax.enable_x64(True):
        layer = nnx.eval_shape(lambda: make(**SLOT, param_dtype=jnp.float64))
        assert layer.memory.get_value().residue.dtype == jnp.float64


def test_metadata_reaches_the_parameters():
    options = {"kernel_metadata": {"note": 2}, "bias_metadata": {"note": 1}}
    layer = nnx.eval_shape(lambda: make(**options))
    assert layer.kernel.get_metadata()["note"] == 2
    assert layer.bias.get_metadata()["note"] == 1


def test_linen_train_state_carries_the_memory():
    class Model(linen.Module):
        @linen.compact
        def __call__(self, x):
            layer = nnx.bridge.to_linen(SparseBackpropLinear, N_IN, N_OUT, **SLOT)
            return linen.Dense(3)(linen.relu(layer(x)))

    model = Model()

    @jax.jit
    def train():
        state = TrainState.create(
            apply_fn=model.apply, params=model.init(jax.random.key(0), X), tx=optax.adam(1e-2)
        )

        def step(state, _):
            def loss(params):
                return jnp.mean((state.apply_fn(params, X) - 1) ** 2)

            value, gradient = jax.value_and_grad(loss)(state.params)
            return state.apply_gradients(grads=gradient), value

        return jax.lax.scan(step, state, length=100)

    state, losses = train()
    assert "_overwrite_with_gradient" in state.params
    assert losses[-1] < 0.1 * losses[0]
    is_memory = lambda node: isinstance(node, Memory)  # noqa: E731
    (memory,) = jax.tree.leaves(state.params["_overwrite_with_gradient"], is_leaf=is_memory)
    assert memory.uses == 1
    assert np.any(np.asarray(memory.residue) != 0)
    assert memory.residue.shape not in [leaf.shape for leaf in jax.tree.leaves(state.opt_state)]
