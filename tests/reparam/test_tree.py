import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from sparse_hyper_jax.reparam import Reparametrization, is_kernel, powerprop
from tests.ops.examples import assert_names_itself_and_its_cure

X = np.random.default_rng(0).normal(size=(5, 4)).astype("f")
ALPHAS = [1, 1.25, 1.5, 2, 2.3, 3, 5]


class LinenModel(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(2)(jnp.tanh(linen.LayerNorm()(linen.Dense(6)(x))))


class NNXModel(nnx.Module):
    def __init__(self, rngs):
        self.one, self.two = nnx.Linear(4, 6, rngs=rngs), nnx.Linear(6, 2, rngs=rngs)
        self.norm = nnx.LayerNorm(6, rngs=rngs)

    def __call__(self, x):
        return self.two(jnp.tanh(self.norm(self.one(x))))


class Tied(nnx.Module):
    def __init__(self, rngs):
        self.one = nnx.Linear(4, 4, rngs=rngs)
        self.two = self.one

    def __call__(self, x):
        return self.two(jnp.tanh(self.one(x)))


def in_nnx(model_class=NNXModel):
    definition, params = nnx.split(model_class(nnx.Rngs(0)), nnx.Param)
    return params, lambda params: nnx.merge(definition, params)(X)


def in_linen():
    model = LinenModel()
    return model.init(jax.random.key(0), X), lambda params: model.apply(params, X)


def in_a_dict():
    generator = np.random.default_rng(1)
    params = {
        "one": {"kernel": generator.normal(size=(4, 6)), "bias": generator.normal(size=6)},
        "two": {"kernel": generator.normal(size=(6, 2)), "bias": generator.normal(size=2)},
    }
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)

    def apply(params):
        one, two = params["one"], params["two"]
        return jnp.tanh(X @ one["kernel"] + one["bias"]) @ two["kernel"] + two["bias"]

    return params, apply


MODELS = {"nnx": in_nnx, "linen": in_linen, "dict": in_a_dict}


def by_name(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_the_network_begins_as_the_same_for_every_alpha(make):
    params, apply = make()
    apply = jax.jit(apply)
    expected = apply(params)
    for alpha in ALPHAS:
        reparam = powerprop(alpha)
        theta = reparam.to_theta(params)
        assert jax.tree.structure(theta) == jax.tree.structure(params)
        np.testing.assert_allclose(apply(reparam.to_weights(theta)), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_kernels_are_raised_and_everything_else_is_untouched(make):
    params, _ = make()
    theta = powerprop(2.0).to_theta(params)
    before, after = by_name(params), by_name(theta)
    kernels = {name for name in before if "kernel" in name}
    assert len(kernels) == 2
    for name, weights in before.items():
        root = np.sign(weights) * np.sqrt(np.abs(weights))
        np.testing.assert_allclose(after[name], root if name in kernels else weights, rtol=1e-6)
        assert name in kernels or after[name].tobytes() == weights.tobytes()


def test_tied_weights_are_one_leaf_and_get_the_gradients_of_both_uses():
    params, apply = in_nnx(Tied)
    assert len(jax.tree.leaves(params)) == 2
    reparam = powerprop(2.0)
    theta = reparam.to_theta(params)
    np.testing.assert_allclose(apply(reparam.to_weights(theta)), apply(params), atol=1e-6)
    (kernel,) = [leaf for leaf in jax.tree.leaves(theta) if leaf.ndim == 2]
    gradient = jax.grad(lambda theta: jnp.sum(apply(reparam.to_weights(theta))))(theta)
    (ours,) = [leaf for leaf in jax.tree.leaves(gradient) if leaf.ndim == 2]

    def untied(first, second):
        return jnp.sum(jnp.tanh(X @ (first * jnp.abs(first))) @ (second * jnp.abs(second)))

    expected = sum(jax.grad(untied, argnums=(0, 1))(kernel, kernel))
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_weights_may_be_16_bits_while_theta_stays_32():
    params, _ = in_a_dict()
    reparam = powerprop(3.0, dtype=jnp.bfloat16)
    theta = reparam.to_theta(jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params))
    weights = reparam.to_weights(theta)
    assert theta["one"]["kernel"].dtype == jnp.float32
    assert weights["one"]["kernel"].dtype == jnp.bfloat16
    assert weights["one"]["bias"].dtype == jnp.bfloat16
    # One rounding, of a root that is exact to float32.
    expected = params["one"]["kernel"].astype(jnp.bfloat16)
    assert (weights["one"]["kernel"] == expected).all()
    gradient = jax.grad(
        lambda theta: jnp.sum(reparam.to_weights(theta)["one"]["kernel"].astype(jnp.float32))
    )(theta)
    np.testing.assert_allclose(
        gradient["one"]["kernel"], 3 * theta["one"]["kernel"] ** 2, rtol=1e-6
    )


def test_groups_of_a_tree():
    params, _ = in_a_dict()
    reparam = powerprop(2.0, axes=(0,))
    theta = reparam.to_theta(params)["one"]["kernel"]
    kernel = np.asarray(params["one"]["kernel"])
    np.testing.assert_allclose(theta, kernel / np.sqrt(np.linalg.norm(kernel, axis=0)), rtol=1e-5)
    weights = reparam.to_weights(reparam.to_theta(params))["one"]["kernel"]
    np.testing.assert_allclose(weights, kernel, rtol=1e-5)


def test_filters_that_exclude_each_other_give_two_alphas():
    params, apply = in_a_dict()

    def only(name):
        return lambda path, leaf: is_kernel(path, leaf) and path.startswith(name)

    one, two = powerprop(2.0, select=only("one")), powerprop(4.0, select=only("two"))
    theta = two.to_theta(one.to_theta(params))
    for name, alpha in [("one", 2), ("two", 4)]:
        sizes = np.abs(params[name]["kernel"])
        np.testing.assert_allclose(
            np.abs(theta[name]["kernel"]), sizes ** (1 / alpha), rtol=1e-5, atol=1e-7
        )
    again = one.to_weights(two.to_weights(theta))
    np.testing.assert_allclose(apply(again), apply(params), atol=1e-5)


def test_a_filter_sees_names_between_slashes():
    seen = {}

    def spy(path, leaf):
        seen[path] = leaf.shape
        return is_kernel(path, leaf)

    params, _ = in_nnx()
    powerprop(2.0, select=spy).to_theta(params)
    assert seen["one/kernel"] == (4, 6)
    assert seen["two/bias"] == (2,)
    assert set(seen) == {
        f"{layer}/{name}" for layer in ("one", "two") for name in ("kernel", "bias")
    } | {
        "norm/scale",
        "norm/bias",
    }


PARAMS = {"kernel": np.ones((2, 2), "f"), "bias": np.ones(2, "f")}
NOTHING = powerprop(2.0, select=lambda path, leaf: False)
MISTAKES = {
    "a root": (lambda: powerprop(0.5), "alpha=0.5", "at least 1", "alpha=2.0"),
    "nothing": (lambda: NOTHING.to_theta(PARAMS), "bias, kernel", "at least one", "pass select="),
    "nothing either": (
        lambda: NOTHING.to_weights(PARAMS),
        "bias, kernel",
        "at least one",
        "select=",
    ),
    "a vector": (
        lambda: powerprop(2.0).to_theta({"kernel": np.ones(3, "f")}),
        "no selected leaf among kernel",
        "at least one",
        "pass select=",
    ),
    "axes in words": (lambda: powerprop(2.0, axes=0), "axes=0", "a tuple of axes", "axes=(0,)"),
    "no type": (lambda: powerprop(2.0, dtype=int), "dtype=<class 'int'>", "floats", "bfloat16"),
    "a name": (lambda: powerprop(2.0, select="kernel"), "select='kernel'", "function", "pass"),
    "no mode": (lambda: powerprop(2.0, adapt_to="w"), "adapt_to='w'", "'theta'", "choose adapt_to"),
    "no optimizer": (
        lambda: powerprop(2.0).optimizer(0.1),
        "inner=0.1",
        "GradientTransformation",
        "change inner",
    ),
    "no function": (
        lambda: Reparametrization(2.0, np.sqrt),
        "forward=2.0",
        "a function of a leaf",
        "change forward",
    ),
    "an axis": (
        lambda: powerprop(2.0, axes=(2,)).to_theta(PARAMS),
        "axes=(2,)",
        "axes of the array",
        "axes=(0,)",
    ),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
