"""Hooks of mkdocs and of its reader of docstrings: what these do not know of our Markdown and docstrings."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):<code>(~?)\.*([\w.]+)</code>")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Take the marks "run" and "slow" off fences; tests/test_docs.py reads them."""
    return re.sub(r"^(```\w+)(?: run| slow)+$", r"\1", markdown, flags=re.MULTILINE)


def on_page_content(html: str, **_: Any) -> str:
    """Show Sphinx's roles as code: ``:class:`~package.Name``` as ``Name``."""
    return _ROLE.sub(lambda role: f"<code>{role[2].rpartition('.')[2] if role[1] else role[2]}</code>", html)


class Examples(griffe.Extension):
    """Show sections ``Example:`` as code; the reader of docstrings knows the plural only."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the section."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
