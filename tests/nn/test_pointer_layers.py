import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparse_hyper_jax import attention, conv, nn, ops
from sparse_hyper_jax.nn.sources import scaled
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

STEPS, FEATURES, HEADS, POINTERS = 10, 8, 4, 2


class Back(nnx.Module):
    """Pointers that look up to five steps back, by what a step holds."""

    def __init__(self, stride=1, *, rngs):
        self.stride = stride
        self.raw = nnx.Linear(FEATURES, HEADS * POINTERS, rngs=rngs)

    def __call__(self, x):
        x = x[:, self.stride - 1 :: self.stride]
        raw = self.raw(x).reshape(*x.shape[:2], HEADS, POINTERS)
        times = jnp.arange(x.shape[1], dtype=jnp.float32) * self.stride + self.stride - 1
        means = times[None, :, None, None] - 5 * nnx.sigmoid(raw)
        return means, jnp.full_like(means, 2.0)


def layer_of(**options):
    rngs = nnx.Rngs(0)
    source = Back(options.get("stride", 1), rngs=rngs)
    options = {"key_heads": 2, "near": 2, "rngs": rngs} | options
    return nn.PointerAttention(FEATURES, HEADS, source, **options)


def inputs():
    return jax.random.normal(jax.random.key(1), (3, STEPS, FEATURES))


def by_head(projection, x, heads):
    return projection(x).reshape(*x.shape[:2], heads, 2)


@pytest.mark.parametrize("stride", [1, 3])
def test_it_is_the_function_between_projections(stride):
    @jax.jit
    def run(x, key):
        layer = layer_of(stride=stride)
        asking = x[:, stride - 1 :: stride]
        times = np.arange(stride - 1, STEPS, stride)
        rows = [
            by_head(layer.query, asking, HEADS),
            *(by_head(one, x, 2) for one in (layer.key, layer.value)),
        ]
        means, variances = layer.source(x)

        def soft(key, variances, *rows):
            options = {"variances": 3 * variances, "near": 2, "times": times}
            return attention.pointer_attention(key, *rows, **options)

        def hard(*rows):
            return attention.pointer_attention_hard(*rows, near=2, times=times)

        heads = (
            jax.vmap(soft)(jax.random.split(key, 3), variances, *rows, means),
            jax.vmap(hard)(*rows, means),
        )
        expected = [layer.out(one.reshape(3, -1, FEATURES)) for one in heads]
        found = layer(x, rngs=key, variance_scale=3.0), layer(x, deterministic=True)
        return [*found], expected

    found, expected = run(inputs(), jax.random.key(2))
    assert found[0].shape == (3, STEPS // stride, FEATURES)
    assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_nothing_reaches_back_in_time_and_all_parameters_learn():
    # One program for both: two copies in one may be rounded differently.
    @jax.jit
    def run(x, key):
        def total(layer):
            y = layer(x, rngs=key)
            return jnp.sum(y**2), y

        slopes, y = nnx.grad(total, has_aux=True)(layer_of())
        return y, jax.tree.leaves(slopes)

    x = inputs()
    other = jnp.where(jnp.arange(STEPS)[None, :, None] < 6, x, 7.0)
    (before, slopes), (after, _) = (run(one, jax.random.key(0)) for one in (x, other))
    assert (before[:, :6] == after[:, :6]).all()
    assert (before[:, 6:] != after[:, 6:]).any()
    # But the bias of keys, which moves all logits of a query alike.
    assert sum(bool((abs(slope) > 1e-6).any()) for slope in slopes) >= len(slopes) - 1


def offsets_of(x):
    return x[..., :2] * 2, jnp.ones_like(x[..., :2])


def planes_of(x):
    return x[..., :4].reshape(*x.shape[:3], 2, 2), jnp.ones((*x.shape[:3], 2, 2))


@pytest.mark.parametrize("rank", [1, 2])
def test_an_adaptive_convolution_is_the_function_and_a_bias(rank):
    source = offsets_of if rank == 1 else planes_of
    causal = rank == 1

    @jax.jit
    def run(x, key):
        bias = nnx.initializers.constant(0.5)
        layer = nn.AdaptiveConv(4, 3, 2, source, causal=causal, bias_init=bias, rngs=nnx.Rngs(0))
        kernel, (offsets, variances) = layer.kernel[...], source(x)
        soft = jax.vmap(
            lambda key, x, *two: conv.adaptive_conv(key, x, kernel, *two, causal=causal)
        )
        hard = jax.vmap(lambda x, one: conv.adaptive_conv_hard(x, kernel, one, causal=causal))
        expected = [soft(jax.random.split(key, 2), x, offsets, variances), hard(x, offsets)]
        found = [layer(x, rngs=key), layer(x, deterministic=True)]
        return found, [one + 0.5 for one in expected]

    size = (2, 6, 4) if rank == 1 else (2, 3, 4, 4)
    found, expected = run(jax.random.normal(jax.random.key(3), size), jax.random.key(4))
    assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_in_evaluation_nothing_is_random():
    layer = nn.AdaptiveConv(4, 3, 2, offsets_of, rngs=nnx.Rngs(0))
    layer.eval()
    graph, state = nnx.split(layer)
    draws = jax.make_jaxpr(lambda state, x: nnx.merge(graph, state)(x))(state, jnp.ones((1, 6, 4)))
    assert "random_bits" not in str(draws)
    assert "threefry" not in str(draws)


def test_a_hyperlayer_says_where_its_points_come_from():
    options = {"num_global": 4, "global_from": "density"}

    @jax.jit
    def run(x, key):
        layer = nn.FreeHyperLayer((6,), (5,), 3, **options, rngs=nnx.Rngs(0))
        tuple_key, _ = jax.random.split(key)
        y = ops.hyperlayer(tuple_key, layer.source(), x.T, (5,), **options)
        return layer(x, rngs=key), y.T

    assert_close(*run(np.eye(6, dtype=np.float32), jax.random.key(0)), rtol=1e-6)


X = np.zeros((2, 6, 4), np.float32)


def called(make, x=X, **options):
    return lambda: nnx.eval_shape(lambda: make()(x, **options))


def attention_of(source=lambda x: (x[..., :2, None], x[..., :2, None]), **options):
    return lambda: nn.PointerAttention(4, 2, source, **options, rngs=nnx.Rngs(0))


def conv_of(source=offsets_of, **options):
    return lambda: nn.AdaptiveConv(4, 3, 2, source, **options, rngs=nnx.Rngs(0))


WRONG = {
    "no source": (called(attention_of(3)), "source=3", "a module or a function"),
    "a class": (called(conv_of(Back)), "source=<class", "a module or a function"),
    "one array": (called(attention_of(lambda x: x)), "a source that gives", "two arrays"),
    "another shape": (
        called(attention_of(lambda x: (x, x))),
        "means of shape (2, 6, 4)",
        "(b, T', num_heads, k)",
    ),
    "nobody asks": (called(attention_of(stride=7)), "6 positions", "at least one"),
    "no flag": (called(attention_of(causal="no")), "causal='no'", "True or False"),
    "a window without time": (
        called(attention_of(causal=False, near=2)),
        "causal=False with near=2",
        "neither nearest",
    ),
    "an unknown origin": (called(conv_of(global_from="all")), "global_from='all'", "'density'"),
    "no factor": (called(conv_of(), variance_scale=0.0), "variance_scale=0.0", "one number"),
    "another rank": (called(conv_of(), x=X[0]), "x of shape (6, 4)", "(b, T, C)"),
    "other taps": (
        called(conv_of(lambda x: (x, x))),
        "means of shape (2, 6, 4)",
        "every output cell",
    ),
    "no points by density": (
        called(lambda: nn.FreeHyperLayer((4,), (3,), 2, global_from="density", rngs=nnx.Rngs(0))),
        "global_from='density' with num_global=0",
        "points that are drawn so",
    ),
    "no heads": (called(attention_of(key_heads=3)), "key_heads=3", "divides"),
}


@pytest.mark.parametrize(("call", "found", "expected"), WRONG.values(), ids=WRONG)
def test_mistakes_are_told(call, found, expected):
    assert_names_itself_and_its_cure(call, found, expected, "")


def test_whole_variances_are_scaled_by_less_than_one():
    assert scaled(jnp.array([4, 2]), 0.25).tolist() == [1.0, 0.5]
