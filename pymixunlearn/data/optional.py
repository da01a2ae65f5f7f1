"""Imports of packages that only some features need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pymixunlearn.errors import UserError


def require(module: str, *, purpose: str, remedy: str) -> Any:
    """Import ``module`` or say what to do to have it.

    Args:
        module: The name to import.
        purpose: What needs it, as the subject of "needs".
        remedy: What the user can do, as a clause.

    Raises:
        UserError: It is missing, or does not import.
    """
    try:
        return import_module(module)
    # torchvision raises RuntimeError beside a torch that it was not built for, and OSError for a library it lacks.
    except (ImportError, RuntimeError, OSError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{purpose} needs {module}, which cannot be imported ({reason}); {remedy}") from error
