import errno
import logging
import shutil
import signal
import threading
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from sparse_hyper_jax.train.checkpoint import Checkpoints, describe, own_arrays
from tests import folding


class Pair(NamedTuple):
    first: jax.Array
    second: tuple


def states():
    params = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": [ones() / 10, np.int32(7)]}
    schedule = optax.adamw(optax.cosine_decay_schedule(0.1, 10))
    masked = optax.masked(optax.adam(0.1), {"w": True, "b": False})
    return {
        "scalar": jnp.float32(np.pi),
        "adamw": Pair(params["w"], (params, schedule.init(params))),
        "masked": (params, masked.init(params), None, ()),
        "dtypes": [
            np.full((2,), 0.3, dtype)
            for dtype in (jnp.bfloat16, jnp.float16, jnp.float32, jnp.int8, jnp.uint32, jnp.bool_)
        ],
        "empty": {"none": ones(0, 3), "one": ones(1, 1, 1)},
        "names": {
            "a/b": ones(2),
            "a": {"b": 0 * ones(2)},
            "": {10: ones(1), 3: ones(1)},
        },
        "keys": jax.random.key_data(jax.random.key(5)),
        "odd": np.array([np.inf, -0.0, 1e-45, np.nan], np.float32),
    }


def ones(*shape):
    return np.ones(shape, np.float32)


def assert_same(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert isinstance(one, jax.Array)
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert one.weak_type is False
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def saved_and_restored(path, state):
    state = own_arrays(state)
    with Checkpoints(path) as checkpoints:
        checkpoints.save(5, state, {"seconds": 0.1, "names": ["a"]})
    like = jax.tree.map(lambda leaf: jnp.asarray(np.zeros(leaf.shape, leaf.dtype)), state)
    with Checkpoints(path) as checkpoints:
        restored = checkpoints.restore(like)
    assert (restored.step, restored.about) == (5, {"seconds": 0.1, "names": ["a"]})
    return state, restored.state


@pytest.fixture(scope="module")
def all_states(tmp_path_factory):
    """Save all in one checkpoint, or with ``--full`` each in its own."""
    wanted, path = states(), tmp_path_factory.mktemp("states")
    if folding.apart:
        pairs = {name: saved_and_restored(path / name, wanted[name]) for name in wanted}
        return tuple({name: pair[at] for name, pair in pairs.items()} for at in (0, 1))
    return saved_and_restored(path, wanted)


@pytest.mark.parametrize("name", states())
def test_every_state_comes_back_bit_for_bit(name, all_states):
    saved, restored = all_states
    assert_same(restored[name], saved[name])


def test_a_state_of_one_number_comes_back_and_is_donated(tmp_path):
    saved, restored = saved_and_restored(tmp_path, jnp.float32(np.pi))
    assert_same(restored, saved)
    # To the next dispatch, so it must not share memory with whatever read the file.
    jax.jit(lambda state: state, donate_argnums=0)(restored)


def save_all(path, steps):
    with Checkpoints(path) as checkpoints:
        for step in steps:
            checkpoints.save(step, {"w": jnp.asarray(np.full(100, step, np.float32))}, {})


def restore(path):
    with Checkpoints(path) as checkpoints:
        return checkpoints.restore({"w": jnp.zeros(100)})


@pytest.fixture(scope="module")
def two_saved(tmp_path_factory):
    """A folder with two checkpoints, for tests that leave it as it is."""
    path = tmp_path_factory.mktemp("two")
    save_all(path, [10, 20])
    return path


def test_only_the_newest_are_kept(tmp_path):
    assert restore(tmp_path) is None
    save_all(tmp_path, [10, 20, 25, 300])
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [25, 300]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["25", "300"]
    assert restore(tmp_path).step == 300


@pytest.mark.parametrize("step", [10, 20, 1])
def test_steps_that_do_not_grow_are_refused(two_saved, step):
    message = rf"^found step {step} .*\[10, 20\]; expected a step after 20; .*--out DIR"
    with Checkpoints(two_saved) as checkpoints:
        with pytest.raises(ValueError, match=message):
            checkpoints.save(step, {"w": jnp.zeros(100)}, {})
        assert checkpoints.steps() == [10, 20]


@pytest.mark.parametrize("keep", [0, -1, None, 1.5])
def test_at_least_one_is_kept(tmp_path, keep):
    with pytest.raises(ValueError, match=r"^found keep=.*; expected an int of at least 1"):
        Checkpoints(tmp_path, keep=keep)


@pytest.mark.parametrize("missing", [None, "about", "arrays", "_CHECKPOINT_METADATA"])
def test_interrupted_save_leaves_the_previous_checkpoint(tmp_path, missing):
    save_all(tmp_path, [10, 20, 30])
    half = tmp_path / "30.orbax-checkpoint-tmp"  # the name until the save is complete
    (tmp_path / "30").rename(half)
    if missing in ("about", "arrays"):
        shutil.rmtree(half / missing)
    elif missing:
        (half / missing).unlink()
    assert restore(tmp_path).step == 20
    save_all(tmp_path, [30])
    restored = restore(tmp_path)
    assert restored.step == 30
    assert restored.state["w"][0] == 30
    assert sorted(path.name for path in tmp_path.iterdir()) == ["20", "30"]


def test_interrupt_waits_for_the_end_of_a_save(tmp_path, monkeypatch):
    manager = ocp.CheckpointManager
    save = manager.save

    def interrupted(*arguments, **options):
        signal.raise_signal(signal.SIGINT)
        return save(*arguments, **options)

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(manager, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_all(tmp_path, [10, 20])
    assert signal.getsignal(signal.SIGINT) is handler
    assert restore(tmp_path).step == 10


def test_saves_in_another_thread(tmp_path):
    thread = threading.Thread(target=save_all, args=(tmp_path, [10]))
    thread.start()
    thread.join()
    assert restore(tmp_path).step == 10


def damage(path):
    for file in path.rglob("*"):
        if file.is_file():
            file.write_bytes(b"")


@pytest.mark.parametrize("item", ["about", "arrays", ""])
def test_damaged_checkpoint_is_set_aside_for_the_one_before(tmp_path, item):
    save_all(tmp_path, [10, 20])
    # Twice: a run that comes to the same step again may be damaged again.
    for name in ("20.damaged", "20.damaged-2"):
        damage(tmp_path / "20" / item)
        with pytest.warns(UserWarning, match=rf"damaged checkpoint .*20 .*set aside as {name}, "):
            assert restore(tmp_path).step == 10
        assert (tmp_path / name).is_dir()
        save_all(tmp_path, [20])
        assert restore(tmp_path).state["w"][0] == 20
    save_all(tmp_path, [30, 40])
    expected = ["20.damaged", "20.damaged-2", "30", "40"]
    assert sorted(path.name for path in tmp_path.iterdir()) == expected


def test_nothing_but_damaged_checkpoints_is_an_error(tmp_path):
    save_all(tmp_path, [10])
    shutil.rmtree(tmp_path / "10" / "arrays")
    message = r"found only damaged checkpoints in .* \(\w+: .*\); .*another --out DIR"
    with pytest.raises(ValueError, match=message):
        restore(tmp_path)
    assert (tmp_path / "10").exists()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        PermissionError(errno.EACCES, "no"),
        OSError(errno.EIO, "bad disk"),
        OSError(errno.EMFILE, "too many open files"),
        ValueError('PERMISSION_DENIED: Error opening "zarr" driver'),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory"),
    ],
)
def test_what_is_no_damage_is_raised_and_nothing_renamed(two_saved, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(Checkpoints, "_arrays", fail)
    with pytest.raises(type(error)) as caught:
        restore(two_saved)
    assert caught.value is error
    assert sorted(path.name for path in two_saved.iterdir()) == ["10", "20"]


def test_checkpoint_of_another_run_is_refused_and_kept(tmp_path):
    with Checkpoints(tmp_path, run="one") as checkpoints:
        checkpoints.save(10, {"w": jnp.zeros(100)}, {})
    assert restore(tmp_path).step == 10
    message = "of the run 'one'; expected one of the run 'other', .*; move it away, .*--out DIR"
    with (
        Checkpoints(tmp_path, run="other") as checkpoints,
        pytest.raises(ValueError, match=message),
    ):
        checkpoints.restore({"w": jnp.zeros(100)})
    assert (tmp_path / "10").exists()


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"w": jnp.zeros(99)}, r"leaves \['w'\] float32\[100\]; expected \['w'\] float32\[99\]"),
        ({"w": jnp.zeros(100, jnp.float16)}, r"expected \['w'\] float16\[100\]"),
        ({"v": jnp.zeros(100)}, r"expected \['v'\]"),
        ({"w": jnp.zeros(100), "x": jnp.zeros(1)}, r"expected \['x'\] float32\[1\]"),
        ([jnp.zeros(100)], r"expected \[0\] float32"),
    ],
)
def test_checkpoint_of_another_state_is_refused_and_kept(two_saved, like, message):
    with Checkpoints(two_saved) as checkpoints:
        with pytest.raises(ValueError, match=message):
            checkpoints.restore(like)
        assert checkpoints.steps() == [10, 20]


def test_leaves_are_described_by_name_dtype_and_shape():
    state = Pair(jnp.zeros((2, 3)), ({"a": jnp.int32(1)},))
    assert describe(state) == [".first float32[2, 3]", ".second[0]['a'] int32[]"]
    assert describe(jnp.ones(2)) == ["float32[2]"]


def test_copies_are_strongly_typed_and_independent():
    numbers = np.ones(3, np.float32)
    shared = jnp.ones(2)
    copied = own_arrays({"a": numbers, "b": 2.0, "c": shared, "d": shared, "e": jnp.asarray(1.0)})
    numbers[:] = 5
    assert copied["a"].tolist() == [1, 1, 1]
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(copied))
    assert copied["c"].unsafe_buffer_pointer() != copied["d"].unsafe_buffer_pointer()


@pytest.mark.parametrize(
    "value", [np.int64(2**40 + 7), np.array([0, -(2**33)]), np.uint64(2**33), np.array([1e300, 1])]
)
def test_a_state_that_32_bits_cannot_hold_is_refused(value):
    with pytest.raises(
        ValueError, match=r"^found the state at \['n'\] from .*; expected .*32; .*x64"
    ):
        own_arrays({"n": value})


def test_a_state_of_64_bits_is_narrowed_where_it_fits():
    state = {"n": np.int64(2**31 - 1), "x": np.array([0.1, np.inf, np.nan]), "empty": np.zeros(0)}
    copied = own_arrays(state)
    assert (copied["n"], copied["n"].dtype) == (2**31 - 1, np.int32)
    np.testing.assert_array_equal(copied["x"], np.float32([0.1, np.inf, np.nan]))


@pytest.mark.parametrize("state", [{}, None, {"w": jnp.zeros((0, 2))}])
def test_state_without_numbers_is_refused(state):
    with pytest.raises(ValueError, match="found a state without numbers; expected"):
        own_arrays(state)


def test_typed_key_in_the_state_is_refused():
    with pytest.raises(ValueError, match=r"typed random key in the state at \['k'\]; .*key_data"):
        own_arrays({"k": jax.random.key(0)})


def test_the_log_is_silent(tmp_path, caplog, capfd):
    level = logging.getLogger("absl").level
    with caplog.at_level(logging.INFO):
        save_all(tmp_path, [10, 20])
        restore(tmp_path)
    assert not [record for record in caplog.records if record.name.startswith(("absl", "orbax"))]
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("absl").level == level
