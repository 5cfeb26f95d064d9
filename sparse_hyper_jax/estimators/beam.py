"""Distinct joint choices: samples without replacement from a product of categoricals."""

import math
from functools import partial

import jax
import jax.numpy as jnp

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_random_key
from sparse_hyper_jax.precision import at_least_float32


def sample_without_replacement(
    key: jax.Array, logits: jax.Array, count: int
) -> tuple[jax.Array, jax.Array]:
    """Draw distinct joint choices of ``K`` independent variables, in the order of drawing.

    Stochastic beam search: variable by variable, every partial choice is extended by all classes,
    the extensions get Gumbel-perturbed log probabilities whose maximum is that of the partial
    choice, and the ``count`` largest go on. Never more than ``count * C`` partial choices at once,
    of the ``C ** K`` that there are.

    Args:
        key: a typed key.
        logits: ``(K, C)``; minus infinity bans a class.
        count: number of choices, at most ``C ** K``.

    Returns:
        int32 choices ``(count, K)`` and their log probabilities ``(count,)``, minus infinity for
        those in excess of the choices that are not banned. The first is an ordinary sample. All
        log probabilities are NaN if a logit is NaN or plus infinity, or a variable has no class
        that is not banned.

    Raises:
        ValueError: no key, logits of another rank, no choice, or more choices than there are.

    Reference: Kool, van Hoof and Welling 2019, "Stochastic Beams and Where to Find Them", arXiv
    1903.06059.

    Example:
        >>> from sparse_hyper_jax.estimators import sample_without_replacement
        >>> logits = jnp.array([[0.0, 1.0], [0.0, -1.0]])
        >>> choices, log_p = sample_without_replacement(jax.random.key(0), logits, 4)
        >>> sorted(choices.tolist()), float(jnp.sum(jnp.exp(log_p)).round(3))  # all there are
        ([[0, 0], [0, 1], [1, 0], [1, 1]], 1.0)
    """
    check_random_key(key)
    logits = as_array("logits", logits)
    checks.check_shape("logits", logits, (None, None), "(K, C): one row per variable")
    count = checks.check_count("count", count, least=1)
    variables, classes = logits.shape
    checks.require(
        variables >= 1 and classes >= 1,
        f"logits of shape {logits.shape}",
        "at least one variable and one class",
        "leave out the draw",
    )
    check_distinct(count, variables, classes)
    return _search(key, at_least_float32(logits), count)


# Compiled once for all calls outside of jit, where a scan would be for each.
@partial(jax.jit, static_argnames="count")
def _search(key: jax.Array, logits: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Do what :func:`sample_without_replacement` says, without checks."""
    variables, classes = logits.shape
    log_probabilities = jax.nn.log_softmax(logits)

    def extend(beam, step):
        so_far, scores, choices = beam
        key, row, variable = step
        extended = (so_far[:, None] + row[None]).reshape(-1)
        noise = jax.random.gumbel(key, extended.shape, extended.dtype)
        perturbed = _with_maximum((extended + noise).reshape(count, classes), scores)
        scores, kept = jax.lax.top_k(perturbed.reshape(-1), count)
        choices = choices[kept // classes].at[:, variable].set(kept % classes)
        # A partial choice that is not alive passes its score of minus infinity on.
        so_far = jnp.where(jnp.isneginf(scores), -jnp.inf, extended[kept])
        return (so_far, scores, choices), None

    alive = jnp.where(jnp.arange(count) == 0, 0.0, -jnp.inf).astype(log_probabilities.dtype)
    # Zeros that are made of the logits are spread over devices as these are.
    nothing = jnp.isnan(log_probabilities[:, 0]).astype(jnp.int32) * 0
    start = (alive, alive, jnp.broadcast_to(nothing[None], (count, variables)))
    numbers = jnp.arange(variables, dtype=jnp.int32)
    steps = (jax.random.split(key, variables), log_probabilities, numbers)
    (so_far, _, choices), _ = jax.lax.scan(extend, start, steps)
    spoilt = jnp.where(jnp.any(jnp.isnan(log_probabilities)), jnp.nan, 0.0)
    return choices, so_far + spoilt


def check_distinct(count: int, variables: int, classes: int) -> None:
    """Raise if there are fewer than ``count`` distinct joint choices.

    Raises:
        ValueError: too few.
    """
    checks.require(
        variables * math.log(classes) >= math.log(count) - 1e-9,
        f"{count} distinct choices of {variables} variables with {classes} classes",
        f"at most {classes}**{variables} of them",
        "draw fewer",
    )


def _with_maximum(perturbed: jax.Array, maxima: jax.Array) -> jax.Array:
    """Shift Gumbel variates ``(n, C)`` so that the largest of row ``i`` is ``maxima[i]``.

    As variates given their maximum: ``-log(exp(-T) - exp(-Z) + exp(-G))`` for the wanted maximum
    ``T``, the present one ``Z`` and a variate ``G``, in a form that neither over- nor underflows.
    """
    present = jnp.max(perturbed, axis=1, keepdims=True)
    wanted = maxima[:, None]
    alive = jnp.isfinite(perturbed) & jnp.isfinite(wanted)
    # Double where: what is not alive would subtract infinities.
    present, wanted = (jnp.where(jnp.isfinite(one), one, 0.0) for one in (present, wanted))
    variate = jnp.where(alive, perturbed, present - 1)
    largest = variate >= present
    gap = jnp.where(largest, -1.0, variate - present)
    # log(1 - exp(gap)) is minus infinity for the largest itself, which then is the wanted maximum.
    excess = wanted - variate + jnp.log(-jnp.expm1(gap))
    shifted = wanted - jax.nn.relu(excess) - jnp.log1p(jnp.exp(-jnp.abs(excess)))
    return jnp.where(alive, jnp.where(largest, wanted, shifted), -jnp.inf)
