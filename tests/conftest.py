import os
from collections.abc import Iterator

import jax
import pytest

# Stricter than a user's session: keys must be typed, and a 64-bit type that would silently become a
# 32-bit one is an error.
jax.config.update("jax_legacy_prng_key", "error")
jax.config.update("jax_explicit_x64_dtypes", "error")

# Several devices on one CPU, for tests of sharded layers.
jax.config.update("jax_num_cpu_devices", 8)

# Tests compile thousands of tiny programs and run each of them once: without XLA's expensive passes
# that takes half the time. JAX_DISABLE_MOST_OPTIMIZATIONS=0 tests what users run.
if "JAX_DISABLE_MOST_OPTIMIZATIONS" not in os.environ:
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(autouse=True, scope="module")
def forget_compiled_programs() -> Iterator[None]:
    """Drop the programs of a test file at its end.

    Each holds some pages of memory of its own, of which Linux allows a process 65,530: thousands of
    tests in one process would use them up and crash it.
    """
    yield
    jax.clear_caches()
