"""Plug-ins: methods, models, data sets and metrics of installed packages and of users' files."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from pymixunlearn import data, methods
from pymixunlearn.data.registry import loader_of
from pymixunlearn.evaluation import metric
from pymixunlearn.evaluation.plugged import plugged_metrics
from pymixunlearn.files import file_sha256
from pymixunlearn.methods import Method
from pymixunlearn.user_files import import_file, path_of
from pymixunlearn.user_files.code import code_sha256, module_sha256

_SCRIPTS = ("__main__", "__mp_main__")
GROUPS = tuple(f"pymixunlearn.{kind}" for kind in ("methods", "models", "datasets", "metrics"))
"""Groups of entry points, see docs/plugins.md."""


def load_plugins(files: Iterable[str | Path]) -> None:
    """Load the plug-ins of installed packages, once, and those of ``files``: running a file registers what is in it.

    Raises:
        UserError: A file does not exist, or running it fails.
    """
    _load_installed()
    for file in files:
        import_file(Path(file))


def plugin_hashes(files: Iterable[str | Path]) -> dict[str, str]:
    """Return the sha256 of each file, by its absolute path."""
    return {str(Path(file).expanduser().resolve()): file_sha256(Path(file).expanduser()) for file in files}


def plugin_code(found: type | Callable[..., Any]) -> list[str]:
    """Return what tells a plug-in's class or function from another version of it: hashes of its code and its file."""
    module = sys.modules.get(found.__module__)
    # The script that calls is another one in every process.
    file = None if module is None or found.__module__ in _SCRIPTS else module_sha256(module)
    return [code_sha256([found]), *([] if file is None else [file])]


def method_code(found: type[Method]) -> dict[str, Any]:
    """Return what says by which code a method of a caller's own works; the file of a plug-in is hashed as a whole."""
    if is_built_in(found) or path_of(found.__module__) is not None:
        return {}
    return {"method_code": plugin_code(found)}


@cache
def plugged_models() -> dict[str, str]:
    """Return the models of installed packages: their names, and ``package.module:factory`` for each."""
    return {point.name: point.value for point in entry_points(group="pymixunlearn.models")}


def listed(kind: str) -> list[tuple[str, str, str]]:
    """Return name, meaning and source of everything of a kind that came by a plug-in.

    Args:
        kind: "methods", "models", "datasets" or "metrics".
    """
    if kind == "methods":
        classes = {name: methods.get(name) for name in methods.available()}
        found = [(name, cls.summary, _source(cls.__module__)) for name, cls in classes.items()]
    elif kind == "datasets":
        loaders = {name: loader_of(name) for name in data.available()}
        found = [(name, _first_line(loader), _source(loader.__module__)) for name, loader in loaders.items()]
    elif kind == "metrics":
        found = [(key, one.summary, _source(one.compute.__module__)) for key, one in plugged_metrics().items()]
    else:
        found = [(name, f"made by {value}", _source(value)) for name, value in plugged_models().items()]
    return [entry for entry in found if entry[2]]


@cache
def _load_installed() -> None:
    for group in GROUPS:
        for point in entry_points(group=group):
            if group != "pymixunlearn.models":
                _load_point(point)


def _load_point(point: EntryPoint) -> None:
    """Load an entry point. A package that is broken must not break everything else."""
    try:
        _register(point, point.load())
    except Exception as error:
        warnings.warn(f"plug-in '{point.value}' cannot be loaded ({type(error).__name__}: {error})", stacklevel=3)


def _register(point: EntryPoint, found: Any) -> None:
    """Register what an entry point names, unless importing it has done so."""
    summary = _first_line(found)
    if point.group == "pymixunlearn.methods":
        if isinstance(found, type) and issubclass(found, Method) and found not in map(methods.get, methods.available()):
            methods.method(point.name, summary=summary)(found)
    elif point.group == "pymixunlearn.datasets":
        if point.name not in data.available():
            data.register(point.name)(found)
    elif all(found is not one.compute for one in plugged_metrics().values()):
        metric(point.name, summary=summary)(found)


def is_built_in(found: type) -> bool:
    """Tell whether a class comes with this package."""
    return not _source(found.__module__)


def _first_line(found: Any) -> str:
    return (found.__doc__ or "").strip().partition("\n")[0].rstrip(".")


def _source(module: str) -> str:
    """Return where a plug-in is from: its file or its package; nothing for what is built in."""
    file = path_of(module)
    if file is not None:
        return str(file)
    package = module.partition(":")[0].partition(".")[0]
    return "" if package == "pymixunlearn" else package
