"""Hooks of mkdocs: what GitHub's Markdown and the docstrings have that mkdocs does not know."""

from __future__ import annotations

import re
from typing import Any

_ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):<code>(~?)\.*([\w.]+)</code>")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Take the marks "run" and "slow" off fences; tests/test_docs.py reads them."""
    return re.sub(r"^(```\w+)(?: run| slow)+$", r"\1", markdown, flags=re.MULTILINE)


def on_page_content(html: str, **_: Any) -> str:
    """Show Sphinx's roles as code: ``:class:`~package.Name``` as ``Name``."""
    return _ROLE.sub(lambda role: f"<code>{role[2].rpartition('.')[2] if role[1] else role[2]}</code>", html)
