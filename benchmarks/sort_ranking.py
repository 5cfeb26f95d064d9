"""Learning to rank: losses on soft ranks and places beside a pairwise and a pointwise one.

Queries with 5 to 40 documents of 16 features; a document's relevance, 0 to 4, follows from a
smooth function of its features that a small network cannot represent exactly, a preference of the
query, and noise. The network scores each document alone. Every loss has four settings of equal
cost, of which the validation queries choose one; the test is on others.
"""

from benchmarks.lines import Lines
from benchmarks.runner import Benchmark, grid, program
from benchmarks.tables import Column, spread, table

LOSSES = ("order_loss", "rank_loss", "ndcg_loss", "pairwise logistic", "squared error")


def write(lines: Lines) -> str:
    """Write what was reached on test queries, a row per loss."""
    columns = [
        Column("Spearman", "spearman", spread(".3f")),
        Column("NDCG at 10", "ndcg", spread(".3f")),
    ]
    rows = (([loss], lines.where(loss=loss)) for loss in LOSSES)
    return table(["loss"], rows, columns)


BENCHMARK = Benchmark(
    settings=lambda asked, lines: grid(seed=asked.seeds, loss=LOSSES),
    measure=program("sort_ranking"),
    tiny=[{"seed": 0, "loss": "ndcg_loss"}, {"seed": 0, "loss": "pairwise logistic"}],
    table=write,
    seeds=range(3),
)
