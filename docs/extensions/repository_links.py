"""Links that lead somewhere in a clone only: on the site such files are plain words."""

import re

from sphinx.application import Sphinx

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)\s]+\)")


def resolve(app: Sphinx, page: str, source: list[str]) -> None:
    """Notebooks are pages here, with pages beside them; of other files only the words stay."""
    if page.startswith("notebooks/"):
        source[0] = source[0].replace("](../docs/", "](../")
    else:
        source[0] = OUTSIDE.sub(r"\1", source[0].replace("](../notebooks/", "](notebooks/"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Look at every page before it is parsed."""
    app.connect("source-read", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
