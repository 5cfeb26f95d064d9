"""Gradients through discrete choices.

``expectation(key, logits, f, estimator=...)`` is an expected loss that ``jax.grad`` can
differentiate. An estimator says how::

    needs only values of f       unbiased   ScoreFunction  RLOO  AR  ARS  ARSM  ARM
                                            WithoutReplacement  RELAX
                                 biased     Subset (informed or not)
    needs the derivative of f    unbiased   REBAR
                                 biased     StraightThrough  GumbelStraightThrough
    all choices                  exact      Enumeration

``cells.py`` makes such choices of the tuples of a hyperlayer. ``relaxed.py`` has a continuous law
that stands for a discrete one, with its density, and ``k_subsets.py`` that of subsets of k classes.
The choice of an expert has gates of its own: ``routing.py`` and ``default_vectors.py``; ``load.py``
limits and counts the tokens of an expert, ``balance.py`` evens them out.
"""

from sparse_hyper_jax.estimators.arsm import AR, ARM, ARS, ARSM, pseudo_actions
from sparse_hyper_jax.estimators.balance import balance_loss, router_z_loss, update_router_bias
from sparse_hyper_jax.estimators.beam import sample_without_replacement
from sparse_hyper_jax.estimators.cells import (
    CellChoices,
    axis_choices,
    cell_choices,
    cell_expectation,
    sample_cells,
    score_function_loss,
)
from sparse_hyper_jax.estimators.control_variates import REBAR, RELAX, perturb_given_winner
from sparse_hyper_jax.estimators.default_vectors import fill_with_defaults, update_defaults
from sparse_hyper_jax.estimators.estimator import Estimate, Estimator
from sparse_hyper_jax.estimators.expectation import ESTIMATORS, expectation
from sparse_hyper_jax.estimators.k_subsets import (
    sample_subset,
    subset_log_prob,
    subset_marginals,
)
from sparse_hyper_jax.estimators.load import LoadReport, Placed, load_report, within_capacity
from sparse_hyper_jax.estimators.reinforce import RLOO, ScoreFunction
from sparse_hyper_jax.estimators.relaxed import (
    relaxed_log_prob,
    reparametrise,
    sample_relaxed,
)
from sparse_hyper_jax.estimators.routing import Route, sparse_mixer, top_route
from sparse_hyper_jax.estimators.straight_through import GumbelStraightThrough, StraightThrough
from sparse_hyper_jax.estimators.subsets import Enumeration, Subset
from sparse_hyper_jax.estimators.without_replacement import WithoutReplacement

__all__ = [
    "AR",
    "ARM",
    "ARS",
    "ARSM",
    "ESTIMATORS",
    "REBAR",
    "RELAX",
    "RLOO",
    "CellChoices",
    "Enumeration",
    "Estimate",
    "Estimator",
    "GumbelStraightThrough",
    "LoadReport",
    "Placed",
    "Route",
    "ScoreFunction",
    "StraightThrough",
    "Subset",
    "WithoutReplacement",
    "axis_choices",
    "balance_loss",
    "cell_choices",
    "cell_expectation",
    "expectation",
    "fill_with_defaults",
    "load_report",
    "perturb_given_winner",
    "pseudo_actions",
    "relaxed_log_prob",
    "reparametrise",
    "router_z_loss",
    "sample_cells",
    "sample_relaxed",
    "sample_subset",
    "sample_without_replacement",
    "score_function_loss",
    "sparse_mixer",
    "subset_log_prob",
    "subset_marginals",
    "top_route",
    "update_defaults",
    "update_router_bias",
    "within_capacity",
]
