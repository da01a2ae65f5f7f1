"""The examples in docstrings run as written, and what is public in the packages listed here has one."""

from __future__ import annotations

import doctest
import pkgutil
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

import pymixunlearn
from pymixunlearn import data, evaluation, methods, models, nn, ops, tasks, training
from pymixunlearn.data import registry

ROOT = Path(pymixunlearn.__file__).parent
#: Packages whose public classes and functions all have an example.
COMPLETE = (data, evaluation, methods, models, nn, ops, tasks, training)


def with_examples() -> list[str]:
    """Modules of the package that hold an example."""
    names = ["pymixunlearn", *(module.name for module in pkgutil.walk_packages([str(ROOT)], "pymixunlearn."))]
    files = {name: ROOT.joinpath(*name.split(".")[1:]) for name in names}
    sources = {name: path / "__init__.py" if path.is_dir() else path.with_suffix(".py") for name, path in files.items()}
    return [name for name, source in sources.items() if source.exists() and ">>> " in source.read_text("utf-8")]


@pytest.mark.parametrize("name", with_examples())
def test_the_examples_of_a_module(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry, "_LOADERS", dict(registry._LOADERS))
    monkeypatch.chdir(tmp_path)
    results = doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS)
    assert results.attempted > 0 and results.failed == 0


@pytest.mark.parametrize("package", COMPLETE, ids=lambda package: package.__name__)
def test_everything_public_has_an_example(package: ModuleType) -> None:
    public = [getattr(package, name) for name in package.__all__]
    members = [item for item in public if isinstance(item, (type, FunctionType, ModuleType))]
    assert [item for item in members if ">>> " not in (item.__doc__ or "")] == []
