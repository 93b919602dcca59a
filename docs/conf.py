"""How the documentation becomes a site: `python -m sphinx -E -W --keep-going -d build/doctrees docs build/site`.

Nothing is fetched, neither while building nor by the pages, which can be opened from a folder. The Python reference is
read from the sources without importing them, so that building needs the extra `docs` and no torch.
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))


def _version() -> str:
    tree = ast.parse((ROOT / "equivengine" / "__init__.py").read_text(encoding="utf-8"))
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    return next(ast.literal_eval(node.value) for node in assigned if ast.unparse(node.targets[0]) == "__version__")


project = "equivengine"
author = "The equivengine developers"
copyright = "The equivengine developers, Apache-2.0"
version = release = _version()

extensions = ["myst_parser", "sphinx_copybutton", "docs_site.pages", "docs_site.api", "docs_site.links"]
source_suffix = {".md": "markdown"}
root_doc = "index"
language = "en"
smartquotes = False  # quotes and dashes stand in commands

# Links to headings, with the anchors that GitHub makes.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "fieldlist"]

# Signatures with one parameter a line where they are long; known types are links, by their last name.
maximum_signature_line_length = 90
python_use_unqualified_type_names = True
python_display_short_literal_types = True
toc_object_entries_show_parents = "hide"

# Copying a console block takes its commands, and leaves what they print.
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
copybutton_copy_empty_lines = False

html_theme = "furo"
html_title = f"equivengine {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "github-dark"
