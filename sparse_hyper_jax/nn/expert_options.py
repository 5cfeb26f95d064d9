"""Options of a mixture of experts: how many each token gets, and how they are computed."""

import math
from typing import Any, Literal, TypedDict, get_args

import jax

from sparse_hyper_jax import checks
from sparse_hyper_jax.estimators.routing import RULES, RoutingRule

Router = RoutingRule | Literal["top", "default", "dense"]
ROUTERS = ("top", *RULES, "default", "dense")
Product = Literal["ragged", "slots", "all"]
PRODUCTS = get_args(Product)


class ChoiceOptions(TypedDict):
    """See :class:`~sparse_hyper_jax.nn.Mixture`."""

    num_chosen: Any
    renormalise: Any
    capacity_factor: Any
    bias_rate: Any
    product: Any


def check_options(router: str, num_experts: int, options: ChoiceOptions) -> None:
    """Raise unless the options are right, and of use to the router.

    Raises:
        ValueError: otherwise.
    """
    checks.check_choice("product", options["product"], PRODUCTS)
    checks.check_flag("renormalise", options["renormalise"])
    if options["num_chosen"] is not None:
        checks.check_count("num_chosen", options["num_chosen"], least=1, most=num_experts)
    if options["bias_rate"] is not None:
        checks.check_number("bias_rate", options["bias_rate"], at_least=0)
    check_capacity_factor(options["capacity_factor"])
    given = {
        "num_chosen": options["num_chosen"] is not None,
        "renormalise": options["renormalise"],
        "bias_rate": options["bias_rate"] is not None,
    }
    for name in filter(given.__getitem__, given):
        checks.require(
            router == "top",
            f"{name} for router {router!r}",
            "router 'top', which alone chooses by rank",
            f"leave {name} out, or take that router",
        )
    checks.require(
        not options["renormalise"] or (options["num_chosen"] or 1) > 1,
        f"renormalise=True with num_chosen={options['num_chosen']}",
        "two experts or more: the gate of one would always be 1",
        "raise num_chosen, or leave renormalise out",
    )
    checks.require(
        options["capacity_factor"] is None or router not in ("default", "dense"),
        f"capacity_factor={options['capacity_factor']} for router {router!r}",
        "a router that drops tokens: 'top', or one that draws",
        "leave capacity_factor out",
    )
    checks.require(
        options["capacity_factor"] is not None or options["product"] != "slots",
        "product='slots' without capacity_factor",
        "a capacity_factor, which says how many slots an expert has",
        "pass capacity_factor=1.25, or product='ragged'",
    )


def check_capacity_factor(factor: Any) -> None:
    """Raise unless this is None or a static number above 0.

    Raises:
        ValueError: otherwise.
    """
    static = checks.is_real(factor) and not isinstance(factor, jax.Array)
    checks.require(
        factor is None or (static and 0 < float(factor) < math.inf),
        f"capacity_factor={factor!r:.80}",
        "None or a static number above 0",
        "change capacity_factor",
    )
