"""Python files of users as modules, so that worker processes find what is defined in them.

The file ``/home/me/nets.py`` is the module ``pymixunlearn.user_files.f_HEX`` with its path in hexadecimal: a
worker that receives an object of it imports it by that name, from that path.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

from pymixunlearn.errors import UserError

_PREFIX = f"{__name__}.f_"


def import_file(path: Path) -> ModuleType:
    """Run a Python file, once in a process, and return it as a module; it may import files beside it.

    Raises:
        UserError: There is no such file, or running it fails.
    """
    path = path.expanduser().resolve()
    name = _PREFIX + str(path).encode().hex()
    if name not in sys.modules and not path.is_file():
        raise UserError(f"file '{path}' does not exist; expected a Python file")
    try:
        return importlib.import_module(name)
    # Whatever a user's file raises: it is told in one sentence, with the place in that file.
    except Exception as error:
        raise UserError(f"file '{path}' cannot be imported ({described(error, path)})") from error


def described(error: BaseException, path: Path | None = None) -> str:
    """Return an error's type and first line, and the line of ``path`` that it comes from."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if path is not None and trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    text = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {text}" + ("" if line is None else f", line {line}")


def path_of(module: str) -> Path | None:
    """Return the file of a module of this package, None for any other module."""
    return Path(bytes.fromhex(module[len(_PREFIX) :]).decode()) if module.startswith(_PREFIX) else None


def home_of(module: str) -> str:
    """Return how a message names a module: a user's by its file."""
    path = path_of(module)
    return module if path is None else f"'{path}'"


class _Finder(MetaPathFinder):
    """Finds the modules of this package by the paths in their names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(_PREFIX):
            return None
        file = bytes.fromhex(fullname[len(_PREFIX) :]).decode()
        return spec_from_file_location(fullname, file, loader=_Loader(fullname, file))


class _Loader(SourceFileLoader):
    """Runs a file that may import those beside it, as a script may.

    It compiles the file itself each time: a compiled copy in ``__pycache__``, which is found by time and size alone, is
    neither what a user has read nor what a hash is of.
    """

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)

    def exec_module(self, module: ModuleType) -> None:
        folder = str(Path(self.path).parent)
        sys.path.insert(0, folder)
        try:
            super().exec_module(module)
        finally:
            sys.path.remove(folder)


sys.meta_path.append(_Finder())
