"""What other machines need to do a task: its objects, images only once, and the user's Python modules by content."""

from __future__ import annotations

import importlib
import io
import pickle
import sys
import sysconfig
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import torch
from torch import Tensor

import pymixunlearn
from pymixunlearn.data import ImageSet, UnlabelledImages
from pymixunlearn.errors import UserError
from pymixunlearn.user_files import path_of

_SHARED_BYTES = 2**16
"""Images of so many bytes travel once for all tasks."""


@dataclass(frozen=True)
class Source:
    """A module of the user's.

    Attributes:
        path: Its file; of a package without one, its folder.
        content: The file's.
        is_package: Whether there are modules below it.
    """

    path: str
    content: bytes
    is_package: bool


def pack(value: Any, pickler: type, share: Callable[[Tensor], int]) -> bytes:
    """Return ``value`` as bytes.

    Args:
        value: The object.
        pickler: The class of ``cloudpickle``: it takes functions and classes of a script, too.
        share: Puts images where every worker finds them, and returns their number.

    Raises:
        UserError: Something in it cannot be sent.
    """

    class Packer(pickler):  # type: ignore[misc]
        """Pickler that leaves images out."""

        stored: set[int]

        def persistent_id(self, found: Any) -> int | None:
            if isinstance(found, (ImageSet, UnlabelledImages)):
                self.stored.add(id(found.images))
            elif type(found) is Tensor and id(found) in self.stored and _is_large(found):
                return share(found)
            return None

    stream = io.BytesIO()
    packer = Packer(stream)
    packer.stored = set()
    try:
        packer.dump(value)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"this model, method or data cannot be sent to another machine ({reason})") from error
    return stream.getvalue()


def unpack(content: bytes, shared: Callable[[int], Any]) -> Any:
    """Return the object of :func:`pack`; ``shared`` returns the array of images with a number, not to be written to."""

    class Unpacker(pickle.Unpickler):
        """Unpickler that puts the images in."""

        def persistent_load(self, number: Any) -> Tensor:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the array is read-only, as stored images are
                return torch.from_numpy(shared(number))

    return Unpacker(io.BytesIO(content)).load()


def _is_large(images: Tensor) -> bool:
    return images.device.type == "cpu" and images.numel() * images.element_size() >= _SHARED_BYTES


def user_modules() -> dict[str, Source]:
    """Return the imported modules that are the user's: Python files that are neither installed nor Python's own.

    Installed packages are on every machine of a cluster; files beside a script or of ``--plugin`` are not.
    """
    installed = _installed()
    found = {}
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if name in ("__main__", "__mp_main__") or not isinstance(path, str) or not path.endswith(".py"):
            continue
        if path_of(name) is None and _is_installed(Path(path), installed):
            continue
        try:
            content = Path(path).read_bytes()
        except OSError:
            continue
        found[name] = Source(path, content, hasattr(module, "__path__"))
    for name in list(found):  # packages without a file of their own
        while "." in name:
            name = name.rpartition(".")[0]
            parent = sys.modules.get(name)
            if name in found or parent is None or path_of(name) is not None or name == "pymixunlearn.user_files":
                break
            if getattr(parent, "__file__", None) is None and hasattr(parent, "__path__"):
                found[name] = Source(next(iter(parent.__path__), ""), b"", True)
    return found


def _installed() -> list[Path]:
    """Return the folders of Python's own modules and of this package, which may be installed from its sources."""
    own = [Path(str(pymixunlearn.__file__)).parent]
    command = sys.modules.get("mixunlearn_cli")
    if command is not None and command.__file__ is not None:
        own.append(Path(command.__file__).parent)
    python = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    return [folder.resolve() for folder in (*python, *own)]


def _is_installed(path: Path, installed: Sequence[Path]) -> bool:
    real = path.resolve()
    # Environments can see one another's packages, so that no list of folders is complete.
    if not {"site-packages", "dist-packages"}.isdisjoint((*path.parts, *real.parts)):
        return True
    return any(folder in real.parents for folder in installed)


def install(sources: Mapping[str, Source]) -> None:
    """Have Python find modules by what :func:`user_modules` returned elsewhere, and run the plug-ins among them."""
    _finder.sources.update(sources)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    for name in sources:
        if path_of(name) is not None:
            importlib.import_module(name)


class _Loader(SourceFileLoader):
    """Loader of a module whose content came from another machine."""

    def __init__(self, fullname: str, source: Source) -> None:
        super().__init__(fullname, source.path)
        self._content = source.content

    def get_data(self, path: str) -> bytes:
        return self._content if path == self.path else super().get_data(path)

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self._content, self.path)


class _Finder(MetaPathFinder):
    """Finder of the modules whose content came from another machine."""

    def __init__(self) -> None:
        self.sources: dict[str, Source] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        source = self.sources.get(fullname)
        if source is None:
            return None
        spec = spec_from_loader(fullname, _Loader(fullname, source), origin=source.path, is_package=source.is_package)
        assert spec is not None  # of a loader that is given
        spec.has_location = True
        if source.is_package:
            own = Path(source.path)
            spec.submodule_search_locations = [str(own.parent if own.suffix == ".py" else own)]
        return spec


_finder = _Finder()
