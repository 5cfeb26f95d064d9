"""The recipe citations: its files, its network, the edges it adds, what it refuses."""

import jax
import numpy as np
import pytest

from sparse_hyper_jax.train.data.citations import draw_citations, keep_edges, read_citations
from sparse_hyper_jax.train.models import gcn, paper_edges
from sparse_hyper_jax.train.recipes.citations import share_within_classes
from tests.ops.examples import assert_names_itself_and_its_cure

from .tiny import tiny

FILE = {
    "feat_indptr": np.array([0, 2, 3, 3, 5]),
    "feat_indices": np.array([0, 2, 1, 0, 1], np.int32),
    "feat_shape": np.array([4, 3]),
    "edges": np.array([[0, 1], [1, 3]], np.int32),
    "labels": np.array([1, 0, -1, 1]),
    "train_idx": np.array([0]),
    "val_idx": np.array([1]),
    "test_idx": np.array([3]),
}
ROWS = np.array([[0.5, 0, 0.5], [0, 1, 0], [0, 0, 0], [0.5, 0.5, 0]])


def write(folder, **changed):
    np.savez(folder / "cora.npz", **(FILE | changed))
    return folder / "cora.npz"


def test_the_network_of_a_file_is_that_of_the_dense_formula(tmp_path):
    data = read_citations(write(tmp_path))
    assert (data.nodes, data.words, data.classes) == (4, 3, 2)
    parameters = gcn.init_gcn(jax.random.key(0), 3, 5, 2)
    parameters["one_bias"] += 0.25
    papers = gcn.make_papers(data, data.edges)
    matrix = np.eye(4)
    matrix[[0, 1, 1, 3], [1, 0, 3, 1]] = 1
    root = np.diag(matrix.sum(1) ** -0.5)
    matrix = root @ matrix @ root
    one, two = (np.asarray(parameters[name]) for name in ("one", "two"))
    expected = matrix @ np.maximum(matrix @ ROWS @ one + 0.25, 0) @ two
    logits = jax.jit(gcn.gcn_logits)(parameters, papers)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-6)
    right = float(gcn.accuracy_of(logits, papers.labels, np.array([0, 3])))
    assert right == np.mean(expected[[0, 3]].argmax(1) == 1)


@pytest.mark.parametrize(
    "changed",
    [
        {"edges": np.array([[0], [4]])},
        {"feat_indices": np.array([0, 3, 1, 0, 1])},
        {"test_idx": np.array([2])},  # nobody knows its label
        {"labels": np.array([1, 0])},
        {"feat_indptr": np.array([0, 2, 3, 3, 4])},
        {"feat_indices": np.array([[0, 2, 1, 0, 1]])},
    ],
)
def test_a_file_whose_numbers_do_not_fit_is_refused(tmp_path, changed):
    with pytest.raises(ValueError, match=r"^found arrays that do not fit each other"):
        read_citations(write(tmp_path, **changed))


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"edges": np.array([[0, 1, 1], [1, 3, 0]])}, "1 repeated edges"),
        ({"edges": np.array([[0, 0], [1, 1]], np.uint64)}, "1 repeated edges"),
        ({"edges": np.array([[0, 3], [1, 3]])}, "1 edges from a paper to itself"),
        ({"test_idx": np.array([3, 1])}, "1 repeated papers in train_idx"),
        ({"train_idx": np.array([0, 0])}, "1 repeated papers in train_idx"),
        ({"labels": np.array([1, 0, -2, 1])}, "labels from -2 to 1"),
        ({"labels": np.array([1, 0, -1, 4])}, "labels from -1 to 4 of 4 papers"),
        ({"labels": np.array([2, 0, -1, 2])}, r"classes .0, 2. in"),
        ({"labels": np.array([0, 0, -1, 0])}, r"classes .0. in"),
        ({"labels": np.array([0, 0, -1, 1])}, r"classes .1. among the papers of test_idx"),
        ({"feat_indices": np.array([2, 2, 1, 0, 1])}, "1 repeated words of a paper"),
        ({"feat_shape": np.array([4, 0])}, "feat_shape=.4, 0."),
        ({"feat_shape": np.array([4, 2**29])}, "feat_shape=.4, 536870912."),
    ],
)
def test_a_graph_that_would_be_read_wrongly_is_refused(tmp_path, changed, found):
    with pytest.raises(ValueError, match=rf"^found {found}.*; expected .*; make it of"):
        read_citations(write(tmp_path, **changed))


def test_papers_of_unknown_class_are_of_no_class():
    labels = np.array([-1, -1, 0, 0, 1])
    edges = np.array([[0, 0, 2, 2], [1, 2, 3, 4]])
    assert share_within_classes(labels, edges) == 0.5
    assert share_within_classes(labels, edges[:, :2]) == 0


def test_edges_are_kept_in_shares():
    edges = draw_citations(0).edges
    half = keep_edges(edges, 0.5, 1)
    assert half.shape[1] == round(edges.shape[1] / 2)
    assert {*map(tuple, half.T)} < {*map(tuple, edges.T)}
    assert np.array_equal(keep_edges(edges, 1, 1), edges)
    assert keep_edges(edges, 0, 1).shape == (2, 0)


def test_topics_are_the_leading_singular_vectors_of_the_words():
    rows = paper_edges.word_rows(draw_citations(0))[:40]
    left, sizes, _ = np.linalg.svd(rows, full_matrices=False)
    expected = left[:, :3] * sizes[:3]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = paper_edges.topic_rows(rows, 3)
    # Signs of singular vectors are free, cosines are not.
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-4)
    assert not paper_edges.topic_rows(
        np.eye(4, 5, dtype=np.float32)[[0, 0, 1, 2]] * [[1], [1], [0], [1]], 2
    )[2].any()


def test_the_denoiser_is_the_least_squares_fit_to_every_way_of_leaving_words_out(tmp_path):
    data, kept = read_citations(write(tmp_path)), 0.25
    whole = np.zeros((4, 3))
    whole[data.paper, data.word] = 1
    masks = np.array(list(np.ndindex(2, 2, 2)))
    chances = np.sqrt(np.prod(np.where(masks, kept, 1 - kept), axis=1))
    seen = np.concatenate([np.column_stack([whole * mask, np.ones(4)]) for mask in masks])
    seen = np.concatenate(
        [seen * np.repeat(chances, 4)[:, None], np.sqrt(paper_edges.RIDGE) * np.eye(4)]
    )
    told = np.concatenate([np.kron(chances[:, None], whole), np.zeros((4, 3))])
    weights = np.linalg.lstsq(seen, told)[0]
    expected = np.tanh(np.column_stack([whole, np.ones(4)]) @ weights)
    found = paper_edges.denoised_rows(data, 1 - kept)
    np.testing.assert_allclose(found, expected - expected.mean(axis=0), atol=1e-6)


def test_papers_without_a_common_word_are_near_if_their_words_occur_together(tmp_path):
    words = [[0], [1], [2], *[[0, 1]] * 4, *[[2, 3]] * 4]
    file = {
        "feat_indptr": np.cumsum([0, *map(len, words)]),
        "feat_indices": np.concatenate(words),
        "feat_shape": np.array([11, 4]),
        "labels": np.array([1, 0, *[1] * 9]),
    }
    rows = paper_edges.denoised_rows(read_citations(write(tmp_path, **file)), 0.5)
    assert rows[0] @ rows[1] > 0 > rows[0] @ rows[2]


def test_nearest_papers_have_the_largest_cosine_and_pursuit_explains_what_is_left():
    data = draw_citations(0)
    rows = paper_edges.word_rows(data)[:60]
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    cosine = rows @ rows.T - 9 * np.eye(60)
    senders, receivers = paper_edges.nearest_papers(rows, 2)
    expected = np.argsort(-cosine, axis=1, kind="stable")[:, :2]
    assert np.array_equal(receivers, np.repeat(np.arange(60), 2))
    assert np.mean(senders.reshape(60, 2) == expected) > 0.95  # but for ties
    first, second = paper_edges.pursued_papers(rows, 2)[0].reshape(60, 2).T
    assert np.mean(first == expected[:, 0]) > 0.95
    node = 7
    read = rows[first[node]]
    left = rows[node] - read * (read @ rows[node]) / (read @ read + paper_edges.RIDGE)
    gains = rows @ left
    gains[[node, first[node]]] = -9
    assert second[node] == gains.argmax()


def test_generated_papers_cite_their_own_class_and_a_graph_helps(tmp_path):
    data = draw_citations(0)
    same = data.labels[data.edges[0]] == data.labels[data.edges[1]]
    assert 0.7 < same.mean() < 0.85
    assert len({*data.train, *data.validation, *data.test}) == data.nodes
    options = {"method": "given", "neighbours": 10, "steps": 60, "width": 16, "evaluate_every": 30}
    given, none = (
        tiny("citations", out=tmp_path / str(keep), keep=keep, **options).run()["test_accuracy"]
        for keep in (1.0, 0.0)
    )
    assert given > none > 0.3


def test_what_does_not_fit_is_told(tmp_path):
    assert_names_itself_and_its_cure(
        tiny("citations", task="cora").check, "--task cora without", "folder", "--data-dir"
    )
    assert_names_itself_and_its_cure(
        tiny("citations", method="given", neighbours=3).check,
        "--neighbours 3 with --method given",
        "have an effect",
        "leave",
    )
    for wrong in ({"neighbours": 800}, {"topics": 201}):
        ((name, number),) = wrong.items()
        recipe = tiny("citations", method="denoised", **wrong)
        assert_names_itself_and_its_cure(recipe.load, f"--{name} {number}", "", f"lower --{name}")
    write(tmp_path)
    assert_names_itself_and_its_cure(
        tiny("citations", task="cora", data_dir=tmp_path, method="nearest", neighbours=4).load,
        "--neighbours 4 among 4 papers",
        "fewer",
        "lower",
    )
    given = tiny("citations", task="cora", data_dir=tmp_path, method="given", neighbours=10)
    assert given.load().nodes == 4
