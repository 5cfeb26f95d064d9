import functools
import inspect
import re
import types
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from sparse_hyper_jax import continual, pruning, reparam, sort
from tests import folding

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [README] + [page.read_text(encoding="utf-8") for page in sorted(ROOT.glob("docs/*.md"))]
SNIPPETS = [
    snippet
    for page in PAGES
    for snippet in re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
]
# What fits numbers, places them on devices or writes them down, cannot be traced.
LOOKS_AT_NUMBERS = (
    "write_description(",
    "ablate(",
    "fit_locality(",
    "shard_tuples(",
    "from_dense(",
    "Checkpoints(",
)


def test_readme_has_snippets():
    assert len(SNIPPETS) >= 4


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippet_runs_on_its_own(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = compile(SNIPPETS[number], f"README.md, snippet {number}", "exec")

    def run():
        exec(code, {"__name__": "readme"})

    # Every line of the guides runs; numbers, for which hundreds of programs are compiled, do not.
    computes = folding.apart or SNIPPETS[number] in README
    computes |= any(call in SNIPPETS[number] for call in LOOKS_AT_NUMBERS)
    run() if computes else jax.eval_shape(run)


def test_what_the_table_for_jaxpruner_names_exists():
    page = (ROOT / "docs" / "from_jaxpruner.md").read_text(encoding="utf-8")
    names = vars(pruning) | vars(reparam) | vars(continual) | {"partial": functools.partial}
    names |= {"schedule": pruning.one_shot(1), "select": reparam.is_kernel, "alpha": 2.0}
    names |= {"step": 5, "every": 2, "begin": 0, "end": 900}
    names |= {"inner": optax.sgd(0.1), "strength": 1.0}
    names["params"] = {"kernel": np.ones((8, 4))}
    names["masks"] = pruning.magnitude_masks(names["params"], pruning.uniform(names["params"], 0.5))
    names["state"] = types.SimpleNamespace(masks=names["masks"])
    rows = re.findall(r"^\| .*? \| (.*) \|$", page, flags=re.MULTILINE)
    said = [code for row in rows for code in re.findall(r"`([^`]+)`", row)]
    values = [eval(code, names) for code in said if not ASSIGNMENT.match(code) and code not in TEXT]
    assert len(values) > 20


def test_what_the_table_for_softjax_and_ott_names_exists():
    page = (ROOT / "docs" / "from_softjax_and_ott.md").read_text(encoding="utf-8")
    keys = jax.numpy.array([0.3, -1.2, 0.9, 0.1])
    names = vars(sort) | {"jax": jax, "x": keys, "y": keys**2, "q": 0.3, "k": 2, "s": 0.1}
    names |= {"ids": jax.numpy.array([0, 1, 0, 1]), "w": keys**2}
    rows = re.findall(r"^\| .*? \| (.*) \|$", page, flags=re.MULTILINE)
    said = [code for row in rows for code in re.findall(r"`([^`]+)`", row)]
    options = inspect.signature(sort.soft_sort).parameters
    calls = [code for code in said if not ASSIGNMENT.match(code) and code not in options]

    def evaluate():
        known = names | {"permutation": sort.soft_argsort(keys)}
        return [named(code, known) for code in calls]

    jax.eval_shape(evaluate)
    assert len(calls) > 25
    assert {code.partition("=")[0] for code in said if ASSIGNMENT.match(code)} <= set(options)


def named(code, names):
    """Numbers of what a table says; nothing for a function that it only names."""
    value = eval(code, names)
    return None if callable(value) else value


ASSIGNMENT = re.compile(r"\w+=")
TEXT = {"magnitude", "random", "kernel", "schedule", "change(key, seen)"}


LINKED = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]


def links(page):
    """Local files that a page names, each with the heading it points to, if any."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"\]\((?!https?://)([^)]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    return [link.partition("#")[::2] for link in found]


def headings(page):
    """Anchors as the pages of a repository have them."""
    lines = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_local_links_lead_somewhere(page):
    missing = []
    for file, heading in links(page):
        target = page.parent / file if file else page
        if not target.exists() or (heading and heading not in headings(target)):
            missing.append((file, heading))
    assert not missing


def test_pages_have_links():
    assert sum(len(links(page)) for page in LINKED) > 50
