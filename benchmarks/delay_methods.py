"""How far may a delay be for it to be found by gradients? Reaches of 25, 250 and 1,000 lags.

The system of ``delays``: 32 channels, each delayed by its own number of steps, mixed by a matrix
that is learned too. Pursuit places the delays by 8 probes, once they stand out from the other lags
by five deviations, or all by the first probe; a dense kernel has a weight for every lag. The others
have one position per channel, anywhere at first: a kernel of all lags that is a Gaussian around it,
interpolation between its two neighbours, or lags drawn from a Gaussian. All that is trained has two
rates (of positions: in shares of the reach, at first), and as many seconds as pursuit took with the
same seed, but at least two. Found is a channel whose lag is the true one, rounded or the largest.
"""

from collections.abc import Iterator
from statistics import median

from benchmarks.delays import COSTS, listed
from benchmarks.lines import Facts, Lines
from benchmarks.runner import Asked, Benchmark, grid, program
from benchmarks.tables import Column, table

REACHES = (25, 250, 1_000)
INPUTS = ("white", "coloured")
NAMES = {
    "dense kernel": "a weight for every lag",
    "Gaussian kernel": "a Gaussian over all lags",
    "two taps": "two neighbouring lags",
    "Gaussians, drawn": "lags drawn from a Gaussian",
}
RATES = (0.001, 0.01)
LEAST_SECONDS = 2.0
PURSUITS = ("pursuit", "pursuit without a threshold")
METHODS = (*PURSUITS, *(f"{name}, rate {rate}" for name in NAMES for rate in RATES))


def settings(asked: Asked, lines: Lines) -> Iterator[Facts]:
    """Pursue first: the others take as long."""
    asked_for = grid(channels=(32,), reach=REACHES, inputs=INPUTS, method=METHODS, seed=asked.seeds)
    for facts in asked_for:
        pursued = lines.where(**facts | {"method": "pursuit"})
        if facts["method"] in PURSUITS:
            yield facts
        elif pursued:
            yield facts | {"seconds": max(pursued[0]["took"], LEAST_SECONDS)}


def write(lines: Lines) -> str:
    """Write a row per reach and method."""
    rows = [
        ((reach, _named(method)), chosen)
        for reach in REACHES
        for method in METHODS
        if (chosen := lines.where(reach=reach, method=method))
    ]
    columns = [
        *(
            Column(f"{inputs}: found of 32, by seed", "found", listed, {"inputs": inputs})
            for inputs in INPUTS
        ),
        *(
            Column(f"{inputs}: loss", "loss", lambda its: f"{median(its):.3f}", {"inputs": inputs})
            for inputs in INPUTS
        ),
        *COSTS,
    ]
    return table(("reach", "method"), rows, columns)


def _named(method: str) -> str:
    name, comma, rate = method.partition(", rate ")
    return NAMES.get(name, name) + comma + rate


TINY: Facts = {"channels": 3, "reach": 20, "inputs": "white", "seed": 0}

BENCHMARK = Benchmark(
    settings=settings,
    measure=program("delay_methods"),
    tiny=[
        TINY | {"method": METHODS[0]},
        *(TINY | {"method": method, "seconds": 0.01} for method in METHODS[1::2]),
    ],
    table=write,
    seeds=range(3),
)
