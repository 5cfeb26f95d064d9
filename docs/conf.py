"""How the site is made; docs/contributing.md names the command."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "extensions")]

import gallery  # noqa: E402
import pages_of_rooms  # noqa: E402

from sparse_hyper_jax import __version__  # noqa: E402

# Sphinx looks for sources after it has read this file, so pages that are made have to be there.
pages_of_rooms.write(HERE / "api")
gallery.write(HERE.parent / "notebooks", HERE / "notebooks")

project = "sparse_hyper_jax"
author = copyright = "The sparse_hyper_jax authors"
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx_design",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "mathml",
    "module_signatures",
    "repository_links",
]
exclude_patterns = ["_build", "extensions"]

# Notebooks keep their outputs, and the suite runs them.
nb_execution_mode = "off"
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autosummary_generate_overwrite = False
autosummary_ignore_module_all = False
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 88

html_theme = "sphinx_book_theme"
html_title = "sparse_hyper_jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
# The search field stands in the side bar, a second one above it would only repeat it.
html_theme_options = {
    "show_toc_level": 2,
    "use_download_button": False,
    # Each page would list all the names of all rooms, which takes the square of their number.
    "collapse_navbar": True,
    "navbar_persistent": [],
    "navbar_start": [],
    "navbar_center": [],
    "navbar_end": [],
}
html_show_sphinx = False
templates_path = ["_templates"]
