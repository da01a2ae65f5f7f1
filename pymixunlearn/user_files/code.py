"""Hash of the code that functions and classes are, wherever they were written: in a file, a script or a notebook."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Iterator
from hashlib import sha256
from types import CodeType, FunctionType, ModuleType
from typing import Any

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis))
_OURS = ("torch", "pymixunlearn", "builtins")
"""Packages whose versions are recorded beside, where results depend on them."""


def code_sha256(found: Iterable[Any]) -> str:
    """Return a sha256 of compiled functions and classes, with what they use of their own modules.

    Two that do the same by the same code have the same hash, in other processes and on other machines with the same
    version of Python too. Objects that are neither code nor plain values do not count, nor do classes of PyTorch.

    Args:
        found: Functions and classes.

    Example:
        >>> double, twice, half = eval("lambda x: 2 * x"), eval("lambda y: 2 * y"), eval("lambda x: 0.5 * x")
        >>> code_sha256([double]) == code_sha256([twice]), code_sha256([double]) == code_sha256([half])
        (True, False)
    """
    seen: set[int] = set()
    return sha256("\n".join(part for one in found for part in _parts(one, seen)).encode()).hexdigest()


def module_sha256(module: ModuleType) -> str | None:
    """Return the sha256 of the file that a module is from; None where it is from none, as a notebook is."""
    # By its loader: of a module that came from another machine, the file is not here.
    path, loader = getattr(module, "__file__", None), getattr(module, "__loader__", None)
    read = getattr(loader, "get_data", None)
    if path is None or read is None:
        return None
    try:
        return sha256(read(path)).hexdigest()
    except OSError:
        return None


def _parts(value: Any, seen: set[int]) -> Iterator[str]:
    """Yield what a value's behaviour is made of."""
    if isinstance(value, _PLAIN):
        yield repr(value)
    elif isinstance(value, (tuple, frozenset)):
        parts = ["".join(_parts(item, seen)) for item in value]
        yield repr(sorted(parts) if isinstance(value, frozenset) else parts)
    elif isinstance(value, CodeType):
        yield repr((value.co_code, value.co_names))
        for constant in value.co_consts:
            yield from _parts(constant, seen)
    elif isinstance(value, FunctionType | type) and id(value) not in seen:
        seen.add(id(value))
        yield from _of_class(value, seen) if isinstance(value, type) else _of_function(value, seen)
    elif isinstance(value, functools.partial):
        yield from _parts((value.func, value.args, tuple(sorted(value.keywords.items()))), seen)
    elif isinstance(value, staticmethod | classmethod) or inspect.ismethod(value):
        yield from _parts(value.__func__, seen)
    elif isinstance(value, property):
        yield from _parts((value.fget, value.fset), seen)


def _of_class(value: type, seen: set[int]) -> Iterator[str]:
    for base in value.__mro__:
        if base.__module__.partition(".")[0] in _OURS and "user_files" not in base.__module__:
            continue
        yield base.__qualname__
        for name, member in sorted(vars(base).items()):
            if not (name.startswith("__") and isinstance(member, _PLAIN)):  # its module, the line it begins in
                yield name
                yield from _parts(member, seen)


def _of_function(value: FunctionType, seen: set[int]) -> Iterator[str]:
    yield from _parts(value.__code__, seen)
    yield from _parts(value.__defaults__, seen)
    yield from _parts(tuple(sorted((value.__kwdefaults__ or {}).items())), seen)
    for cell in value.__closure__ or ():
        try:
            yield from _parts(cell.cell_contents, seen)
        except ValueError:  # empty
            continue
    for name in sorted(_names(value.__code__)):
        used = value.__globals__.get(name)
        own = isinstance(used, FunctionType | type) and used.__module__ == value.__module__
        if own or (name in value.__globals__ and isinstance(used, (*_PLAIN, tuple))):
            yield name
            yield from _parts(used, seen)


def _names(code: CodeType) -> set[str]:
    """Return the names that code and the functions inside it use."""
    inside = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return {*code.co_names}.union(*(_names(one) for one in inside))
