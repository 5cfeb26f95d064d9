"""The best parameters of a run, chosen by validation, in a file that survives the process."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import checks


class BestParameters:
    """Keeps the parameters with the highest score so far; of equal scores, those of the first step.

    A run that is killed and resumed repeats some evaluations with the same scores, and so ends with
    the same file as a run that was not.

    Args:
        path: where to keep them, a name that ends in ``.npz``.
    """

    def __init__(self, path: Path):
        self.path = path

    def offer(self, score: float, step: int, parameters: Any) -> None:
        """Keep the parameters if they are better than what the file holds.

        Args:
            score: higher is better; NaN is the lowest.
            step: number of finished steps.
            parameters: pytree of arrays.
        """
        score = -np.inf if np.isnan(score) else score
        if self.path.exists():
            with np.load(self.path) as kept:
                if (score, -step) <= (float(kept["score"]), -int(kept["step"])):
                    return
        leaves = jax.device_get(jax.tree.leaves(parameters))
        written = self.path.with_suffix(".new.npz")
        np.savez(written, *leaves, score=score, step=step)
        written.replace(self.path)  # at once: a killed run leaves the old file or the new one

    def read(self, like: Any) -> tuple[float, int, Any]:
        """Give score, step and parameters of the best.

        Args:
            like: pytree of the same structure.

        Raises:
            ValueError: nothing was offered yet, or other parameters.
        """
        checks.require(
            self.path.exists(),
            f"no file {self.path}",
            "the parameters of at least one evaluation",
            "train first",
        )
        wanted = [jnp.shape(leaf) for leaf in jax.tree.leaves(like)]
        dtypes = [jnp.result_type(leaf) for leaf in jax.tree.leaves(like)]
        with np.load(self.path) as kept:
            leaves = [kept[f"arr_{number}"] for number in range(len(kept.files) - 2)]
            found = [leaf.shape for leaf in leaves]
            checks.require(
                found == wanted,
                f"parameters of shapes {found} in {self.path}",
                f"shapes {wanted}",
                "pass the parameters of the same model",
            )
            # The file keeps the bytes of a bfloat16, but not its name.
            named = [
                jnp.asarray(leaf.view(dtype) if leaf.dtype.kind == "V" else leaf)
                for leaf, dtype in zip(leaves, dtypes, strict=True)
            ]
            parameters = jax.tree.unflatten(jax.tree.structure(like), named)
            return float(kept["score"]), int(kept["step"]), parameters
