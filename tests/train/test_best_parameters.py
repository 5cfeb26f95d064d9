import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.train.best_parameters import BestParameters
from tests.hostile import hostile_npz
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure


def tree(value):
    return {"w": jnp.full((2, 3), value), "b": [jnp.full((), value)]}


@pytest.fixture
def best(tmp_path):
    return BestParameters(tmp_path / "best.npz")


def test_the_highest_score_stays(best):
    for step, score in enumerate((0.1, 0.5, 0.3)):
        best.offer(score, step, tree(score))
    score, step, parameters = best.read(tree(0.0))
    assert (score, step) == (0.5, 1)
    assert_close(parameters, tree(0.5))


def test_of_equal_scores_the_first_stays(best):
    best.offer(0.5, 2, tree(2.0))
    best.offer(0.5, 3, tree(3.0))
    assert best.read(tree(0.0))[1] == 2
    # A resumed run repeats earlier evaluations.
    best.offer(0.5, 1, tree(1.0))
    assert best.read(tree(0.0))[1] == 1
    assert_close(best.read(tree(0.0))[2], tree(1.0))


def test_another_object_goes_on_with_the_file(best):
    best.offer(0.9, 7, tree(1.0))
    again = BestParameters(best.path)
    again.offer(0.8, 8, tree(2.0))
    assert again.read(tree(0.0))[:2] == (0.9, 7)
    assert [entry.name for entry in best.path.parent.iterdir()] == ["best.npz"]


def test_types_survive(best):
    parameters = {"w": jnp.ones(3, jnp.int32), "v": jnp.ones(2), "u": jnp.ones(2, jnp.bfloat16)}
    best.offer(0.0, 0, parameters)
    kept = best.read(parameters)[2]
    assert {name: leaf.dtype for name, leaf in kept.items()} == {
        "w": np.int32,
        "v": np.float32,
        "u": jnp.bfloat16,
    }
    assert_close(kept, parameters)


def test_a_score_that_is_no_number_is_the_lowest(best):
    best.offer(float("nan"), 0, tree(0.0))
    best.offer(-5.0, 1, tree(1.0))
    best.offer(float("nan"), 2, tree(2.0))
    assert best.read(tree(0.0))[:2] == (-5.0, 1)


def test_reading_nothing_or_another_model_is_an_error(best):
    assert_names_itself_and_its_cure(lambda: best.read(tree(0.0)), "no file", "evaluation", "train")
    best.offer(0.5, 1, tree(1.0))
    other = {"w": jnp.zeros(4), "b": [jnp.zeros(())]}
    assert_names_itself_and_its_cure(lambda: best.read(other), "[2, 3]", "[4]", "same model")


def test_parameters_of_another_dtype_are_an_error(best):
    best.offer(0.5, 1, {"w": jnp.zeros(2)})
    with pytest.raises(ValueError, match=r"found parameters .* float32\[2\]\"\] in .*float16\[2\]"):
        best.read({"w": jnp.zeros(2, jnp.float16)})


@pytest.mark.parametrize(
    ("kept", "like"),
    [
        ({"a": jnp.zeros(2), "b": jnp.ones(2)}, {"b": jnp.zeros(2), "z": jnp.zeros(2)}),
        ({"a": jnp.ones(2, jnp.bfloat16)}, {"a": jnp.zeros(2, jnp.uint16)}),
    ],
)
def test_parameters_of_other_names_or_of_the_same_bits_are_not_mixed_up(best, kept, like):
    best.offer(0.5, 1, kept)
    assert_names_itself_and_its_cure(lambda: best.read(like), "['a']", "['", "same model")


def test_a_file_of_an_earlier_version_is_told(best):
    np.savez(best.path, **{name: GOOD[name] for name in GOOD if name != "leaves"})
    for use in (lambda: best.read({"w": jnp.zeros(2)}), lambda: best.offer(0.9, 4, tree(1.0))):
        with pytest.raises(ValueError, match=r"^found .*best\.npz.*; expected .*; .*--out DIR"):
            use()


def test_best_of_another_run_is_never_believed(tmp_path):
    BestParameters(tmp_path / "best.npz", run="one").offer(0.999, 1, tree(1.0))
    other = BestParameters(tmp_path / "best.npz", run="other")
    for use in (lambda: other.read(tree(0.0)), lambda: other.offer(0.5, 1, tree(2.0))):
        assert_names_itself_and_its_cure(use, "of the run 'one'", "of the run 'other'", "--out DIR")
    assert BestParameters(tmp_path / "best.npz", run="one").read(tree(0.0))[0] == 0.999


GOOD = {"arr_0": np.zeros(2, np.float32), "run": np.zeros(0, np.uint8)}
GOOD |= {"score": np.float64(0.5), "step": np.int64(3)}
GOOD |= {"leaves": np.frombuffer(b"['w'] float32[2]", np.uint8)}


def test_the_good_file_is_read(best):
    np.savez(best.path, **GOOD)
    assert best.read({"w": jnp.ones(2)})[:2] == (0.5, 3)


@pytest.mark.parametrize(("damage", "write"), hostile_npz(GOOD, "score").items())
def test_damaged_file_is_told_in_three_parts(best, damage, write):
    write(best.path)
    like = {"w": jnp.zeros(2)}
    for use in (lambda: best.read(like), lambda: best.offer(0.9, 4, like)):
        with pytest.raises(ValueError, match=r"^found .*best\.npz.*; expected .*; .*--out DIR"):
            use()


@pytest.mark.parametrize("name", ["arr_0", "arr_7", "score", "run", "leaves"])
def test_file_without_one_of_its_arrays_is_refused(best, name):
    arrays = dict(GOOD)
    arrays["else"] = arrays.pop(name, np.zeros(1))
    np.savez(best.path, **arrays)
    with pytest.raises(ValueError, match=r"^found .*; expected .*; .*"):
        best.read({"w": jnp.zeros(2)})
