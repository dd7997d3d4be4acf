"""The site: Sphinx with furo, of the Markdown files in this folder. `./scripts/docs` builds it."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from converter import __version__

project = "Shardmill"
version = release = __version__
html_title = f"Shardmill {version}"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "reference_texts",
]
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["scheme.css"]
pygments_dark_style = "github-dark"  # the default underlines modules as if they were links
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
# It fetches pages, which a browser refuses if the site is read from a disk.
html_show_search_summary = False

myst_enable_extensions = ["colon_fence", "deflist"]
# GitHub makes the same anchors of headings, so that a link works there, too.
myst_heading_anchors = 4

# What a reader copies is the command, not the prompt or what it prints.
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True
copybutton_exclude = ".linenos, .gp"

# Of docstrings: `x` is code, and types stand in the signature.
default_role = "literal"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 88
napoleon_use_ivar = True
napoleon_use_rtype = False
# Types of other projects lead nowhere without a network, and ours are shown under shorter names.
nitpick_ignore_regex = [("py:.*", ".*")]
