"""Examples that are computed statement by statement say what they say at a prompt."""

import contextlib
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.statements import whole_statements, with_whole

X = np.arange(3.0, dtype=np.float32)


def run(source, **names):
    """The names that a statement leaves, and for every call of ``note`` whether it was traced."""
    traced = []

    def note(x):
        traced.append(isinstance(x, jax.core.Tracer))
        return x

    names = with_whole({"jnp": jnp, "np": np, "note": note, "x": jnp.asarray(X)} | names)
    exec(whole_statements(source), names)
    return names, traced


@pytest.mark.parametrize(
    ("source", "expected", "traced"),
    [
        ("y = note(x) * 2 + 1", 2 * X + 1, [True]),
        ("y = (jnp.sin(note(x)) ** 2).sum().item()", (np.sin(X) ** 2).sum(), [True]),
        ("y = note(x).shape, jnp.sin(x).dtype == 'float32'", ((3,), True), [True]),
        ("y = float(note(x)[0]), [int(one) for one in note(x)]", (0.0, [0, 1, 2]), [True, False]),
        ("y = note(x)[np.argmax(x)]", 2.0, [True]),
        ("y = jnp.sin(note(x)) if jnp.all(note(x) > 0) else x", X, [True, False]),
        ("y = print(jnp.cos(note(x)))", None, [True]),
        ("if note(x)[0] == 0: y = 1", 1, [False]),
    ],
)
def test_what_can_be_traced_is_one_program(source, expected, traced):
    names, seen = run(source)
    jax.tree.map(lambda *pair: np.testing.assert_allclose(*pair, rtol=1e-6), names["y"], expected)
    assert seen == traced


def test_functions_are_made_as_they_stand():
    names, seen = run("f = lambda z: note(z) - x")
    assert seen == []
    np.testing.assert_array_equal(names["f"](X), 0 * X)
    assert seen == [False]


def test_what_prints_while_it_is_traced_prints_numbers_once():
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        run("y = tell(x)", tell=print)
    assert said.getvalue() == "[0. 1. 2.]\n"


def test_errors_are_those_of_the_prompt():
    with pytest.raises(ZeroDivisionError):
        run("y = note(1 // 0)")
