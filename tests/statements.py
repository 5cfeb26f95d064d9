"""Examples of docstrings, computed statement by statement.

Typed at a prompt, every operation is a program of its own: dozens for an example, and compiling
them is nearly all that running it costs. Here an assignment is one program, and so is each part of
what is printed. What cannot be traced runs as it stands; with ``pytest --full`` everything does.
"""

import ast
import builtins
import contextlib
import io
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

# Calls that compile nothing, or one small program that many examples share.
SMALL = {"Rngs", "arange", "array", "asarray", "full", "key", "ones", "zeros"}
# What asks for numbers: functions and modules, and methods.
ASKING = {"np", *vars(builtins)}
ASKING_METHODS = {"item", "tolist"}
# Known while tracing, and the same afterwards.
STATIC = (bool, int, float, str, type(None))
NAME = "__whole__"


class NotTraceableError(Exception):
    """What a statement gives is neither arrays nor plain."""


def whole_statements(source: str) -> str:
    """The source of a statement in which the largest parts that can be traced are marked."""
    body = ast.parse(source).body
    simple = (ast.Assign, ast.Expr)
    changed = [_Marked().visit(one) if isinstance(one, simple) else one for one in body]
    module = ast.Module(changed, [])
    return ast.unparse(ast.fix_missing_locations(module)) + "\n"


def with_whole(names: dict[str, Any]) -> dict[str, Any]:
    """The names of an example, and the function that computes what is marked in it."""
    return names | {NAME: lambda function: _computed(function, function.__globals__)}


class _Marked(ast.NodeTransformer):
    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, ast.Lambda | ast.ListComp | ast.GeneratorExp | ast.DictComp):
            return node
        part = isinstance(node, ast.Starred | ast.FormattedValue)
        if isinstance(node, ast.expr) and not part and _pays(node):
            nothing = ast.arguments([], [], None, [], [], None, [])
            mark = ast.Name(NAME, ast.Load())
            return ast.Call(mark, [ast.Lambda(nothing, node)], [])
        return self.generic_visit(node)


def _pays(node: ast.expr) -> bool:
    parts = list(ast.walk(node))
    asks = any(
        (isinstance(part, ast.Name) and part.id in ASKING)
        or (isinstance(part, ast.Attribute) and part.attr in ASKING_METHODS)
        or isinstance(part, ast.JoinedStr)
        for part in parts
    )
    calls = [part.func for part in parts if isinstance(part, ast.Call)]
    called = {getattr(call, "attr", getattr(call, "id", "")) for call in calls}
    return not asks and bool(called - SMALL)


def _is_node(value: Any) -> bool:
    return isinstance(value, nnx.Module | nnx.Rngs)


def _is_array(value: Any) -> bool:
    leaves = jax.tree.leaves(value, is_leaf=_is_node)
    return bool(leaves) and all(isinstance(leaf, jax.Array) or _is_node(leaf) for leaf in leaves)


def _computed(function: Callable[[], Any], names: dict[str, Any]) -> Any:
    """The result of a part of a statement, computed in one program if it can be traced."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            result = _traced(function, names)
    except Exception:
        return function()
    return function() if said.getvalue() else result


def _traced(function: Callable[[], Any], names: dict[str, Any]) -> Any:
    own = {name: value for name, value in names.items() if not name.startswith("_")}
    arrays = {name: value for name, value in own.items() if _is_array(value)}
    known: dict[str, Any] = {}

    def run(arrays: dict[str, Any]) -> list[Any]:
        before = {name: names[name] for name in arrays}
        names.update(arrays)
        try:
            result = function()
        finally:
            names.update(before)
        if isinstance(result, dict) and list(result) != sorted(result):
            raise NotTraceableError  # as a tree it would come back in another order
        leaves, tree = jax.tree.flatten(result, is_leaf=_is_node)
        at = [n for n, leaf in enumerate(leaves) if isinstance(leaf, jax.Array) or _is_node(leaf)]
        rest = {n: leaf for n, leaf in enumerate(leaves) if n not in at}
        if not all(isinstance(leaf, STATIC) for leaf in rest.values()):
            raise NotTraceableError
        known.update(tree=tree, at=at, rest=rest, size=len(leaves))
        return [leaves[n] for n in at]

    if {"nn", "nnx"} & names.keys():  # layers may be among what comes and what goes
        results = nnx.jit(run)(arrays)
    else:
        program = jax.jit(run)
        jax.eval_shape(program, arrays)
        results = program(arrays) if known["at"] else []
    leaves = known["rest"] | dict(zip(known["at"], results, strict=True))
    return jax.tree.unflatten(known["tree"], [leaves[n] for n in range(known["size"])])
