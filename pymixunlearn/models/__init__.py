"""Networks to train and unlearn, and the feature maps inside any network."""

from __future__ import annotations

from pymixunlearn.models.ensemble import Aggregate, Ensemble, first_member
from pymixunlearn.models.features import FeatureExtractor, find_feature_layer
from pymixunlearn.models.registry import architecture_name, architecture_of, available, build, ensemble_of
from pymixunlearn.models.weights import load_weights

__all__ = [
    "Aggregate",
    "Ensemble",
    "FeatureExtractor",
    "architecture_name",
    "architecture_of",
    "available",
    "build",
    "ensemble_of",
    "find_feature_layer",
    "first_member",
    "load_weights",
]
