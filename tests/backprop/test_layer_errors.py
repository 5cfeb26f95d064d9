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
    "a large eta": (lambda: layer(eta=1.5), "eta=1.5", "from 0 (forget) to 1", "static"),
    "a traced eta": (
        lambda: jax.jit(lambda eta: layer(eta=eta))(0.5),
        "eta=",
        "from 0 (forget) to 1",
        "static Python number",
    ),
    "an eta that is not a number": (lambda: after(eta=float("nan")), "eta=nan", "a number", ""),
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
        "0 or more",
        "pass the least",
    ),
    "a threshold that is no number": (
        lambda: backprop.Threshold(float("nan")),
        "tau=nan",
        "0 or more",
        "pass the least",
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
