"""Supervised training, the epoch loop every method runs in, checkpoints and the cache of trained models."""

from __future__ import annotations

from pymixunlearn.training.cache import CachedModel, ModelCache, ModelStore, training_key
from pymixunlearn.training.checkpoints import (
    CodeNotAllowed,
    load_model,
    model_hash,
    read_metadata,
    save_model,
    tensors_hash,
)
from pymixunlearn.training.device import resolve_device, seeded_layers
from pymixunlearn.training.fit import fit
from pymixunlearn.training.fresh import fresh_weights
from pymixunlearn.training.loop import Callback, EndLoop, StateDict, StepDone, Stop, run_epochs
from pymixunlearn.training.mean_teacher import train_mean_teacher
from pymixunlearn.training.recipes import defaults_for
from pymixunlearn.training.supervised import MeanTeacherConfig, TrainConfig, TrainResult, train

__all__ = [
    "CachedModel",
    "Callback",
    "CodeNotAllowed",
    "EndLoop",
    "MeanTeacherConfig",
    "ModelCache",
    "ModelStore",
    "StateDict",
    "StepDone",
    "Stop",
    "TrainConfig",
    "TrainResult",
    "defaults_for",
    "fit",
    "fresh_weights",
    "load_model",
    "model_hash",
    "read_metadata",
    "resolve_device",
    "run_epochs",
    "save_model",
    "seeded_layers",
    "tensors_hash",
    "train",
    "train_mean_teacher",
    "training_key",
]
