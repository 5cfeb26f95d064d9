import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [README] + [page.read_text(encoding="utf-8") for page in sorted(ROOT.glob("docs/*.md"))]
SNIPPETS = [
    snippet
    for page in PAGES
    for snippet in re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
]


def test_readme_has_snippets():
    assert len(SNIPPETS) >= 4


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippet_runs_on_its_own(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(SNIPPETS[number], f"README.md, snippet {number}", "exec"), {"__name__": "readme"})


def test_local_links_lead_somewhere():
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", README) + re.findall(
        r'src="([^"]+)"', README
    )
    assert targets
    missing = [target for target in targets if not (Path(__file__).parent.parent / target).exists()]
    assert not missing
