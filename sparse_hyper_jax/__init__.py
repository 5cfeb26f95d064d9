"""Learn sparse transformations by backpropagation, without ever holding the dense matrix.

Start with :mod:`sparse_hyper_jax.ops`: its docstring draws the path from raw parameters to output.
"""

from sparse_hyper_jax.types import ContinuousTuples, SparseEntries

__version__ = "0.1.0"

__all__ = ["ContinuousTuples", "SparseEntries", "__version__"]
