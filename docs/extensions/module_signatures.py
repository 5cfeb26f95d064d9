"""Signatures of modules: Flax hides them behind its metaclass, and options hide in a TypedDict."""

import inspect
import typing
from typing import Any

from flax import nnx
from sphinx.util.inspect import stringify_signature

from sparse_hyper_jax import nn

Parameter = inspect.Parameter


def signature_of(module: type) -> inspect.Signature:
    """Give the parameters of a module's constructor, each option by its own name."""
    _, *own = inspect.signature(module.__init__).parameters.values()
    shown = [named(one) for parameter in own for one in spelled_out(parameter)]
    # Options stand before the streams, which every module has last.
    return inspect.Signature(sorted(shown, key=lambda one: (one.kind, one.name == "rngs")))


class Name(str):
    """A default that is written by its name."""

    __slots__ = ()
    __repr__ = str.__str__


def named(parameter: inspect.Parameter) -> inspect.Parameter:
    """Write a function or a type that is a default by its name, not by where it lies in memory."""
    default = parameter.default
    if default is Parameter.empty or not callable(default):
        return parameter
    return parameter.replace(default=Name(getattr(default, "__name__", type(default).__name__)))


def spelled_out(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    """Give a parameter; of options in a TypedDict, its entries with the defaults of the layer."""
    if parameter.kind is not Parameter.VAR_KEYWORD:
        return [parameter]
    (options,) = typing.get_args(parameter.annotation) or (None,)
    if not typing.is_typeddict(options):
        return [parameter]
    layer = getattr(nn, options.__name__.removesuffix("Options"), None)
    known = inspect.signature(layer.__init__).parameters if layer else {}
    return [
        Parameter(
            name,
            Parameter.KEYWORD_ONLY,
            default=known[name].default if name in known else ...,
            annotation=annotation,
        )
        for name, annotation in options.__annotations__.items()
    ]


def show(app: Any, what: str, name: str, obj: Any, options: Any, *shown: Any) -> Any:
    """Replace the signature of a module."""
    if what == "class" and isinstance(obj, type) and issubclass(obj, nnx.Module):
        return stringify_signature(signature_of(obj), unqualified_typehints=True), None
    return None


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("autodoc-process-signature", show)
    return {"parallel_read_safe": True}
