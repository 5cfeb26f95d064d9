"""What a package index shows: the README, with links into the repository it was released from.

In a clone, links are relative, so that they work in every copy and branch. On an index they would
lead nowhere. So the build makes them absolute when it is told, as the release is, where the
repository lies::

    REPOSITORY_URL=https://host/owner/name REPOSITORY_REF=v1.2.3 python -m build

Without these, for instance in a fork that installs itself, the README is taken as it is.
"""

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

RELATIVE = re.compile(
    r"""(?P<before>\]\(|src="|href=")(?!https?:|mailto:|\#)(?P<target>[^)"\s]+)"""
)
PICTURES = (".gif", ".png", ".svg", ".jpg")


def with_absolute_links(text: str, repository: str, ref: str) -> str:
    """Lead relative links, in Markdown and HTML, to pages and pictures of a commit."""

    def absolute(found: re.Match[str]) -> str:
        kind = "raw" if found["target"].endswith(PICTURES) else "blob"
        return f"{found['before']}{repository.rstrip('/')}/{kind}/{ref}/{found['target']}"

    return RELATIVE.sub(absolute, text)


class ReadmeAndAddresses(MetadataHookInterface):
    """Fills in what hangs on where the repository is."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Put in the README, and the addresses if they are known."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        repository, ref = os.environ.get("REPOSITORY_URL"), os.environ.get("REPOSITORY_REF", "HEAD")
        if repository:
            text = with_absolute_links(text, repository, ref)
            metadata["urls"] = {
                "Repository": repository,
                "Issues": f"{repository}/issues",
                "Changelog": f"{repository}/blob/{ref}/CHANGELOG.md",
            }
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
