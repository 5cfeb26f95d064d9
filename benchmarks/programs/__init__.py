"""The JAX programs that are measured: a function ``measure`` each."""
