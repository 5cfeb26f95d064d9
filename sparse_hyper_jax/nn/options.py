"""Options that several modules take, checked where they are given.

Modules let users set attributes, so those that are used in a call are checked there once more;
that happens while tracing and costs nothing afterwards.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import checks

LARGEST = float(np.finfo(np.float32).max)
"""Scales, shifts and least variances are finite: of numbers beyond, float32 knows no more."""

SMALLEST = float(np.finfo(np.float32).tiny)
"""What something is divided by is at least the smallest normal number."""


def check_finite(name: str, number: Any, *, at_least: float = -LARGEST) -> None:
    """Raise unless ``number`` is finite and not too small, as far as its value is known.

    Raises:
        ValueError: another number, or none.
    """
    checks.check_number(name, number, at_least=at_least, at_most=LARGEST)


def in_evaluation(default: bool, given: bool | None) -> bool:
    """Say whether a call evaluates: the mode of the layer, unless the call brings one.

    Args:
        default: attribute ``deterministic`` of the layer.
        given: argument ``deterministic`` of the call.

    Raises:
        ValueError: no flag.
    """
    return checks.check_flag("deterministic", default if given is None else given)


def check_no_container(**options: Any) -> None:
    """Raise if an option is a dict, a list or a set: a module would refuse it in other words.

    Raises:
        ValueError: otherwise. What an option may be is checked elsewhere.
    """
    for name, value in options.items():
        checks.require(
            not isinstance(value, dict | list | set),
            f"{name}={value!r:.80}",
            "an option of another kind",
            f"pass {name} as its docstring says",
        )


def check_float_dtype(name: str, dtype: Any, *, inferred: bool = False) -> None:
    """Raise unless ``dtype`` is one of floats.

    Args:
        name: the argument's name.
        dtype: a dtype, a scalar type, or its name.
        inferred: None is right too: the dtype follows from the arguments.

    Raises:
        ValueError: another dtype, or none.
    """
    try:
        fits = inferred if dtype is None else jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        fits = False
    expected = "a dtype of floats" + ", or None" * inferred
    checks.require(fits, f"{name}={dtype!r:.80}", expected, f"pass {name} as jnp.float32")


def initialised(
    name: str, initializer: Any, key: jax.Array, shape: Sequence[int], dtype: Any
) -> jax.Array:
    """Draw a parameter, and look at what was drawn.

    Args:
        name: that of the initializer.
        initializer: function of a key, a shape and a dtype, as in ``jax.nn.initializers``.
        key: a typed key.
        shape: of the parameter.
        dtype: of the parameter.

    Raises:
        ValueError: no function, or one that gives another shape.
    """
    checks.require(
        callable(initializer),
        f"{name}={initializer!r:.80}",
        "a function of a key, a shape and a dtype",
        "pass one of jax.nn.initializers",
    )
    drawn = initializer(key, tuple(shape), dtype)
    checks.check_shape(f"what {name} draws", drawn, shape, "the shape that it was asked for")
    return drawn
