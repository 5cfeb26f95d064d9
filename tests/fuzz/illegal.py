"""Spoil one argument of a legal call, and look at what is raised."""

import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import sparse_hyper_jax
from tests.fuzz.compare import brief

TOLD = re.compile(r"^found .+; expected .+; .+", re.DOTALL)
BY_PYTHON = re.compile(r"\(\) (got|missing|takes)\b")
UNKNOWN = re.compile(r"unexpected keyword argument")
HOME = Path(sparse_hyper_jax.__file__).parent


def run_calls(makers, room, seed, count, findings):
    """Spoil calls of a room so many times.

    Args:
        makers: functions of a generator that make legal calls.
        room: its name.
        seed: of the whole run.
        count: of illegal cases.
        findings: where the result goes.
    """
    rng = np.random.default_rng([seed, 1, *room.encode()])
    for number in range(count):
        maker = makers[number % len(makers)]
        call = maker(rng)
        if number < len(makers):
            check_legal(call, room, findings)
        spoil(call, room, rng, findings)


def check_legal(call, room, findings):
    """What is spoilt has to be legal before; what looks at numbers has tests of its own."""
    if call.eager:
        return
    try:
        perform(call, values_of(call))
    except Exception as error:  # whatever it is, it is none that a legal call may raise
        findings.add(room, "obscure", f"{call.name} as it is", f"{call.name}: {error!r:.300}")


class Later(NamedTuple):
    """A value that is made where it is used, inside of the trace."""

    make: Callable[[], Any]


def values_of(call):
    """Legal values of all arguments."""
    return {
        name: Later(kind.value) if kind.lazy else kind.value
        for name, kind in call.arguments.items()
    }


def spoil(call, room, rng, findings):
    """Make one illegal case and judge what is raised."""
    values, told = values_of(call), ""
    names, manner = list(values), rng.random()
    swaps = [
        (one, two)
        for n, one in enumerate(names)
        for two in names[n + 1 :]
        if call.arguments[one].family != call.arguments[two].family
    ]
    if manner < 0.04:
        name = list(call.unknown)[rng.integers(len(call.unknown))]
        values[name], told = call.unknown[name], f"{name}={call.unknown[name]!r}"
    elif manner < 0.1 and swaps and call.positional > 1:
        one, two = swaps[rng.integers(len(swaps))]
        values[one], values[two] = values[two], values[one]
        told = f"{one} and {two} swapped"
    else:
        name = names[rng.integers(len(names))]
        values[name] = call.arguments[name].wrong(rng)
        told = f"{name}={describe(values[name])}"
    findings.count(room, "illegal")
    example = f"{call.name}(..., {told})"
    about = re.sub(r"=.*", "", told, flags=re.DOTALL)
    try:
        perform(call, values)
    except (ValueError, TypeError) as error:
        if not is_told(error):
            findings.add(room, "obscure", f"{call.name}, {about}", f"{example} {error!r:.200}")
    except Exception as error:  # any other is what it must not be
        findings.add(room, "obscure", f"{call.name}, {about}", f"{example} {error!r:.200}")
    else:
        findings.add(room, "silent", f"{call.name}, {about}", example)


def is_told(error):
    """Whether an error says enough, by itself or as Python says that a call does not fit."""
    words = str(error)
    if TOLD.match(words):
        return True
    if not isinstance(error, TypeError) or not BY_PYTHON.search(words):
        return False
    # Refused at the call itself, nothing of the library is on the stack but who passes options on.
    last = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    return bool(UNKNOWN.search(words)) or not last.is_relative_to(HOME)


def perform(call, values):
    """Call, without compiling: known numbers stay known while tracing."""

    def traced():
        made = [value.make() if isinstance(value, Later) else value for value in values.values()]
        rest = dict(zip(list(values)[call.positional :], made[call.positional :], strict=True))
        call.function(*made[: call.positional], **rest)
        return 0

    traced() if call.eager else jax.eval_shape(traced)


def describe(value):
    """A value in one line, with the dtype of arrays."""
    if not isinstance(value, np.ndarray | jax.Array):
        return repr(value)[:120].replace("\n", "")
    about = f"{value.dtype}{list(value.shape)}"
    return about if value.size > 8 or "key" in about else f"{brief(value)} {about}"
