"""What runs on the host needs numbers, not what stands for them while JAX traces."""

from typing import Any

import jax
from jax.core import Tracer

from sparse_hyper_jax import checks


def check_known(name: str, tree: Any) -> None:
    """Raise if any part is traced.

    Raises:
        ValueError: called under ``jax.jit`` or another transformation.
    """
    checks.require(
        not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree)),
        f"{name} traced",
        "known numbers",
        "call it outside of jax.jit, on what a training has found",
    )
