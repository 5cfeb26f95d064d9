"""Calls of ``local``."""

import jax.numpy as jnp
import numpy as np
import optax

from sparse_hyper_jax import local
from tests.fuzz import draw
from tests.fuzz.wrong import Call, array, count, thing, tree

SGD = optax.sgd(0.1)


def half(x):
    return x / 2


def part(**others):
    return local.Component(half, half, half, half)._replace(**others)


def no_output(x):
    return None


def components(*bad):
    """Two components, and what is none of these; ``bad`` ones stand for the first."""
    good = [part(), part()]
    lists = [[], good[:1] * 0, [None], [good[0], 3], good[0], [good], {"a": good[0]}, "text", None]
    lists += [[part(**{name: one})] for name in part()._fields for one in (None, 3, "half")]
    lists += [3, half, object(), [local.Component], local.Component, [half] * 4, [*good, ()]]
    return tree(good, *lists, *([one, good[0]] for one in bad), family="components")


def associated_losses(rng):
    bad = [part(bridge=lambda x: x[..., None]), part(decode=lambda x: x[:1]), part(decode=str)]
    bad += [part(bridge=lambda x: x * 1j), part(bridge=no_output), part(decode=no_output)]
    bad += [part(forward=no_output), part(encode=no_output), part(encode=lambda x: {"t": x})]
    arguments = {"components": components(*bad)}
    arguments |= {name: array(draw.reals(rng, (3, 2))) for name in ("x", "target")}
    return Call("local.associated_losses", local.associated_losses, arguments, 3)


def associated_predict(rng):
    bad = [part(forward=no_output), part(decode=lambda x: "text")]
    x = array(draw.reals(rng, (3, 2)), ranks=False, lengths=False)
    arguments = {"components": components(*bad), "x": x, "exit_at": count(1, 1, 2, optional=True)}
    return Call("local.associated_predict", local.associated_predict, arguments, 2)


def make(scale):
    return local.Component(*[lambda x: scale * x] * 4)


def pipelined_steps(rng):
    scales = [jnp.array(0.5)] * 2
    states = [SGD.init(one) for one in scales]
    makes = [make, make]
    no_makes = [[], [make], None, 3, "text", [make, 3], [make, None], make, {"a": make}]
    no_makes += [[make, half], [make, no_output], [lambda scale: make(scale)[:2], make]]
    no_scales = [[], scales[:1], None, 3, "text", [*scales, 1.0], ["a", "b"], [object()] * 2, {1.0}]
    no_scales += [[jnp.ones((), int)] * 2]
    no_states = [[], states[:1], None, 3, "text", [*states, ()], object()]
    xs = np.ones((4, 3, 2), np.float32)
    arguments = {
        "makes": tree(makes, *no_makes, family="makes"),
        "parameters": tree(scales, *no_scales, family="lists"),
        "states": tree(states, *no_states, family="lists"),
        "xs": array(xs, bad=(xs[:0],)),
        "targets": array(xs, bad=(xs[:0],)),
        "optimizer": thing(SGD, (SGD.init,), SGD.init, {"sgd": SGD}, family="optimizer"),
    }
    return Call("local.pipelined_steps", local.pipelined_steps, arguments, 5)


CALLS = (associated_losses, associated_predict, pipelined_steps)
