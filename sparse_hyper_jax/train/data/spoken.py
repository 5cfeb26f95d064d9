"""Spoken digits from a file: the recordings of the Free Spoken Digit Dataset, as band energies."""

import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparse_hyper_jax.checks import check_count, require
from sparse_hyper_jax.train.npz import read_npz

ARRAYS = ("samples", "offsets", "digit", "speaker", "take")
RATE, WINDOW = 8000, 256
"""Samples in a second, and in a window of 32 ms."""

LOWEST, DYNAMIC = 100.0, 60.0
"""Lower end of the bands in Hz; decibels below the loudest that still count."""

DIGITS = 10
"""That are spoken."""

TEST_TAKES, VALIDATION_TAKES = 5, 2
"""Of every digit and speaker, the first takes are the official test set; the next ones validate."""

CHANGE = (
    "pass an npz file with samples (int16, mono, 8 kHz), offsets, digit, speaker and take of "
    "recordings of the Free Spoken Digit Dataset"
)


class Spoken(NamedTuple):
    """Spoken digits on the host.

    Example:
        >>> from sparse_hyper_jax.train.data import Spoken
        >>> Spoken._fields
        ('bands', 'digits', 'speakers', 'takes')
    """

    bands: np.ndarray
    """``(n, bands, times)`` float32 in [0, 1]: the loudest of a recording is 1."""

    digits: np.ndarray
    """``(n,)`` int32."""

    speakers: np.ndarray
    """``(n,)`` int32, their numbers."""

    takes: np.ndarray
    """``(n,)`` int32; those below 5 are the official test set."""


def load_spoken(folder: Path, *, bands: int = 39, times: int = 40) -> Spoken:
    """Read recordings of spoken digits, and turn each into log energies of bands over time.

    A recording becomes as many windows as there are times, spread evenly over it, whatever its
    length; of each the energies in triangular bands that are evenly spaced on the mel scale. In
    decibels, those from 60 below the loudest of the recording up become 0 to 1, so that loudness
    does not tell the speaker.

    Args:
        folder: holds one npz file with ``samples`` of all recordings, recording ``i`` at
            ``offsets[i]:offsets[i + 1]`` from the first sample to the last, and ``digit``,
            ``speaker`` and ``take`` of each.
        bands: how many.
        times: how many windows.

    Returns:
        the energies, digits, speakers and takes.

    Raises:
        ValueError: not one such file, or a damaged one.

    Reference: Jackson et al., Free Spoken Digit Dataset, 2016.

    Example:
        >>> from pathlib import Path
        >>> from sparse_hyper_jax.train.data import load_spoken
        >>> numbers = {"digit": [3], "speaker": [0], "take": [7], "offsets": [0, 4000]}
        >>> wave = 1000 * np.sin(np.arange(4000) * (2 * np.pi * 440 / 8000))
        >>> np.savez("one.npz", samples=wave.astype(np.int16), **numbers)
        >>> load_spoken(Path()).bands.shape
        (1, 39, 40)
    """
    bands, times = check_count("bands", bands, least=1), check_count("times", times, least=1)
    paths = sorted(Path(folder).glob("*.npz"))
    require(len(paths) == 1, f"{len(paths)} files *.npz in {folder}", "one", CHANGE)
    arrays = read_npz(paths[0], names=ARRAYS, change=CHANGE)
    _check(paths[0], arrays)
    samples, offsets = arrays["samples"], arrays["offsets"].astype(np.int64)
    filters = mel_filters(bands)
    energies = [
        band_energies(samples[start:stop].astype(np.float64), filters, times)
        for start, stop in itertools.pairwise(offsets.tolist())
    ]
    numbers = (arrays[name].astype(np.int32) for name in ("digit", "speaker", "take"))
    return Spoken(np.stack(energies).astype(np.float32), *numbers)


def split_spoken(
    spoken: Spoken, *, held_out: int | None = None, validate: bool = True
) -> tuple[Spoken, Spoken | None, Spoken]:
    """Cut recordings into those to train, to validate and to test on.

    By the official split the takes 0 to 4 of everybody are tested on, and the takes 5 and 6
    validated on. With a speaker held out that one is tested on, and the one with the next number,
    after the last the first, validated on: so neither is trained on.

    Args:
        spoken: all recordings.
        held_out: number of a speaker; None for the official split.
        validate: without it, what would be validated on is trained on.

    Returns:
        the three parts; None for the second one without validation.

    Raises:
        ValueError: no such speaker, or a part without recordings.
    """
    speakers = np.unique(spoken.speakers).tolist()
    require(
        held_out is None or held_out in speakers,
        f"--held-out {held_out} of speakers {speakers}",
        "one of them",
        "change --held-out",
    )
    if held_out is None:
        tested, taken = spoken.takes < TEST_TAKES, spoken.takes < TEST_TAKES + VALIDATION_TAKES
    else:
        after = speakers[(speakers.index(held_out) + 1) % len(speakers)]
        tested, taken = spoken.speakers == held_out, np.isin(spoken.speakers, (held_out, after))
    parts = {"train": ~taken if validate else ~tested, "validate": taken & ~tested, "test": tested}
    counts = {name: int(rows.sum()) for name, rows in parts.items() if validate or name[0] == "t"}
    require(
        all(counts.values()),
        f"{' and '.join(f'{count} to {name}' for name, count in counts.items())} on, of "
        f"{len(tested)} recordings",
        "some for each",
        "use a file with several takes and speakers" + (", or --no-validate" if validate else ""),
    )
    train, checked, test = (Spoken(*(array[rows] for array in spoken)) for rows in parts.values())
    return train, checked if validate else None, test


def mel_filters(bands: int) -> np.ndarray:
    """Give triangles ``(bands, frequencies)`` that overlap by half, evenly on the mel scale."""
    mel = 2595 * np.log10(1 + np.array([LOWEST, RATE / 2]) / 700)
    edges = 700 * (10 ** (np.linspace(mel[0], mel[1], bands + 2) / 2595) - 1)
    frequencies = np.fft.rfftfreq(WINDOW, 1 / RATE)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rise, fall = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    triangles = np.maximum(0, np.minimum(rise, fall))
    # Where bands are narrower than the raster of frequencies, each still hears the nearest.
    nearest = np.abs(frequencies - middle).argmin(axis=1)
    triangles[np.arange(bands), nearest] = np.maximum(
        triangles[np.arange(bands), nearest], 1e-3 + (triangles.sum(axis=1) == 0)
    )
    return triangles / triangles.sum(axis=1, keepdims=True)


def band_energies(samples: np.ndarray, filters: np.ndarray, times: int) -> np.ndarray:
    """Give log energies ``(bands, times)`` of a recording, scaled to [0, 1]."""
    padded = np.pad(samples, (0, max(0, WINDOW - len(samples))))
    starts = np.linspace(0, len(padded) - WINDOW, times).round().astype(int)
    windows = padded[starts[:, None] + np.arange(WINDOW)] * np.hanning(WINDOW)
    energy = filters @ np.square(np.abs(np.fft.rfft(windows, axis=1))).T
    loudest = energy.max()
    if loudest <= 0:
        return np.zeros(energy.shape)
    decibels = 10 * np.log10(np.maximum(energy / loudest, 10 ** (-DYNAMIC / 10)))
    return 1 + decibels / DYNAMIC


def _check(path: Path, arrays: dict[str, np.ndarray]) -> None:
    samples, offsets = arrays["samples"], arrays["offsets"]
    count = len(offsets) - 1 if offsets.ndim == 1 else -1
    numbers = [arrays[name] for name in ("digit", "speaker", "take")]
    fits = (
        count > 0
        and samples.ndim == 1
        and samples.dtype == np.int16
        and all(one.shape == (count,) and one.dtype.kind in "iu" for one in numbers)
        and offsets.dtype.kind in "iu"
        and (int(offsets[0]), int(offsets[-1])) == (0, len(samples))
        and (np.diff(offsets.astype(np.int64)) > 0).all()
        and min(int(one.min()) for one in numbers) >= 0
        and max(int(one.max()) for one in numbers) < 2**31
        and arrays["digit"].max() < DIGITS
    )
    require(
        bool(fits),
        f"samples {samples.dtype} of shape {samples.shape}, offsets of shape {offsets.shape} from "
        f"{offsets.ravel()[:1].tolist()} to {offsets.ravel()[-1:].tolist()}, and "
        f"digit, speaker, take of shapes {[one.shape for one in numbers]} in {path}",
        "one row of int16 samples, offsets that grow from 0 to their number, and a number for "
        f"every recording, of digits below {DIGITS}",
        CHANGE,
    )
