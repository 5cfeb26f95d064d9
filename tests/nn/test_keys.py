import jax
import pytest
from flax import nnx

from sparse_hyper_jax.nn.keys import draw_key


def same(left, right):
    return bool((jax.random.key_data(left) == jax.random.key_data(right)).all())


def test_a_key_at_the_call_is_passed_on():
    stored = nnx.Rngs(sample=0)["sample"].fork()
    before = stored.count[...]
    assert same(draw_key(jax.random.key(7), stored), jax.random.key(7))
    assert stored.count[...] == before


def test_the_stream_at_the_call_beats_the_stored_one():
    given, stored = nnx.Rngs(sample=1), nnx.Rngs(sample=2)["sample"]
    before = stored.count[...]
    assert same(draw_key(given, stored), nnx.Rngs(sample=1)["sample"]())
    assert same(draw_key(nnx.Rngs(sample=1)["sample"], stored), nnx.Rngs(sample=1)["sample"]())
    assert stored.count[...] == before


def test_without_a_call_the_stored_stream_goes_on():
    stored, expected = nnx.Rngs(sample=2)["sample"], nnx.Rngs(sample=2)["sample"]
    for _ in range(2):
        assert same(draw_key(None, stored), expected())


def test_neither_is_refused():
    with pytest.raises(ValueError, match=r"found neither .*; expected one .*; pass rngs"):
        draw_key(None, None)
