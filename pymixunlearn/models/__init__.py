"""Networks to train and unlearn, and the feature maps inside any network."""

from __future__ import annotations

from pymixunlearn.models.features import FeatureExtractor, find_feature_layer
from pymixunlearn.models.registry import architecture_name, available, build

__all__ = ["FeatureExtractor", "architecture_name", "available", "build", "find_feature_layer"]
