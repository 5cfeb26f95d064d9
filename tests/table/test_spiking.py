"""Rows of the room ``spiking``."""

import jax
import numpy as np
import optax

from sparse_hyper_jax import spiking
from tests.table.columns import Table
from tests.table.examples import distinct, eighths
from tests.table.row import Room, Row

STEPS, INPUTS, UNITS = 2, 3, 2
CURRENTS, START = eighths(STEPS, UNITS), eighths(UNITS, seed=1)
WEIGHTS = (eighths(INPUTS, UNITS, seed=2), eighths(UNITS, INPUTS, seed=3))
SPIKES, TARGET = eighths(STEPS, INPUTS, seed=4), eighths(STEPS, INPUTS, seed=5)
RULE = spiking.MembraneRule(decay=0.5, surrogate="superspike", scale=1.0)
SGD = optax.sgd(0.5)


def learned(one, two, spikes, target):
    done = spiking.membrane_loss_scan(
        [one, two], SGD.init([one, two]), spikes, target, optimizer=SGD, rule=RULE
    )
    return done.losses, done.spikes


def stepped(one, two, spikes, target):
    weights = [one, two]
    step = spiking.membrane_loss_step(
        weights, spiking.membrane_state(weights), spikes, target, rule=RULE
    )
    return step.loss, step.spikes, step.state


def whole(one, two, spikes, target):
    return spiking.membrane_loss([one, two], spikes, target, rule=RULE)


FEEDBACK = (eighths(INPUTS, UNITS, seed=6), np.eye(INPUTS, dtype=np.float32))
NEURONS = spiking.ErbpRule(threshold=0.125, error_weight=0.125, refractory=1.0)
PLACES = np.array([[1, 2], [4, 0], [1, 3]], np.int32)


def erbp(key, one, two, events, label):
    """Two steps."""
    parameters = spiking.ErbpParameters([one, two], list(FEEDBACK))
    state = spiking.erbp_state(parameters)
    for n in range(2):
        own = jax.random.fold_in(key, n)
        parameters, state, spikes = spiking.erbp_step(
            own, parameters, state, events, label, learning_rate=0.5, rule=NEURONS
        )
    return spikes, state


def decolle(one, two, spikes, target):
    """Two steps, for the second sees what came in at the first."""
    weights = [one, two]
    state = spiking.decolle_state(weights)
    for n in range(STEPS):
        step = spiking.decolle_step(
            weights, [FEEDBACK[0].T, FEEDBACK[1]], state, spikes[n], target, alpha=0.5, beta=0.5
        )
        state = step.state
    return step.losses, step.scores


def followed(places):
    state = spiking.activity_state((5, 4), memory=4)
    state, _ = spiking.follow_activity(state, places)
    state, centre = spiking.follow_activity(state, places)
    return centre, state.rows, state.columns


def readdressed(places):
    return spiking.readdress(places, np.array([1, 2]), shape=(5, 4), window=(3, 2))


ROUNDED = dict.fromkeys(("float16", "bfloat16"), "weights of 16 bits are rounded after every step")
LISTS = {"lists": "optimizers take a list for a tree"}
SECOND = {"second": "in a scan, JAX keeps no rule of a custom derivative for a second one"}
ROWS = [
    Row("spike", spiking.spike, (distinct(4),), wide=False, exact=False),
    Row("surrogate_slope", spiking.surrogate_slope, (distinct(4),)),
    Row(
        "lif",
        lambda *given: spiking.lif(given[0], decay=0.5, v=given[1]),
        (CURRENTS, START),
        exact=False,
        skips=SECOND,
    ),
    Row(
        "lif_step",
        lambda v, current: spiking.lif_step(v, current, decay=0.5, reset="subtract"),
        (START, CURRENTS[0]),
        exact=False,
    ),
    Row(
        "poisson_spikes",
        lambda key, rates: spiking.poisson_spikes(key, rates, steps=3),
        (np.array([0.25, 0.5, 0.75], np.float32),),
        keyed=True,
        redraws=True,
        exact=False,
    ),
    Row("membrane_loss", whole, (*WEIGHTS, SPIKES, TARGET), exact=False, skips=SECOND),
    Row(
        "membrane_loss_step, membrane_state",
        stepped,
        (*WEIGHTS, SPIKES[0], TARGET[0]),
        exact=None,
    ),
    Row(
        "membrane_loss_scan",
        learned,
        (*WEIGHTS, SPIKES, TARGET),
        exact=None,
        skips=LISTS | ROUNDED,
    ),
    Row("decolle_step, decolle_state", decolle, (*WEIGHTS, SPIKES, TARGET[0]), exact=False),
    Row(
        "erbp_step, erbp_state",
        erbp,
        (*WEIGHTS, np.array([0, 2], np.int32), TARGET[0]),
        keyed=True,
        folds=True,
        redraws=True,
        exact=None,
        outside={2: (INPUTS,)},
    ),
    Row("follow_activity, activity_state", followed, (PLACES,), exact=None, outside={0: (5,)}),
    Row("readdress", readdressed, (PLACES,), exact=None, outside={0: (5,)}),
    Row(
        "glimpse_at",
        lambda frame, centre: spiking.glimpse_at(frame, centre, window=(2, 3)),
        (eighths(4, 3, seed=7), np.array([1.375, 1.625], np.float32)),
    ),
]

EXCEPTIONS = {
    **dict.fromkeys(("LIF", "MembraneScan", "MembraneState", "MembraneStep"), "a type"),
    **dict.fromkeys(("ActivityState", "DecolleLayer", "DecolleStep"), "a type"),
    **dict.fromkeys(("ErbpLayer", "ErbpParameters", "ErbpState", "ErbpStep"), "a type"),
    **dict.fromkeys(("ErbpRule", "MembraneRule"), "a type of options"),
    "SURROGATES": "a tuple of names",
    "erbp_parameters": "takes a key and sizes, no arrays",
}


class TestSpiking(Table):
    room = Room(spiking, ROWS, EXCEPTIONS)
