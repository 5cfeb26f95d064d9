"""The soft permutation as an ``n x n`` matrix, in the few lines that define it."""

import jax
import jax.numpy as jnp


def soft_matrix(keys, certainty, axis=1):
    """Rows, one per place, sum to one for ``axis=1``; columns, one per element, for ``axis=0``."""
    distances = jnp.abs(keys[jnp.argsort(keys)][:, None] - keys)
    return jax.nn.softmax(-certainty * distances, axis=axis)


def soft_sort(keys, payload, certainty):
    matrix = soft_matrix(keys, certainty)
    return jax.tree.map(lambda leaf: jnp.tensordot(matrix, leaf, 1), payload)


def soft_ranks(keys, certainty):
    return jnp.arange(len(keys)) @ soft_matrix(keys, certainty, axis=0)


def soft_top_k(keys, k, certainty):
    return soft_matrix(keys, certainty, axis=0)[len(keys) - k :].sum(0)


def order_loss(keys, labels, certainty, axis=1):
    entries = soft_matrix(keys, certainty, axis)[jnp.arange(len(keys)), jnp.argsort(labels)]
    return -jnp.log(entries).mean()


def derivatives(function, args, tangents):
    """First and second derivatives of a bounded sum, forwards and in reverse, and the value."""

    def total(args):
        return sum(jnp.sin(leaf).sum() for leaf in jax.tree.leaves(function(*args)))

    values, forwards = jax.jvp(jax.value_and_grad(total), (args,), (tangents,))
    return {
        "value": function(*args),
        "reverse": values[1],
        "forwards": forwards[0],
        "reverse, then forwards": forwards[1],
    }
