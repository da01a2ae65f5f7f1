"""Unlearning methods by name. A new method is one file, and one line here that imports it."""

from __future__ import annotations

from pymixunlearn.methods.base import Method, MethodConfig, UnlearnResult, available, get, register
from pymixunlearn.methods.mixunlearn import MixUnlearn, MixUnlearnConfig
from pymixunlearn.methods.retrain import Retrain, RetrainConfig

__all__ = [
    "Method",
    "MethodConfig",
    "MixUnlearn",
    "MixUnlearnConfig",
    "Retrain",
    "RetrainConfig",
    "UnlearnResult",
    "available",
    "get",
    "register",
]
