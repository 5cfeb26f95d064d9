"""Legal calls to be spoilt, by room."""

from tests.fuzz.calls import (
    attention,
    backprop,
    conv,
    estimators,
    glimpse,
    graph,
    nn,
    ops,
    pursuit,
    recurrent,
    remat,
    sort,
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
    "conv": conv.CALLS,
    "attention": attention.CALLS,
    "graph": graph.CALLS,
}
