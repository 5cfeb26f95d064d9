"""Parts of the suite are together the suite, and what one program answers is in one of them."""

import argparse
from types import SimpleNamespace

import pytest

from tests import sampling
from tests.table.columns import COLUMNS, PROGRAMS, Table


def item(name, *, module=(), cls=None, row=None, column=None):
    """What a test shows of itself."""
    itself = SimpleNamespace(
        nodeid=f"tests/test_any.py::{name}",
        originalname=name.partition("[")[0],
        module=SimpleNamespace(**dict.fromkeys(module)),
        cls=cls,
    )
    if row is not None:
        itself.callspec = SimpleNamespace(
            params={"row": SimpleNamespace(name=row), "column": column}
        )
    return itself


def parts_of(items, parts=4):
    """For every test the parts that it is in."""
    numbers = range(1, parts + 1)
    return [[k for k in numbers if sampling.belongs(one, (k, parts))] for one in items]


def test_every_test_is_in_one_part_and_every_part_has_some():
    found = parts_of([item(f"test_it[{n}]") for n in range(200)])
    assert {len(one) for one in found} == {1}
    counts = [found.count([k]) for k in range(1, 5)]
    assert min(counts) > 30
    assert parts_of([item("test_it")], parts=1) == [[1]]


def test_cases_of_one_program_stay_together():
    folded = [item(f"test_it[{n}]", module=["folded"]) for n in range(20)]
    assert parts_of(folded) == parts_of(folded[:1]) * 20
    for columns in (COLUMNS.keys() - PROGRAMS.keys(), ["x64", "slopes"]):
        rows = [
            [item("test_column", cls=Table, row=str(n), column=column) for column in columns]
            for n in range(20)
        ]
        found = [parts_of(row) for row in rows]
        assert all(one == one[:1] * len(one) for one in found)
        assert len({str(one[0]) for one in found}) == 4


def test_programs_are_of_columns():
    assert PROGRAMS.keys() <= COLUMNS.keys()


@pytest.mark.parametrize("text", ["", "4", "0/4", "5/4", "1/0", "-1/4", "a/4", "1/4/2", "1 of 4"])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is no part: say 2/4"):
        sampling.part_of(text)
    assert sampling.part_of("2/4") == (2, 4)
