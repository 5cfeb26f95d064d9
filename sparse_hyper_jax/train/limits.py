"""Limits of the fields of a dataclass, and the one loop that checks them.

A field says what it may hold by its annotation: its type, and limits as metadata::

    steps: Count = 500
    ratio: Annotated[float, above(0), at_most(1)] = 0.04
    hidden: tuple[Count, ...] = (300, 100)

Messages speak in the words of the command line: ``--steps``, not ``steps``.
"""

import dataclasses
import sys
import types
from collections.abc import Callable
from numbers import Integral, Real
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from sparse_hyper_jax.checks import require


class Limit(NamedTuple):
    """What a value must be beyond its type."""

    expected: str
    """In words that follow the type, for instance "of at least 1"."""

    holds: Callable[[Any], bool]


def at_least(least: float) -> Limit:
    """Allow numbers from ``least`` on."""
    return Limit(f"of at least {least}", lambda value: value >= least)


def at_most(most: float) -> Limit:
    """Allow numbers up to ``most``."""
    return Limit(f"of at most {most}", lambda value: value <= most)


def above(bound: float) -> Limit:
    """Allow numbers greater than ``bound``."""
    return Limit(f"greater than {bound}", lambda value: value > bound)


def below(bound: float) -> Limit:
    """Allow numbers less than ``bound``."""
    return Limit(f"less than {bound}", lambda value: value < bound)


# Steps are counted, and arrays measured, in 32 bits.
LARGEST = 2**31 - 1

Count = Annotated[int, at_least(1), at_most(LARGEST)]
Several = Annotated[int, at_least(2), at_most(LARGEST)]
Whole = Annotated[int, at_least(0)]
Positive = Annotated[float, above(0)]
NotNegative = Annotated[float, at_least(0)]
Share = Annotated[float, above(0), at_most(1)]
Counts = Annotated[tuple[Count, ...], Limit("of at least one layer", lambda value: len(value) > 0)]

KINDS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    bool: ("True or False", lambda value: isinstance(value, bool)),
    int: ("an int", lambda value: isinstance(value, Integral) and not isinstance(value, bool)),
    float: (
        "a finite number",
        lambda value: (
            isinstance(value, Real)
            and not isinstance(value, bool)
            and abs(cast(float, value)) <= sys.float_info.max  # an int may be beyond all floats
        ),
    ),
    types.NoneType: ("nothing", lambda value: value is None),
}
"""How to say and see that a value has a type; other types are seen by ``isinstance``."""


def check_limits(options: Any) -> None:
    """Raise unless every field of a dataclass holds what its annotation allows.

    Args:
        options: an instance.

    Raises:
        ValueError: a value of another type, or beyond a limit.
    """
    hints = get_type_hints(type(options), include_extras=True)
    for field in dataclasses.fields(options):
        unmet = _unmet(hints[field.name], getattr(options, field.name))
        require(unmet is None, said(options, field.name), unmet or "", f"change {flag(field.name)}")


def flag(name: str) -> str:
    """Name a field as the command line does."""
    return "--" + name.replace("_", "-")


def said(options: Any, *names: str) -> str:
    """Say fields as they are written on the command line: ``--n 20 --no-distinct``."""
    return " ".join(_said(name, getattr(options, name)) for name in names)


def _said(name: str, value: Any) -> str:
    if value is None:
        return f"no {flag(name)}"
    if isinstance(value, bool):
        return flag(name if value else f"no_{name}")
    words = map(str, value) if isinstance(value, tuple) else [str(value)]
    return " ".join([flag(name), *words])


def _unmet(hint: Any, value: Any) -> str | None:
    """Say what the annotation asks for, or nothing if the value fits."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        unmet = _unmet(parts[0], value)
        if unmet is None and all(limit.holds(value) for limit in parts[1:]):
            return None
        return f"{_kind(parts[0])} " + " and ".join(limit.expected for limit in parts[1:])
    if origin in (Union, types.UnionType):
        unmet = [_unmet(part, value) for part in parts if part is not types.NoneType]
        optional = types.NoneType in parts and value is None
        return None if optional or None in unmet else " or ".join(filter(None, unmet))
    if origin is Literal:
        return None if value in parts else "one of " + ", ".join(map(str, parts))
    if origin is tuple:
        unmet = (
            [_unmet(parts[0], one) for one in value] if isinstance(value, tuple) else ["a tuple"]
        )
        return next(filter(None, unmet), None)
    kind = KINDS.get(hint, (_kind(hint), lambda value: isinstance(value, hint)))
    return None if kind[1](value) else kind[0]


def _kind(hint: Any) -> str:
    return KINDS[hint][0] if hint in KINDS else f"a {hint.__name__}"
