import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.train.data import EventSamples, load_events, moving_discs
from sparse_hyper_jax.train.models.event_networks import (
    Field,
    accuracies_over_time,
    addressed,
    rasters,
)
from sparse_hyper_jax.train.recipes.erbp import ErbpRecipe, Parts, apart
from tests.ops.examples import assert_names_itself_and_its_cure

GOOD = {
    "offsets": np.array([0, 3, 5, 6]),
    "label": np.array([7, 1, 2], np.int8),
    "is_test": np.array([0, 1, 0], bool),
    "x": np.array([3, 3, 33, 0, 1, 9], np.uint8),
    "y": np.array([1, 2, 33, 0, 1, 9], np.uint8),
    "p": np.array([1, 0, 1, 1, 0, 0], np.uint8),
    "dt": np.array([100, 800, 200, 0, 2500, 5000], np.uint16),
}


def save(folder, **changes):
    np.savez_compressed(folder / "events.npz", **(GOOD | changes))
    return folder


def test_events_are_listed_by_the_millisecond(tmp_path):
    train, test = load_events(save(tmp_path), steps=3)
    assert train.labels.tolist() == [7, 2]
    assert test.labels.tolist() == [1]
    # 100 and 900 us, then 1100 us; the one of the other sample is too late.
    first = [[1 * 34 * 34 + 34 + 3, 2 * 34 + 3], [2 * 34 * 34 - 1, -1], [-1, -1]]
    assert train.codes.tolist() == [first, [[-1, -1]] * 3]
    assert test.codes.tolist() == [[[34 * 34, -1], [-1, -1], [34 + 1, -1]]]
    assert train.shape == (2, 34, 34)


@pytest.mark.parametrize(
    "changes",
    [
        {"x": np.array([3, 3, 34, 0, 1, 9], np.uint8)},
        {"p": np.array([1, 0, 2, 1, 0, 0], np.uint8)},
        {"offsets": np.array([0, 3, 5, 7])},
        {"is_test": np.zeros(3, bool)},
        {"is_test": np.array([0, 7, 0])},
        {"is_test": np.array([0, -1, 0])},
        {"is_test": np.array([0, 1, 2])},
        {"label": np.array([7, 1])},
        {"label": np.array([7, 1, 2**31])},
        {"label": np.array([7, 1, 10])},
        {"dt": np.array([1.0, 2, 3, 4, 5, 6])},
        # As int64 these would go back in time, into the sample before.
        {"dt": np.array([100, 800, 200, 2**64 - 1500, 20, 5], np.uint64)},
        {"dt": np.array([100, 800, 200, 2**62, 2**62, 5])},
    ],
)
def test_arrays_that_do_not_fit_are_told(tmp_path, changes):
    assert_names_itself_and_its_cure(
        lambda: load_events(save(tmp_path, **changes)), "events.npz", "samples share", "npz"
    )


@pytest.mark.parametrize("steps", [0, 10**5 + 1, 10**12])
def test_steps_that_take_all_memory_are_told(tmp_path, steps):
    assert_names_itself_and_its_cure(
        lambda: load_events(save(tmp_path), steps=steps), f"steps={steps}", "100000", "steps"
    )


def test_one_file_is_expected(tmp_path):
    assert_names_itself_and_its_cure(lambda: load_events(tmp_path), "0 files", "one", "npz")


@pytest.mark.parametrize("label", [-1, 4])
def test_a_disc_moves_in_one_of_four_directions(label):
    assert_names_itself_and_its_cure(
        lambda: moving_discs(jax.random.key(0), jnp.array([2, label])),
        f"{label}",
        "0, 1, 2 or 3",
        "",
    )


@pytest.fixture(scope="module")
def discs():
    labels = jnp.arange(8, dtype=jnp.int32) % 4  # known, also inside of the program
    return jax.jit(lambda key: moving_discs(key, labels, steps=24).codes)(jax.random.key(0))


def test_a_disc_is_covered_in_front_and_left_behind(discs):
    """The events of polarity 1 lie ahead of those of polarity 0, in the direction of the label."""
    ahead = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])
    for n, codes in enumerate(np.asarray(discs).astype(int)):
        real = codes[codes >= 0]
        places = np.stack([real // 32 % 32, real % 32], axis=-1)
        on = real >= 32 * 32
        step = places[on].mean(axis=0) - places[~on].mean(axis=0)
        assert (ahead * step).sum(axis=1).argmax() == n % 4


def test_what_is_seen_through_a_window_is_counted_where_it_belongs(discs):
    field = Field((2, 32, 32), 1, 0, 100)
    whole = jax.jit(lambda codes: rasters(addressed(field, codes), field.inputs))(discs[0])
    codes = np.asarray(discs[0]).astype(int)
    wanted = [np.bincount(now[now >= 0], minlength=2048) for now in codes]
    np.testing.assert_array_equal(whole, wanted)
    window = Field((2, 32, 32), 2, 6, 100)
    seen = np.asarray(jax.jit(lambda codes: addressed(window, codes))(discs[0]))
    assert window.inputs == 72
    assert (seen[codes < 0] == -1).all()
    assert (seen < 72).all()
    assert (seen >= 0).sum() > 0.3 * (codes >= 0).sum()


def test_a_memory_below_the_events_of_a_step_is_told():
    recipe = ErbpRecipe(discs=4, time_steps=2, memory=31)
    data = recipe.load()
    assert_names_itself_and_its_cure(
        lambda: recipe.settle(data), "--memory 31 with up to 32 events", "at least as many", "32"
    )
    assert ErbpRecipe(discs=4, time_steps=2, memory=31, window=0).settle(data).memory == 31


def test_classes_that_are_only_tested_on_count():
    recipe = ErbpRecipe(discs=4, time_steps=2, hidden=(5,))
    one, _, two = recipe.load()
    data = Parts(EventSamples(one.codes, one.labels * 0, one.shape), None, two)
    plan = recipe.settle(data).plan(data)
    assert plan.state.parameters.weights[-1].shape == (5, 2)  # two discs are tested on


def test_every_fifth_sample_is_kept_apart_to_validate_on():
    codes, labels = np.arange(24, dtype=np.int16).reshape(12, 2, 1), np.arange(12)
    train, checked = apart(EventSamples(codes, labels, (2, 4, 4)))
    assert checked.labels.tolist() == [4, 9]
    assert checked.codes.tolist() == codes[[4, 9]].tolist()
    assert train.labels.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 10, 11]
    assert train.codes.shape == (10, 2, 1)
    few = EventSamples(codes[:4], labels[:4], (2, 4, 4))
    assert_names_itself_and_its_cure(lambda: apart(few), "4 samples", "at least 5", "--no-validate")


def test_discs_to_judge_by_are_those_of_every_seed():
    one, two = (ErbpRecipe(discs=4, time_steps=2, seed=seed).load() for seed in (0, 1))
    for part in ("validation", "test"):
        assert (getattr(one, part).codes == getattr(two, part).codes).all()
    assert not (one.train.codes == two.train.codes).all()
    assert not (one.validation.codes == one.test.codes).all()


def test_nan_decides_for_no_class():
    scores = np.zeros((2, 2, 3))
    scores[1, 0] = np.nan
    assert accuracies_over_time(scores, np.zeros(2, int), parts=2) == [1.0, 0.5]
