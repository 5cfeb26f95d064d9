"""Copies the notebooks among the pages, and makes the page that shows the last picture of each."""

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def pictures(notebook: dict[str, Any]) -> Iterator[bytes]:
    """The PNG outputs of a notebook, in order."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                yield base64.b64decode("".join(output["data"]["image/png"]))


def title(notebook: dict[str, Any]) -> str:
    """The first heading."""
    return "".join(notebook["cells"][0]["source"]).splitlines()[0].lstrip("# ")


def number(path: Path) -> int:
    """The number that its name begins with: 2 comes before 10."""
    return int(path.stem.split("_")[0])


def card(stem: str, heading: str) -> str:
    """A picture with the title under it, and the link to the notebook."""
    options = f":link: {stem}\n:link-type: doc\n:img-top: {stem}.png\n"
    return f":::{{grid-item-card}} {heading}\n{options}:::\n"


def write(source: Path, folder: Path) -> None:
    """Write all pages anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    cards, stems = [], []
    for path in sorted(source.glob("*.ipynb"), key=number):
        shutil.copy(path, folder)
        notebook = json.loads(path.read_text(encoding="utf-8"))
        *_, last = pictures(notebook)
        (folder / f"{path.stem}.png").write_bytes(last)
        cards.append(card(path.stem, title(notebook)))
        stems.append(path.stem)
    grid = "::::{grid} 1 2 2 3\n:gutter: 3\n\n" + "\n".join(cards) + "::::\n"
    tree = "```{toctree}\n:hidden:\n\n" + "\n".join(stems) + "\n```\n"
    (folder / "index.md").write_text(f"# Notebooks\n\n{grid}\n{tree}", encoding="utf-8")
