"""Reference of every method's settings, made from the config classes: ``python -m benchmarks.report settings``."""

from __future__ import annotations

import dataclasses
import types
from typing import Any, Literal, Union, get_args, get_origin

from pymixunlearn import methods

TITLE = """# Settings

Every setting of every method, in the order in which `mixunlearn-cli unlearn --method NAME --help` lists them. This page
is made from the code by `python -m benchmarks.report settings`; a test holds the two equal. *Source* is where the
default comes from. In Python a setting is an argument of the method's class, `methods.get("scrub")(variant="large")`,
on the command line `--set variant=large`.
"""
_BOUNDS = {"above": ">", "low": "≥", "high": "≤", "below": "<"}


def page() -> str:
    """Return the whole page, Markdown."""
    return "\n".join([TITLE, *(section(name) for name in methods.available())])


def section(name: str) -> str:
    """Return one method's heading and table."""
    method = methods.get(name)
    config_class = method.config_class
    kinds, rows = config_class.kinds(), []
    for field in dataclasses.fields(config_class):
        cells = (
            f"`{field.name}`",
            _shown(field.default),
            _range(kinds[field.name], field.metadata),
            field.metadata["help"],
            field.metadata["source"] or config_class.source,
        )
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    head = f"## `{name}`\n\n{method.summary[:1].upper()}{method.summary[1:]}.\n"
    return "\n".join(
        [head, "| setting | default | range | meaning | source |", "| --- | --- | --- | --- | --- |", *rows, ""]
    )


def _shown(value: Any) -> str:
    return f"`{str(value).lower()}`" if value is None or isinstance(value, bool) else f"`{value}`"


def _range(kind: Any, metadata: Any) -> str:
    optional = get_origin(kind) in (Union, types.UnionType)
    if optional:
        kind = next(part for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is Literal:
        words = ", ".join(f"`{choice}`" for choice in get_args(kind))
    elif kind is bool:
        words = "`true`, `false`"
    else:
        bounds = ", ".join(f"{sign} {metadata[key]:g}" for key, sign in _BOUNDS.items() if metadata[key] is not None)
        words = " ".join(part for part in ({int: "whole number", float: "number", str: "text"}[kind], bounds) if part)
    return f"{words}, or `none`" if optional else words
