"""Continuous tuples at moments of a training run: one file each, ``snapshots/STEP.npz``."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.ops import ContinuousTuples
from sparse_hyper_jax.train.npz import read_npz
from sparse_hyper_jax.train.run_folder import RunFolder

FOLDER = "snapshots"
CHANGE = "delete that file, or start a new run with another --out DIR and no --resume"


def save_snapshot(folder: RunFolder, step: int, tuples: ContinuousTuples) -> None:
    """Save tuples; of several processes, the first one does.

    Args:
        folder: of the run.
        step: number of finished steps.
        tuples: ``k`` continuous tuples, whole in this process.
    """
    if not folder.writes:
        return
    path = folder.path / FOLDER / f"{step:08d}.npz"
    path.parent.mkdir(exist_ok=True)
    written = path.with_suffix(".new")
    with written.open("wb") as file:  # a name that ends in npz would be read
        run = np.frombuffer(folder.run.encode(), np.uint8)
        np.savez(file, run=run, **jax.device_get(tuples)._asdict())
    written.replace(path)  # at once: a killed run leaves no half of a file


def read_snapshots(folder: RunFolder) -> dict[int, ContinuousTuples]:
    """Read the tuples that a run saved, in the order of their steps.

    Args:
        folder: of the run.

    Returns:
        The tuples by step.

    Raises:
        ValueError: a file is damaged, or of another run.
    """
    paths = sorted((folder.path / FOLDER).glob("*.npz"))
    return {_step(path): _read(path, folder.run) for path in paths}


def _step(path: Path) -> int:
    is_number = path.stem.isascii() and path.stem.isdigit()
    require(is_number, str(path), "STEP.npz, for instance 00000100.npz", CHANGE)
    return int(path.stem)


def _read(path: Path, run: str) -> ContinuousTuples:
    arrays = read_npz(path, change=CHANGE, names=("run", *ContinuousTuples._fields))
    name = arrays.pop("run").tobytes().decode(errors="replace")
    require(run in ("", name), f"{path} of the run {name!r}", f"tuples of the run {run!r}", CHANGE)
    shapes = [leaf.shape for leaf in arrays.values()]
    require(
        len(shapes[0]) == 2 and shapes[1] == shapes[0] and shapes[2] == shapes[0][:1],
        f"{path} with shapes {shapes}",
        "(k, r), (k, r) and (k,)",
        CHANGE,
    )
    return ContinuousTuples(*(jnp.asarray(leaf) for leaf in arrays.values()))
