"""Drop and grow with as many weights for every output: SRigL."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.pruning.distributions import count_kept
from sparse_hyper_jax.pruning.method import Kept, Snapshot, random_scores
from sparse_hyper_jax.pruning.patterns import ConstantFanIn, from_rows, rows_of
from sparse_hyper_jax.pruning.regrow import DropAndGrow, Scores
from sparse_hyper_jax.pruning.select import keep_largest


@dataclass(frozen=True)
class SRigL(DropAndGrow):
    """RigL with as many weights for every output, which may ablate whole outputs.

    All options are those of :class:`DropAndGrow`. Of an array with F entries for each of O outputs,
    of which ``N = int(density * F * O)`` may be kept, the first masks keep ``N // O`` of every
    output, by chance. Where masks change:

    1. *Salient* is what :class:`DropAndGrow` would keep or grow.
    2. An output with fewer salient entries than ``ablation * (N // O)`` is ablated: it keeps none.
       But the ``ceil(N / F)`` outputs with most of them stay, and so do their equals. An ablated
       one comes back as soon as enough of its entries are salient again.
    3. Each of the A others keeps ``N // A``: first what is to stay, the largest before others, then
       what grows, by the gradients within the output.

    Outputs that the loss needs, as logits, must not be ablated: keep their array whole (``dense=``
    of the distribution), leave it out with ``select``, or pass ``ablation=0``. With the same number
    of entries for every output, ``ops.sparse_multiply(..., row_layout=True)`` needs no scatter.

    Reference: Lasby et al. 2023, arXiv 2305.02299.

    Example:
        >>> import optax
        >>> from sparse_hyper_jax.pruning import SRigL, sparse_training
        >>> optimizer = sparse_training(
        ...     optax.sgd(0.1), SRigL(1000, every=1), density=0.5, key=jax.random.key(0))
        >>> params = {"kernel": jnp.ones((8, 3)).at[:, 0].set(0.01)}  # inputs by outputs
        >>> state, gradient = optimizer.init(params), {"kernel": 0.5 * params["kernel"]}
        >>> _, after = optimizer.update(gradient, state, params)
        >>> [one.masks["kernel"].sum(axis=0).tolist() for one in (state, after)]  # 0 is ablated
        [[4, 4, 4], [0, 6, 6]]
    """

    ablation: float | jax.Array = 0.3
    """Share of the fan-in that has to be salient, from 0 (no output is ablated) to 1."""

    axis: int = -1
    """Of the outputs; all others number the inputs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_number("ablation", self.ablation, at_least=0, at_most=1)

    def start(self, key: Any, seen: Snapshot) -> Kept:
        """Keep as many entries of every output, by chance."""
        pattern, masks = ConstantFanIn(self.axis), []
        scores = random_scores(key, seen.weights)
        for score, density in zip(scores, seen.densities, strict=True):
            number, outputs = (
                count_kept(density, pattern.units(score.shape)),
                score.shape[self.axis],
            )
            checks.require(
                number == 0 or number >= outputs,
                f"{number} entries to keep for {outputs} outputs of an array {score.shape}",
                "at least one for every output",
                "raise the density, or leave this array out with select=",
            )
            masks.append(pattern.mask(score, number))
        return Kept(masks, masks)

    def choose(self, scores: Scores, dropped: jax.Array) -> jax.Array:
        """Make the mask of an array in which every output keeps as many entries, or none."""
        size, score, mask, density = scores
        salient = rows_of(super().choose(scores, dropped), self.axis)
        number = count_kept(density, mask.size)
        active = self._active(jnp.sum(salient, axis=1, dtype=jnp.int32), number, salient.shape)
        fan_in = number // jnp.maximum(jnp.sum(active, dtype=jnp.int32), 1)
        fan_ins = jnp.where(active, fan_in, 0)
        # What is ablated counts among the entries that are dropped.
        there = mask & from_rows(jnp.broadcast_to(active[:, None], salient.shape), self.axis, mask)
        (stay,) = keep_largest([size], jnp.sum(mask, dtype=jnp.int32) - dropped, among=[there])
        kept = _of_each_row(rows_of(size, self.axis), fan_ins, rows_of(stay, self.axis))
        left = fan_ins - jnp.sum(kept, axis=1, dtype=jnp.int32)
        # An entry that was to be dropped may be needed: then it stays, with its weight.
        kept |= _of_each_row(rows_of(score, self.axis), left, ~kept)
        return from_rows(kept, self.axis, mask)

    def _active(self, salient: jax.Array, number: int, shape: tuple[int, ...]) -> jax.Array:
        """Say which outputs are not ablated, from how many salient entries they have."""
        outputs, inputs = shape
        least = self.ablation * (number // outputs)
        # So many outputs have room for all entries.
        needed = max(1, -(-number // inputs))
        most = jnp.sort(salient)[outputs - needed].astype(jnp.float32)
        return salient.astype(jnp.float32) >= jnp.minimum(jnp.asarray(least, jnp.float32), most)


def _of_each_row(scores: jax.Array, counts: jax.Array, among: jax.Array) -> jax.Array:
    """Mark the largest of each row, so many as are counted for it."""

    def of_row(score: jax.Array, count: jax.Array, allowed: jax.Array) -> jax.Array:
        return keep_largest([score], count, among=[allowed])[0]

    return jax.vmap(of_row)(scores, counts, among)
