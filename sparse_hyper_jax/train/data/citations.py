"""Papers that cite each other: bundled generated ones, or an npz file of a Planetoid graph."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparse_hyper_jax.checks import INT32_CELLS, require
from sparse_hyper_jax.train.npz import read_npz

ARRAYS = (
    *("feat_indptr", "feat_indices", "feat_shape", "edges", "labels"),
    *("train_idx", "val_idx", "test_idx"),
)
"""What a file has to hold: words in CSR, undirected edges ``(2, E)``, labels, and the split."""

NODES, CLASSES, WORDS, LENGTH = 800, 4, 200, 12
TYPICAL = 0.45
"""Generated: share of a paper's words that are typical of its class."""

INSIDE, OUTSIDE = 3.5, 1.0
"""Generated: mean number of edges of a paper to its own class, and to others."""

LABELLED, VALIDATION = 20, 200


CHANGE = "make it of the arrays of a Planetoid graph as the page Graphs says"


class Citations(NamedTuple):
    """A graph of papers.

    Attributes:
        nodes: how many papers there are.
        words: how many words there are.
        classes: how many classes there are.
        paper: int32 ``(m,)``, for every word of a paper the paper.
        word: int32 ``(m,)``, and the word.
        edges: int32 ``(2, E)``, each once, in one direction.
        labels: int32 ``(nodes,)``; -1 where nobody knows.
        train: int32, papers whose labels are trained on.
        validation: int32.
        test: int32.
    """

    nodes: int
    words: int
    classes: int
    paper: np.ndarray
    word: np.ndarray
    edges: np.ndarray
    labels: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def read_citations(path: Path) -> Citations:
    """Read a graph from an npz file that holds ``ARRAYS``.

    Raises:
        ValueError: a damaged file, or numbers that do not fit each other.
        OSError: the system refuses the file.
    """
    arrays = read_npz(path, change=CHANGE, names=ARRAYS, kinds="iu")
    shape = arrays["feat_shape"].reshape(-1).astype(int)
    require(shape.size == 2, f"feat_shape={shape} in {path}", "papers and words", CHANGE)
    nodes, words = (int(length) for length in shape)
    require(
        nodes >= 1 and words >= 1 and nodes * words < INT32_CELLS,
        f"feat_shape={nodes, words} in {path}",
        "at least one paper and one word, and fewer than 2**31 pairs of them",
        CHANGE,
    )
    pointers, columns = arrays["feat_indptr"], arrays["feat_indices"]
    edges, labels = arrays["edges"], arrays["labels"]
    splits = [arrays[name].reshape(-1) for name in ("train_idx", "val_idx", "test_idx")]
    fits = _is_csr(pointers, columns, (nodes, words)) and _is_graph(edges, labels, splits, nodes)
    require(fits, f"arrays that do not fit each other in {path}", "one graph", CHANGE)
    paper = np.repeat(np.arange(nodes), np.diff(pointers.astype(np.int64)))
    _check_once(path, paper * words + columns.astype(np.int64), edges, splits, nodes)
    _check_classes(path, labels, splits)
    return Citations(
        nodes,
        words,
        int(labels.max()) + 1,
        *(part.astype(np.int32) for part in (paper, columns, edges, labels, *splits)),
    )


def _is_csr(pointers: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> bool:
    """Tell whether these are the words of papers, row after row."""
    return bool(
        pointers.shape == (shape[0] + 1,)
        and columns.ndim == 1
        and np.all(np.diff(pointers.astype(np.int64)) >= 0)
        and pointers[0] == 0
        and pointers[-1] == columns.size
        and _within(columns, shape[1])
    )


def _is_graph(edges: np.ndarray, labels: np.ndarray, splits: list[np.ndarray], nodes: int) -> bool:
    """Tell whether edges, labels and splits are of so many papers."""
    return bool(
        edges.ndim == 2
        and edges.shape[0] == 2
        and labels.shape == (nodes,)
        and all(_within(part, nodes) for part in (edges, *splits))
        and all(part.size and labels[part].min() >= 0 for part in splits)
    )


def _check_once(
    path: Path, listed_words: np.ndarray, edges: np.ndarray, splits: list[np.ndarray], nodes: int
) -> None:
    """Refuse what is listed twice: it would count twice, or be trained on and tested."""
    ends = np.sort(edges.astype(np.int64), axis=0)
    each_once = [
        ("edges", "every edge once, in one direction", ends[0] * nodes + ends[1]),
        ("words of a paper", "every word once", listed_words),
        ("papers in train_idx, val_idx, test_idx", "every paper in one", np.concatenate(splits)),
    ]
    for name, expected, listed in each_once:
        repeated = listed.size - np.unique(listed).size
        require(repeated == 0, f"{repeated} repeated {name} in {path}", expected, CHANGE)
    loops = int(np.sum(ends[0] == ends[1]))
    require(loops == 0, f"{loops} edges from a paper to itself in {path}", "none", CHANGE)


def _check_classes(path: Path, labels: np.ndarray, splits: list[np.ndarray]) -> None:
    """Refuse classes that are none, or that are tested and never trained on."""
    require(
        bool(labels.min() >= -1 and labels.max() < len(labels)),
        f"labels from {labels.min()} to {labels.max()} of {len(labels)} papers in {path}",
        "classes counted from 0, fewer than papers, and -1 where nobody knows",
        CHANGE,
    )
    present, (train, _, test) = np.unique(labels[labels >= 0]).tolist(), splits
    require(
        present == list(range(len(present))) and len(present) >= 2,
        f"classes {present!s:.80} in {path}",
        "at least two, counted from 0 without a gap",
        CHANGE,
    )
    unknown = np.setdiff1d(labels[test], labels[train]).tolist()
    require(
        not unknown,
        f"classes {unknown!s:.80} among the papers of test_idx alone in {path}",
        "classes that train_idx has too",
        CHANGE,
    )


def draw_citations(seed: int) -> Citations:
    """Draw papers of four classes with words and citations that hang on the class."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(CLASSES, size=NODES)
    typical = draw.random((NODES, LENGTH)) < TYPICAL
    share = WORDS // CLASSES
    own = labels[:, None] * share + draw.integers(share, size=(NODES, LENGTH))
    words = np.where(typical, own, draw.integers(WORDS, size=(NODES, LENGTH)))
    found = np.zeros((NODES, WORDS), bool)
    found[np.arange(NODES)[:, None], words] = True
    same = labels[:, None] == labels
    chance = np.where(same, INSIDE * CLASSES, OUTSIDE * CLASSES / (CLASSES - 1)) / NODES
    edges = np.nonzero(np.triu(draw.random((NODES, NODES)) < chance, 1))
    order = draw.permutation(NODES)
    train = np.concatenate([order[labels[order] == one][:LABELLED] for one in range(CLASSES)])
    rest = order[~np.isin(order, train)]
    parts = (*np.nonzero(found), np.stack(edges), labels, train, rest[:VALIDATION])
    return Citations(
        NODES,
        WORDS,
        CLASSES,
        *(part.astype(np.int32) for part in (*parts, rest[VALIDATION:])),
    )


def keep_edges(edges: np.ndarray, keep: float, seed: int) -> np.ndarray:
    """Keep a share of undirected edges ``(2, E)``, drawn at random."""
    count = edges.shape[1]
    chosen = np.random.default_rng(seed).permutation(count)[: round(keep * count)]
    return edges[:, np.sort(chosen)]


def _within(indices: np.ndarray, count: int) -> bool:
    return indices.size == 0 or bool(indices.min() >= 0 and indices.max() < count)
