"""Old names that go on working for one release, each with a warning that says the new one.

A module that moved leaves a file of two lines at its old place::

    from pymixunlearn._renamed import moved
    moved(__name__, "pymixunlearn.nn.losses")

and a package whose members were renamed has ``__getattr__ = renamed(__name__, {"old": "package.module:new"})``. A class
whose method was renamed has ``old = renamed_method("old", "new")``.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def moved(old: str, new: str) -> None:
    """Let the module ``old`` stand for the module ``new``, with a warning at the place that imports it.

    Args:
        old: The old module's name, its ``__name__``.
        new: The full name of the module that took its place.
    """
    _warn(old, new, stacklevel=3)
    sys.modules[old] = import_module(new)


def renamed(package: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a module's ``__getattr__`` that serves old names.

    Args:
        package: The module's ``__name__``.
        names: For each old name the new one: ``"package.module:name"``, or ``"package.module"`` for a module.
    """

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, member = names[name].partition(":")
        _warn(f"{package}.{name}", f"{module}.{member}" if member else module, stacklevel=3)
        found = import_module(module)
        return getattr(found, member) if member else found

    return find


def renamed_method(old: str, new: str) -> Callable[..., Any]:
    """Return a method that serves the old name of another one, for the body of their class.

    Args:
        old: The old name.
        new: The name of the method that took its place; its parameters are the same.
    """

    def method(self: Any, *args: Any, **options: Any) -> Any:
        kind = type(self).__name__
        _warn(f"{kind}.{old}", f"{kind}.{new}", stacklevel=2)
        return getattr(self, new)(*args, **options)

    return method


def _warn(old: str, new: str, stacklevel: int) -> None:
    warnings.warn(
        f"{old} is now {new}; the old name goes with version 0.3", DeprecationWarning, stacklevel=stacklevel + 1
    )
