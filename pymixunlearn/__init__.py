"""pymixunlearn: make a trained image classifier forget.

Adversarial Mixup Unlearning (MixUnlearn, ICLR 2025) for PyTorch, with its losses, mixing and attention as fused
operators. The parts, from the bottom up: :mod:`~pymixunlearn.ops`, :mod:`~pymixunlearn.nn`,
:mod:`~pymixunlearn.models`, :mod:`~pymixunlearn.data` and :mod:`~pymixunlearn.tasks`,
:mod:`~pymixunlearn.training`, :mod:`~pymixunlearn.methods`, :mod:`~pymixunlearn.evaluation`,
:mod:`~pymixunlearn.experiments` and :mod:`~pymixunlearn.reporting`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pymixunlearn import data, evaluation, methods, models, nn, ops, tasks
    from pymixunlearn.commands import audit, compare, dry_run, evaluate, experiment, retrain, tune, unlearn, verify
    from pymixunlearn.errors import UserError
    from pymixunlearn.methods import MixUnlearn, MixUnlearnConfig, UnlearnResult
    from pymixunlearn.nn import GeneratorLoss, MixBlock, MixContrastiveLoss, RealContrastiveLoss

__all__ = [
    "GeneratorLoss",
    "MixBlock",
    "MixContrastiveLoss",
    "MixUnlearn",
    "MixUnlearnConfig",
    "RealContrastiveLoss",
    "UnlearnResult",
    "UserError",
    "audit",
    "compare",
    "data",
    "dry_run",
    "evaluate",
    "evaluation",
    "experiment",
    "methods",
    "models",
    "nn",
    "ops",
    "retrain",
    "tasks",
    "tune",
    "unlearn",
    "verify",
]

# Loaded when first asked for: importing PyTorch takes seconds, which the command line's help need not wait for.
_HOMES = {
    "GeneratorLoss": "nn",
    "MixBlock": "nn",
    "MixContrastiveLoss": "nn",
    "MixUnlearn": "methods",
    "MixUnlearnConfig": "methods",
    "RealContrastiveLoss": "nn",
    "UnlearnResult": "methods",
    "UserError": "errors",
    **dict.fromkeys(
        ("audit", "compare", "dry_run", "evaluate", "experiment", "retrain", "tune", "unlearn", "verify"), "commands"
    ),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in __all__:
        raise AttributeError(f"module 'pymixunlearn' has no attribute {name!r}")
    module = import_module(f"pymixunlearn.{_HOMES.get(name, name)}")
    return getattr(module, name) if name in _HOMES else module


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pymixunlearn")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0+unknown"
