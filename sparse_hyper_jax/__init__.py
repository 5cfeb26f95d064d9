"""Learn sparse transformations by backpropagation, without ever holding the dense matrix.

Start with :mod:`sparse_hyper_jax.ops`: its docstring draws the path from raw parameters to output.
The rooms and the two types are attributes of the package, imported when they are first asked for:
``sparse-hyper --help`` need not wait for JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what __getattr__ gives, for editors and type checkers
    from sparse_hyper_jax import attention as attention
    from sparse_hyper_jax import backprop as backprop
    from sparse_hyper_jax import continual as continual
    from sparse_hyper_jax import conv as conv
    from sparse_hyper_jax import diagnostics as diagnostics
    from sparse_hyper_jax import dist as dist
    from sparse_hyper_jax import estimators as estimators
    from sparse_hyper_jax import explain as explain
    from sparse_hyper_jax import glimpse as glimpse
    from sparse_hyper_jax import graph as graph
    from sparse_hyper_jax import local as local
    from sparse_hyper_jax import memory as memory
    from sparse_hyper_jax import nn as nn
    from sparse_hyper_jax import ops as ops
    from sparse_hyper_jax import pruning as pruning
    from sparse_hyper_jax import recurrent as recurrent
    from sparse_hyper_jax import remat as remat
    from sparse_hyper_jax import reparam as reparam
    from sparse_hyper_jax import sort as sort
    from sparse_hyper_jax import spiking as spiking
    from sparse_hyper_jax import train as train
    from sparse_hyper_jax.types import ContinuousTuples, SparseEntries

__version__ = "0.2.0"

_ROOMS = (
    *("attention", "backprop", "continual", "conv", "diagnostics", "dist", "estimators", "explain"),
    *("glimpse", "graph", "local", "memory", "nn", "ops", "pruning", "recurrent", "remat"),
    *("reparam", "sort", "spiking", "train"),
)

__all__ = ["ContinuousTuples", "SparseEntries", "__version__"]

if not TYPE_CHECKING:  # which would take any name for an attribute, and miss misspelt rooms

    def __getattr__(name: str) -> Any:
        if name in _ROOMS:
            return importlib.import_module(f"{__name__}.{name}")
        if name in ("ContinuousTuples", "SparseEntries"):
            return getattr(importlib.import_module(f"{__name__}.types"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
