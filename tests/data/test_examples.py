"""The examples in the docstrings of data and tasks run as written."""

from __future__ import annotations

import doctest
import pkgutil
from importlib import import_module
from types import FunctionType, ModuleType

import pytest

from pymixunlearn import data, tasks
from pymixunlearn.data import registry


def modules(package: ModuleType) -> list[str]:
    return [f"{package.__name__}.{module.name}" for module in pkgutil.iter_modules(package.__path__)]


@pytest.mark.parametrize("name", modules(data) + modules(tasks))
def test_the_examples_of_a_module(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_LOADERS", dict(registry._LOADERS))
    results = doctest.testmod(import_module(name))
    assert results.failed == 0


@pytest.mark.parametrize("package", [data, tasks])
def test_every_public_class_and_function_has_an_example(package: ModuleType) -> None:
    public = [getattr(package, name) for name in package.__all__]
    lacking = [item for item in public if isinstance(item, (type, FunctionType)) and ">>>" not in (item.__doc__ or "")]
    assert lacking == []
