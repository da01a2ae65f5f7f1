"""Pages made from the config classes of the methods: ``python -m benchmarks.report settings``.

They are a page of the docs and, for type checkers, every method's keyword arguments and what ``methods.get`` returns.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
from typing import Any, Literal, Union, get_args, get_origin

from pymixunlearn import methods

TITLE = """# Settings

Every setting of every method, in the order in which `mixunlearn-cli unlearn --method NAME --help` lists them. This page
is made from the code by `python -m benchmarks.report settings`; a test holds the two equal. *Source* is where the
default comes from. In Python a setting is an argument of the method's class, `methods.get("scrub")(variant="large")`,
on the command line `--set variant=large`.
"""
MADE = "Made by ``python -m benchmarks.report settings``."
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


def typed_classes() -> str:
    """Return the module with the methods as type checkers see them."""
    classes = {name: methods.get(name) for name in methods.available()}
    parts = []
    for cls in classes.values():
        kinds = cls.config_class.kinds()
        rows = "".join(f"    {field}: {_source(kind)}\n" for field, kind in kinds.items())
        own = [parameter for parameter in _parameters(cls) if parameter.kind is parameter.KEYWORD_ONLY]
        arguments = ["self", f"config: {cls.config_class.__name__} | None = None"]
        arguments += ["*", *(f"{parameter.name}: {parameter.annotation} = ..." for parameter in own)] if own else []
        arguments.append(f"**fields: Unpack[{cls.__name__}Settings]")
        parts += [
            f"class {cls.__name__}Settings(TypedDict, total=False):\n{rows}",
            f"class {cls.__name__}({cls.__module__.rpartition('.')[2]}.{cls.__name__}):\n"
            f"    def __init__({', '.join(arguments)}) -> None: ...\n",
        ]
    cases = [
        f'@overload\ndef get(name: Literal["{name}"]) -> type[{cls.__name__}]: ...' for name, cls in classes.items()
    ]
    configs = {
        f"from {module.__module__} import {module.__name__}"
        for cls in classes.values()
        for module in [cls.config_class]
    }
    modules = {"from {0} import {2}".format(*cls.__module__.rpartition(".")) for cls in classes.values()}
    imports = [
        "from typing import Literal, TypedDict, overload",
        "from torch import nn\nfrom typing_extensions import Unpack",
        "\n".join(sorted({"from pymixunlearn.methods.base import Method", *configs, *modules})),
    ]
    head = [f'"""Methods as type checkers see them. {MADE}"""', "from __future__ import annotations", *imports]
    tail = [*cases, "@overload", "def get(name: str) -> type[Method]: ...\n"]
    return "\n\n".join([*head, "\n\n".join(parts)]) + "\n\n" + "\n".join(tail)


def _parameters(cls: type[methods.Method]) -> list[inspect.Parameter]:
    return list(inspect.signature(cls.__init__).parameters.values())


def _source(kind: Any) -> str:
    """Return a setting's type as it is written."""
    if get_origin(kind) in (Union, types.UnionType):
        return " | ".join(_source(part) for part in get_args(kind))
    if get_origin(kind) is Literal:
        return "Literal[" + ", ".join(f'"{choice}"' for choice in get_args(kind)) + "]"
    return "None" if kind is type(None) else str(kind.__name__)


FILES = {"docs/settings.md": page, "pymixunlearn/methods/_typed.pyi": typed_classes}
"""What writes each file; Python files are formatted afterwards."""
