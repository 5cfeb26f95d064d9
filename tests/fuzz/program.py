"""A plan made flesh: how its arguments are drawn, what runs, and what is right."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.fuzz.compare import Near

Arguments = dict[str, np.ndarray]
Outputs = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Program:
    """One program and the cases that go through it.

    Attributes:
        name: the public function, then what is special.
        options: static choices, to be printed with a finding.
        draw: numbers of one case by the name of the argument; always of the same shapes and dtypes.
        run: the same arguments as JAX arrays, and ``key`` if it is keyed, to outputs by name.
        expect: what is right, from arguments in float64 and all outputs, which say also what was
            drawn. Outputs that are left out have to be finite only.
        keyed: whether ``run`` takes a random key.
        slopes: arguments towards which the output ``y`` is differentiated, with random weights that
            the oracle finds as argument ``weights``; the slopes are outputs ``d_NAME``.
        like: outputs that have the dtype of an argument, by its name; all others are float32.
    """

    name: str
    options: Mapping[str, Any]
    draw: Callable[[np.random.Generator], Arguments]
    run: Callable[..., dict[str, Any]]
    expect: Callable[[Arguments, Outputs], Mapping[str, Near]]
    keyed: bool = False
    slopes: tuple[str, ...] = ()
    like: Mapping[str, str] = field(default_factory=dict)


Family = Callable[[np.random.Generator], Program]
"""Draws the static choices of a plan."""
