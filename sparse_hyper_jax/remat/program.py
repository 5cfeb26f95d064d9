"""A function as a flat list of equations, which can be run again in parts.

Calls of jitted functions are opened; everything with a rule or a body of its own (custom
derivatives, scans, branches, checkpoints) stays one equation.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.entrance import as_array

CALLS = ("jit", "pjit", "closed_call", "core_call")
"""Primitives that only call: their bodies are opened."""

Atom = int | Literal
"""What an equation reads: the number of a value, or a literal."""


class Step(NamedTuple):
    """One equation: what it reads and writes are numbers of values."""

    equation: Any
    reads: tuple[Atom, ...]
    writes: tuple[int, ...]


class Program(NamedTuple):
    """A traced function.

    Attributes:
        keys: steps that make random keys of arguments; they run first, once, and keys are kept.
        steps: the others, in the order in which they run; what nobody reads is left out.
        types: shape and dtype of every value, by its number.
        inputs: numbers of the arguments' leaves.
        constants: arrays that the function closes over, by their numbers; they may be traced.
        outputs: of the results' leaves.
        tree: structure of the results.
        alone: whether it can be compiled by itself: not if it names axes of a mesh or of a map.
    """

    keys: tuple[Step, ...]
    steps: tuple[Step, ...]
    types: tuple[Any, ...]
    inputs: tuple[int, ...]
    constants: dict[int, Any]
    outputs: tuple[Atom, ...]
    tree: Any
    alone: bool


def leaves_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Any], Any]:
    """Give the arguments' leaves as arrays, and their structure.

    Raises:
        ValueError: a leaf is neither an array nor a number.
    """
    leaves, tree = jax.tree.flatten((args, kwargs))
    return [_as_leaf(leaf) for leaf in leaves], tree


def _as_leaf(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        return leaf
    _check_array("the argument", leaf, "bind what is neither by functools.partial first")
    return as_array("argument", leaf, "numbers")


def _check_array(what: str, leaf: Any, change: str = "take what is neither out of it") -> None:
    known = jax.Array | np.ndarray | np.generic | bool | int | float | complex
    require(
        isinstance(leaf, known), f"{what} {leaf!r:.80}", "arrays and numbers, in any pytree", change
    )


def trace(fn: Callable[..., Any], leaves: list[Any], tree: Any) -> Program:
    """Trace a function at the leaves of its arguments.

    Raises:
        ValueError: it has effects (prints, ordered callbacks, references), which would happen
            twice, or gives something that is no array.
    """
    trees = []

    def flat(*leaves: Any) -> list[Any]:
        args, kwargs = tree.unflatten(leaves)
        outputs, out_tree = jax.tree.flatten(fn(*args, **kwargs))
        for output in outputs:
            _check_array("the result", output)
        trees.append(out_tree)
        return outputs

    closed = jax.make_jaxpr(flat)(*leaves)
    named = [type(effect).__name__ for effect in closed.jaxpr.effects]
    other = sorted({name for name in named if name != "NamedAxisEffect"})
    require(
        not other,
        f"a function with effects: {', '.join(other)}",
        "a pure one: what is computed again would happen twice",
        "take prints, callbacks and references out of it",
    )
    flattener = _Flattener()
    inputs = [flattener.new(var.aval) for var in closed.jaxpr.invars]
    outputs = flattener.open(closed, inputs)
    varies = any(map(_varies, flattener.types))
    keys, steps = _keys_first(flattener, _used(flattener.steps, outputs), inputs)
    return Program(
        keys=keys,
        steps=steps,
        types=tuple(flattener.types),
        inputs=tuple(inputs),
        constants=flattener.constants,
        outputs=tuple(outputs),
        tree=trees[-1],
        alone=not named and not varies,
    )


def _varies(aval: Any) -> bool:
    """Whether a value differs between the devices of a mesh that ``jax.shard_map`` maps over."""
    return bool(getattr(getattr(aval, "manual_axis_type", None), "varying", None))


class _Flattener:
    """Opens calls and numbers values: a body that is called twice has the same variables twice."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.types: list[Any] = []
        self.constants: dict[int, Any] = {}

    def new(self, aval: Any) -> int:
        self.types.append(aval)
        return len(self.types) - 1

    def open(self, closed: Any, arguments: Iterable[Atom]) -> list[Atom]:
        """Add the equations of a body; give what it returns."""
        jaxpr = closed.jaxpr
        known: dict[Any, Atom] = dict(zip(jaxpr.invars, arguments, strict=True))
        for var, value in zip(jaxpr.constvars, closed.consts, strict=True):
            known[var] = number = self.new(var.aval)
            self.constants[number] = value

        def read(atom: Any) -> Atom:
            return atom if isinstance(atom, Literal) else known[atom]

        for equation in jaxpr.eqns:
            reads = tuple(map(read, equation.invars))
            if _only_calls(equation):
                results = self.open(equation.params["jaxpr"], reads)
            else:
                results = [self.new(var.aval) for var in equation.outvars]
                self.steps.append(Step(equation, reads, tuple(results)))
            known.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]


def _only_calls(equation: Any) -> bool:
    """Whether it is a call without any wish about where its arguments lie."""
    if equation.primitive.name not in CALLS or not hasattr(equation.params.get("jaxpr"), "consts"):
        return False
    wishes = (*equation.params.get("in_shardings", ()), *equation.params.get("out_shardings", ()))
    return all(type(wish).__name__ == "UnspecifiedValue" for wish in wishes)


def _used(steps: list[Step], outputs: list[Atom]) -> tuple[Step, ...]:
    """Leave out what no output depends on."""
    needed = {atom for atom in outputs if isinstance(atom, int)}
    kept = []
    for step in reversed(steps):
        if needed.intersection(step.writes):
            kept.append(step)
            needed.update(atom for atom in step.reads if isinstance(atom, int))
    return tuple(reversed(kept))


def _keys_first(
    flattener: _Flattener, steps: tuple[Step, ...], inputs: list[int]
) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """Part what makes keys of arguments and of other keys from the rest."""
    known, keys, others = {*inputs, *flattener.constants}, [], []
    for step in steps:
        made: Iterable[Any] = (flattener.types[value] for value in step.writes)
        all_keys = all(jnp.issubdtype(one.dtype, jax.dtypes.prng_key) for one in made)
        if all_keys and known.issuperset(atom for atom in step.reads if isinstance(atom, int)):
            keys.append(step)
            known.update(step.writes)
        else:
            others.append(step)
    return tuple(keys), tuple(others)


def run(steps: Iterable[Step], values: dict[int, Any]) -> None:
    """Run equations; what they read is in ``values``, and what they write is put there."""
    for step in steps:
        primitive = step.equation.primitive
        options = primitive.get_bind_params(step.equation.params)
        with step.equation.ctx.manager:
            results = primitive.bind(*(look_up(atom, values) for atom in step.reads), **options)
        values.update(
            zip(step.writes, results if primitive.multiple_results else [results], strict=True)
        )


def look_up(atom: Atom, values: dict[int, Any]) -> Any:
    """Give the value of an atom."""
    return values[atom] if isinstance(atom, int) else atom.val


def outputs_of(program: Program, values: dict[int, Any]) -> Any:
    """Give the function's results."""
    return program.tree.unflatten([jnp.asarray(look_up(atom, values)) for atom in program.outputs])
