"""Networks that a user's function makes."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from pymixunlearn.display import a_type
from pymixunlearn.errors import UserError, unknown_name
from pymixunlearn.files import file_sha256
from pymixunlearn.models.kinds import check_kind
from pymixunlearn.models.origins import Asked, Built
from pymixunlearn.user_files import described, import_file
from pymixunlearn.user_files.code import module_sha256


def build_of_factory(asked: Asked, *, file: bool) -> Built:
    """Call a user's function and return the network that it makes.

    The function is given those of ``num_classes``, ``in_channels`` and ``image_size`` that it has parameters for, and
    ``asked.arguments``.

    Args:
        asked: What it is to be like.
        file: Whether the source is a file; otherwise a module.

    Raises:
        UserError: File, module or function are missing, the file is another one than it was, or the function fails or
            returns no network.
    """
    what = f"'{asked.source}:{asked.factory}'"
    path = Path(asked.source).expanduser() if file else _place(asked.source)
    expected = asked.code_sha256
    if expected is not None and path is not None and path.is_file() and file_sha256(path) != expected:
        raise UserError(f"file '{path}' was changed since the model was made with it; expected sha256 {expected[:12]}…")
    module = import_file(Path(asked.source).expanduser()) if file else _module(asked.source)
    make = _find(module, asked.factory, what)
    given = {"num_classes": asked.outputs, "in_channels": asked.in_channels, "image_size": asked.image_size}
    arguments = {**_accepted(make, given), **asked.arguments}
    try:
        model = make(**arguments)
    # Whatever a user's function raises.
    except Exception as error:
        place = Path(module.__file__) if module.__file__ else None
        text = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise UserError(
            f"model {what} cannot be built by {asked.factory}({text}): {described(error, place)}"
        ) from error
    if not isinstance(model, nn.Module):
        raise UserError(f"model {what} is {a_type(model)}; expected a function that returns a torch.nn.Module")
    check_kind(model)
    return Built(model, asked.image_size, code_sha256=module_sha256(module))


def _place(name: str) -> Path | None:
    """Return the file of a module, before any of it runs; the packages around it have to be imported for that."""
    try:
        found = importlib.util.find_spec(name)
    except Exception:  # whatever a package around it raises is told when it is imported
        return None
    return None if found is None or not found.has_location or found.origin is None else Path(found.origin)


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise UserError(f"module '{name}' of model cannot be imported ({described(error)})") from error


def _find(module: ModuleType, name: str, what: str) -> Callable[..., Any]:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            known = [other for other in vars(found) if callable(getattr(found, other)) and not other.startswith("_")]
            raise unknown_name(f"function of model {what}:", part, known)
        found = getattr(found, part)
    if not callable(found):
        raise UserError(f"model {what} is {a_type(found)}; expected a function that returns a torch.nn.Module")
    make: Callable[..., Any] = found
    return make


def _accepted(make: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the arguments that the function has parameters for."""
    try:
        parameters = inspect.signature(make).parameters
    except (TypeError, ValueError):  # a class of C code
        return {}
    return {name: value for name, value in given.items() if name in parameters and value is not None}
