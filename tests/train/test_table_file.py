"""Columns of CSV files: every way of writing one that is read, and every fault that is told."""

import gzip

import numpy as np
import pytest

from sparse_hyper_jax.train.data import read_table
from tests.ops.examples import assert_names_itself_and_its_cure

PLAIN = "time,flow,level\n8:00,1.5,-3\n9:00,2.5e1,4\n"
WANTED = [[-3.0, 1.5], [4.0, 25.0]]


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode(),
        PLAIN.encode("utf-8-sig"),
        PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace("\n", "\r").encode(),
        PLAIN.replace(",", ";").encode(),
        PLAIN.replace(",", "\t").encode(),
        PLAIN.replace(",", " , ").encode(),
        PLAIN.replace("8:00", '"8:00, or\nso"').replace("-3", '"-3"').encode(),
        PLAIN.replace("time", '"ti;me"').replace("8:00", '"8""00"').encode(),
        ("\n" + PLAIN.rstrip() + "\n\n \n").encode(),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_columns_are_read_by_their_names(content, packed, tmp_path):
    path = tmp_path / ("one.csv.gz" if packed else "one.csv")
    path.write_bytes(gzip.compress(content) if packed else content)
    table = read_table(path, ["level", "flow"])
    assert table.names == ("level", "flow")
    assert table.values.tolist() == WANTED


def test_all_columns_and_a_single_one_are_read(tmp_path):
    (tmp_path / "one.csv").write_text("a;b\n1;2\n3;4\n")
    assert read_table(tmp_path / "one.csv").names == ("a", "b")
    (tmp_path / "one.csv").write_text("a\n1\n3\n")
    assert read_table(tmp_path / "one.csv").values.tolist() == [[1.0], [3.0]]


def test_gaps_take_the_value_before_if_asked(tmp_path):
    (tmp_path / "one.csv").write_text("a,b\n1,x\n,x\nNA,x\n2,x\nnan,x\n")
    table = read_table(tmp_path / "one.csv", ["a"], missing="previous")
    assert table.values[:, 0].tolist() == [1, 1, 1, 2, 2]


@pytest.mark.parametrize("cell", ['""', '" "'])
def test_a_quoted_gap_is_no_empty_line(tmp_path, cell):
    (tmp_path / "one.csv").write_text(f"a\n1\n{cell}\n2\n{cell}\n \n")
    table = read_table(tmp_path / "one.csv", missing="previous")
    assert table.values[:, 0].tolist() == [1, 1, 2, 2]
    assert_names_itself_and_its_cure(
        lambda: read_table(tmp_path / "one.csv"), "line 3, column 'a', one of 2", "a number", ""
    )


@pytest.mark.parametrize(
    ("content", "columns", "found", "expected"),
    [
        ("a,b\n1,2\n3,\n", ("a", "b"), "an empty cell in {}, line 3, column 'b'", "a number"),
        ("a,b\n1,2\n3,NaN\n,5\n4,\n", ("b",), "'NaN' in {}, line 3, column 'b', one of 2", ""),
        ("a,b\n1,2\n3,high\n", ("b",), "'high' in {}, line 3, column 'b'", "a number"),
        ("a,b\n1,2\n3,1_000\n", ("b",), "'1_000' in {}, line 3", "a number"),
        ("a,b\n1,2\n-inf,2\n", ("a",), "'-inf' in {}, line 3, column 'a'", "finite"),
        ("a,b\n1,2\n1e999,2\n", ("a",), "'1e999' in {}, line 3, column 'a'", "finite"),
        ("a,b\n1,2\n1e200,2\n", ("a",), "'1e200' in {}, line 3, column 'a'", "1e+100"),
        ("a;b\n1;2\n1,5;2\n", ("a",), "'1,5' in {}, line 3, column 'a'", "a decimal point"),
        ("a;b\n1;2\n1.000,5;2\n", ("a",), "'1.000,5' in {}, line 3", "a decimal point"),
        ("a,b\n1,2\n1,5,2\n", ("a",), "3 cells in {}, line 3", "2, separated by commas"),
        ('a,b\n"1\n",2\n1\n', ("a",), "1 cells in {}, line 4", "2, separated by commas"),
        ("a,b,a\n1,2,3\n", ("a",), "2 columns 'a' in {}", "one column"),
        ("a,b,a\n1,2,3\n", None, "2 columns 'a' in {}", "one column"),
        ("a,b\n1,2\n", ("b", "b"), "column 'b' asked for twice", "once"),
        ("Flow,level\n1,2\n", ("flow",), "no column 'flow' in {}", "perhaps 'Flow'"),
        ("flow,level\n1,2\n", ("levle",), "no column 'levle' in {}", "perhaps 'level'"),
        ("flow,level\n1,2\n", ("x",), "no column 'x' in {}", "one of 'flow', 'level'"),
        (",flow\n0,1\n", None, "a column without a name in {}", "names"),
        (",flow\n0,1\n", ("", "flow"), "columns '', 'flow'", "names"),
        ("1,2\n3,4\n", None, "only numbers in {}, line 1: '1', '2'", "names"),
        ("a,b\n1,2\n\n3,4\n", ("a",), "an empty line 3 in {}", "equal distances"),
        ("a,b\n", None, "no row below the names in {}", "rows"),
        ("", None, "no line in {}", "names"),
        ('a,b\n1,2\n"3,4\n5,6\n', ("a",), "from line 3 on", "commas"),
        ("a\n\x001\n", ("a",), "{}, line 2", ""),
        (b"\xff\xfea\x00", None, "{} damaged or no CSV file in UTF-8", ""),
    ],
)
def test_faults_are_told_with_file_line_and_column(content, columns, found, expected, tmp_path):
    path = tmp_path / "one.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert_names_itself_and_its_cure(
        lambda: read_table(path, columns), found.format(path), expected, ""
    )


def test_gaps_in_the_first_row_are_not_filled(tmp_path):
    (tmp_path / "one.csv").write_text("a,b\n,2\n3,4\n")
    assert_names_itself_and_its_cure(
        lambda: read_table(tmp_path / "one.csv", ["a"], missing="previous"),
        "line 2, column 'a', the first row",
        "a value to begin with",
        "remove",
    )
    assert_names_itself_and_its_cure(
        lambda: read_table(tmp_path / "one.csv", missing="next"), "missing='next'", "", "missing"
    )


def test_files_that_are_not_there_or_damaged_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"found .*two\.csv.*; expected a CSV file .*; "):
        read_table(tmp_path / "two.csv")
    (tmp_path / "one.csv.gz").write_text(PLAIN)
    assert_names_itself_and_its_cure(
        lambda: read_table(tmp_path / "one.csv.gz"), "one.csv.gz damaged", "CSV file", "restore"
    )


def test_many_columns_are_not_all_told(tmp_path):
    names = ",".join(f"sensor{number}" for number in range(40))
    (tmp_path / "one.csv").write_text(names + "\n" + ",".join("0" * 40) + "\n")
    with pytest.raises(ValueError, match="'sensor11' and 28 more"):
        read_table(tmp_path / "one.csv", ["x"])
    assert read_table(tmp_path / "one.csv").values.shape == (1, 40)
    assert np.all(read_table(tmp_path / "one.csv").values == 0)


def test_a_path_may_be_text_and_some_column_has_to_be_asked_for(tmp_path):
    path = tmp_path / "one.csv"
    path.write_text("a\n1\n2\n")
    assert read_table(str(path)).values.tolist() == [[1], [2]]
    assert_names_itself_and_its_cure(lambda: read_table(path, []), "no column", "one at least", "")
