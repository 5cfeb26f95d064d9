"""Families of plans with their oracles, by room."""

from tests.fuzz.rooms import (
    backprop,
    choices,
    entries,
    glimpse,
    nn,
    products,
    quicksort,
    recurrent,
    remat,
    routing,
    segments,
    sort,
    sort_losses,
    sort_weighted,
    truncation,
    tuples,
    weights,
)

FAMILIES = {
    "ops": (*tuples.FAMILIES, *entries.FAMILIES, *products.FAMILIES, *segments.FAMILIES),
    "sort": (
        *sort.FAMILIES,
        *sort_losses.FAMILIES,
        *quicksort.FAMILIES,
        *sort_weighted.FAMILIES,
    ),
    "glimpse": glimpse.FAMILIES,
    "estimators": (*choices.FAMILIES, *routing.FAMILIES),
    "backprop": backprop.FAMILIES,
    "pruning": weights.PRUNING,
    "reparam": weights.REPARAM,
    "continual": weights.CONTINUAL,
    "diagnostics": backprop.DIAGNOSTICS,
    "remat": remat.FAMILIES,
    "recurrent": (*recurrent.FAMILIES, *truncation.FAMILIES),
    "nn": nn.FAMILIES,
}
