"""Gradients through discrete choices, for comparison with the relaxation of the core.

``sample_cells`` draws one integer cell per continuous tuple; ``score_function_loss`` turns the
losses of such draws into a surrogate whose gradient estimates that of the expected loss.
"""

from sparse_hyper_jax.estimators.score_function import (
    sample_cells,
    score_function,
    score_function_loss,
)

__all__ = ["sample_cells", "score_function", "score_function_loss"]
