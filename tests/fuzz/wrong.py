"""Legal calls and what spoils them: for every kind of argument, values that no call may take."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

WORDS = ("no", "8", "gaussian", "", "mean")
NO_INTEGER = (2.5, -0.5, math.nan, math.inf, True, False, 1j)


@dataclass(frozen=True, eq=False)
class Kind:
    """One argument of a legal call.

    Attributes:
        value: a legal one, or a function that makes it where ``lazy``.
        wrong: gives, from a generator, one value that is not legal.
        family: what may not stand in its place: arguments of two families cannot be swapped.
        lazy: whether ``value`` makes the value anew for every call.
    """

    value: Any
    wrong: Callable[[np.random.Generator], Any]
    family: str = ""
    lazy: bool = False


@dataclass(frozen=True, eq=False)
class Call:
    """A legal call.

    Attributes:
        name: as a reader would write it.
        function: what is called.
        arguments: by name; those in front by position.
        positional: how many of them go by position.
        eager: whether it looks at numbers, and cannot be traced.
    """

    name: str
    function: Callable[..., Any]
    arguments: Mapping[str, Kind]
    positional: int = 0
    eager: bool = False
    unknown: Mapping[str, Any] = field(default_factory=lambda: {"densty": "gaussian", "Seed": 0})


def one_of(rng, choices):
    """Draw one of some functions without arguments, and call it."""
    return choices[rng.integers(len(choices))]()


def strange(rng, *, none=True, text=True):
    """A thing that is no array and no number."""
    choices = [
        lambda: {"a": 1.0},
        lambda: {1: np.ones(2)},
        object,
        lambda: np.ndarray,
        lambda: jnp.ones,
        lambda: {1.0, 2.0},
        lambda: 1 + 2j,
        lambda: b"bytes",
    ]
    choices += [lambda: None] * 3 if none else []
    choices += [lambda: WORDS[rng.integers(len(WORDS))]] * 2 if text else []
    return one_of(rng, choices)


def array(
    value,
    kind="real",
    *,
    optional=False,
    ranks=True,
    lengths=True,
    last=False,
    complexes=False,
    bad=(),
):
    """An array.

    Args:
        value: a legal one.
        kind: ``"real"``, ``"floats"``, ``"integers"`` or ``"flags"``.
        optional: None is legal.
        ranks: another rank is not.
        lengths: another length of the first axis is not.
        last: another length of the last axis is not.
        complexes: complex numbers have a meaning, or are none of our business.
        bad: other values that are not legal.
    """
    value = np.asarray(value)
    value = value.astype({"f": np.float32, "i": np.int32}.get(value.dtype.kind, value.dtype))

    def wrong(rng):
        def ragged():
            return [[1, 2], [3]] if kind == "integers" else [[1.0, 2.0], [3.0]]

        choices = [
            lambda: strange(rng, none=not optional),
            lambda: strange(rng, none=not optional),
            ragged,
            lambda: np.full(value.shape, "1"),
            lambda: np.full(value.shape, None),
            lambda: [*value.tolist(), None] if value.ndim else [None],
            lambda: [*map(str, value.reshape(-1).tolist()), "a"],
        ]
        choices += [] if complexes else [lambda: value.astype(np.complex64)]
        if ranks:
            choices += [lambda: value[None], lambda: value[..., None]]
            choices += [lambda: value.sum(0, dtype=value.dtype)] if value.ndim else []
        if lengths and value.ndim:
            choices += [lambda: np.concatenate([value, value[:1]])] * 2
            choices += [lambda: np.concatenate([value] * 3)]
        if last and value.ndim:
            choices += [lambda: np.concatenate([value, value[..., :1]], -1)] * 2
            choices += [lambda: value[..., :-1]] if value.shape[-1] > 1 else []
        if kind == "integers":
            choices += [lambda: value.astype(np.float32), lambda: value.astype(bool)]
            choices += [(value + 0.5).tolist]
        if kind == "floats":
            choices += [lambda: value.astype(np.int32), lambda: value > 0]
        if kind == "flags":
            choices += [lambda: value.astype(np.float32)]
        choices += [lambda one=one: one for one in bad]
        spoilt = one_of(rng, choices)
        numeric = isinstance(spoilt, np.ndarray) and spoilt.dtype.kind in "biufc"
        # From NumPy or from JAX: neither way anything is compiled.
        return jnp.asarray(spoilt) if numeric and rng.random() < 0.5 else spoilt

    return Kind(jnp.asarray(value), wrong, "array" if kind == "floats" else kind)


def key(*, optional=False):
    """A random key."""

    def wrong(rng):
        choices = [
            lambda: strange(rng, none=not optional),
            lambda: int(rng.integers(100)),
            lambda: 0.5,
            lambda: jax.random.split(jax.random.key(0), 2),
            lambda: jnp.zeros(2),
            lambda: jnp.ones((), jnp.int32),
            lambda: np.zeros(3, np.float32),
            lambda: [1, 2],
            lambda: jax.random.key,
        ]
        return one_of(rng, choices)

    return Kind(jax.random.key(1), wrong, "key")


def count(value, least=0, most=None, *, optional=False):
    """A static count."""

    def wrong(rng):
        choices = [
            lambda: strange(rng, none=not optional),
            lambda: least - 1 - int(rng.integers(3)),
            lambda: NO_INTEGER[rng.integers(len(NO_INTEGER))],
            lambda: [value],
            lambda: (value,),
            lambda: np.float32(value),
            lambda: float(value),
            lambda: np.bool_(True),
            lambda: jnp.ones((2,), jnp.int32),
            lambda: str(value),
        ]
        choices += [lambda: most + 1 + int(rng.integers(3))] * 2 if most is not None else []
        return one_of(rng, choices)

    return Kind(value, wrong, "count")


def number(value, *bad, optional=False):
    """One real number, of which ``bad`` ones are outside of its range."""

    def wrong(rng):
        choices = [
            lambda: strange(rng, none=not optional),
            lambda: math.nan,
            lambda: str(value),
            lambda: True,
            lambda: jnp.asarray([1.0, 2.0]),
            lambda: jnp.asarray(1j),
        ]
        choices += [lambda one=one: one for one in bad] * 2
        return one_of(rng, choices)

    return Kind(value, wrong, "number")


def flag(value):
    """True or False."""

    def wrong(rng):
        choices = [
            lambda: strange(rng),
            lambda: ("no", "yes", "False", "true", "off")[rng.integers(5)],
            lambda: int(rng.integers(2)),
            lambda: float(rng.integers(2)),
            lambda: [value],
            lambda: [],
        ]
        return one_of(rng, choices)

    return Kind(value, wrong, "flag")


def choice(value, *, optional=False):
    """One of a few names."""

    def wrong(rng):
        choices = [
            lambda: strange(rng, none=not optional, text=False),
            lambda: value + "s" + WORDS[rng.integers(len(WORDS))],
            lambda: value[:-1] + "?",
            lambda: value.upper() + "X",
            lambda: [value],
            lambda: (value,),
            lambda: 3,
            lambda: True,
        ]
        return one_of(rng, choices)

    return Kind(value, wrong, "choice")


def shape(value, *, optional=False, ranks=True, empty=False, huge=False):
    """Lengths of axes.

    Args:
        value: a legal tuple.
        optional: None is legal.
        ranks: another number of axes is not.
        empty: so many may be 0 axes; still another number is not.
        huge: lengths beyond int32 are legal.
    """
    value = tuple(value)

    def spoilt(rng, one):
        at = int(rng.integers(max(1, len(value))))
        return (*value[:at], one, *value[at + 1 :])

    def wrong(rng):
        choices = [
            lambda: strange(rng, none=not optional),
            lambda: spoilt(rng, -1),
            lambda: spoilt(rng, 0),
            lambda: spoilt(rng, -1 if huge else 2**31),
            lambda: spoilt(rng, 2.5),
            lambda: spoilt(rng, "a"),
            lambda: spoilt(rng, None),
            lambda: spoilt(rng, math.nan),
            lambda: spoilt(rng, (2, 2)),
            lambda: spoilt(rng, True),
            lambda: 7,
            lambda: dict.fromkeys((*value, 2), 1),
        ]
        choices += [lambda: (*value, 2), lambda: (*value, *value, 3, 3)] if ranks else []
        choices += [lambda: value[:-1]] if ranks and (len(value) > 1 or (empty and value)) else []
        return one_of(rng, choices)

    return Kind(value, wrong, "shape")


def thing(value, *bad, optional=False, text=True, lazy=False, family="thing", number=True):
    """An object, of which ``bad`` ones are not legal; its class is none of it."""

    def wrong(rng):
        def other():
            found = strange(rng, none=not optional, text=text)
            # Whether a function is the right one shows when it is called.
            return {1.0} if callable(value) and callable(found) else found

        choices = [other, lambda: np.ones(3), list]
        choices += [lambda: 3] if number else []
        choices += [lambda: type(value)] * (0 if lazy or callable(value) else 2)
        choices += [lambda one=one: one for one in bad] * 2
        return one_of(rng, choices)

    return Kind(value, wrong, family, lazy)


def tree(value, *bad, family="tree"):
    """A tree, of which only these are wrong: an array or a list may be one too."""
    return Kind(value, lambda rng: bad[rng.integers(len(bad))], family)


def function(value, *bad):
    """A function, of which ``bad`` ones return something else."""

    def wrong(rng):
        choices = [lambda: None, lambda: 3, lambda: "sum", lambda: {"f": value}, lambda: [value]]
        choices += [lambda: np.ones(3)]
        choices += [lambda one=one: one for one in bad] * 2
        return one_of(rng, choices)

    return Kind(value, wrong, "function")
