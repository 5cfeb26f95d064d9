"""The best parameters of a run, chosen by validation, in a file that survives the process."""

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.train.checkpoint import describe
from sparse_hyper_jax.train.npz import NUMBERS, read_npz

ABOUT = ("leaves", "run", "score", "step")
"""Arrays of the file beside the parameters."""

CHANGE = "start a new run with another --out DIR and no --resume"


class BestParameters:
    """Keeps the parameters with the highest score so far; of equal scores, those of the first step.

    A run that is killed and resumed repeats some evaluations with the same scores, and so ends with
    the same file as a run that was not.

    Args:
        path: where to keep them, a name that ends in ``.npz``.
        run: name of the run, ``RunFolder.run``; a file of another run is
            refused. Without it any file is taken.
    """

    def __init__(self, path: Path, *, run: str = ""):
        self.path = path
        self.run = run

    def offer(self, score: float, step: int, parameters: Any) -> None:
        """Keep the parameters if they are better than what the file holds.

        Args:
            score: higher is better; NaN is the lowest.
            step: number of finished steps.
            parameters: pytree of arrays.

        Raises:
            ValueError: the file is damaged, or of another run.
        """
        score = -math.inf if math.isnan(score) else score
        if self.path.exists():
            best, when = self._about(read_npz(self.path, change=CHANGE, names=ABOUT))
            if (score, -step) <= (best, -when):
                return
        parameters = jax.tree.map(np.asarray, jax.device_get(parameters))
        leaves = [_to_numbers(leaf) for leaf in jax.tree.leaves(parameters)]
        about = {
            "leaves": np.frombuffer(_names(parameters).encode(), np.uint8),
            "run": np.frombuffer(self.run.encode(), np.uint8),
            "score": np.float64(score),
            "step": np.int64(step),
        }
        written = self.path.with_suffix(".new.npz")
        np.savez(written, *leaves, **about)
        written.replace(self.path)  # at once: a killed run leaves the old file or the new one

    def read(self, like: Any) -> tuple[float, int, Any]:
        """Give score, step and parameters of the best.

        Args:
            like: pytree of arrays of the same names, shapes and dtypes.

        Raises:
            ValueError: nothing was offered yet, other parameters, another run, a damaged file, or
                one of an earlier version, without the names of the parameters.
        """
        require(
            self.path.exists(),
            f"no file {self.path}",
            "the parameters of at least one evaluation",
            "train first",
        )
        arrays = read_npz(self.path, change=CHANGE, kinds=NUMBERS + "c")
        score, step = self._about(arrays)
        like = jax.tree.map(jnp.asarray, like)
        # Names too: of equal shapes one parameter would be taken for another.
        names, expected = arrays["leaves"].tobytes().decode(errors="replace"), _names(like)
        require(
            names == expected,
            f"parameters {names.splitlines()} in {self.path}",
            f"{expected.splitlines()}",
            "pass the parameters of the same model",
        )
        wanted, structure = jax.tree.flatten(like)
        leaves = [arrays.get(f"arr_{number}") for number in range(len(arrays) - len(ABOUT))]
        found = [None if leaf is None else _kind(leaf) for leaf in leaves]
        kinds = [_kind(_to_numbers(leaf)) for leaf in wanted]
        require(found == kinds, f"arrays {found} in {self.path}", f"{kinds}", CHANGE)
        named = [
            jnp.asarray(leaf.view(one.dtype))
            for leaf, one in zip(leaves, wanted, strict=True)
            if leaf is not None
        ]
        return score, step, jax.tree.unflatten(structure, named)

    def _about(self, arrays: dict[str, np.ndarray]) -> tuple[float, int]:
        kinds = {name: _kind(arrays[name]) for name in ABOUT if name in arrays}
        texts = {
            name: f"uint8[{arrays[name].size}]" for name in ("leaves", "run") if name in arrays
        }
        require(
            kinds == texts | {"score": "float64[]", "step": "int64[]"} and len(texts) == 2,
            f"{self.path} with {kinds}",
            "names of the parameters and of the run, a score and a step beside the parameters",
            CHANGE,
        )
        name = arrays["run"].tobytes().decode(errors="replace")
        require(
            self.run in ("", name),
            f"{self.path} of the run {name!r}",
            f"parameters of the run {self.run!r}, to which the folder belongs",
            "delete that file, or start a new run with another --out DIR and no --resume",
        )
        return float(arrays["score"]), int(arrays["step"])


def _to_numbers(leaf: Any) -> np.ndarray:
    # npz files keep the bytes of a bfloat16, but not its name: as unsigned numbers they come back.
    array = np.asarray(leaf)
    return array.view(f"u{array.dtype.itemsize}") if array.dtype.kind == "V" else array


def _names(parameters: Any) -> str:
    return "\n".join(describe(parameters))


def _kind(leaf: np.ndarray) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"
