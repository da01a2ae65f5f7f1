"""Registry of the methods by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

from pymixunlearn.errors import UserError, unknown_name
from pymixunlearn.methods.base import Method
from pymixunlearn.user_files import home_of

_METHODS: dict[str, type[Method]] = {}
M = TypeVar("M", bound=Method)


def method(name: str, *, summary: str) -> Callable[[type[M]], type[M]]:
    """Return a class decorator that makes a method available under ``name``.

    Args:
        name: What ``methods.get`` and ``--method`` take. The same class may be registered again, as when its file is
            imported twice; another class may not take its name.
        summary: What the method does, in a few words, for lists.

    Raises:
        UserError: Another method has the name.

    ``examples/add_a_method.py`` is a whole method in one file.

    Example:
        >>> from pymixunlearn import methods
        >>> again = methods.method("neggrad", summary=methods.NegGrad.summary)
        >>> again(methods.NegGrad) is methods.get("neggrad")
        True
    """

    def decorate(cls: type[M]) -> type[M]:
        known = _METHODS.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise UserError(f"a method '{name}' is there already ({known.__qualname__} of {home_of(known.__module__)})")
        cls.name, cls.summary = name, summary
        _METHODS[name] = cls
        return cls

    return decorate


def register(method_class: type[M]) -> type[M]:
    """Register a method under its own ``name``: the decorator of 0.1.0, in place of which :func:`method` came.

    Example:
        >>> import warnings
        >>> from pymixunlearn import methods
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     methods.register(methods.NegGrad).name
        'neggrad'
    """
    warnings.warn(
        "pymixunlearn.methods.register is now pymixunlearn.methods.method(name, summary=...); the old name goes with "
        "version 0.3",
        DeprecationWarning,
        stacklevel=2,
    )
    return method(method_class.name, summary=method_class.summary)(method_class)


def available() -> list[str]:
    """Return the names of all methods, sorted.

    Example:
        >>> from pymixunlearn import methods
        >>> "mixunlearn" in methods.available()
        True
    """
    return sorted(_METHODS)


def get(name: str) -> type[Method]:
    """Return the class of the method ``name``.

    Raises:
        UserError: There is no such method; the nearest name is in the message.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.get("neggrad").summary
        'gradient descent on the remaining data, ascent on the forgotten'
    """
    if name not in _METHODS:
        raise unknown_name("method", name, _METHODS)
    return _METHODS[name]
