"""The page of a run: whole, alone, and true to the files beside it."""

import base64
import re
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure

from sparse_hyper_jax.train.recipes.univariate import UnivariateRecipe
from sparse_hyper_jax.train.report import REPORT, write_report
from sparse_hyper_jax.train.run_folder import RunFolder

LONELY = {"meta", "img", "br", "path", "use", "rect", "line"}


class Page(HTMLParser):
    """Collects what a page shows and names; fails on elements that do not nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.words, self.sources, self.ids = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in LONELY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in LONELY:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in LONELY:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path, figure_format="svg")
    for step, loss in enumerate((3.0, None, 2.0, 1.0)):
        folder.append({"step": step, "loss": loss, "once": 1.0 if step == 2 else None})
    folder.part("tasks").append({"step": 1, "accuracy": 0.5})
    folder.part("tasks").append({"step": 2, "accuracy": 0.75})
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([1, 2])
    folder.save_figure(figure, "drawn")
    (tmp_path / "other.png").write_bytes(b"\x89PNG and more")
    return folder


def report(folder, **figures):
    write_report(folder, title="a <b> & c", settings={"batch": 3, "path": "<x>"}, figures=figures)
    return (folder.path / REPORT).read_text(encoding="utf-8")


def test_it_shows_values_curves_and_pictures(folder):
    long = list(range(100))
    text = report(folder, test_accuracy=1 / 3, all=long, none=None)
    page = Page(text)
    words = "".join(page.words)
    assert "a <b> & c" in words
    assert "<x>" in words
    assert "0.333333" in words
    assert "None" in words
    assert str(long) in words
    assert page.seen.count("details") == 1
    captions = re.findall("<figcaption>(.*?)</figcaption>", text)
    # A metric with a single value is no curve, what was not recorded no point.
    assert captions == ["loss", "tasks: accuracy", "drawn.svg", "other.png"]
    assert page.seen.count("svg") == 2
    embedded = [source.split(",", 1) for source in page.sources if source.startswith("data:")]
    assert [kind for kind, _ in embedded] == ["data:image/svg+xml;base64", "data:image/png;base64"]
    svg, png = (base64.b64decode(data) for _, data in embedded)
    assert svg == (folder.path / "drawn.svg").read_bytes()
    assert png == b"\x89PNG and more"


def test_it_needs_no_other_file_and_no_network(folder):
    page = Page(report(folder, accuracy=1.0))
    assert page.sources
    assert all(source.startswith(("data:", "#")) for source in page.sources)
    inside = {source[1:] for source in page.sources if source.startswith("#")}
    assert inside <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    assert not {"script", "link", "iframe"} & set(page.seen)


def test_curves_take_the_colours_of_the_page(folder):
    text = report(folder, accuracy=1.0)
    assert "prefers-color-scheme: dark" in text
    assert text.count("stroke: var(--curve)") >= 2
    assert "currentColor" in text
    assert not re.search("#(010203|040506|000000|ffffff)", text)


def test_other_processes_write_none(folder, tmp_path):
    other = RunFolder(tmp_path / "second", writes=False)
    write_report(other, title="a", settings={}, figures={})
    other.save_figure(Figure(), "drawn")
    assert not other.path.exists()


@pytest.mark.parametrize("kind", ["svg", "pdf"])
def test_a_recipe_writes_pictures_of_the_kind_asked_for(kind, tmp_path):
    recipe = UnivariateRecipe(
        classes=5, steps=120, draws=50, format=kind, out=tmp_path / "run", quiet=True
    )
    recipe.run()
    start = {"svg": b"<?xml", "pdf": b"%PDF"}[kind]
    assert (tmp_path / "run" / f"reward.{kind}").read_bytes().startswith(start)
    captions = re.findall("<figcaption>(.*?)</figcaption>", (tmp_path / "run" / REPORT).read_text())
    assert "eval_reward" in captions
    assert ("reward.svg" in captions) == (kind == "svg")
