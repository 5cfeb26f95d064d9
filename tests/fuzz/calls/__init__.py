"""Legal calls to be spoilt, by room."""

from tests.fuzz.calls import (
    backprop,
    estimators,
    explain,
    glimpse,
    local,
    nn,
    ops,
    pursuit,
    recurrent,
    remat,
    sort,
    spiking,
    weights,
)

CALLS = {
    "ops": (*ops.CALLS, *pursuit.CALLS),
    "sort": sort.CALLS,
    "glimpse": glimpse.CALLS,
    "estimators": estimators.CALLS,
    "backprop": backprop.CALLS,
    "pruning": weights.PRUNING,
    "reparam": weights.REPARAM,
    "continual": weights.CONTINUAL,
    "diagnostics": backprop.DIAGNOSTICS,
    "remat": remat.CALLS,
    "recurrent": recurrent.CALLS,
    "nn": nn.NN,
    "dist": nn.DIST,
    "spiking": spiking.CALLS,
    "explain": explain.CALLS,
    "local": local.CALLS,
}
