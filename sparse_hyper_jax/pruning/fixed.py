"""Train under masks that are given."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.parameter_paths import is_left_out
from sparse_hyper_jax.placement import placed_like
from sparse_hyper_jax.pruning.masks import Masks, check_masks
from sparse_hyper_jax.pruning.method import Kept, Method, Snapshot
from sparse_hyper_jax.pruning.schedules import Schedule, one_shot


@dataclass(frozen=True, eq=False)  # arrays are neither compared nor hashed
class Fixed(Method):
    """Train under given masks, which never change: fine-tuning after pruning.

    They come from :func:`magnitude_masks`, from the state of a run that is over, or from a file by
    :func:`unpack_masks`. ``sparse_training`` then takes no density, and its ``select`` has to be
    the one with which the masks were made.

    Example:
        >>> import optax
        >>> from sparse_hyper_jax.pruning import Fixed, magnitude_masks, sparse_training
        >>> params = {"kernel": jnp.array([[3.0, -1.0], [0.5, -2.0]])}
        >>> optimizer = sparse_training(optax.adam(0.1), Fixed(magnitude_masks(params, 0.5)))
        >>> state = optimizer.init(params)
        >>> gradient = jax.tree.map(jnp.ones_like, params)  # at apply_masks(params, state.masks)
        >>> updates, state = optimizer.update(gradient, state, params)
        >>> jnp.flatnonzero(updates["kernel"]).tolist()  # the dropped ones stay as they are
        [0, 3]
    """

    masks: Masks
    """Bool arrays, and ``optax.MaskedNode()`` for leaves without a mask."""

    needs_density: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for mask in (leaves := jax.tree.leaves(self.masks)):
            as_array("a mask", mask, "flags")
        checks.require(
            bool(leaves), f"masks={self.masks!r:.80}", "at least one mask", "check select="
        )

    @property
    def schedule(self) -> Schedule:
        """Before the first step, and never again."""
        return one_shot(0)

    def check_params(self, params: Any, densities: Any) -> None:
        """Raise unless the leaves that are pruned have a mask, and no others."""
        given = [not is_left_out(place) for place in check_masks(params, self.masks)]
        pruned = [
            not is_left_out(place) for place in jax.tree.leaves(densities, is_leaf=is_left_out)
        ]
        checks.require(
            given == pruned,
            f"masks for {sum(given)} leaves where {sum(pruned)} are pruned, or for other ones",
            "a mask for every leaf that is pruned, and for no other",
            "pass the select= with which the masks were made",
        )

    def change(self, key: Any, seen: Snapshot) -> Kept:
        """Give the masks."""
        del key
        # Joined with what no weight is, so that they are spread over devices as the weights are.
        masks = [
            placed_like(jnp.asarray(mask), weights) | (weights > jnp.inf)
            for mask, weights in zip(jax.tree.leaves(self.masks), seen.weights, strict=True)
        ]
        return Kept(masks, masks)
