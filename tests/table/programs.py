"""What is compiled for a row: five programs, whatever the number of columns.

Compiling is nearly all that the table costs, so each program answers several columns: forward over
reverse mode gives the value, the gradient, the tangent and the curvature at once; the second order
by reverse mode alone goes through ``jax.checkpoint``; the first program gives the memory of its
arguments away, and is called again with NaN, with indices outside, with another key.
"""

from collections.abc import Callable
from functools import cache, cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.table.examples import BATCH
from tests.table.row import Row

SCALES = np.array([[1, 0.5, 0.25, 0.875], [0.75, 0.875, 0.625, 0.375]], np.float32)
DIVISORS = np.arange(1, 1 + BATCH, dtype=np.int32).reshape(2, 4)
STEP = 1e-4


def is_float(leaf) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def waves(shape, phase):
    return np.sin(1.0 + phase + 2.0 * np.arange(np.prod(shape, dtype=int))).reshape(shape)


def weighed(function: Callable[..., object], *arguments):
    """All float outputs as one number, so that each of them has a gradient, and the outputs."""
    outputs = function(*arguments)
    total = jnp.zeros((), jnp.float32)
    for n, leaf in enumerate(filter(is_float, jax.tree.leaves(outputs))):
        wide = leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
        total = total.astype(wide.dtype) + (wide * waves(leaf.shape, n).astype(wide.dtype)).sum()
    return total, outputs


def gradient_of(row: Row, function: Callable[..., object]):
    """``((total, outputs), slopes)`` as a function of the arguments."""
    return jax.value_and_grad(partial(weighed, function), argnums=row.floats, has_aux=True)


def directions(row: Row):
    """A direction for every float argument."""
    return tuple(waves(row.arguments[n].shape, n).astype(np.float32) for n in row.floats)


def dot(one, two):
    return sum((a * b).sum() for a, b in zip(one, two, strict=True))


def cast(row: Row, arguments, dtype):
    return [leaf.astype(dtype) if n in row.floats else leaf for n, leaf in enumerate(arguments)]


def with_key(row: Row, key):
    return partial(row.function, key) if row.keyed else row.function


def as_list(leaf: np.ndarray):
    return leaf.tolist() if leaf.ndim else leaf[()]


def of_floats(row: Row, function, arguments):
    """The same as a function of the float arguments, and these."""

    def inner(*floats):
        every = list(arguments)
        for n, leaf in zip(row.floats, floats, strict=True):
            every[n] = leaf
        return function(*every)

    return inner, tuple(arguments[n] for n in row.floats)


def tangent_of(row: Row, function, arguments):
    total, floats = of_floats(row, lambda *every: weighed(function, *every)[0], arguments)
    return jax.jvp(total, floats, tuple(map(jnp.asarray, directions(row))))


def forward_over_reverse(row: Row, function, arguments):
    """``(total, slopes), (tangent of the total, curvature)``."""
    gradient, floats = of_floats(row, gradient_of(row, function), arguments)

    def without_outputs(*floats):
        (total, _), slopes = gradient(*floats)
        return total, slopes

    return jax.jvp(without_outputs, floats, tuple(map(jnp.asarray, directions(row))))


def reverse_over_reverse(row: Row, function, arguments):
    """``curvature, (outputs, slopes)``."""
    gradient, floats = of_floats(row, gradient_of(row, function), arguments)

    def curved(*floats):
        (_, outputs), slopes = gradient(*floats)
        return dot(slopes, directions(row)), (outputs, slopes)

    return jax.grad(curved, range(len(floats)), has_aux=True)(*floats)


class Parts(dict[str, Any]):
    """Results by name; where a part cannot be traced, its error stands in its place."""

    def attempt(self, name: str, compute: Callable[..., object], *arguments):
        try:
            self[name] = compute(*arguments)
        except Exception as error:
            self[name] = Failed(error)
        return not isinstance(self[name], Failed)


@jax.tree_util.register_static
class Failed:
    """An error, to be raised by the test that asks for the part."""

    def __init__(self, error: Exception):
        self.error = error


def derivatives(parts: Parts, row: Row, function, arguments):
    """First and second derivatives, without and with ``jax.checkpoint``."""
    saved = jax.checkpoint(function)
    second = "second" not in row.skips
    if second and parts.attempt("forward", forward_over_reverse, row, function, arguments):
        (total, parts["gradient"]), (tangent, parts["curvature"]) = parts["forward"]
        parts["tangent"] = total, tangent
    else:
        parts.attempt("gradient", lambda: gradient_of(row, function)(*arguments)[1])
        if "jvp" not in row.skips:
            parts.attempt("tangent", tangent_of, row, function, arguments)
    if second and parts.attempt("reverse", reverse_over_reverse, row, saved, arguments):
        _, parts["saved"] = parts["reverse"]
    elif parts.attempt("saved", lambda: gradient_of(row, saved)(*arguments)):
        (_, outputs), slopes = parts["saved"]
        parts["saved"] = outputs, slopes


def first_program(row: Row, key, arguments) -> dict[str, Any]:
    """Everything that needs one instance in single precision."""
    parts, plain = Parts(), with_key(row, key)
    function = jax.jit(plain)
    halved = cast(row, arguments, jnp.bfloat16)
    parts.attempt("value", function, *arguments)
    with jax.ensure_compile_time_eval():  # else what comes from NumPy is traced too
        concrete = list(map(jnp.asarray, row.arguments))
    parts.attempt("concrete", plain, *concrete)
    parts.attempt("lists", lambda: plain(*map(as_list, row.arguments)))
    parts.attempt("float16", function, *cast(row, arguments, jnp.float16))
    if row.exact is None:
        parts.attempt("bfloat16", function, *halved)
        parts.attempt("saved", jax.checkpoint(function), *arguments)
    else:
        parts.attempt("bfloat16", gradient_of(row, function), *halved)
        derivatives(parts, row, function, arguments)
    parts["twice"] = [leaf + leaf for leaf in arguments]
    return dict(parts)


def double_program(row: Row, key, arguments) -> dict[str, Any]:
    """The value and the gradient; also where a row has no gradient, its outputs come second."""
    parts, function = Parts(), jax.jit(with_key(row, key))
    if row.exact is None:
        parts.attempt("gradient", lambda: ((0.0, function(*arguments)), ()))
    else:
        parts.attempt("gradient", gradient_of(row, function), *arguments)
    return dict(parts)


def nested_program(row: Row, key, arguments) -> dict[str, Any]:
    """A (2, 4) batch. The second axis comes last, so that ``vmap`` has to move it."""
    parts, function = Parts(), jax.jit(with_key(row, key))
    moved = [jnp.moveaxis(leaf, 1, -1) for leaf in arguments]
    parts.attempt("nested", lambda: jax.vmap(jax.vmap(function, in_axes=-1))(*moved))
    return dict(parts)


def sharded_program(row: Row, key, arguments) -> dict[str, Any]:
    """The value and the gradient of a batch that is spread over devices."""
    parts, function = Parts(), jax.jit(with_key(row, key))
    many = jax.vmap if row.shared is None else lambda one: one
    slopes = None if row.exact is None else many(gradient_of(row, function))
    if slopes is not None and parts.attempt("gradient", slopes, *arguments):
        (_, parts["value"]), parts["gradient"] = parts["gradient"]
    else:
        parts.attempt("value", many(function), *arguments)
    return dict(parts)


def batch_of(row: Row) -> list[np.ndarray]:
    """Arguments with leading axes (2, 4), different from instance to instance."""

    def spread(number, leaf):
        by = (-1,) + (1,) * leaf.ndim
        if number in row.floats:
            return leaf * SCALES.reshape(by)
        return leaf // DIVISORS.reshape(by)

    every = (spread(n, leaf) for n, leaf in enumerate(row.arguments))
    return [leaf.reshape(2, 4, *leaf.shape[1:]) for leaf in every]


class Results:
    """What the columns look at for one row; each part is computed when it is asked for."""

    def __init__(self, row: Row):
        self.row = row
        self.deleted = False
        self.first = jax.jit(partial(first_program, row), donate_argnums=1)
        self.double = jax.jit(partial(double_program, row))

    def run(self, arguments, key=0) -> dict[str, Any]:
        """The first program, whose arguments are used up."""
        given = [jnp.array(leaf) for leaf in arguments]
        parts = jax.device_get(self.first(jax.random.key(key), given))
        self.deleted = all(leaf.is_deleted() for leaf in given)
        return parts

    @cached_property
    def single(self) -> dict[str, Any]:
        """One instance in single precision."""
        return self.run(self.row.arguments)

    @cached_property
    def nested(self) -> dict[str, Any]:
        """A batch of batches."""
        program = jax.jit(partial(nested_program, self.row))
        return jax.device_get(program(jax.random.key(0), batch_of(self.row)))

    @cached_property
    def alone(self) -> list[dict[str, Any]]:
        """The instances of that batch, one after the other."""
        batch = batch_of(self.row)
        return [self.run([leaf[at] for leaf in batch]) for at in np.ndindex(2, 4)]

    def in_double(self, shift: float = 0.0) -> dict[str, Any]:
        """In double precision, with the arguments moved along their directions."""
        arguments = cast(self.row, self.row.arguments, np.float64)
        for n, along in zip(self.row.floats, directions(self.row), strict=True):
            arguments[n] = arguments[n] + shift * along
        with jax.enable_x64(True):
            return jax.device_get(self.double(jax.random.key(0), arguments))

    def changed(self, number: int, entry) -> dict[str, Any]:
        """With another first entry of an argument."""
        arguments = [leaf.copy() for leaf in self.row.arguments]
        arguments[number].reshape(-1)[0] = entry
        return self.run(arguments)

    def sharded(self, kind: str) -> dict[str, Any]:
        """A batch spread over the devices of a mesh whose axes are of one type."""
        types = (getattr(jax.sharding.AxisType, kind),)
        mesh = jax.make_mesh((BATCH,), ("batch",), axis_types=types)
        row = self.row
        if row.shared is None:
            arguments = [leaf.reshape(BATCH, *leaf.shape[2:]) for leaf in batch_of(row)]
            specs = [jax.P("batch")] * len(arguments)
        else:
            arguments = row.arguments
            specs = [jax.P(None if n in row.shared else "batch") for n in range(len(arguments))]
        with jax.set_mesh(mesh):
            placed = [
                jax.device_put(leaf, jax.NamedSharding(mesh, spec))
                for leaf, spec in zip(arguments, specs, strict=True)
            ]
            program = jax.jit(partial(sharded_program, row))
            return jax.device_get(program(jax.random.key(0), placed))


@cache
def results_of(row: Row) -> Results:
    return Results(row)
