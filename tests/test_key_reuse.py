import inspect

import jax
import pytest

from sparse_hyper_jax import backprop, estimators, glimpse, ops, sort
from tests.public_functions import (
    KEYED,
    KEYED_BACKPROP,
    KEYED_ESTIMATORS,
    KEYED_GLIMPSE,
    KEYED_OPS,
    KEYED_SORT,
)

# jax.random.fold_in, by JAX's rules, leaves its key usable.
FOLDS = {"accumulate_over_ranges"}
# These look at numbers to choose static facts.
OUTSIDE_OF_JIT = {"fit_locality"}


@pytest.mark.parametrize("name", KEYED)
def test_every_key_is_used_once(name):
    with jax.debug_key_reuse(True):
        key = jax.random.key(0)
        call = KEYED[name] if name in OUTSIDE_OF_JIT else jax.jit(KEYED[name])
        jax.block_until_ready(call(key))
        if name not in FOLDS:
            with pytest.raises(jax.errors.KeyReuseError):
                jax.random.split(key)


ROOMS = {
    "ops": (ops, KEYED_OPS),
    "glimpse": (glimpse, KEYED_GLIMPSE),
    "sort": (sort, KEYED_SORT),
    "estimators": (estimators, KEYED_ESTIMATORS),
    "backprop": (backprop, KEYED_BACKPROP),
}


@pytest.mark.parametrize(("room", "keyed"), ROOMS.values(), ids=ROOMS)
def test_every_function_with_a_key_is_here(room, keyed):
    functions = {name: getattr(room, name) for name in room.__all__}
    with_key = {
        name
        for name, value in functions.items()
        if inspect.isfunction(value) and "key" in inspect.signature(value).parameters
    }
    assert with_key == {name.split(",")[0] for name in keyed}
