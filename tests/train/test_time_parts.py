"""Series cut in time: no target of one part is near one of another; scales come from training."""

import itertools

import numpy as np
import pytest

from sparse_hyper_jax.train.data import cut_in_time, standardise
from tests.ops.examples import assert_names_itself_and_its_cure


@pytest.mark.parametrize("ahead", [0, 1, 5])
@pytest.mark.parametrize("history", [0, 1, 7])
def test_parts_follow_each_other_with_a_gap(history, ahead):
    time = np.arange(200.0)[:, None]
    parts = cut_in_time(time, time, history=history, ahead=ahead)
    targets, reads = [], []
    for part in parts:
        assert np.array_equal(part.targets, part.inputs + ahead)
        targets.append(part.targets[history:, 0])
        reads.append(part.inputs[:, 0])
        assert np.all(np.diff(part.inputs[:, 0]) == 1)
    for before, after in itertools.pairwise(targets):
        assert after[0] - before[-1] == history + 1
    assert np.concatenate(reads).tolist() == list(range(200 - ahead))
    counted = 200 - ahead - 3 * history
    assert [len(one) for one in targets[:2]] == [counted * 60 // 100, counted * 20 // 100]


def test_columns_are_scaled_by_their_first_rows_alone():
    values = np.random.default_rng(0).normal(5, 3, (100, 2)) * [1, 1e8]
    values[60:] += 1e9
    scaled, mean, spread = standardise(values, 60, ["a", "b"])
    np.testing.assert_allclose(scaled[:60].mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(scaled[:60].std(axis=0), 1)
    np.testing.assert_allclose(scaled * spread + mean, values)


def test_columns_that_cannot_be_scaled_are_told():
    huge = np.array([[1e200], [2e200], [4e200]])
    assert_names_itself_and_its_cure(
        lambda: standardise(huge, 3, ["a"]), "up to 4e+200, of spread inf", "finite", "scale it"
    )
    assert_names_itself_and_its_cure(lambda: standardise(huge, -1, ["a"]), "rows=-1", "", "")
    halves = np.array([[0], [60_000], [30_000]], np.float16)
    assert np.abs(standardise(halves, 3, ["a"])[0].std() - 1) < 1e-9


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_told_in_training_and_kept_after_it(value):
    values = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, value]])
    assert_names_itself_and_its_cure(
        lambda: standardise(values, 3, ["a", "b"]),
        f"column 'b' with {value:g} in row 2 of the 3 rows",
        "finite",
        "leave the column out",
    )
    scaled, mean, spread = standardise(values, 2, ["a", "b"])
    np.testing.assert_array_equal(scaled, [[-1, -1], [1, 1], [3, value]])
    assert np.isfinite([mean, spread]).all()


@pytest.mark.parametrize(
    ("values", "rows", "found", "expected", "change"),
    [
        (np.array([1.0, 2.0]), 2, "values of shape (2,)", "one column per name", "reshape"),
        (np.eye(2), 2, "values of shape (2, 2)", "(any, 1)", "reshape"),
        (np.array([[1.0], [2.0]]), 3, "rows=3", "from 1 to 2", "rows"),
        (np.array([[1j], [2.0]]), 2, "j]", "real numbers", "NumPy"),
        ([[1.0], [2.0]], 2, "values=[[1.0], [2.0]]", "real numbers", "NumPy"),
        (np.array([["1"], ["2"]]), 2, "'1'", "real numbers", "NumPy"),
    ],
)
def test_what_is_no_table_of_the_named_columns_is_told(values, rows, found, expected, change):
    assert_names_itself_and_its_cure(
        lambda: standardise(values, rows, ["a"]), found, expected, change
    )


@pytest.mark.parametrize("value", [0.0, 0.1, 1e100])
def test_constant_columns_are_told(value):
    values = np.stack([np.arange(50.0), np.full(50, value)], axis=1)
    values[45:, 1] = 7  # it varies where nothing is learned
    assert_names_itself_and_its_cure(
        lambda: standardise(values, 40, ["a", "b"]),
        f"column 'b' with the same value {value:g} in all 40 rows",
        "a column that varies",
        "leave it out",
    )


@pytest.mark.parametrize(
    ("rows", "history", "ahead"), [(3, 1, 1), (0, 0, 0), (352, 100, 3), (99, 0, 150)]
)
def test_short_series_are_told(rows, history, ahead):
    values = np.zeros((rows, 1))
    assert_names_itself_and_its_cure(
        lambda: cut_in_time(values, values, history=history, ahead=ahead),
        f"{rows} rows, to look {history} back",
        f"at least {3 * history + ahead + 50}",
        "lower --reach",
    )
    longer = np.zeros((3 * history + ahead + 50, 1))
    shortest = cut_in_time(longer, longer, history=history, ahead=ahead)
    assert min(len(part.inputs) for part in shortest) == history + 10
