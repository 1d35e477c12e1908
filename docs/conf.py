"""How Sphinx builds the site; `make docs` does, and tests/test_site.py without a network."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_sphinx"))

project = "underfire"
author = "The underfire authors"
copyright = "The underfire authors, Apache-2.0"  # noqa: A001 - Sphinx's name for it

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click", "underfire_docs"]
exclude_patterns = ["_sphinx"]
source_suffix = {".md": "markdown", ".ipynb": "notebook"}

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # pages under measured/ are as the commands print them

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
napoleon_use_ivar = True

html_theme = "furo"
html_title = "underfire"
html_math_renderer = "mathml"
html_static_path = ["_sphinx/static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
