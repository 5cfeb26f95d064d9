"""How the command line reads fields that may be ``None``: as if they could not be.

Left to itself, tyro tries one type after the other, shows this as ``{None}|INT``, and answers a
word that fits none of them with what it holds of these types inside.
"""

import types
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

NAMES = {int: "INT", float: "FLOAT", str: "STR", Path: "PATH"}
"""How help names the types of single words."""


def optional_flags() -> ConstructorRegistry:
    """Give the rule by which to read ``int | None`` and the like; ``None`` is the word for none."""
    registry = ConstructorRegistry()
    registry.primitive_rule(_rule)
    return registry


def _rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    kinds = [_bare(one) for one in get_args(info.type) if one is not types.NoneType]
    if info.type_origin not in (Union, types.UnionType) or len(kinds) != 1:
        return None
    many = get_origin(kinds[0]) is tuple
    kind = _bare(get_args(kinds[0])[0]) if many else kinds[0]
    if kind not in NAMES:
        return None

    def read(words: Sequence[str]) -> Any:
        if list(words) == ["None"]:
            return None
        return tuple(map(kind, words)) if many else kind(words[0])

    return PrimitiveConstructorSpec(
        nargs="*" if many else 1,
        metavar=f"[{NAMES[kind]} ...]" if many else NAMES[kind],
        instance_from_str=read,
        is_instance=lambda value: value is None or isinstance(value, tuple if many else kind),
        str_from_instance=lambda value: list(map(str, value)) if value and many else [str(value)],
    )


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint
