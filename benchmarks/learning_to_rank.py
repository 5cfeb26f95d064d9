"""Learning to rank lists of different lengths: soft sorts beside pairs and single elements.

A scorer with 32 hidden units, all lists at once, Adam for 400 steps. Every loss may try six
settings: three rates, and two certainties (soft sorts) or two weight decays (the others). Setting
and number of steps are those of the best validation lists, by the mean of Spearman's correlation
and NDCG at 10; both are shown for the test lists, mean and standard deviation over three seeds.
"diabetes": scikit-learn's patients in lists of 5 to 15, graded from 0 to 4 within a list by how
their disease goes on; no patient of a test list was seen in training. "generated": lists of 5 to
40, of whose 16 numbers the middle differs from list to list, graded by a sum that bends them.
"""

from benchmarks.lines import Lines
from benchmarks.runner import Benchmark, grid, program
from benchmarks.tables import Column, spread, table

DATA = ("diabetes", "generated")
LOSSES = {
    "pointwise": "pointwise, squared error",
    "pairwise": "pairwise, logistic",
    "rank_loss": "`rank_loss` (Spearman)",
    "order_loss": "`order_loss`",
    "ndcg_loss": "`ndcg_loss`, k = 10",
}


def write(lines: Lines) -> str:
    """Write test metrics by loss and data."""
    columns = [
        Column(f"{data}: {head}", field, spread(".3f"), {"data": data})
        for data in DATA
        for head, field in (("Spearman", "spearman"), ("NDCG at 10", "ndcg"))
    ]
    rows = (([words], lines.where(loss=loss)) for loss, words in LOSSES.items())
    return table(["loss"], rows, columns)


BENCHMARK = Benchmark(
    settings=lambda asked, lines: grid(data=DATA, loss=LOSSES, seed=asked.seeds, steps=[400]),
    measure=program("learning_to_rank"),
    tiny=list(grid(data=DATA, loss=["ndcg_loss"], seed=[0], steps=[20])),
    table=write,
)
