"""Do the calls in a piece of source fit the functions that they call?

What runs for minutes is not run with every change; that its calls still fit is read in no time.
"""

import ast
import importlib
import inspect
from collections.abc import Iterator

OURS = ("sparse_hyper_jax", "benchmarks")


def imported(tree: ast.AST) -> dict[str, object]:
    """What the source knows of the package, by the names that it gives."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
            module = importlib.import_module(node.module)
            for alias in node.names:
                if hasattr(module, alias.name):
                    value = getattr(module, alias.name)
                else:
                    value = importlib.import_module(f"{node.module}.{alias.name}")
                found[alias.asname or alias.name] = value
    return found


def resolve(called: ast.expr, names: dict[str, object]) -> object | None:
    """The object that is called, where the source says so plainly."""
    if isinstance(called, ast.Name):
        return names.get(called.id)
    if isinstance(called, ast.Attribute):
        owner = resolve(called.value, names)
        # Of modules only: the attributes of an instance are not known from the source.
        return getattr(owner, called.attr) if inspect.ismodule(owner) else None
    return None


def misfits(source: str) -> Iterator[str]:
    """Say of each call of a public function or class that its signature refuses it."""
    tree = ast.parse(source)
    names = imported(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = resolve(node.func, names)
        spread = any(isinstance(argument, ast.Starred) for argument in node.args)
        spread |= any(keyword.arg is None for keyword in node.keywords)
        if not callable(called) or spread:
            continue
        try:
            inspect.signature(called).bind(*node.args, **{k.arg: k.value for k in node.keywords})
        except TypeError as error:
            yield f"line {node.lineno}: {ast.unparse(node)[:80]}: {error}"
