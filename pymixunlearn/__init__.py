"""pymixunlearn: make a trained image classifier forget.

Adversarial Mixup Unlearning (MixUnlearn, ICLR 2025) for PyTorch, with its losses, mixing and attention as fused
operators. The parts, from the bottom up: :mod:`~pymixunlearn.ops`, :mod:`~pymixunlearn.mixblock` and
:mod:`~pymixunlearn.losses`, :mod:`~pymixunlearn.models`, :mod:`~pymixunlearn.data` and :mod:`~pymixunlearn.tasks`,
:mod:`~pymixunlearn.training`, :mod:`~pymixunlearn.methods`, :mod:`~pymixunlearn.evaluation`,
:mod:`~pymixunlearn.experiments` and :mod:`~pymixunlearn.reporting`.
"""

from importlib.metadata import PackageNotFoundError, version

from pymixunlearn import data, evaluation, methods, models, ops, tasks
from pymixunlearn.errors import UserError
from pymixunlearn.losses import GeneratorLoss, MixContrastiveLoss, RealContrastiveLoss
from pymixunlearn.methods import MixUnlearn, MixUnlearnConfig, UnlearnResult
from pymixunlearn.mixblock import MixBlock

__all__ = [
    "GeneratorLoss",
    "MixBlock",
    "MixContrastiveLoss",
    "MixUnlearn",
    "MixUnlearnConfig",
    "RealContrastiveLoss",
    "UnlearnResult",
    "UserError",
    "data",
    "evaluation",
    "methods",
    "models",
    "ops",
    "tasks",
]

try:
    __version__ = version("pymixunlearn")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"
