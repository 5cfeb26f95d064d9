"""Calls of functions that read at positions of their own."""

from sparse_hyper_jax import attention, conv
from tests.fuzz import draw
from tests.fuzz.calls.parts import reals
from tests.fuzz.wrong import Call, array, choice, count, flag, key, number, shape

T, H, G, K, C, OUT = 5, 4, 2, 3, 3, 4


def rows(rng):
    """Queries, keys, values and means."""
    return {
        "query": array(reals(rng, T, H, 3), last=True),
        "key": array(reals(rng, T, G, 3), last=True),
        "value": array(reals(rng, T, G, 2)),
        "means": array(draw.means(rng, T * H * K, (T,)).reshape(T, H, K)),
    }


def standing(rng):
    """Options of both functions of attention."""
    return {
        "causal": flag(True),
        "times": array(rng.integers(0, T, T), "integers", optional=True),
        "near": count(1),
        "scale": number(0.5, optional=True),
    }


def drawing(rank):
    return {
        "num_global": count(2),
        "num_local": count(1),
        "region": shape((3, 2)[:rank], optional=True),
        "global_from": choice("uniform"),
    }


def pointer_attention(rng):
    hard = rng.random() < 0.3
    arguments = rows(rng)
    if hard:
        # Another number of pointers is one.
        arguments["means"] = array(arguments["means"].value)
        name, function, first = "pointer_attention_hard", attention.pointer_attention_hard, 4
    else:
        arguments["means"] = array(arguments["means"].value, last=True)
        arguments = {"random_key": key()} | arguments
        arguments["variances"] = array(abs(reals(rng, T, H, K)) + 0.1, last=True)
        arguments |= drawing(1)
        name, function, first = "pointer_attention", attention.pointer_attention, 5
    return Call(f"attention.{name}", function, arguments | standing(rng), first)


def adaptive_conv(rng):
    rank = draw.pick(rng, 1, 2)
    sides = (6, 4)[:rank]
    size = (*sides, K) if rank == 1 else (*sides, K, 2)
    arguments = {"x": array(reals(rng, *sides, C), last=True)}
    arguments["weights"] = array(reals(rng, K, C, OUT))
    arguments["offsets"] = array(reals(rng, *size), last=True)
    options = {"stride": count(1, 1)} | ({"causal": flag(True)} if rank == 1 else {})
    if rng.random() < 0.3:
        return Call("conv.adaptive_conv_hard", conv.adaptive_conv_hard, arguments | options, 3)
    arguments = {"key": key()} | arguments
    arguments["variances"] = array(abs(reals(rng, *size)) + 0.1, last=True)
    return Call("conv.adaptive_conv", conv.adaptive_conv, arguments | options | drawing(rank), 5)


ATTENTION, CONV = (pointer_attention,), (adaptive_conv,)
