"""MixUnlearn: its settings, the step to read, the same step at speed, and the form that follows a reset."""

from __future__ import annotations

from pymixunlearn.methods.mixunlearn.config import MixUnlearnConfig
from pymixunlearn.methods.mixunlearn.method import MixUnlearn
from pymixunlearn.methods.mixunlearn.reset import MixUnlearnReset, MixUnlearnResetConfig

__all__ = ["MixUnlearn", "MixUnlearnConfig", "MixUnlearnReset", "MixUnlearnResetConfig"]
