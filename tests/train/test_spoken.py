import itertools

import numpy as np
import pytest

from sparse_hyper_jax.train.data import Spoken, load_spoken
from sparse_hyper_jax.train.data.spoken import RATE, WINDOW, mel_filters, split_spoken
from tests.ops.examples import assert_names_itself_and_its_cure

LENGTHS = (4000, 900, 60)
GOOD = {
    "offsets": np.concatenate([[0], np.cumsum(LENGTHS)]),
    "digit": np.array([3, 1, 4], np.int8),
    "speaker": np.array([0, 5, 2], np.int8),
    "take": np.array([0, 9, 4], np.int8),
}


def tones(*hertz):
    waves = (
        3000 * np.sin(2 * np.pi * pitch * np.arange(length) / RATE)
        for pitch, length in zip(hertz, LENGTHS, strict=True)
    )
    return np.concatenate(list(waves)).astype(np.int16)


def save(folder, **changes):
    np.savez_compressed(
        folder / "spoken.npz", **({"samples": tones(500, 2000, 300)} | GOOD | changes)
    )
    return folder


def test_a_tone_is_in_the_band_that_holds_its_pitch(tmp_path):
    spoken = load_spoken(save(tmp_path), bands=20, times=8)
    assert spoken.bands.shape == (3, 20, 8)
    assert spoken.bands.dtype == np.float32
    frequencies = np.fft.rfftfreq(WINDOW, 1 / RATE)
    for recording, pitch in ((0, 500), (1, 2000)):
        loudest = spoken.bands[recording].mean(axis=1).argmax()
        heard = mel_filters(20)[:, np.abs(frequencies - pitch).argmin()]
        assert heard[loudest] == heard.max()
    assert spoken.bands.min() >= 0
    np.testing.assert_allclose(spoken.bands.max(axis=(1, 2)), 1)
    assert spoken.digits.tolist() == [3, 1, 4]
    assert spoken.speakers.tolist() == [0, 5, 2]
    assert spoken.takes.tolist() == [0, 9, 4]


def test_loudness_counts_for_nothing(tmp_path):
    samples = tones(500, 2000, 300)
    one = load_spoken(save(tmp_path, samples=samples * 5)).bands
    two = load_spoken(save(tmp_path, samples=samples)).bands
    np.testing.assert_allclose(one, two, atol=2e-3)


def test_silence_is_silent_and_every_band_hears(tmp_path):
    samples = np.zeros(sum(LENGTHS), np.int16)
    assert not load_spoken(save(tmp_path, samples=samples)).bands.any()
    np.testing.assert_allclose(mel_filters(39).sum(axis=1), 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"offsets": np.array([0, 10, 5, 20])},
        {"offsets": np.array([0, 10, 20, 10**6])},
        {"offsets": np.array([0, 10, 5, sum(LENGTHS)])},
        {"offsets": np.array([0, 10, 5, sum(LENGTHS)], np.uint64)},
        {"offsets": np.array([0, 10, 2**64 - 1, sum(LENGTHS)], np.uint64)},
        {"offsets": np.array([0, 10, 20, 2**64 - 1], np.uint64)},
        # Samples before the first recording, and after the last.
        {"offsets": np.array([5, 10, 20, sum(LENGTHS)])},
        {"offsets": np.array([0, 10, 20, sum(LENGTHS) - 1])},
        {"digit": np.array([1, 2])},
        {"digit": np.array([1, 2, 10])},
        {"speaker": np.array([0, 1, 2**31])},
        {"take": np.array([0, 1, 2**32 + 1])},
        {"samples": np.full(sum(LENGTHS), np.nan, np.float32)},
        {"speaker": np.array([0.5, 1, 2])},
        {"take": np.array([-1, 1, 2])},
        {"samples": np.zeros((2, 5000), np.int16)},
    ],
)
def test_arrays_that_do_not_fit_are_told(tmp_path, changes):
    assert_names_itself_and_its_cure(
        lambda: load_spoken(save(tmp_path, **changes)), "spoken.npz", "a number for every", "npz"
    )


def test_one_file_is_expected(tmp_path):
    assert_names_itself_and_its_cure(lambda: load_spoken(tmp_path), "0 files", "one", "npz")


def recordings(speakers=(0, 2, 5), takes=9):
    """One digit, every take of every speaker; the bands say which recording it is."""
    pairs = [(speaker, take) for speaker in speakers for take in range(takes)]
    numbers = np.arange(len(pairs))
    return Spoken(numbers[:, None, None], numbers % 10, *np.array(pairs).T)


@pytest.mark.parametrize("held_out", [None, 2, 5])
def test_nobody_is_in_two_parts(held_out):
    spoken = recordings()
    parts = split_spoken(spoken, held_out=held_out)
    numbers = [part.bands.ravel().tolist() for part in parts]
    assert sorted(itertools.chain(*numbers)) == list(range(27))
    whole, none, test = split_spoken(spoken, held_out=held_out, validate=False)
    assert none is None
    assert sorted(whole.bands.ravel()) == sorted(numbers[0] + numbers[1])
    assert test.bands.ravel().tolist() == numbers[2]
    for part in parts:
        assert (part.digits == part.bands.ravel() % 10).all()
    train, checked, test = parts
    if held_out is None:
        assert set(test.takes) == {0, 1, 2, 3, 4}
        assert set(checked.takes) == {5, 6}
        assert set(train.takes) == {7, 8}
    else:
        after = {2: 5, 5: 0}[held_out]
        assert set(test.speakers) == {held_out}
        assert set(checked.speakers) == {after}
        assert set(train.speakers) == {0, 2, 5} - {held_out, after}


@pytest.mark.parametrize(
    ("held_out", "spoken", "found", "cure"),
    [
        (3, recordings(), "--held-out 3 of speakers [0, 2, 5]", "--held-out"),
        (None, recordings(takes=7), "0 to train and 6 to validate and 15 to test on", "takes"),
        (0, recordings(speakers=(0, 4)), "0 to train and 9 to validate and 9 to test", "--no-val"),
        (0, recordings(speakers=(0,)), "0 to train and 0 to validate and 9 to test", "speakers"),
    ],
)
def test_a_part_without_recordings_is_told(held_out, spoken, found, cure):
    assert_names_itself_and_its_cure(
        lambda: split_spoken(spoken, held_out=held_out), found, "", cure
    )
