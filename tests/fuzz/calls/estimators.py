"""Calls of ``estimators``."""

import jax.numpy as jnp
import numpy as np

from sparse_hyper_jax import estimators
from tests.fuzz import draw
from tests.fuzz.calls.parts import SHAPE, reals, sampling, tuples
from tests.fuzz.wrong import Call, array, choice, count, flag, function, key, number, shape, thing


def logits(rng, *size):
    return array(reals(rng, *size), ranks=False, lengths=False)


def objective():
    return function(
        lambda z: jnp.sum(z) * 1.0,
        lambda z: jnp.ones(3),
        lambda z: {"a": 1.0},
        lambda z: None,
        lambda z: "x",
        lambda z: jnp.sum(z) * 1j,
    )


def expectation(rng):
    bad = [
        estimators.RLOO,
        estimators.ScoreFunction,
        "rlo",
        "RLOO",
        "",
        estimators.ARM(),
        estimators.Subset(100),
    ]
    arguments = {"key": key(), "logits": logits(rng, 2, 3), "f": objective()}
    arguments["estimator"] = thing(estimators.RLOO(2), *bad)
    return Call("estimators.expectation", estimators.expectation, arguments, 3)


def estimator(rng):
    """Making an estimator, and using it with what it is given."""
    name = draw.pick(
        rng,
        "ScoreFunction",
        "RLOO",
        "ARS",
        "ARSM",
        "Subset",
        "WithoutReplacement",
        "GumbelStraightThrough",
        "REBAR",
        "RELAX",
    )
    options = {
        "ScoreFunction": {"num_samples": count(2, 1)},
        "RLOO": {"num_samples": count(3, 2)},
        "ARS": {"num_references": count(1, 1)},
        "ARSM": {"joint": flag(True)},
        "Subset": {"num_samples": count(2, 2), "informed": flag(False)},
        "WithoutReplacement": {"num_samples": count(2, 2)},
        "GumbelStraightThrough": {"temperature": number(0.5, -1.0, 0.0, float("inf"), 1e-39)},
        "REBAR": {"temperature": number(0.5, -1.0, 0.0, float("inf"), 1e-39), "scale": number(1.0)},
        "RELAX": {
            "surrogate": function(jnp.sum, lambda z: z, lambda z: None),
            "scale": number(1.0),
        },
    }[name]
    made = getattr(estimators, name)

    def use(**options):
        import jax

        key, rows = jax.random.key(0), jnp.zeros((2, 3))
        estimators.expectation(key, rows, lambda z: jnp.sum(z) * 1.0, estimator=made(**options))

    return Call(f"estimators.{name}", use, options)


def cells(rng):
    arguments = {"key": key(), "tuples": tuples(rng, 3, values_matter=False)}
    arguments |= {"shape": shape(SHAPE), **sampling()}
    del arguments["debug"]
    arguments["density"] = choice("laplace")
    return Call("estimators.cell_choices", estimators.cell_choices, arguments, 3)


def axes(rng):
    return Call(
        "estimators.axis_choices",
        estimators.axis_choices,
        {"tuples": tuples(rng, 3, values_matter=False), "shape": shape(SHAPE)},
        2,
    )


def sampled(rng):
    name = draw.pick(rng, "sample_cells", "cell_expectation")
    arguments = {
        "key": key(),
        "means": array(draw.means(rng, 3, SHAPE)),
        "variances": array(np.ones((3, 2))),
        "shape": shape(SHAPE),
    }
    if name == "cell_expectation":
        arguments |= {"f": objective(), "num_samples": count(2, 2), "baseline": choice("none")}
    return Call(
        f"estimators.{name}", getattr(estimators, name), arguments, 4 + (name != "sample_cells")
    )


def score_function_loss(rng):
    arguments = {
        "losses": array(reals(rng, 4)),
        "log_probabilities": array(reals(rng, 4)),
        "baseline": choice("leave_one_out"),
    }
    return Call("estimators.score_function_loss", estimators.score_function_loss, arguments, 2)


def routes(rng):
    if rng.random() < 0.3:
        return Call(
            "estimators.top_route",
            estimators.top_route,
            {
                "logits": array(
                    reals(rng, 4, 3), ranks=False, lengths=False, bad=(1.0, np.ones((3, 0)))
                )
            },
            1,
        )
    arguments = {
        "key": key(),
        "logits": array(reals(rng, 4, 3), ranks=False, lengths=False, bad=(1.0, np.ones((3, 0)))),
        "method": choice("heun"),
    }
    arguments |= {"exact_at_argmax": flag(True), "jitter": number(0.1, -0.1, optional=True)}
    return Call("estimators.sparse_mixer", estimators.sparse_mixer, arguments, 2)


def balance_loss(rng):
    arguments = {
        "logits": array(reals(rng, 4, 3), lengths=True),
        # Another axis behind is one of choices.
        "index": array([0, 1, 2, 0], "integers", ranks=False, bad=[np.zeros((1, 4), np.int32)]),
    }
    return Call("estimators.balance_loss", estimators.balance_loss, arguments, 2)


def defaults(rng):
    outputs, index = array(reals(rng, 4, 2), last=True), array([0, 1, 2, 0], "integers")
    if rng.random() < 0.5:
        arguments = {
            "logits": array(reals(rng, 4, 3)),
            "outputs": outputs,
            "index": index,
            "defaults": array(reals(rng, 3, 2), last=True),
        }
        return Call("estimators.fill_with_defaults", estimators.fill_with_defaults, arguments, 4)
    arguments = {
        "defaults": array(reals(rng, 3, 2), lengths=False, last=True),
        "outputs": outputs,
        "index": index,
        "decay": number(0.5, -0.1, 1.5),
    }
    return Call("estimators.update_defaults", estimators.update_defaults, arguments, 3)


def racing(rng):
    name = draw.pick(rng, "perturb_given_winner", "pseudo_actions", "sample_without_replacement")
    rows = np.log(np.full((3, 4), 0.25))
    if name == "perturb_given_winner":
        arguments = {
            "key": key(),
            "log_probabilities": array(rows),
            "winners": array([0, 1, 2], "integers"),
        }
    elif name == "pseudo_actions":
        arguments = {
            "log_pi": array(rows, last=True),
            "logits": array(reals(rng, 3, 4), last=True),
            "pairs": array([[0, 1]], "integers", lengths=False, last=True),
        }
    else:
        arguments = {
            "key": key(),
            "logits": array(reals(rng, 2, 3), lengths=False),
            "count": count(3, 1, 9),
        }
    return Call(f"estimators.{name}", getattr(estimators, name), arguments, 3)


CALLS = (
    expectation,
    expectation,
    estimator,
    estimator,
    cells,
    axes,
    sampled,
    score_function_loss,
    routes,
    balance_loss,
    defaults,
    racing,
)
