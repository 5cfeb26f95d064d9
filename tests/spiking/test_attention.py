import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.spiking import activity_state, follow_activity, glimpse_at, readdress
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

SHAPE, MEMORY, STEPS, EVENTS, WINDOW = (12, 10), 9, 14, 4, (5, 4)


def make_places(seed=0, high=(12, 10)):
    """Events of every step, some of them padding."""
    random = np.random.default_rng(seed)
    places = random.integers(0, high, (STEPS, EVENTS, 2))
    places[random.random((STEPS, EVENTS)) < 0.3] = -1
    places[3, 1] = (12, 0)
    return places.astype(np.int32)


@jax.jit
def followed(places):
    def step(state, now):
        state, centre = follow_activity(state, now)
        raster = readdress(now, centre, shape=SHAPE, window=WINDOW)
        return state, (centre, raster)

    return jax.lax.scan(step, activity_state(SHAPE, memory=MEMORY), places)


def test_the_median_of_counts_is_that_of_sorting():
    places = make_places()
    state, (centres, _) = followed(places)
    seen = []
    for now, centre in zip(places, centres, strict=True):
        seen += [place for place in now.tolist() if 0 <= place[0] < 12 and place[1] >= 0]
        last = np.array(seen[-MEMORY:])
        lower = np.sort(last, axis=0)[(len(last) - 1) // 2]
        np.testing.assert_array_equal(centre, lower)
    rows, columns = (np.bincount(last[:, axis], minlength=SHAPE[axis]) for axis in (0, 1))
    np.testing.assert_array_equal(state.rows, rows)
    np.testing.assert_array_equal(state.columns, columns)
    assert sorted(state.recent.tolist()) == sorted(last.tolist())


def test_moving_all_events_moves_the_window_with_them():
    places = make_places(1, high=(6, 5))
    moved = np.where(places[..., :1] >= 0, places + np.array([6, 5]), -1).astype(np.int32)
    places[3, 1] = moved[3, 1] = -1
    (_, (one, raster)), (_, (two, other)) = followed(places), followed(moved)
    full = int(np.argmax(np.cumsum((places[..., 0] >= 0).sum(axis=1)) >= MEMORY))
    np.testing.assert_array_equal(np.asarray(one)[full:] + np.array([6, 5]), two[full:])
    np.testing.assert_array_equal(np.asarray(raster)[full:], np.asarray(other)[full:])
    assert (np.asarray(raster) >= 0).any()


@pytest.mark.parametrize("centre", [(6, 5), (0, 9), (11, 0)])
def test_a_glimpse_at_whole_numbers_is_the_raster_of_the_events(centre):
    places = make_places(2)[0]
    real = places[(places >= 0).all(axis=1)]
    frame, raster = np.zeros(SHAPE, np.float32), np.zeros(WINDOW, np.float32)
    np.add.at(frame, tuple(real.T), 1)
    inside = np.asarray(readdress(places, jnp.array(centre), shape=SHAPE, window=WINDOW))
    np.add.at(raster, tuple(inside[inside[:, 0] >= 0].T), 1)
    np.testing.assert_array_equal(glimpse_at(frame, jnp.array(centre), window=WINDOW), raster)


def test_a_glimpse_has_a_slope_for_its_centre():
    frame = jnp.arange(120.0).reshape(SHAPE)
    slopes = jax.jacobian(lambda centre: glimpse_at(frame, centre, window=(2, 2))[1, 1])
    assert_close(slopes(jnp.array([5.25, 4.5])), [10.0, 1.0], rtol=1e-4)


def test_before_the_first_event_attention_is_on_the_middle():
    state, centre = follow_activity(activity_state(SHAPE), jnp.full((3, 2), -1))
    assert centre.tolist() == [6, 5]
    assert not state.rows.any()


STATE = activity_state((8, 8), memory=2)


@pytest.mark.parametrize(
    ("call", "found", "expected"),
    [
        (lambda: activity_state((8,)), "shape=(8,)", "(height, width)"),
        (lambda: activity_state((8, 8), memory=0), "memory=0", "at least 1"),
        (lambda: follow_activity(None, [[1, 2]]), "state=None", "ActivityState"),
        (lambda: follow_activity(STATE, [[1.0, 2.0]]), "places of dtype", "integers"),
        (lambda: follow_activity(STATE, [[1, 2]] * 3), "3 events", "at most 2"),
        (lambda: follow_activity(STATE, [1, 2]), "places of shape (2,)", "(n, 2)"),
        (
            lambda: readdress([[1, 2]], [1], shape=(8, 8), window=(2, 2)),
            "centre of shape (1,)",
            "(2,)",
        ),
        (
            lambda: readdress([[1, 2]], [1, 1], shape=(8, 8), window=(2,)),
            "window=(2,)",
            "(height, width)",
        ),
        (lambda: glimpse_at(jnp.ones((4, 4)), [1], window=(2, 2)), "centre of shape", "(2,)"),
    ],
)
def test_wrong_arguments_are_told(call, found, expected):
    assert_names_itself_and_its_cure(call, found, expected, "")


def test_a_state_of_numpy_is_followed_too():
    state = jax.tree.map(np.asarray, activity_state(SHAPE, memory=MEMORY))
    place = jnp.array([[3, 2]])
    found = follow_activity(state, place)
    expected = follow_activity(activity_state(SHAPE, memory=MEMORY), place)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
