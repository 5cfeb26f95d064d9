import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparse_hyper_jax.local import Component, associated_losses, associated_predict
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

from .examples import CLASSES, CODES, DEPTH, INPUTS, WIDTHS, batches, make, parameters_of

HALF = Component(*(lambda x: x / 2,) * 4)


def one_batch():
    xs, targets = batches(1)
    return xs[0], targets[0]


def losses_of(parameters, x, target):
    return associated_losses([make(one) for one in parameters], x, target)


def test_losses_are_those_of_numpy():
    x, target = one_batch()
    parameters = parameters_of()
    losses = jax.jit(losses_of)(parameters, x, target)
    s, t = np.asarray(x, np.float64), np.asarray(target, np.float64)
    for n, part in enumerate(parameters):
        forward, bridge, encode, decode = (np.asarray(w, np.float64) for w in part)
        s, code = np.tanh(s @ forward), np.tanh(t @ encode)
        assert_close(losses.association[n], np.mean((np.tanh(s @ bridge) - code) ** 2))
        assert_close(losses.reconstruction[n], np.mean((np.tanh(code @ decode) - t) ** 2))
        t = code
    assert_close(losses.output, s)
    assert_close(losses.total, losses.association.sum() + losses.reconstruction.sum())


def test_each_loss_has_a_gradient_for_its_own_component_alone():
    """And the gradient of the sum is these, bit for bit."""
    x, target = one_batch()

    @jax.jit
    def gradients(parameters):
        def one(name, n):
            return jax.grad(lambda trees: getattr(losses_of(trees, x, target), name)[n])(parameters)

        total = jax.grad(lambda trees: losses_of(trees, x, target).total)(parameters)
        names = ("association", "reconstruction")
        return total, {name: [one(name, n) for n in range(DEPTH)] for name in names}

    total, parts = jax.device_get(gradients(parameters_of()))
    for name, own in (
        ("association", ("forward", "bridge")),
        ("reconstruction", ("encode", "decode")),
    ):
        for n, gradient in enumerate(parts[name]):
            for number, component in enumerate(gradient):
                for field, slope in component._asdict().items():
                    if number == n and field in own:
                        assert np.abs(slope).max() > 1e-4
                        np.testing.assert_array_equal(slope, getattr(total[n], field))
                    else:
                        assert not slope.any()


def test_no_gradient_leaves_a_network():
    x, target = one_batch()
    parameters = parameters_of()
    back = jax.jit(jax.grad(lambda *inputs: losses_of(parameters, *inputs).total, argnums=(0, 1)))
    assert not any(np.asarray(leaf).any() for leaf in back(x, target))
    leak = jax.jit(jax.grad(lambda p: jnp.sum(losses_of(p, x, target).output)))(parameters)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(leak))


def predicted(parameters, x):
    parts = [make(one) for one in parameters]
    exits = [associated_predict(parts, x, exit_at=n) for n in range(1, DEPTH + 1)]
    return [associated_predict(parts, x), *exits]


def test_prediction_goes_up_over_and_down():
    x, _ = one_batch()
    parameters = parameters_of()
    whole, *exits = jax.jit(predicted)(parameters, x)
    np.testing.assert_array_equal(whole, exits[-1])
    for last, found in enumerate(exits):
        y = np.asarray(x, np.float64)
        way = [one.forward for one in parameters[: last + 1]] + [parameters[last].bridge]
        for matrix in way + [one.decode for one in parameters[last::-1]]:
            y = np.tanh(y @ np.asarray(matrix, np.float64))
        assert found.shape == (4, CLASSES)
        assert_close(found, y)


def test_what_training_alone_needs_takes_no_part_in_prediction():
    x, _ = one_batch()

    def lost(matrix):
        return jnp.full_like(matrix, jnp.nan)

    broken = [
        one._replace(encode=lost(one.encode), bridge=one.bridge if n == 2 else lost(one.bridge))
        for n, one in enumerate(parameters_of())
    ]
    assert np.isfinite(jax.jit(predicted)(broken, x)[0]).all()


def test_modules_are_components():
    """Of Flax, whose parameters are found in them."""
    x, target = one_batch()
    rngs = nnx.Rngs(0)

    def linear(inputs, outputs):
        return nnx.Linear(inputs, outputs, rngs=rngs)

    parts = Component(
        linear(INPUTS, WIDTHS[0]),
        linear(WIDTHS[0], CODES[0]),
        linear(CLASSES, CODES[0]),
        linear(CODES[0], CLASSES),
    )

    @nnx.jit
    def gradient_of(parts):
        return nnx.grad(lambda parts: associated_losses([parts], x, target).total)(parts)

    slopes = jax.tree.leaves(gradient_of(parts))
    assert len(slopes) == 8
    assert all(np.abs(np.asarray(slope)).max() > 0 for slope in slopes)


def test_sixteen_bits_are_summed_in_thirty_two():
    losses = jax.eval_shape(
        lambda x: associated_losses([HALF] * 2, x, x), jax.ShapeDtypeStruct((3,), jnp.bfloat16)
    )
    assert losses.association.dtype == losses.reconstruction.dtype == jnp.float32
    assert losses.output.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("components", "found", "expected"),
    [
        ([], "components []", "at least one Component"),
        (HALF.forward, "components <function", "at least one Component"),
        ([HALF, HALF.forward], "component 2 of type function", "a Component"),
        ([tuple(HALF)], "component 1 of type tuple", "a Component"),
        ([HALF._replace(bridge=None)], "bridge of component 1=None", "a function"),
        ([HALF, HALF._replace(decode=lambda t: t[:1])], "shape (1,)", "(4,)"),
        ([HALF._replace(bridge=lambda s: s.sum())], "shape ()", "(4,)"),
        ([HALF._replace(bridge=lambda s: "no")], "the output of bridge", "real numbers"),
        ([HALF._replace(forward=lambda s: None)], "forward of component 1=None", "real numbers"),
        ([HALF, HALF._replace(encode=lambda t: {"t": t})], "encode of component 2=", "real"),
    ],
)
def test_wrong_components_are_told(components, found, expected):
    x = jnp.ones(4)
    assert_names_itself_and_its_cure(
        lambda: jax.eval_shape(lambda x: associated_losses(components, x, x), x),
        found,
        expected,
        "",
    )


@pytest.mark.parametrize("number", [0, 3, 1.5, True, "1"])
def test_an_exit_is_the_number_of_a_component(number):
    assert_names_itself_and_its_cure(
        lambda: associated_predict([HALF] * 2, jnp.ones(4), exit_at=number), "exit_at", "", ""
    )


def test_a_prediction_is_an_array():
    assert_names_itself_and_its_cure(
        lambda: associated_predict([HALF._replace(decode=lambda t: "no")], jnp.ones(4)),
        "the output of decode of component 1='no'",
        "real numbers",
        "",
    )
