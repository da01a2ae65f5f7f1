"""Data sets: images in memory, how they become network inputs, and batches of them.

Load one with :func:`load`, or make one of your own tensors with :func:`from_tensors` or of torch data sets with
:func:`from_dataset`.
"""

from __future__ import annotations

from pymixunlearn.data import (  # noqa: F401 (importing registers them)
    cifar10,
    cifar100,
    digits,
    hub,
    imagefolder,
    mnist,
    svhn,
    table,
)
from pymixunlearn.data.batches import Batch, batches
from pymixunlearn.data.cache import cache_dir
from pymixunlearn.data.dataset import Dataset, from_tensors, hold_out
from pymixunlearn.data.factory import from_dataset
from pymixunlearn.data.halving import Halves, halves
from pymixunlearn.data.image_set import ImageSet, UnlabelledImages
from pymixunlearn.data.preprocess import Preprocess, natural_images
from pymixunlearn.data.registry import Progress, Request, available, load, register
from pymixunlearn.data.training_set import TrainingSet

__all__ = [
    "Batch",
    "Dataset",
    "Halves",
    "ImageSet",
    "Preprocess",
    "Progress",
    "Request",
    "TrainingSet",
    "UnlabelledImages",
    "available",
    "batches",
    "cache_dir",
    "from_dataset",
    "from_tensors",
    "halves",
    "hold_out",
    "load",
    "natural_images",
    "register",
]
