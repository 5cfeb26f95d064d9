import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import backprop
from sparse_hyper_jax.backprop import empty_compact, init_memory, sparse_dense, sparsify_cotangent
from tests.backprop.examples import COLUMNS, ROWS, N, layer_arrays
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

X, KERNEL, BIAS = layer_arrays()
COMPACT = empty_compact(KERNEL, COLUMNS["UnifiedTopK"])
MEMORY = init_memory("slot", (ROWS, N))


def layer(key=None, x=X, kernel=KERNEL, bias=BIAS, memory=None, **options):
    return sparse_dense(
        key, x, kernel, bias, memory, **({"sparsifier": COLUMNS["UnifiedTopK"]} | options)
    )


def after(y=X, memory=None, **options):
    return sparsify_cotangent(None, y, memory, **({"sparsifier": backprop.TopK(2)} | options))


def slope(by="kernel", **options):
    start = {"kernel": KERNEL, "compact": COMPACT}[by]
    return jax.grad(lambda leaf: jnp.sum(layer(**{by: leaf}, **options)))(start)


MISTAKES = {
    "kernel is a vector": (
        lambda: layer(kernel=BIAS),
        "kernel of shape (8,)",
        "(any, any), (out, in)",
        "reshape kernel",
    ),
    "kernel is transposed": (
        lambda: layer(kernel=KERNEL.T),
        "x of shape (4, 5)",
        "a last axis of length 8",
        "give x",
    ),
    "x is a scalar": (lambda: layer(x=np.float32(1)), "x of shape ()", "length 5", "give x"),
    "bias of the inputs": (
        lambda: layer(bias=X[0]),
        "bias of shape (5,)",
        "(8), (n_out,)",
        "reshape bias",
    ),
    "unknown layout": (
        lambda: layer(layout="oi"),
        "layout='oi'",
        "one of 'out_in', 'in_out'",
        "choose layout",
    ),
    "a large eta": (lambda: layer(eta=1.5), "eta=1.5", "at most 1", "change eta"),
    "an eta that is not a number": (lambda: after(eta=float("nan")), "eta=nan", "one number", ""),
    "an unknown choice": (
        lambda: after(select_on="memory"),
        "select_on='memory'",
        "one of 'corrected', 'gradient'",
        "choose select_on",
    ),
    "a number for a sparsifier": (
        lambda: layer(sparsifier=0.04),
        "sparsifier=0.04",
        "TopK(0.04)",
        "make one",
    ),
    "no key": (
        lambda: layer(sparsifier=backprop.RandomK(2)),
        "key=None with RandomK",
        "a typed key",
        "a fresh one for every step and layer",
    ),
    "an array for a memory": (
        lambda: layer(memory=jnp.zeros((ROWS, N))),
        "a memory of type",
        "a Memory",
        "init_memory",
    ),
    "no peak": (
        lambda: layer(sparsifier=backprop.AdaptiveLadder(), memory=init_memory("none")),
        "AdaptiveLadder without a peak",
        "the largest cotangent so far",
        "adaptive=True",
    ),
    "more components than units": (
        lambda: slope(sparsifier=backprop.UnifiedTopK(9)),
        "k=9 of 8 components",
        "at most 8",
        "lower k",
    ),
    "counts of other units": (
        lambda: jax.grad(lambda memory: jnp.sum(layer(memory=memory)), allow_int=True)(
            init_memory("none", (ROWS, 3), count=True)
        ),
        "counts of shape (3,)",
        "(8)",
        "reshape counts",
    ),
    "fewer axes than an event": (
        lambda: after(event_ndim=3),
        "y of shape (4, 5) with event_ndim=3",
        "at least as many axes",
        "lower event_ndim",
    ),
    "an event without axes": (lambda: after(event_ndim=0), "event_ndim=0", "at least 1", "static"),
    "a kernel beside its compact gradient": (
        lambda: slope(compact=COMPACT),
        "a differentiated kernel beside a compact gradient",
        "one of the two",
        "compact=None",
    ),
    "a compact gradient without the memory's": (
        lambda: slope("compact", memory=init_memory("slot", (ROWS, N))),
        "outside the differentiated arguments",
        "the next memory",
        "memory=None",
    ),
    "a cotangent without its memory's gradient": (
        lambda: jax.grad(lambda y: after(y, init_memory("slot", X.shape)).sum())(X),
        "outside the differentiated arguments",
        "the next memory",
        "memory=None",
    ),
    "a compact gradient of another sparsifier": (
        lambda: slope("compact", sparsifier=backprop.UnifiedTopK(4)),
        "shapes ((3,), (3, 5), ())",
        "((4,), (4, 5), ())",
        "empty_compact",
    ),
    "a compact gradient with a sparsifier of rows": (
        lambda: slope("compact", sparsifier=backprop.TopK(3)),
        "TopK(k=3) for 8 outputs",
        "a fixed number of columns",
        "no compact gradient",
    ),
    "a compact gradient of two calls": (
        lambda: backprop.add_compact(
            KERNEL, jax.tree.map(lambda one: 2 * one, COMPACT._replace(uses=jnp.ones(()))), -1.0
        ),
        "2 backward passes",
        "one call",
        "ordinary gradient",
    ),
    "an unknown layout of a step": (
        lambda: backprop.add_compact(KERNEL, COMPACT, -1.0, layout="outin"),
        "layout='outin'",
        "one of",
        "choose layout",
    ),
    "a threshold below nothing": (
        lambda: backprop.Threshold(-1.0),
        "tau=-1.0",
        "at least 0",
        "change tau",
    ),
    "a threshold that is no number": (
        lambda: backprop.Threshold(float("nan")),
        "tau=nan",
        "at least 0",
        "change tau",
    ),
    "a compact gradient outside": (
        lambda: jax.grad(lambda bias: layer(bias=bias, compact=COMPACT).sum())(BIAS),
        "a compact gradient outside the differentiated arguments",
        "a gradient with respect to it",
        "compact=None",
    ),
    "a compact gradient of another kernel": (
        lambda: backprop.add_compact(KERNEL[:, :3], COMPACT, -1.0),
        "rows of shape (3, 5)",
        "(3, 3)",
        "reshape rows",
    ),
    "a pair": (
        lambda: backprop.add_compact(KERNEL, (1, 2), -1.0),
        "gradient=(1, 2)",
        "an instance of CompactGradient",
        "change gradient",
    ),
    "a flag in words": (
        lambda: layer(dense_bias="no"),
        "dense_bias='no'",
        "True or False",
        "change dense_bias",
    ),
    "no array": (lambda: layer(x=None), "x=None", "an array of real numbers", "convert x"),
    "a memory of 16 bits": (
        lambda: layer(memory=jax.tree.map(lambda one: one.astype("bfloat16"), MEMORY)),
        "a memory of bfloat16",
        "float32 or wider",
        "init_memory",
    ),
    "a new memory of 16 bits": (
        lambda: init_memory("slot", (2, 3), dtype=jnp.bfloat16),
        "dtype=<class",
        "float32 or wider",
        "leave dtype out",
    ),
    "memories of two kinds": (
        lambda: backprop.next_memory(MEMORY, init_memory("shared", (ROWS, N))),
        "((8,), None, None, ())",
        "the same shapes",
        "with respect to this memory",
    ),
    "no memory": (
        lambda: backprop.next_memory(MEMORY, None),
        "gradient=None",
        "an instance of Memory",
        "change gradient",
    ),
    "a compact gradient of rows": (
        lambda: empty_compact(KERNEL, backprop.TopK(3)),
        "TopK(k=3) for 8 outputs",
        "a fixed number of columns",
        "use UnifiedTopK",
    ),
    "a compact gradient of any size": (
        lambda: empty_compact(KERNEL, backprop.AdaptiveLadder()),
        "AdaptiveLadder(",
        "a fixed number of columns",
        "no compact gradient",
    ),
    "an unknown layout of a compact gradient": (
        lambda: empty_compact(KERNEL, backprop.UnifiedTopK(3), layout="io"),
        "layout='io'",
        "one of",
        "choose layout",
    ),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)


def test_units_outside_of_a_compact_gradient_are_dropped():
    gradient = COMPACT._replace(
        columns=jnp.array([-1.0, 1, N]), rows=jnp.ones((3, 5)), uses=jnp.ones(())
    )
    expected = KERNEL.copy()
    expected[1] -= 0.5
    np.testing.assert_allclose(backprop.add_compact(KERNEL, gradient, -0.5), expected)
    turned = backprop.add_compact(KERNEL.T, gradient, -0.5, layout="in_out")
    np.testing.assert_allclose(turned, expected.T)


def test_second_derivatives_are_those_of_the_sparse_gradient():
    """Of a gradient whose choice does not change from here to a step away."""

    def gradient(x):
        return jax.grad(lambda x: jnp.sum(jnp.tanh(layer(x=x)) ** 2))(x)

    x, along = jnp.asarray(X), jnp.cos(jnp.arange(X.size, dtype="f")).reshape(X.shape)
    derivative = jax.jvp(gradient, (x,), (along,))[1]
    steps = [gradient(x + step * along) for step in (-1e-2, 1e-2)]
    np.testing.assert_allclose(derivative, (steps[1] - steps[0]) / 2e-2, rtol=1e-2, atol=1e-2)


def test_eta_may_be_traced():
    def step(eta):
        memory = jax.grad(lambda memory: layer(memory=memory, eta=eta).sum())(MEMORY)
        return jnp.abs(memory.residue).sum()

    sums = jax.lax.map(step, jnp.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(sums[:2] / sums[2], [0, 0.5], rtol=1e-6)


def test_an_unknown_option_is_named():
    with pytest.raises(TypeError, match="etta"):
        layer(etta=0.5)


def test_inputs_may_be_integers():
    x = np.arange(20).reshape(ROWS, 5) % 3
    dense = jax.grad(lambda kernel: jnp.sum((x @ kernel.T) ** 2))(KERNEL)

    def loss(kernel):
        return jnp.sum(layer(x=jnp.asarray(x), kernel=kernel, bias=None, sparsifier=whole) ** 2)

    whole = backprop.UnifiedTopK(N)
    assert_close(jax.grad(loss)(KERNEL), dense, rtol=1e-5)


def test_a_kernel_that_is_not_trained_may_be_a_constant():
    def loss(x, kernel):
        return jnp.sum(layer(x=x, kernel=kernel) ** 2)

    ours = jax.jit(jax.grad(lambda x: loss(x, KERNEL)))(X)
    assert_close(ours, jax.grad(loss)(X, jnp.asarray(KERNEL)))
