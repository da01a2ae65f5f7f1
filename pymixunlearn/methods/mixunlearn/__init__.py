"""MixUnlearn: its settings, the step to read, and the same step at speed."""

from __future__ import annotations

from pymixunlearn.methods.mixunlearn.config import MixUnlearnConfig
from pymixunlearn.methods.mixunlearn.method import MixUnlearn

__all__ = ["MixUnlearn", "MixUnlearnConfig"]
