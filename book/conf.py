"""How Sphinx sets the book; its pages and their order are made by scripts/book.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from docments_to_fields import explain  # noqa: E402

project = "fima"
html_title = "fima"
author = "The fima authors"
copyright = "2026, The fima authors"
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx_copybutton"]
root_doc = "index"

# Notebooks: what they put out is stored in them, and no cell runs here.
nb_execution_mode = "off"
nb_render_markdown_format = "myst"
nb_ipywidgets_js = {}  # would be fetched from elsewhere
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 4
myst_url_schemes = {"http": None, "https": None, "mailto": None, "site": "{{path}}"}  # site: a file that is no page
myst_update_mathjax = False

# API pages: signatures by autodoc, their explanations from the comments behind the parameters.
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 72
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
default_role = "code"

# Formulas: Sphinx asks for this file where it would ask for MathJax.
mathjax_path = "formulas.js"

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_search_summary = False  # it fetches every page that was found: heavy on a phone, impossible from a folder
html_show_sphinx = False
copybutton_selector = "div.cell_input pre, div.highlight-python pre, div.highlight-sh pre, div.highlight-yaml pre"
copybutton_prompt_text = "$ "


def setup(app):
    "Let autodoc explain parameters and fields by their comments."
    app.connect("autodoc-process-docstring", explain)
