"""The film of windows, from scenes that are made up."""

import numpy as np
from PIL import Image

from benchmarks.films import PIECE, RIGHT, WRONG, Scene, frame, moments, save


def scene(step, right):
    corners = np.array([[2, 3], [2, 8], [7, 8], [7, 3]], np.float32) + step / PIECE
    return Scene(
        step,
        np.zeros((2, 20, 20), np.float32),
        np.broadcast_to(corners, (2, 1, 4, 2)),
        np.zeros((2, 1, 6, 6), np.float32),
        np.array([right, True]),
    )


def pixels_of(image, colour):
    return np.argwhere((np.asarray(image.convert("RGB")) == colour).all(axis=-1))


def test_a_frame_shows_where_windows_lie_and_what_is_right():
    first, second = (frame(scene(step, right=False)) for step in (0, 2 * PIECE))
    assert first.size == second.size
    both = [pixels_of(image, WRONG) for image in (first, second)]
    # The outline of the wrong one moves by two pixels of the image; that of its window stays.
    top = [rows[:, 0].min() for rows in both]
    assert top[1] > top[0]
    assert both[0][:, 0].max() == both[1][:, 0].max()
    assert len(pixels_of(first, RIGHT)) == len(both[0])
    assert not len(pixels_of(frame(scene(0, right=True)), WRONG))


def test_a_film_holds_its_frames_and_their_times(tmp_path):
    save([frame(scene(step, right=True)) for step in (0, PIECE, 2 * PIECE)], tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 3
        assert film.info["loop"] == 0
        times = []
        for number in range(3):
            film.seek(number)
            times.append(film.info["duration"])
    assert times[0] > times[1] < times[2]


def test_moments_lie_between_dispatches():
    chosen = moments(2_000, 60)
    assert (chosen[0], chosen[-1]) == (0, 2_000)
    assert all(moment % PIECE == 0 for moment in chosen)
    gaps = np.diff(chosen)
    assert (gaps > 0).all()
    assert gaps[0] < gaps[-1]
