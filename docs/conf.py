"""Settings of Sphinx: ``make docs``."""

from __future__ import annotations

from s3cache import __version__

project = "s3cache"
author = "the s3cache contributors"
release = __version__

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
myst_heading_anchors = 4
nitpicky = True

html_theme = "furo"
html_title = f"s3cache {release}"
html_copy_source = False
html_show_copyright = False
