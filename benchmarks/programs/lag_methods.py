"""The methods of ``lags_quality``: each decides at which lags a layer reads, and trains it."""

from collections.abc import Callable

from benchmarks.programs import lag_pursuit, lag_rivals
from benchmarks.programs.lag_pursuit import Outcome
from benchmarks.programs.lag_training import Run

METHODS: dict[str, Callable[[Run], Outcome]] = {
    "oracle": lag_pursuit.oracle,
    "pursuit": lag_pursuit.pursuit_fixed,
    "pursuit, halves": lag_pursuit.pursuit_halves,
    "pursuit, z > 5": lag_pursuit.pursuit_z,
    "matching pursuit": lag_pursuit.matching_pursuit,
    "dense, pruned": lag_rivals.dense_pruned,
    "dense, pruned, two rates": lag_rivals.dense_pruned,
    "group lasso": lag_rivals.lasso,
    "dense": lag_rivals.dense_alone,
    "cross-correlation": lag_pursuit.cross_correlation,
    "gaussian": lag_rivals.gaussian,
    "interpolated": lag_rivals.interpolated,
    "dilated stack": lag_rivals.dilated_stack,
    "window": lag_pursuit.window,
    "random": lag_pursuit.random_lags,
}
