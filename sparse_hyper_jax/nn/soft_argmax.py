"""Where a network sees something: the expected place under a softmax over a map."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sparse_hyper_jax.nn.promotion import promote


class SoftArgmax(nnx.Module):
    """Maps of features to places: each place is the middle of a softmax over all cells.

    ``place = sum_cells softmax(sharpness w . features[cell]) * middle of the cell``. What is
    learned at one cell holds at all of them: a map that is shifted by a cell shifts what stands out
    of it by a cell, where a linear layer learns every place anew. All weights start at 0, every
    place in the middle.

    Args:
        channels: features of a cell.
        places: number of places.
        sharpness: factor of the scores, by which ``w`` learns faster than the network it follows.
        rngs: stream ``params``.

    Reference: Levine, Finn, Darrell, Abbeel 2016, arXiv 1504.00702 (there one place per feature).
    """

    def __init__(self, channels: int, places: int, *, sharpness: float, rngs: nnx.Rngs):
        self.sharpness = sharpness
        # No bias: a softmax takes no notice of one.
        self.scores = nnx.Linear(
            channels,
            places,
            use_bias=False,
            kernel_init=nnx.initializers.zeros_init(),
            promote_dtype=promote,
            rngs=rngs,
        )

    def __call__(self, maps: jax.Array) -> jax.Array:
        """Give the places in maps ``(b, h, w, channels)``, as shares of both sides.

        Returns:
            ``(b, places, 2)``: row and column, from ``1 / 2h`` to ``1 - 1 / 2h``.
        """
        weights = jax.nn.softmax(self.sharpness * self.scores(maps), axis=(1, 2))

        def expected(axis: int) -> jax.Array:
            cells = weights.shape[axis]
            middles = ((np.arange(cells) + 0.5) / cells).astype(weights.dtype)
            # Written out: a matrix product may run in reduced precision on an accelerator.
            along = jnp.sum(weights, axis=3 - axis)
            return jnp.sum(along * middles[None, :, None], axis=1)

        return jnp.stack([expected(1), expected(2)], axis=-1)
