"""Tell the class of papers from their words and citations, of which some or all are missing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import jax
import numpy as np
import optax

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.train.data.citations import (
    Citations,
    draw_citations,
    keep_edges,
    read_citations,
)
from sparse_hyper_jax.train.limits import (
    Count,
    NotNegative,
    Positive,
    at_least,
    at_most,
    below,
    said,
)
from sparse_hyper_jax.train.models.gcn import (
    GCNState,
    accuracy_of,
    gcn_logits,
    init_gcn,
    make_papers,
    make_step,
    start_gcn,
)
from sparse_hyper_jax.train.models.paper_edges import (
    denoised_rows,
    nearest_papers,
    pursued_papers,
    topic_rows,
    word_rows,
)
from sparse_hyper_jax.train.recipe import Plan, Recipe
from sparse_hyper_jax.train.run_folder import RunFolder

TOPICAL = ("topics", "denoised")
"""Methods that compare papers by topics."""


@dataclass(frozen=True, kw_only=True)
class CitationsRecipe(Recipe):
    """Classify papers by a graph convolution network on edges that are given, near or learned."""

    name: ClassVar[str] = "citations"

    task: Literal["generated", "cora", "citeseer"] = "generated"
    """Generated papers of four classes; or the file cora.npz or citeseer.npz in --data-dir."""

    data_dir: Path | None = None
    """Folder of that file."""

    method: Literal["given", "nearest", "topics", "denoised", "pursuit"] = "given"
    """Which edges there are: those given, as far as kept; besides, from papers with the nearest
    words, the nearest topics, or the nearest topics of words that a trained denoiser fills in; or
    from papers placed by exact gains of explaining the words."""

    keep: Annotated[float, at_least(0), at_most(1)] = 1.0
    """Share of the given edges that is kept."""

    neighbours: Count = 10
    """Edges into every paper that are added."""

    topics: Count = 16
    """Number of topics that sum up the words: leading singular vectors."""

    corruption: Annotated[float, at_least(0), below(1)] = 0.9
    """Share of the words that the denoiser learns to fill in."""

    width: Count = 16
    """Units of the hidden layer."""

    dropout: Annotated[float, at_least(0), below(1)] = 0.5
    """Share of words and of hidden units that is left out in a step."""

    weight_decay: NotNegative = 5e-4
    """On the weights of words, in the loss."""

    learning_rate: Positive = 0.01
    """Of Adam."""

    steps: Count = 200
    """Number of training steps, each on all papers; the best one on validation is kept."""

    evaluate_every: Count = 20
    """Steps between validations that are written down."""

    def check(self) -> None:
        """Raise also if a file has no folder."""
        super().check()
        require(
            self.task == "generated" or self.data_dir is not None,
            said(self, "task") + " without a folder",
            "the folder of its npz file",
            "pass --data-dir DIR",
        )

    def ignored(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Generated papers need no file; given edges have no further neighbours."""
        if self.task == "generated":
            yield "task", ("data_dir",)
        if self.method == "given":
            yield "method", ("neighbours",)
        if self.method not in TOPICAL:
            yield "method", ("topics",)
        if self.method != "denoised":
            yield "method", ("corruption",)

    def load(self) -> Citations:
        """Draw or read the graph."""
        if self.task == "generated":
            data = draw_citations(self.seed)
        else:
            assert self.data_dir is not None, "checked"
            data = read_citations(self.data_dir / f"{self.task}.npz")
        require(
            self.method == "given" or self.neighbours < data.nodes,
            f"{said(self, 'neighbours')} among {data.nodes} papers",
            "fewer than there are papers",
            "lower --neighbours",
        )
        require(
            self.method not in TOPICAL or self.topics <= data.words,
            f"{said(self, 'topics')} of {data.words} words",
            "at most as many as there are words",
            "lower --topics",
        )
        return data

    def edges(self, data: Citations) -> np.ndarray:
        """Give edges ``(2, E)``: the kept ones, and those that are added."""
        kept = keep_edges(data.edges, self.keep, self.seed)
        if self.method == "given":
            return kept
        denoised = self.method == "denoised"
        rows = denoised_rows(data, self.corruption) if denoised else word_rows(data)
        if self.method in TOPICAL:
            rows = topic_rows(rows, self.topics)
        more = pursued_papers if self.method == "pursuit" else nearest_papers
        return np.concatenate([kept, more(rows, self.neighbours)], axis=1)

    def plan(self, data: Citations) -> Plan:
        """Train two layers; judge them by their accuracy."""
        edges = self.edges(data)
        papers = make_papers(data, edges)
        optimizer, key = optax.adam(self.learning_rate), jax.random.key(self.seed + 1)
        parameters = init_gcn(key, data.words, self.width, data.classes)

        def evaluate(folder: RunFolder, number: int, state: GCNState) -> dict[str, float]:
            return {"accuracy": float(state.accuracy)}

        def finish(folder: RunFolder, state: GCNState) -> dict[str, Any]:
            from sparse_hyper_jax.train import plots  # matplotlib is slow to import

            names = {"loss": "loss", "eval_accuracy": "best validation accuracy"}
            curves = {label: plots.read_curve(folder, name) for name, label in names.items()}
            folder.save_figure(plots.plot_curves(curves), "training")
            logits = jax.jit(gcn_logits)(state.best, papers)
            test = accuracy_of(logits, papers.labels, data.test)
            return {
                "validation_accuracy": float(state.accuracy),
                "test_accuracy": float(test),
                "edges": edges.shape[1],
                "edges_within_classes": share_within_classes(data.labels, edges),
            }

        every = self.evaluate_every
        step = make_step(optimizer, dropout=self.dropout, weight_decay=self.weight_decay)
        state = start_gcn(parameters, optimizer)
        return Plan(step, state, finish, (papers,), evaluate, every, longest_dispatch=every)


def share_within_classes(labels: np.ndarray, edges: np.ndarray) -> float:
    """Give the share of edges within a class, of those between papers of known labels."""
    one, other = labels[edges]
    known = (one >= 0) & (other >= 0)
    return float(np.mean(one[known] == other[known])) if known.any() else 0.0
