"""What callers pass becomes what is computed with: once, at the entrance of a public function.

Lists and numbers become arrays; anything else is refused here, in three parts, and not by an error
from deep inside. What lies behind trusts what came through.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax.checks import require

KINDS: dict[str, tuple[type, ...]] = {
    "real numbers": (jnp.floating, jnp.integer, jnp.bool_),
    "floats": (jnp.floating,),
    "integers": (jnp.integer,),
    "flags": (jnp.bool_,),
    "numbers": (jnp.number, jnp.bool_),
}


def as_array(name: str, array: Any, kind: str = "real numbers") -> jax.Array:
    """Return what was passed as an array of one of ``KINDS``.

    Args:
        name: the argument's name.
        array: an array of JAX or NumPy, a number, or a list of numbers of any depth.
        kind: a key of ``KINDS``; nothing is cast to it.

    Returns:
        the same numbers, in the dtype that ``jnp.asarray`` gives them.

    Raises:
        ValueError: no array, a ragged list, or numbers of another kind.
    """
    if not isinstance(array, jax.Array):
        array = _converted(name, array, kind)
    require(
        any(jnp.issubdtype(array.dtype, known) for known in KINDS[kind]),
        f"{name} of dtype {array.dtype}",
        f"{kind}",
        f"convert {name}",
    )
    return array


def _converted(name: str, array: Any, kind: str) -> jax.Array:
    """Make an array, where JAX would take None for NaN and cut long integers off."""
    try:
        if any(leaf is None for leaf in jax.tree.leaves(array, is_leaf=lambda x: x is None)):
            raise TypeError
        converted = jnp.asarray(array)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"found {name}={array!r:.80}; expected an array of {kind}, or a list of numbers that "
            f"fit into one; convert {name}"
        ) from None
    if not converted.size and not jax.tree.leaves(array):
        # An empty list holds numbers of any kind; JAX calls them floats.
        converted = converted.astype(
            {"integers": jnp.int32, "flags": bool}.get(kind, converted.dtype)
        )
    for leaf in jax.tree.leaves(array):
        if isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind in "iu" and leaf.size:
            _check_fits(name, leaf, converted.dtype)
    return converted


def _check_fits(name: str, whole: np.ndarray | np.generic, dtype: np.dtype) -> None:
    """Raise if whole numbers are too long for the integers that JAX makes of them."""
    if jnp.issubdtype(dtype, jnp.integer):
        limits = jnp.iinfo(dtype)
        require(
            limits.min <= int(whole.min()) and int(whole.max()) <= limits.max,
            f"{name} from {whole.min()} to {whole.max()}",
            f"integers that fit into {dtype}",
            f"lower {name}, or switch jax_enable_x64 on",
        )


def as_int32(name: str, numbers: Any) -> jax.Array:
    """Return integers of any width as int32; what does not fit becomes the nearest that does.

    Raises:
        ValueError: no integers.
    """
    numbers = as_array(name, numbers, "integers")
    limits, most = jnp.iinfo(numbers.dtype), jnp.iinfo(jnp.int32).max
    if limits.bits >= 32 and numbers.dtype != jnp.int32:
        numbers = jnp.clip(numbers, max(limits.min, -most - 1), most)
    return numbers.astype(jnp.int32)


def check_random_key(key: Any) -> None:
    """Raise unless ``key`` is one random key of JAX.

    Raises:
        ValueError: None, a seed, a batch of keys.
    """
    is_array = isinstance(key, jax.Array)
    typed = is_array and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    # The bare words of a key, as jax.random.PRNGKey gives them.
    bare = is_array and key.dtype == jnp.uint32 and key.ndim == 1
    require(
        bare or (typed and key.ndim == 0),
        f"keys of shape {jnp.shape(key)}" if typed else f"key={key!r:.80}",
        "one random key",
        "pass jax.random.key(seed), or use jax.vmap over several",
    )


def check_instance(name: str, value: Any, *kinds: type) -> None:
    """Raise unless ``value`` is an instance of one of these types; the type itself is none.

    Raises:
        ValueError: anything else.
    """
    names = " or ".join(kind.__name__ for kind in kinds)
    change = f"write {value.__name__}(...)" if isinstance(value, type) else f"change {name}"
    require(isinstance(value, kinds), f"{name}={value!r:.80}", f"an instance of {names}", change)


def check_function(name: str, function: Any, expected: str = "a function") -> None:
    """Raise unless this can be called.

    Raises:
        ValueError: anything else.
    """
    require(callable(function), f"{name}={function!r:.80}", expected, f"pass a function as {name}")


def check_same_shape(**arrays: Any) -> tuple[int, ...]:
    """Return the one shape of arrays, which are not broadcast against each other.

    Raises:
        ValueError: two shapes differ.
    """
    shapes = {name: tuple(jnp.shape(array)) for name, array in arrays.items()}
    found = ", ".join(f"{name} of shape {shape}" for name, shape in shapes.items())
    require(len(set(shapes.values())) == 1, found, "the same shape", "reshape or broadcast them")
    return next(iter(shapes.values()))


def check_optimizer_state(
    state: Any, init: Callable[[Any], Any], parameters: Any, named: str = "optimizer.init"
) -> None:
    """Raise unless a state has the structure and shapes of what ``init`` of an optimizer gives.

    Args:
        state: what was passed.
        init: makes the state of parameters.
        parameters: those of the call.
        named: what the caller knows ``init`` by.

    Raises:
        ValueError: that of another optimizer, or of other parameters.
    """
    expected = jax.eval_shape(init, parameters)
    found, wanted = (jax.tree.map(np.shape, tree) for tree in (state, expected))
    require(
        found == wanted,
        f"a state of shapes {found!s:.200}",
        f"that of this optimizer and these parameters, of shapes {wanted!s:.200}",
        f"begin with what {named} gives for them",
    )
