"""The table finds what it looks for: a fault in a function fails its column."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.precision import at_least_float32
from tests.table.columns import COLUMNS, applies
from tests.table.examples import eighths, integers
from tests.table.programs import Results
from tests.table.row import Row

X = eighths(3, low=0.5, high=2.0)
PLACES = integers(0, 2)


def axis_types():
    return jax.sharding.get_abstract_mesh().axis_types


def more_on(kind):
    """One more on a mesh whose axes are of this type."""
    return lambda x: jnp.asarray(x) ** 2 + (getattr(jax.sharding.AxisType, kind) in axis_types())


@jax.custom_batching.custom_vmap
def alone(x):
    return 2 * x


@alone.def_vmap
def alone_for_many(axis_size, in_batched, x):
    return 3 * x, True


@jax.custom_vjp
def wrong_backwards(x):
    return 2 * x


wrong_backwards.defvjp(lambda x: (2 * x, None), lambda _, g: (3 * g,))


@jax.custom_jvp
def curved(x):
    return x**2


@curved.defjvp
def slope_of_curved(primals, tangents):
    """The slope is right, that of the slope is not finite."""
    (x,), (t,) = primals, tangents
    return x**2, t * (2 * x + jnp.sqrt(x - x))


def read(x, at):
    return jnp.asarray(x)[jnp.asarray(at)]


def draw(key, x):
    wide = at_least_float32(x)
    return wide + jax.random.normal(key, wide.shape, wide.dtype)


def draw_twice(key, x):
    return draw(key, x) + draw(key, x)


WRONG = AssertionError
FAULTS = [
    ("jit", WRONG, lambda x: jnp.asarray(x) + (not isinstance(x, jax.core.Tracer)), {}),
    ("vmap", WRONG, lambda x: x.sum() if "Batch" in type(x).__name__ else jnp.asarray(x), {}),
    ("nested", WRONG, lambda x: alone(jnp.asarray(x)), {"exact": None}),
    ("grad", WRONG, lambda x: jnp.sqrt(jnp.asarray(x) - x), {}),
    ("jvp", WRONG, lambda x: wrong_backwards(jnp.asarray(x)), {}),
    ("second", WRONG, lambda x: curved(jnp.asarray(x)), {}),
    ("slopes", WRONG, lambda x: jax.lax.stop_gradient(jnp.asarray(x)), {}),
    ("x64", WRONG, lambda x: jnp.asarray(x).astype(np.float32), {}),
    ("float16", WRONG, lambda x: jnp.asarray(x) * 2, {"wide": True}),
    ("bfloat16", WRONG, lambda x: jnp.asarray(x) * 2, {"wide": True}),
    ("strict", ValueError, lambda x: jnp.asarray(x) * jnp.ones(3, np.float32), {}),
    ("strict", ValueError, lambda x: jnp.asarray(x) + jnp.ones((1, 3), jnp.result_type(x)), {}),
    ("Explicit", WRONG, more_on("Explicit"), {}),
    ("Auto", WRONG, more_on("Auto"), {}),
    ("lists", WRONG, lambda x: jnp.asarray(x) + isinstance(x, list), {}),
    ("nan", WRONG, lambda x: jnp.nan_to_num(jnp.asarray(x)), {}),
    ("outside", WRONG, read, {"arguments": (X, PLACES), "outside": {1: (3,)}}),
    ("key", pytest.fail.Exception, lambda key, x: jnp.asarray(x), {"keyed": True}),
    ("key", jax.errors.KeyReuseError, draw_twice, {"keyed": True}),
]


@pytest.mark.parametrize(("column", "error", "function", "options"), FAULTS)
def test_a_fault_fails_its_column(column, error, function, options):
    faulty = Row("faulty", function, **{"arguments": (X,), "wide": False} | options)
    assert applies(faulty, column)
    with pytest.raises(error):
        COLUMNS[column](faulty, Results(faulty))


@pytest.mark.parametrize(
    ("function", "options"),
    [(draw, {"keyed": True, "redraws": True}), (lambda x: jnp.asarray(x) ** 2, {"wide": False})],
)
def test_what_has_no_fault_passes_every_column(function, options):
    sound = Row("sound", function, (X,), **options)
    results = Results(sound)
    for column, check in COLUMNS.items():
        if applies(sound, column):
            check(sound, results)
