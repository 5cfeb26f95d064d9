"""What is released says one thing everywhere: its version, and where it runs."""

import ast
import re
import runpy
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from sparse_hyper_jax import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FORMS = [*sorted(ROOT.glob(".github/**/*.yml")), ROOT / ".pre-commit-config.yaml"]


def read(path):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_the_citation_names_this_version():
    assert read("CITATION.cff")["version"] == __version__


def test_all_pythons_are_tested_and_said():
    found = [re.fullmatch(r".* :: (3\.\d+)", line) for line in PROJECT["classifiers"]]
    said = [version[1] for version in found if version]
    assert said == ["3.11", "3.12", "3.13"]
    assert PROJECT["requires-python"] == f">={said[0]}"
    tests = read(".github/workflows/tests.yml")["jobs"]
    assert tests["tests"]["strategy"]["matrix"]["python"] == said
    imports = read(".github/workflows/release.yml")["jobs"]["imports"]
    assert imports["strategy"]["matrix"]["python"] == said
    steps = tests["oldest"]["steps"]
    assert said[0] in [step.get("with", {}).get("python-version") for step in steps]


# Distributions by the name under which they are imported, where that is another.
NAMED = {"orbax": "orbax-checkpoint", "PIL": "pillow", "sklearn": "scikit-learn"}


def declared(lines):
    return {re.match(r"[\w-]+", line)[0] for line in lines}


def imported(paths):
    """Distributions outside of the standard library that files import."""
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            several = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            one = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in {module.split(".")[0] for module in [*several, *one]}:
                if name not in sys.stdlib_module_names | {"sparse_hyper_jax"}:
                    yield NAMED.get(name, name)


def test_what_the_library_imports_is_declared():
    package = ROOT / "sparse_hyper_jax"
    base, extras = declared(PROJECT["dependencies"]), PROJECT["optional-dependencies"]
    files = set(package.rglob("*.py"))
    recipes = set((package / "train").rglob("*.py"))
    # JAX brings jaxlib; matplotlib writes films with pillow.
    assert set(imported(files - recipes)) | {"jaxlib"} == base
    assert set(imported(recipes)) - base | {"pillow"} == declared(extras["train"])


def test_jobs_run_what_the_contributor_page_says():
    page = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
    jobs = read(".github/workflows/tests.yml")["jobs"]
    runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    site = "sphinx-build -W --keep-going docs docs/_build"
    for command in ("ruff check .", "ruff format --check .", site):
        assert command in runs
        assert command in page


def test_links_of_the_released_readme_are_absolute():
    lead = runpy.run_path(str(ROOT / "hatch_build.py"))["with_absolute_links"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    text = lead(readme, "https://host/owner/name/", "v1.2.3")
    targets = re.findall(r"""\]\(([^)\s]+)|(?:src|href)="([^"]+)""", text)
    assert len(targets) > 20
    assert all(re.match("https?://", link or source) for link, source in targets)
    assert "https://host/owner/name/blob/v1.2.3/docs/start.md" in text
    assert 'src="https://host/owner/name/raw/v1.2.3/docs/identity.gif"' in text
    assert lead(text, "https://elsewhere", "v2") == text
    by_workflow = read(".github/workflows/release.yml")["jobs"]["build"]["steps"]
    assert any("REPOSITORY_URL" in step.get("env", {}) for step in by_workflow)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_forms_and_workflows_can_be_read(path):
    assert isinstance(read(path), dict)
