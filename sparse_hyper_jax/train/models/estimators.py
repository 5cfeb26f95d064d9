"""Estimators by name, with the options that a command line gives."""

import dataclasses
from typing import Any

from sparse_hyper_jax import checks
from sparse_hyper_jax.estimators import ESTIMATORS, Estimator
from sparse_hyper_jax.train.limits import flag


def make_estimator(
    name: str, *, num_samples: int | None = None, temperature: float | None = None
) -> Estimator:
    """Give an estimator by name, with the options that it has.

    Raises:
        ValueError: an unknown name, or an option that the estimator does not have.
    """
    checks.check_choice("method", name, tuple(ESTIMATORS))
    base: Any = ESTIMATORS[name]
    known = {field.name for field in dataclasses.fields(base)}
    given = {"num_samples": num_samples, "temperature": temperature}
    options = {option: value for option, value in given.items() if value is not None}
    allowed = [flag(option) for option in given if option in known]
    for option, value in options.items():
        checks.require(
            option in known,
            f"{flag(option)} {value} with --method {name}",
            f"an option of it ({', '.join(allowed) or 'it has none'})",
            f"leave out {flag(option)}",
        )
    return dataclasses.replace(base, **options)


def estimator_options(estimator: Estimator) -> dict[str, float | None]:
    """Give the options that :func:`make_estimator` knows, as an estimator has them."""
    return {name: getattr(estimator, name, None) for name in ("num_samples", "temperature")}
