"""Learn the next task of a packed network: EfficientPackNet and PackNet."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.continual.packing import (
    PackedNetwork,
    add_task,
    check_elementwise,
    redraw_free,
    to_weights,
)
from sparse_hyper_jax.continual.search import (
    Search,
    check_grid,
    search_sparsity,
)
from sparse_hyper_jax.entrance import check_function
from sparse_hyper_jax.parameter_paths import is_left_out
from sparse_hyper_jax.pruning import (
    Masks,
    apply_masks,
    combine_masks,
    count_kept,
    keep_largest,
    magnitude_masks,
)
from sparse_hyper_jax.pruning.distributions import check_share
from sparse_hyper_jax.reparam import Reparametrization

Train = Callable[[Any, Masks, Masks], Any]
"""``train(params, frozen, masks)`` gives trained parameters: it uses the weights under ``masks``
and leaves frozen entries alone (:func:`~sparse_hyper_jax.continual.freeze_entries`)."""


def efficient_packnet(
    network: PackedNetwork,
    fresh: Any,
    train: Train,
    evaluate: Callable[[Any], float],
    *,
    accept: Callable[[float, float], bool],
    sparsities: Sequence[float],
    reparam: Reparametrization | None = None,
) -> tuple[PackedNetwork, Search]:
    """Learn a task with all weights, then keep as few as are good enough, old ones or new.

    Free entries are drawn anew and trained, old ones are used as they are. The masks keep the
    largest weights of every array, old and new alike, at the largest sparsity that is accepted;
    there is no training after pruning.

    Args:
        network: the tasks so far.
        fresh: new parameters from the initialiser.
        train: trains parameters; what it compiles can be kept from task to task, since masks are
            arrays.
        evaluate: gives the score of masked weights on validation data.
        accept: ``accept(score, unpruned score)``, true for the unpruned network itself.
        sparsities: increasing candidates from 0 to 1.
        reparam: of the parameters, or None.

    Returns:
        the network with one more task, and the search.

    Raises:
        ValueError: training changed entries of earlier tasks; ``accept`` refuses the unpruned
            network; the sparsities are not increasing shares; the reparametrisation is one of
            groups.

    Reference: Schwarz et al. 2021, arXiv 2110.00296.
    """
    check_elementwise(reparam)
    check_grid(sparsities)
    check_function("train", train)
    check_function("evaluate", evaluate)
    check_function("accept", accept)
    params = train(redraw_free(network, fresh), network.used, _everything(network.used))
    weights = to_weights(reparam, params)

    def masks_at(sparsity: float) -> Masks:
        shares = jax.tree.map(lambda _: 1 - sparsity, network.used)
        return magnitude_masks(weights, shares)

    search = search_sparsity(
        lambda sparsity: evaluate(apply_masks(weights, masks_at(sparsity))), accept, sparsities
    )
    return add_task(network, params, masks_at(search.sparsity)), search


def packnet(
    network: PackedNetwork,
    fresh: Any,
    train: Train,
    *,
    keep: float,
    reparam: Reparametrization | None = None,
    retrain: Train | None = None,
) -> PackedNetwork:
    """Learn a task, keep a fixed share of the free weights and train these again.

    The task uses all old entries and the new ones that it keeps.

    Args:
        network: the tasks so far.
        fresh: new parameters from the initialiser.
        train: trains parameters.
        keep: share of the free entries of every array that the task takes, the largest ones.
        reparam: of the parameters, or None.
        retrain: trains after pruning, by default as ``train``.

    Returns:
        the network with one more task. When little is left free, a task gets little and is learned
        badly: watch :func:`~sparse_hyper_jax.continual.share_used`.

    Raises:
        ValueError: ``keep`` is no share; training changed entries of earlier tasks; the
            reparametrisation is one of groups.

    Reference: Mallya and Lazebnik 2018, arXiv 1711.05769.
    """
    check_elementwise(reparam)
    checks.require(check_share("keep", keep) > 0, f"keep={keep}", "in (0, 1]", "change keep")
    check_function("train", train)
    check_function("retrain", retrain or train)
    params = train(redraw_free(network, fresh), network.used, _everything(network.used))

    def choose(weights: jax.Array, used: Any) -> Any:
        if is_left_out(used):
            return used
        count = count_kept(keep, int(jnp.sum(~used, dtype=jnp.int32)))
        return keep_largest([weights], count, among=[~used])[0]

    new = jax.tree.map(choose, to_weights(reparam, params), network.used)
    masks = combine_masks(jnp.logical_or, network.used, new)
    frozen = combine_masks(jnp.logical_not, new)
    params = (retrain or train)(params, frozen, masks)
    return add_task(network, params, masks)


def _everything(masks: Masks) -> Masks:
    return combine_masks(jnp.ones_like, masks)
