"""What lies outside of an image: nothing, its edge, or its mirror image."""

from collections.abc import Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp

EdgePadding = Literal["border", "reflection"]
Padding = Literal["zeros"] | EdgePadding
EDGE_PADDINGS: tuple[EdgePadding, ...] = get_args(EdgePadding)
PADDINGS: tuple[Padding, ...] = ("zeros", *EDGE_PADDINGS)
"""What windows read outside of an image, by the names that samplers of grids have for it.

Example:
    >>> from sparse_hyper_jax.glimpse import PADDINGS, bilinear
    >>> row, places = jnp.arange(3.0), jnp.array([[-1.0], [3.0]])  # one pixel to the left and right
    >>> [bilinear(row, places, padding=padding, rank=1).tolist() for padding in PADDINGS]
    [[0.0, 0.0], [0.0, 2.0], [1.0, 1.0]]
"""


def reflected(places: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Fold places ``(r, ...)`` into an image, as light goes between two mirrors.

    They stand in the middle of the outermost pixels, so a place repeats after ``2 (S - 1)``. The
    slope is 1 or -1, and that of the inside on the mirrors. Infinities become NaN.
    """

    def fold(place: jax.Array, size: int) -> jax.Array:
        if size == 1:
            return 0 * place
        last = jnp.asarray(size - 1, place.dtype)
        turn = jnp.mod(place, 2 * last)
        return jnp.where(turn <= last, turn, 2 * last - turn)

    return jnp.stack([fold(place, size) for place, size in zip(places, shape, strict=True)])
