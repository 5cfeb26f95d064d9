"""Taps are placed as a loop over cells places them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax import ops
from tests.compiling import programs_compiled
from tests.ops.examples import assert_names_itself_and_its_cure

CASES = 60


def pursue_by_hand(*, scores, positions, placed, count, apart, allowed, threshold):
    """Look at every cell, for every tap."""
    cells = np.array(scores.shape)
    positions, placed = np.where(placed[:, None], positions, 0), placed.copy()
    for _ in range(count):
        best, found = -np.inf, None
        for cell in np.ndindex(scores.shape):
            near = any(
                max(abs(cell - tap)) <= apart and np.all((tap >= 0) & (tap < cells))
                for tap in positions[placed]
            )
            if allowed[cell] and scores[cell] > threshold and not near and scores[cell] > best:
                best, found = scores[cell], cell
        if found is None or placed.all():
            break
        slot = np.argmin(placed)
        positions[slot], placed[slot] = found, True
    return positions, placed


def cases(cells, slots):
    """Few different scores, so that many are equal; NaN and infinities among them."""
    generator = np.random.default_rng(len(cells))
    values = np.array([*range(6), np.nan, -np.inf, np.inf], np.float32)
    often = [0.15] * 6 + [0.04, 0.05, 0.01]
    return {
        "scores": generator.choice(values, (CASES, *cells), p=often),
        "positions": generator.integers(-1, np.array(cells) + 1, (CASES, slots, len(cells))),
        "placed": generator.random((CASES, slots)) < 0.3,
        "allowed": generator.random((CASES, *cells)) < 0.8,
        "threshold": generator.choice([-np.inf, 2.0], CASES).astype(np.float32),
    }


@pytest.mark.parametrize(
    ("cells", "slots", "count", "apart"),
    [((9,), 4, 2, 0), ((9,), 5, 5, 1), ((4, 5), 4, 3, 1), ((1,), 2, 2, 0)],
)
def test_taps_go_where_a_loop_over_cells_puts_them(cells, slots, count, apart):
    given = cases(cells, slots)

    def run(scores, positions, placed, allowed, threshold):
        taps = ops.Taps(positions, placed)
        return ops.pursue(scores, taps, count, apart=apart, allowed=allowed, threshold=threshold)

    found = jax.device_get(jax.jit(jax.vmap(run))(*given.values()))
    assert found.positions.dtype == np.int32
    for n in range(CASES):
        case = {name: part[n] for name, part in given.items()}
        positions, placed = pursue_by_hand(count=count, apart=apart, **case)
        np.testing.assert_array_equal(found.positions[n], positions)
        np.testing.assert_array_equal(found.placed[n], placed)


pursue = jax.jit(ops.pursue, static_argnums=2)


def test_without_options_every_cell_is_open_until_slots_or_cells_are_used_up():
    few, many = ops.empty_taps(2), ops.empty_taps(4)
    scores = np.array([-3.0, -1.0, -2.0], np.float32)
    assert pursue(scores, few, 9).positions.ravel().tolist() == [1, 2]
    found = pursue(scores, many, 9)
    assert found.positions.ravel().tolist() == [1, 2, 0, 0]
    assert found.placed.tolist() == [True, True, True, False]
    again = pursue(scores, found, 1)
    assert again.placed.tolist() == found.placed.tolist()


@pytest.mark.parametrize("scores", [np.full(3, np.nan), np.full(3, -np.inf)])
def test_nothing_is_placed_where_no_cell_has_a_score(scores):
    assert not pursue(scores.astype(np.float32), ops.empty_taps(2), 2).placed.any()


def test_no_slots_and_no_taps_to_place_change_nothing():
    @jax.jit
    def run():
        none = ops.empty_taps(0)
        untouched = ops.pursue(np.ones(3), ops.Taps([[2]], [True]), 0)
        return ops.pursue(np.ones(3), none, 2), ops.drop_taps(none, np.ones(0)), untouched

    none, dropped, untouched = run()
    assert none.positions.shape == (0, 1)
    assert dropped.placed.shape == (0,)
    assert untouched.positions.tolist() == [[2]]


def test_what_lies_in_an_empty_slot_is_forgotten():
    empty = ops.Taps([[2], [1]], [False, False])
    taps = jax.jit(lambda: ops.pursue([1.0, 2.0, 3.0], empty))()
    assert taps.positions.tolist() == [[2], [0]]


def drop_by_hand(positions, placed, importance, count):
    placed = placed.copy()
    order = np.argsort(importance, kind="stable")
    able = [slot for slot in order if placed[slot] and np.isfinite(importance[slot])]
    placed[able[:count]] = False
    return np.where(placed[:, None], positions, 0), placed


@pytest.mark.parametrize("count", [1, 2, 9])
def test_the_least_important_taps_are_dropped(count):
    generator = np.random.default_rng(count)
    positions = generator.integers(0, 9, (CASES, 4, 1))
    placed = generator.random((CASES, 4)) < 0.7
    importance = generator.choice([0.0, 0.5, 1.0, np.nan, np.inf], (CASES, 4))
    run = jax.jit(jax.vmap(lambda *taps: ops.drop_taps(taps[:2], taps[2], count)))
    found = jax.device_get(run(positions, placed, importance))
    for n in range(CASES):
        taps = drop_by_hand(positions[n], placed[n], importance[n], count)
        np.testing.assert_array_equal(found.positions[n], taps[0])
        np.testing.assert_array_equal(found.placed[n], taps[1])


TAPS = ops.empty_taps(2)


@pytest.mark.parametrize(
    ("call", "found", "expected", "change"),
    [
        (lambda: ops.empty_taps(-1), "count=-1", "at least 0", "static int"),
        (lambda: ops.empty_taps(2, rank=0), "rank=0", "at least 1", "static int"),
        (lambda: ops.pursue(np.ones(3), TAPS, 1.5), "count=1.5", "an int", "static int"),
        (lambda: ops.pursue(np.ones(3), TAPS, apart=-1), "apart=-1", "at least 0", "static int"),
        (lambda: ops.pursue(np.ones((3, 3)), TAPS), "rank 1", "1 axes", "reshape scores"),
        (lambda: ops.pursue(np.ones(0), TAPS), "shape (0,)", "none of them empty", "reshape"),
        (lambda: ops.pursue(np.ones(3), None), "taps=None", "Taps(positions", "empty_taps"),
        (lambda: ops.pursue(np.ones(3), ([1], [True])), "(1,)", "(k, r)", "reshape positions"),
        (lambda: ops.pursue(np.ones(3), ([[1.0]], [True])), "float", "integers", "round"),
        (lambda: ops.pursue(np.ones(3), ([[1]], [1])), "int32", "flags", "convert placed"),
        (lambda: ops.pursue(np.ones(3), ([[1]], [True] * 2)), "(2,)", "(1)", "reshape placed"),
        (
            lambda: ops.pursue(np.ones(3), TAPS, allowed=np.ones(2, bool)),
            "allowed of shape (2,)",
            "(3)",
            "reshape allowed",
        ),
        (
            lambda: ops.pursue(np.ones(3), TAPS, threshold=np.nan),
            "threshold=nan",
            "one number",
            "change threshold",
        ),
        (lambda: ops.drop_taps(TAPS, np.ones(3)), "importance", "(2)", "reshape importance"),
        (lambda: ops.drop_taps(TAPS, np.ones(2), -1), "count=-1", "at least 0", "static int"),
    ],
)
def test_wrong_calls_are_refused(call, found, expected, change):
    assert_names_itself_and_its_cure(lambda: jax.eval_shape(call), found, expected, change)


def test_taps_can_be_exported():
    def move(scores):
        return ops.pursue(scores, ops.empty_taps(2), 2)

    exported = jax.export.export(jax.jit(move))(jnp.ones(4))
    again = jax.export.deserialize(exported.serialize())
    assert again.call(jnp.array([1.0, 3.0, 2.0, 0.0])).positions.tolist() == [[1], [2]]


def test_more_taps_compile_nothing_more_outside_of_jit():
    """One program for a tap: one for all of them would take minutes to compile."""
    scores, taps = jnp.arange(60.0), ops.empty_taps(50)
    ops.pursue(scores, taps, 2)
    with programs_compiled() as compiled:
        found = ops.pursue(scores, taps, 50)
    assert compiled == []
    assert found.positions[:, 0].tolist() == [*range(59, 9, -1)]
