"""A part of the suite: `pytest --part 2/4` runs the second of four, which together are the suite.

What shares a compiled program stays together, or every part would compile all of them: the columns
of the table that one program answers, and the cases of a test whose file folds them. (The first
program of a row, with which the others are compared, may be in several parts.) All else is dealt
out case by case. Names decide, so that a part is the same on every machine.
"""

import argparse
from zlib import crc32

import pytest


def part_of(text: str) -> tuple[int, int]:
    """``"2/4"`` as two numbers."""
    number, slash, parts = text.partition("/")
    if not (slash and number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is no part: say 2/4 for the second of four")
    return int(number), int(parts)


def belongs(item: pytest.Item, part: tuple[int, int]) -> bool:
    """Whether a test is in this part of the suite."""
    number, parts = part
    return parts == 1 or crc32(_kept_together(item).encode()) % parts == number - 1


def _kept_together(item: pytest.Item) -> str:
    """What is said of all tests that share programs, and of no other."""
    from tests.table.columns import PROGRAMS, Table  # bring JAX, which the suite sets up first

    if issubclass(item.cls or object, Table) and hasattr(item, "callspec"):
        row, column = item.callspec.params["row"], item.callspec.params["column"]
        return f"{item.cls.__name__} {row.name} {PROGRAMS.get(column, 'single')}"
    file, _, name = item.nodeid.partition("::")
    if {"folded", "stacked"} & vars(item.module).keys():
        return f"{file} {item.originalname}"
    return f"{file} {name}"
