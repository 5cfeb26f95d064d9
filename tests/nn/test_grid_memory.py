"""A memory as a module: addresses of heads, sampling and evaluation, and what it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparse_hyper_jax import memory, nn
from tests.ops.examples import assert_names_itself_and_its_cure

RNG = np.random.default_rng(0)
SHAPE, FEATURES, HEADS = (6, 5), 3, 2
LOGITS = RNG.normal(size=(4, HEADS, 2)).astype(np.float32)
DRAWN = {"num_global": 2, "num_local": 3, "region": (2, 2)}


def made(**options):
    return nn.GridMemory(SHAPE, FEATURES, num_heads=HEADS, rngs=nnx.Rngs(0), **options)


@nnx.jit
def computed():
    plain, drawing = made(), made(evaluate="round", **DRAWN)
    drawing.table.set_value(plain.table.get_value())
    spread = jnp.concatenate([LOGITS, jnp.zeros((4, HEADS, 1))], -1)
    sourced = made(source=lambda x: x.reshape(-1, HEADS, 2))
    one, two = (drawing(spread, rngs=jax.random.key(n)) for n in (0, 1))
    many = jax.random.normal(jax.random.key(0), (3000, 1, 2))
    large = nn.GridMemory((20, 20), 1, rngs=nnx.Rngs(0))
    return {
        "table": plain.table.get_value(),
        "y": plain(LOGITS),
        "swapped": plain(LOGITS[:, ::-1]),
        "sourced": sourced(LOGITS.reshape(4, -1)),
        "rounded": drawing(spread, deterministic=True),
        "drawn": (one, two),
        "reads": drawing.reads(spread, rngs=jax.random.key(0)),
        "usage": memory.usage(large.reads(many), 400),
    }


def addresses():
    return np.asarray(SHAPE)[None, None] / (1 + np.exp(-1.702 * LOGITS)) - 1 / (
        1 + np.exp(-1.702 * LOGITS)
    )


def test_every_head_reads_at_its_own_address():
    found = computed()
    reads = memory.grid_read(None, found["table"], addresses())
    np.testing.assert_allclose(found["y"], reads.reshape(4, -1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["sourced"], found["y"], rtol=1e-6)


def test_permuting_heads_permutes_what_they_give():
    y, swapped = (computed()[name].reshape(4, HEADS, FEATURES) for name in ("y", "swapped"))
    np.testing.assert_allclose(swapped, y[:, ::-1], rtol=1e-6)


def test_training_samples_and_evaluation_rounds():
    found = computed()
    one, two = found["drawn"]
    assert float(jnp.abs(one - two).max()) > 1e-3
    rows, shares = found["reads"]
    assert rows.shape == (4, HEADS, 4 + 2 + 3)
    np.testing.assert_allclose(shares.sum(-1), 1, rtol=1e-5)
    cells = np.round(addresses()).astype(int)
    expected = np.asarray(found["table"])[tuple(np.moveaxis(cells, -1, 0))]
    np.testing.assert_allclose(found["rounded"], expected.reshape(4, -1), rtol=1e-6)


def test_standard_normal_logits_use_all_cells_alike():
    usage = computed()["usage"]
    assert usage.used == 400
    assert float(usage.perplexity) > 0.9 * 400


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: made()(LOGITS[:, :1]), ("(4, 1, 2)", "2 numbers for every head", "reshape")),
        (lambda: made(**DRAWN)(LOGITS), ("(4, 2, 2)", "and a raw spread", "reshape")),
        (lambda: made(num_local=2), ("num_local=2 with region=None", "both", "region")),
        (lambda: made(region=(2, 2)), ("num_local=0 with region=(2, 2)", "neither", "pass")),
        (lambda: made(evaluate="floor"), ("evaluate='floor'", "'round'", "choose")),
        (lambda: made(source=3), ("source=3", "a module or a function", "pass")),
        (
            lambda: nn.GridMemory((2,) * 5, 1, rngs=nnx.Rngs(0)),
            ("5 axes", "1 to 4", "several memories"),
        ),
    ],
)
def test_what_is_wrong_is_told(call, words):
    assert_names_itself_and_its_cure(lambda: nnx.eval_shape(call), *words)
