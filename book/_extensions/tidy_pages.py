"""A Sphinx extension: what would otherwise stumble over the theme's pages, and over docstrings written in Markdown."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

# ARIA roles of bibliographies that browsers have dropped, and a list whose items are none.
STALE_ROLES = (' role="doc-biblioentry"', ' role="doc-backlink"', ' role="list"')


def tidy(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Leave out the scripts of Thebe, which no page uses and which the theme adds twice, and roles that are wrong.

    A table that scrolls on a narrow screen can be reached with the keyboard.
    """
    context["script_files"] = [script for script in context["script_files"] if "thebe" not in str(vars(script)).lower()]
    for role in STALE_ROLES:
        context["body"] = context.get("body", "").replace(role, "")
    context["body"] = context.get("body", "").replace('<table class="table">', '<table class="table" tabindex="0">')


def close_code(app: Sphinx, what: str, name: str, subject: Any, options: Any, lines: list[str]) -> None:
    """In reStructuredText code ends before a space only: `id`s becomes `id` and, glued to it, s."""
    lines[:] = [re.sub(r"(`[^`]+`)(?=\w)", r"\1\\ ", line) for line in lines]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", close_code)
    app.connect("html-page-context", tidy, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
