"""The tables in the docs are those that the benchmarks make from their JSON lines."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = {
    "powerprop": ["powerprop_prune", "sparse_training", "packnet", "powerprop_step"],
    "glimpses": ["glimpse", "glimpse_table"],
    "scale": ["stages", "scaling", "multiply", "shard"],
    "sorting": ["sort_scale", "sort_quality", "sort_ablation"],
    "../README": ["sort"],
    "estimators": ["gradient_picture", "univariate", "vae", "unbiased", "experts", "estimators"],
}


def page(name):
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("of", "name"), [(of, name) for of, names in PAGES.items() for name in names]
)
def test_table_in_the_docs_is_the_benchmark_s(of, name):
    command = [sys.executable, ROOT / "benchmarks" / f"{name}.py", "--table"]
    table = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
    assert table.count("\n") > 3
    assert table.strip() in page(of)


def test_rows_in_the_readme_are_those_of_the_docs():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (alpha \d[^|]*(?:\| \d[^|]*){6})\|$", readme, flags=re.MULTILINE)
    assert len(rows) >= 5
    assert all(f"| SGD, {row}|" in page("powerprop") for row in rows)
