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
from tests.ops.examples import all_finite, assert_close, assert_names_itself_and_its_cure

B, N_IN, N_OUT = 5, 6, 8
X = jax.random.normal(jax.random.key(1), (B, N_IN))
TARGET = jax.random.normal(jax.random.key(2), (B, N_OUT))
SLOT = {"sparsifier": TopK(2), "memory": "slot", "batch_shape": (B,)}
FOUND_OUTSIDE = ("a memory outside", "a gradient with respect", "DiffState(0, TRAINED)")


def make(**options):
    return SparseBackpropLinear(N_IN, N_OUT, **options, rngs=nnx.Rngs(0, sample=1))


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
    dense = nnx.Linear(N_IN, N_OUT, use_bias=use_bias, rngs=nnx.Rngs(3))
    sparse = SparseBackpropLinear(N_IN, N_OUT, use_bias=use_bias, rngs=nnx.Rngs(3))
    assert_close(nnx.to_pure_dict(nnx.state(sparse)), nnx.to_pure_dict(nnx.state(dense)))
    np.testing.assert_array_equal(sparse(X), dense(X))


def test_a_transposed_kernel_is_the_same_layer():
    one, other = make(), make(layout="out_in")
    np.testing.assert_array_equal(one.kernel[...], other.kernel[...].T)
    assert_close(one(X), other(X))
    assert_close(gradient_of(one)["kernel"][...], gradient_of(other)["kernel"][...].T)


def test_gradients_are_those_of_the_function():
    layer = make(**SLOT, eta=0.5)

    def loss(kernel, bias, memory):
        y = sparse_dense(
            None, X, kernel, bias, memory, sparsifier=TopK(2), eta=0.5, layout="in_out"
        )
        return jnp.mean((y - TARGET) ** 2)

    arrays = layer.kernel[...], layer.bias[...], layer.memory.get_value()
    kernel, bias, memory = jax.grad(loss, argnums=(0, 1, 2))(*arrays)
    gradient = gradient_of(layer)
    assert_close(gradient["kernel"][...], kernel)
    assert_close(gradient["bias"][...], bias)
    assert_close(gradient["memory"].get_value(), memory)


def test_evaluation_has_the_exact_gradient():
    layer, dense = make(**SLOT), nnx.Linear(N_IN, N_OUT, rngs=nnx.Rngs(0))
    layer.eval()
    expected = nnx.grad(loss_of)(dense)
    assert_close(nnx.grad(loss_of)(layer)["kernel"][...], expected["kernel"][...])
    layer.train()
    assert not np.allclose(gradient_of(layer)["kernel"][...], expected["kernel"][...])
    one = nnx.grad(lambda layer: jnp.mean((layer(X, deterministic=True) - TARGET) ** 2))(layer)
    assert_close(one["kernel"][...], expected["kernel"][...])


def test_evaluation_takes_any_batch():
    layer = make(**SLOT)
    assert layer(X[:2]).shape == (2, N_OUT)
    layer.eval()
    assert layer(X[0]).shape == (N_OUT,)


@pytest.mark.parametrize("options", [SLOT, {"memory": "shared"}, {}, {"count": True}])
def test_training_moves_memories_on_and_keeps_them_from_the_optimizer(options):
    model = Network(nnx.Rngs(0, sample=1), **options)
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        loss, gradient = nnx.value_and_grad(loss_of, argnums=nnx.DiffState(0, TRAINED))(model)
        optimizer.update(model, carry_memory(model, gradient))
        return loss

    losses = [float(step(model, optimizer)) for _ in range(150)]
    assert losses[-1] < 0.3 * losses[0]
    memory = nnx.state(model, BackpropMemory)
    assert all_finite(memory)
    if options:
        kept = model.first.memory.get_value()
        assert kept.uses == 1
        assert kept.residue is None or bool(jnp.any(kept.residue != 0))
    moments = jax.tree.leaves(nnx.state(optimizer))
    parameters = jax.tree.leaves(nnx.state(model, nnx.Param))
    assert len(moments) == 2 * len(parameters) + 2  # two moments of each, two counts
    reset_memory(model)
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(nnx.state(model, BackpropMemory)))


def test_counts_are_those_of_the_rows():
    layer = make(sparsifier=UnifiedTopK(2), count=True)
    carry_memory(layer, gradient_of(layer))
    memory = layer.memory.get_value()
    assert sorted(memory.counts.tolist()) == [0] * 6 + [B] * 2
    assert share_of_units_used(memory) == 2 / N_OUT


def test_adaptive_sparsifiers_get_their_peak():
    layer = make(sparsifier=AdaptiveTopK())
    carry_memory(layer, gradient_of(layer))
    cotangent = 2 * (layer(X) - TARGET) / TARGET.size
    assert_close(layer.memory.get_value().peak, jnp.abs(cotangent).sum(axis=1).max())


def test_random_sparsifiers_use_the_stream_or_the_key_they_are_given():
    layer = make(sparsifier=RandomK(2))

    def gradient(rngs=None):
        def loss(layer, rngs):
            return jnp.mean((layer(X, rngs=rngs) - TARGET) ** 2)

        return nnx.grad(loss)(layer, rngs)["kernel"][...]

    one, two = gradient(jax.random.key(3)), gradient(jax.random.key(3))
    np.testing.assert_array_equal(one, two)
    assert not np.allclose(one, gradient(nnx.Rngs(sample=4)))
    assert not np.allclose(gradient(), gradient())


def test_types_are_those_of_a_linear_layer():
    options = {"dtype": jnp.bfloat16, "param_dtype": jnp.float32}
    dense = nnx.Linear(N_IN, N_OUT, **options, rngs=nnx.Rngs(0))
    layer = make(**SLOT, **options)
    assert layer(X).dtype == jnp.bfloat16
    np.testing.assert_array_equal(layer(X), dense(X))
    gradient = gradient_of(layer)
    assert gradient["kernel"].dtype == jnp.float32
    assert gradient["memory"].get_value().residue.dtype == jnp.float32
    assert all_finite(gradient)


def test_a_gradient_of_parameters_alone_is_an_error():
    layer = make(**SLOT)
    assert_names_itself_and_its_cure(lambda: nnx.grad(loss_of)(layer), *FOUND_OUTSIDE)


def test_a_gradient_without_memories_is_an_error():
    layer = make(**SLOT)
    gradient = nnx.filter_state(gradient_of(layer), nnx.Param)
    assert_names_itself_and_its_cure(
        lambda: carry_memory(layer, gradient), "0 arrays", "every memory", "TRAINED"
    )


def test_a_layer_called_twice_is_an_error():
    layer = SparseBackpropLinear(N_OUT, N_OUT, **SLOT, rngs=nnx.Rngs(0))
    gradient = gradient_of(layer, lambda layer: jnp.sum(layer(layer(TARGET))))
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
    layer = make(**SLOT)
    assert_names_itself_and_its_cure(lambda: layer(X[:, 1:]), "(5, 5)", "length 6", "6")

    def short(layer):
        return jnp.sum(layer(X[:3]))

    assert_names_itself_and_its_cure(
        lambda: gradient_of(layer, short), "(5, 8) for an output of shape (3, 8)", "(3, 8)", "drop"
    )


def test_forgetting_may_change_the_batch():
    layer = make(**SLOT)
    carry_memory(layer, gradient_of(layer))
    reset_memory(layer, batch_shape=(3,))
    carry_memory(layer, gradient_of(layer, lambda layer: jnp.sum(layer(X[:3]) ** 2)))
    assert layer.memory.get_value().residue.shape == (3, N_OUT)
    shared = make(memory="shared")
    reset_memory(shared, batch_shape=(3,))
    assert shared.memory.get_value().residue.shape == (N_OUT,)


def test_microbatches_with_a_memory_each_are_steps_of_their_own():
    layer = make(sparsifier=TopK(2), memory="slot", batch_shape=(2, B))
    both = jnp.stack([X, 2 * X])

    def loss(layer):
        return jnp.sum((layer(both) - 1) ** 2)

    carry_memory(layer, gradient_of(layer, loss))
    for number, x in enumerate(both):
        alone = make(**SLOT)
        part = lambda layer, x=x: jnp.sum((layer(x) - 1) ** 2)  # noqa: E731
        carry_memory(alone, gradient_of(alone, part))
        assert_close(layer.memory.get_value().residue[number], alone.memory.get_value().residue)


def test_wide_parameters_have_a_wide_memory():
    with jax.enable_x64(True):
        layer = make(**SLOT, param_dtype=jnp.float64)
        assert layer.memory.get_value().residue.dtype == jnp.float64


def test_metadata_reaches_the_parameters():
    layer = make(kernel_metadata={"note": 2}, bias_metadata={"note": 1})
    assert layer.kernel.get_metadata()["note"] == 2
    assert layer.bias.get_metadata()["note"] == 1


def test_linen_train_state_carries_the_memory():
    class Model(linen.Module):
        @linen.compact
        def __call__(self, x):
            layer = nnx.bridge.to_linen(SparseBackpropLinear, N_IN, N_OUT, **SLOT)
            return linen.Dense(3)(linen.relu(layer(x)))

    model = Model()
    state = TrainState.create(
        apply_fn=model.apply, params=model.init(jax.random.key(0), X), tx=optax.adam(1e-2)
    )
    assert "_overwrite_with_gradient" in state.params

    @jax.jit
    def step(state):
        def loss(params):
            return jnp.mean((state.apply_fn(params, X) - 1) ** 2)

        value, gradient = jax.value_and_grad(loss)(state.params)
        return state.apply_gradients(grads=gradient), value

    state, first = step(state)
    for _ in range(100):
        state, last = step(state)
    assert last < 0.1 * first
    is_memory = lambda node: isinstance(node, Memory)  # noqa: E731
    (memory,) = jax.tree.leaves(state.params["_overwrite_with_gradient"], is_leaf=is_memory)
    assert memory.uses == 1
    assert bool(jnp.any(memory.residue != 0))
    assert memory.residue.shape not in [leaf.shape for leaf in jax.tree.leaves(state.opt_state)]
