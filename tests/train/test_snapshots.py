import jax.numpy as jnp
import numpy as np
import pytest

from sparse_hyper_jax.ops import ContinuousTuples
from sparse_hyper_jax.train.run_folder import RunFolder
from sparse_hyper_jax.train.snapshots import read_snapshots, save_snapshot
from tests.hostile import hostile_npz
from tests.ops.examples import assert_close


def tuples_of(value):
    return ContinuousTuples(jnp.full((3, 2), value), jnp.ones((3, 2)), jnp.ones(3))


def test_snapshots_come_back_in_the_order_of_their_steps(tmp_path):
    folder = RunFolder(tmp_path, run="name")
    for step in (100, 9, 0):
        save_snapshot(folder, step, tuples_of(float(step)))
    read = read_snapshots(folder)
    assert list(read) == [0, 9, 100]
    for step, tuples in read.items():
        assert_close(tuples._asdict(), tuples_of(float(step))._asdict())
    assert sorted(path.suffix for path in (tmp_path / "snapshots").iterdir()) == [".npz"] * 3


def test_run_without_snapshots_has_none(tmp_path):
    save_snapshot(RunFolder(tmp_path, writes=False), 1, tuples_of(0.0))
    assert read_snapshots(RunFolder(tmp_path)) == {}


def test_snapshots_of_another_run_are_refused(tmp_path):
    save_snapshot(RunFolder(tmp_path, run="one"), 1, tuples_of(0.0))
    with pytest.raises(ValueError, match="of the run 'one'; expected tuples of the run 'other'"):
        read_snapshots(RunFolder(tmp_path, run="other"))


GOOD = {name: np.asarray(leaf) for name, leaf in tuples_of(1.0)._asdict().items()}
GOOD |= {"run": np.zeros(0, np.uint8)}


@pytest.mark.parametrize(("damage", "write"), hostile_npz(GOOD, "means").items())
def test_damaged_file_is_told_in_three_parts(tmp_path, damage, write):
    (tmp_path / "snapshots").mkdir()
    write(tmp_path / "snapshots" / "00000100.npz")
    with pytest.raises(ValueError, match=r"^found .*00000100\.npz.*; expected .*; .*--out DIR"):
        read_snapshots(RunFolder(tmp_path))


@pytest.mark.parametrize("name", ["means", "variances", "values"])
def test_shapes_that_do_not_fit_are_refused(tmp_path, name):
    (tmp_path / "snapshots").mkdir()
    np.savez(tmp_path / "snapshots" / "1.npz", **GOOD | {name: np.zeros((4, 4, 4))})
    with pytest.raises(ValueError, match=r"with shapes .*; expected \(k, r\)"):
        read_snapshots(RunFolder(tmp_path))


def test_file_of_another_name_is_refused(tmp_path):
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "snapshots" / "last.npz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"found .*last.npz; expected STEP.npz"):
        read_snapshots(RunFolder(tmp_path))
