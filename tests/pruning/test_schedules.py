import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.pruning import gradual, one_shot, periodic
from tests.ops.examples import assert_names_itself_and_its_cure

STEPS = range(40)


def table(schedule):
    """Ask for every step with traced counts."""

    @jax.jit
    def ask(counts):
        return jax.vmap(lambda count: (schedule.due(count), schedule.share(count)))(counts)

    due, share = ask(jnp.arange(len(STEPS), dtype=jnp.int32))
    assert due.dtype == bool
    return np.flatnonzero(due).tolist(), np.asarray(share)


@pytest.mark.parametrize("step", [0, 1, 7, 39])
def test_one_shot(step):
    due, share = table(one_shot(step))
    assert due == [step]
    assert share.tolist() == [float(count >= step) for count in STEPS]


@pytest.mark.parametrize(
    ("every", "begin", "end"), [(1, 0, None), (5, 0, None), (5, 3, None), (4, 2, 14), (4, 2, 13)]
)
def test_periodic(every, begin, end):
    due, share = table(periodic(every, begin=begin, end=end))
    assert due == list(range(begin, len(STEPS) if end is None else end + 1, every))
    assert share.tolist() == [float(count >= begin) for count in STEPS]


@pytest.mark.parametrize("power", [1.0, 3.0])
@pytest.mark.parametrize(
    ("begin", "end", "every"), [(0, 20, 5), (3, 20, 4), (3, 19, 4), (5, 6, 100), (0, 39, 1)]
)
def test_gradual(begin, end, every, power):
    due, share = table(gradual(begin, end, every=every, power=power))
    assert due == sorted({*range(begin, end + 1, every), end})
    progress = np.clip((np.array(STEPS) - begin) / (end - begin), 0, 1)
    np.testing.assert_allclose(share, 1 - (1 - progress) ** power, atol=1e-6)
    # Exactly, so that nothing is pruned too early and everything in the end.
    assert not share[: begin + 1].any()
    assert (share[end:] == 1).all()


@pytest.mark.parametrize("x64", [False, True])
def test_shares_of_steps_of_any_integers_and_floats(x64):
    schedule = gradual(100, 400)
    with jax.enable_x64(x64):
        seen = {200: [np.uint8(200), np.int16(200), 200, 200.0, jnp.float32(200), np.uint32(200)]}
        seen |= {500: [500, np.uint16(500)], -5: [-5, np.int8(-5)]}
        seen[500] += [np.uint32(2**31 + 7), *([np.int64(2**33), np.uint64(2**63)] if x64 else [])]
        seen[-5] += [np.int32(-(2**31)), *([np.int64(-(2**40))] if x64 else [])]
        for expected, kinds in seen.items():
            for steps in kinds:
                share = np.clip((expected - 100) / 300, 0, 1)
                np.testing.assert_allclose(schedule.share(steps), 1 - (1 - share) ** 3, rtol=1e-5)
        if x64:
            late = gradual(2**33, 2**34)
            assert late.share(2**34) == late.share(np.int64(2**35)) == 1
        else:
            with pytest.raises(ValueError, match="integers that fit into int32"):
                schedule.share(np.int64(2**33))


def test_counts_may_be_python_ints():
    schedule = gradual(2, 10, every=4)
    assert [count for count in range(13) if schedule.due(count)] == [2, 6, 10]
    assert float(schedule.share(6)) == pytest.approx(1 - 0.5**3)


MISTAKES = {
    "a negative step": (lambda: one_shot(-1), "step=-1", "from 0 to", "pass a static int"),
    "half a step": (lambda: one_shot(0.5), "step=0.5", "an int", "pass a static int"),
    "no period": (lambda: periodic(0), "every=0", "from 1 to", "pass a static int"),
    "before time": (lambda: periodic(1, begin=-2), "begin=-2", "from 0 to", "pass a static int"),
    "an early end": (lambda: periodic(1, end=-2), "end=-2", "from 0 to", "pass a static int"),
    "after all steps": (lambda: gradual(0, 2**31), f"end={2**31}", f"to {2**31 - 1}", "static"),
    "no time": (lambda: gradual(5, 5), "begin=5, end=5", "an end after it", "change them"),
    "backwards": (lambda: gradual(5, 3), "begin=5, end=3", "an end after", "change them"),
    "at once": (lambda: gradual(5, 5), "begin=5, end=5", "an end after it", "change them"),
    "never": (lambda: periodic(5, begin=10, end=3), "never change", "an end after", "change them"),
    "no power": (lambda: gradual(0, 9, power=0), "power=0", "above 0", "change power"),
    "no period either": (lambda: gradual(1, 3, every=0), "every=0", "from 1 to", "static"),
}


@pytest.mark.parametrize(("call", "found", "expected", "change"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_itself_and_its_cure(call, found, expected, change):
    assert_names_itself_and_its_cure(call, found, expected, change)
