"""The four linear maps of a layer of attention, and how its features are shared among heads."""

from typing import Any, Protocol

from flax import nnx

from sparse_hyper_jax import checks
from sparse_hyper_jax.nn.options import check_float_dtype
from sparse_hyper_jax.nn.promotion import promote


class Heads(Protocol):
    """Sizes of a layer of attention."""

    in_features: int
    out_features: int
    num_heads: int
    key_heads: int
    head_features: int


def make_projections(
    layer: Heads, *, use_bias: bool, dtype: Any, param_dtype: Any, rngs: nnx.Rngs
) -> tuple[nnx.Linear, nnx.Linear, nnx.Linear, nnx.Linear]:
    """Make the maps to query, key and value, and from all heads to the output.

    Args:
        layer: whose sizes are set.
        use_bias: add biases.
        dtype: of the results; None infers it.
        param_dtype: of the parameters.
        rngs: stream ``params``.

    Raises:
        ValueError: a wrong option.
    """
    use_bias = checks.check_flag("use_bias", use_bias)
    check_float_dtype("dtype", dtype, inferred=True)
    check_float_dtype("param_dtype", param_dtype)

    def linear(before: int, after: int) -> nnx.Linear:
        return nnx.Linear(
            before,
            after,
            use_bias=use_bias,
            dtype=dtype,
            param_dtype=param_dtype,
            promote_dtype=promote,
            rngs=rngs,
        )

    queries, keys = (n * layer.head_features for n in (layer.num_heads, layer.key_heads))
    query, key, value = (linear(layer.in_features, size) for size in (queries, keys, keys))
    return query, key, value, linear(queries, layer.out_features)


def divisor_of(heads: int, key_heads: int | None) -> int:
    """Return the number of key heads, by default that of the heads.

    Raises:
        ValueError: no number that divides it.
    """
    key_heads = checks.check_count("key_heads", heads if key_heads is None else key_heads, least=1)
    checks.require(
        heads % key_heads == 0,
        f"key_heads={key_heads} of {heads} heads",
        "a number that divides that of the heads",
        "change key_heads",
    )
    return key_heads


def per_head(features: int, heads: int, given: int | None) -> int:
    """Return the number of features of a head, by default its part of all.

    Raises:
        ValueError: no number, or heads that do not divide the features.
    """
    if given is not None:
        return checks.check_count("head_features", given, least=1)
    checks.require(
        features % heads == 0,
        f"{features} features for {heads} heads",
        "a number of heads that divides in_features",
        "pass head_features",
    )
    return features // heads
