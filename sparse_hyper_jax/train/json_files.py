"""JSON files: values turned into JSON types, written in one move, read without being believed."""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.train.reading import reading

PARTIAL = ".partial"
"""Ending of a file that is being written."""

LONGEST = 2**20
"""A configuration has far fewer bytes than this."""


def to_plain(value: Any, *, finite: bool = False) -> Any:
    """Turn a value into JSON types: dataclasses to dicts, arrays to lists, paths to strings.

    Args:
        value: nested values.
        finite: replace infinite and undefined numbers, which JSON does not know, by ``None``.

    Raises:
        ValueError: a value has no counterpart in JSON.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif isinstance(value, Enum):
        value = value.name
    elif (to_list := getattr(value, "tolist", None)) is not None:  # of NumPy and JAX
        value = to_list()
    if isinstance(value, Mapping):
        return {str(name): to_plain(item, finite=finite) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item, finite=finite) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and finite and not math.isfinite(value):
        return None
    require(
        value is None or isinstance(value, bool | int | float | str),
        f"{value!r} of type {type(value).__name__}",
        "numbers, strings, paths, enums, arrays, or tuples, dicts and dataclasses of these",
        "leave it out of the configuration or the result",
    )
    return value


def read_json(path: Path, *, change: str) -> Any:
    """Read a small JSON file.

    Args:
        path: the file.
        change: what the user can do if it is damaged.

    Raises:
        ValueError: it is no JSON, or longer than any that this package writes.
        OSError: the system refuses the file.
    """
    with reading(path, "JSON file", change):
        with path.open("rb") as file:
            content = file.read(LONGEST + 1)
        if len(content) > LONGEST:
            raise ValueError(f"more than {LONGEST} bytes")
        return json.loads(content)


def write_json(path: Path, value: Any) -> None:
    """Write JSON types to a file, see :func:`replace_text`."""
    replace_text(path, json.dumps(value, indent=2) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Write a file in one move: whoever reads, or goes on after a kill, sees the old or the new."""
    partial = path.with_name(path.name + PARTIAL)
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
