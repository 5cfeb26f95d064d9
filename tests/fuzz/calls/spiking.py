"""Calls of ``spiking``."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparse_hyper_jax import spiking
from tests.fuzz import draw
from tests.fuzz.wrong import Call, array, choice, count, flag, key, number, shape, thing, tree

SIZES = (4, 3, 2)
BATCH = 2
WEIGHTS = [jnp.ones(pair) for pair in itertools.pairwise(SIZES)]


def slope():
    """Options of a slope, and numbers that are none of its scales."""
    return {
        "surrogate": choice("triangle"),
        "scale": number(0.5, 0, -1.0, 1e-7, float("-inf"), optional=True),
    }


def spikes(rng):
    name = draw.pick(rng, "spike", "surrogate_slope")
    arguments = {"u": array(draw.reals(rng, (3, 2)), ranks=False, lengths=False)} | slope()
    return Call(f"spiking.{name}", getattr(spiking, name), arguments, 1)


def neuron():
    return {
        "decay": number(0.75, -0.1, 1.5, [0.5, 2.0, 0.5], np.ones((3, 1)), np.ones(2), [-1.0] * 3),
        "threshold": number(1.0, np.ones((3, 1)), np.ones(2), [float("nan")] * 3),
        "reset": choice("subtract"),
        "detach_reset": flag(False),
    } | slope()


def neurons(rng):
    if rng.random() < 0.5:
        states = {name: array(draw.reals(rng, 3)) for name in ("v", "current")}
        return Call("spiking.lif_step", spiking.lif_step, states | neuron(), 2)
    arguments = {"currents": array(draw.reals(rng, (5, 3)), lengths=False, last=True)}
    arguments |= neuron() | {"v": array(draw.reals(rng, 3), optional=False)}
    return Call("spiking.lif", spiking.lif, arguments, 1)


def random_spikes(rng):
    arguments = {"key": key(), "probabilities": array(np.full(3, 0.5), ranks=False, lengths=False)}
    return Call(
        "spiking.poisson_spikes", spiking.poisson_spikes, arguments | {"steps": count(4)}, 2
    )


def rules(rng):
    arguments = {
        "decay": number(0.9, -0.1, 1.1),
        "threshold": number(1.0, 0, -1.0, float("inf")),
        "mask": choice("xor"),
        "reset_traces": flag(True),
        "trace_units": count(3, 1, optional=True),
    }
    return Call("spiking.MembraneRule", spiking.MembraneRule, arguments | slope())


def weights():
    bad = [[], None, "text", 3, [None], WEIGHTS[::-1], [WEIGHTS[0][0]], ["a"], {"a": WEIGHTS[0]}]
    bad += [[w.astype(int) for w in WEIGHTS], [w * 1j for w in WEIGHTS], [WEIGHTS[0][None]]]
    return tree(WEIGHTS, *bad, object(), [object()], family="weights")


def batch():
    return tree((BATCH,), 3, None, "12", (-1,), (2.5,), ("a",), {"a": 1}, (True,), {2}, (None,))


def states(rng):
    name = draw.pick(rng, "membrane_state", "decolle_state")
    arguments = {"weights": weights(), "batch": batch()}
    return Call(f"spiking.{name}", getattr(spiking, name), arguments, 1)


def signals(*lead):
    """Spikes in and out, one of each for every instance."""
    given = {"spikes": np.ones((*lead, SIZES[0]), np.float32)}
    given |= {"target": np.zeros((*lead, SIZES[-1]), np.float32)}
    return {name: array(one, last=True) for name, one in given.items()}


def membrane_rule():
    return thing(spiking.MembraneRule(decay=0.5), (0.9, 1.0), spiking.DecolleLayer, family="rule")


def membrane_steps(rng):
    state = spiking.membrane_state(WEIGHTS, batch=(BATCH,))
    bad = [spiking.membrane_state(WEIGHTS), state._replace(v=state.v[:1]), tuple(state), state.v]
    bad += [state._replace(v=None), state._replace(traces="text"), state._replace(v=state.traces)]
    bad += [state._replace(v=("a", "b")), spiking.MembraneState]
    arguments = {"weights": weights(), "state": thing(state, *bad, family="state")}
    arguments |= signals(BATCH) | {"rule": membrane_rule()}
    return Call("spiking.membrane_loss_step", spiking.membrane_loss_step, arguments, 4)


def membrane_sequences(rng):
    steps = signals(5, BATCH)
    given = {"spikes": steps["spikes"], "targets": steps["target"], "rule": membrane_rule()}
    if rng.random() < 0.5:
        arguments = {"weights": weights()} | given
        return Call("spiking.membrane_loss", spiking.membrane_loss, arguments, 3)
    sgd = optax.sgd(0.1)
    optimizer = thing(sgd, (sgd.init,), sgd.init, {"sgd": sgd}, family="optimizer")
    arguments = {"weights": weights()} | given | {"optimizer": optimizer}
    moments = sgd.init(WEIGHTS)

    def scan(weights, spikes, targets, **options):
        return spiking.membrane_loss_scan(weights, moments, spikes, targets, **options)

    return Call("spiking.membrane_loss_scan", scan, arguments, 3)


def decolle_steps(rng):
    readouts = [jnp.ones((size, 2)) for size in SIZES[1:]]
    bad = [readouts[:1], readouts[::-1], None, 3, "ab", [None, None], ["a", "b"], readouts[0]]
    state = spiking.decolle_state(WEIGHTS, batch=(BATCH,))
    no_state = [state[:1], state[::-1], tuple(state[0]), [None, None], state[0], "ab"]
    no_state += [spiking.decolle_state(WEIGHTS), [state[0]._replace(p="p"), state[1]]]
    arguments = {
        "weights": weights(),
        "readouts": tree(readouts, *bad, family="readouts"),
        "state": tree(state, *no_state, None, 3, family="state"),
    }
    given = signals(BATCH)
    arguments |= given
    arguments |= {name: number(0.5, -0.1, 1.1) for name in ("alpha", "beta", "gamma")} | slope()
    return Call("spiking.decolle_step", spiking.decolle_step, arguments, 5)


def erbp(rng):
    parameters = spiking.erbp_parameters(jax.random.key(0), SIZES)
    bad = [parameters._replace(feedback=parameters.feedback[:1]), tuple(parameters), parameters[0]]
    bad += [parameters._replace(weights=None), parameters._replace(weights=["a", "b"])]
    bad += [parameters._replace(feedback=3), spiking.ErbpParameters]
    state = spiking.erbp_state(parameters)
    no_state = [state._replace(layers=state.layers[:1]), state._replace(errors=state.errors[0])]
    no_state += [tuple(state), state._replace(layers=None), state._replace(errors="text")]
    networks = thing(parameters, *bad, family="parameters")
    if rng.random() < 0.3:
        return Call("spiking.erbp_state", spiking.erbp_state, {"parameters": networks}, 1)
    arguments = {
        "key": key(),
        "parameters": networks,
        "state": thing(state, *no_state, family="state"),
        "events": array([0, 3, -1], "integers", lengths=False),
        "label": array([0.0, 1.0]),
        "learning_rate": number(0.1, -0.1),
        "rule": thing(spiking.ErbpRule(), (1.0, 4.0), spiking.MembraneRule(), family="rule"),
    }
    return Call("spiking.erbp_step", spiking.erbp_step, arguments, 5)


def erbp_made(rng):
    if rng.random() < 0.4:
        sizes = tree(SIZES, (3,), (), None, 3, "345", (3, 0), (2.5, 2), (3, "a"), {3, 4}, (3, None))
        arguments = {"key": key(), "sizes": sizes, "output_feedback": number(1.0)}
        return Call("spiking.erbp_parameters", spiking.erbp_parameters, arguments, 2)
    arguments = {name: number(2.0, 0.0, -1.0) for name in ("tau_synapse", "tau_dendrite")}
    arguments |= {"dt": number(1.0, 0.0, 3.0), "tau_membrane": number(2.0, 0.5, -1.0)}
    arguments |= {name: number(0.5, -0.1) for name in ("refractory", "gate")}
    arguments |= {"keep": number(0.5, -0.1, 1.1), "error_weight": number(0.1, 0.0)}
    return Call("spiking.ErbpRule", spiking.ErbpRule, arguments)


def places():
    return array([[1, 2], [0, 3], [-1, -1]], "integers", lengths=False, last=True)


def activity(rng):
    field, memory = shape((5, 4)), count(6, 1)
    name = draw.pick(rng, "activity_state", "follow_activity", "readdress", "glimpse_at")
    if name == "activity_state":
        arguments = {"shape": field, "memory": memory}
        return Call("spiking.activity_state", spiking.activity_state, arguments, 1)
    if name == "follow_activity":
        state = spiking.activity_state((5, 4), memory=6)
        bad = [tuple(state), state.recent, state._replace(recent=state.recent[:2])]
        bad += [spiking.ActivityState]
        arguments = {"state": thing(state, *bad, family="state"), "places": places()}
        return Call("spiking.follow_activity", spiking.follow_activity, arguments, 2)
    window, centre = shape((3, 2)), array([2, 1], "integers" if name == "readdress" else "real")
    if name == "readdress":
        arguments = {"places": places(), "centre": centre, "shape": field, "window": window}
    else:
        frame = array(draw.reals(rng, (5, 4)), ranks=False, lengths=False, bad=(np.ones(3),))
        arguments = {"frame": frame, "centre": centre, "window": window}
    return Call(f"spiking.{name}", getattr(spiking, name), arguments, 2)


CALLS = (
    spikes,
    neurons,
    neurons,
    random_spikes,
    rules,
    states,
    membrane_steps,
    membrane_sequences,
    decolle_steps,
    erbp,
    erbp_made,
    activity,
    activity,
)
